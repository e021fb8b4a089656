//! All VMs at once: every migration is asked for at the plan's pace, and the cluster lets through as
//! many as it will.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::{ask, ended, migratable, watch, writer};
use crate::history::event::MigrationFact;
use crate::scenario::member::Member;
use crate::scenario::step::boot;
use crate::scenario::trouble::Trouble;
use crate::scenario::world::World;
use crate::workload::fit_name;

/// Migrates all VMs at once. One that fails is ill by itself: the others go on, and the figures that
/// follow count it.
pub(in crate::scenario) async fn mass(
    world: &World,
    members: &mut [Member],
    step: &str,
) -> anyhow::Result<()> {
    let observers = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let ready = members.iter().map(async |member| {
        let deadline = world.deadline(world.plan.deadlines().transition);
        migratable(world, member, &deadline).await?;
        boot::state(world, member, member.site).await?;
        watch::watch(world, member, writer(member)?, observers).await
    });
    let mut echoes = try_join_all(ready).await?;
    let moved = all(world, members).await;
    for ((member, echo), moved) in members.iter_mut().zip(echoes.drain(..)).zip(moved) {
        watch::watched(world, member, writer(member)?, echo).await?;
        if let Err(error) = moved {
            member.failed = Some(Trouble::of(step, &error));
        }
    }
    Ok(())
}

/// Asks for every migration at the plan's pace and follows each to its end.
async fn all(world: &World, members: &[Member]) -> Vec<anyhow::Result<()>> {
    let every = Duration::from_secs(1) / world.plan.migration().qps.max(1);
    // The least that a node lets out at a time is two; the others wait for their turn.
    let rounds = u32::try_from(members.len().div_ceil(2)).unwrap_or(u32::MAX);
    let deadline = world.deadline(world.plan.deadlines().transition.saturating_mul(rounds));
    let mut turn = Instant::now();
    let moves = members.iter().map(|member| {
        let at = turn;
        turn += every;
        let deadline = &deadline;
        async move {
            // The pace is what is asked for, not a stand-in for a condition.
            tokio::time::sleep_until(at).await;
            let fact = MigrationFact {
                name: fit_name(&member.subject.vm, "m1"),
                ..MigrationFact::default()
            };
            let uid = ask(world, member, &fact)
                .await
                .context("asking for its migration")?;
            ended(world, member, writer(member)?, fact, &uid, deadline).await
        }
    });
    join_all(moves).await
}
