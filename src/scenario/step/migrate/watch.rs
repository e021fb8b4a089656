//! The guest's network as somebody outside sees it while the guest moves.

use crate::history::event::Fact;
use crate::probe::host::{Echo, Echoes, Prober};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Watches the guest's network from outside, beside everything else: where that is not to be had, M1
/// says so and goes by the acks.
pub(super) async fn watch(
    world: &World,
    member: &Member,
    prober: &Prober,
    observers: u32,
) -> anyhow::Result<Option<Echo>> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    match prober.echo(observers, &deadline).await {
        Ok(echo) => Ok(Some(echo)),
        Err(error) if world.cancel.is_cancelled() => Err(error.into()),
        Err(error) => {
            let text = format!("nobody watches the guest's network from outside: {error}");
            member.tell(world, Fact::Note { text }).await?;
            Ok(None)
        }
    }
}

/// Ends the watch and records what was seen.
pub(super) async fn watched(
    world: &World,
    member: &Member,
    prober: &Prober,
    echo: Option<Echo>,
) -> anyhow::Result<()> {
    match echo {
        Some(echo) => told(world, member, prober, &echo.stop().await?).await,
        None => Ok(()),
    }
}

async fn told(
    world: &World,
    member: &Member,
    prober: &Prober,
    echoes: &Echoes,
) -> anyhow::Result<()> {
    let Echoes {
        from_ns,
        interval_ns,
        sent,
        answered,
        longest_ns,
        unbroken_ns,
    } = *echoes;
    let fact = Fact::Echo {
        site: member.site,
        address: prober.reach().route.to_string(),
        from_ns,
        interval_ns,
        sent,
        answered,
        longest_ns,
        unbroken_ns: Some(unbroken_ns),
    };
    member.tell(world, fact).await
}
