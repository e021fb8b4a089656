//! Replication away from the site where the VM is.

use anyhow::Context as _;

use super::shape;
use crate::history::event::{Fact, Site, Stage};
use crate::replicate::{Goal, Mode, Observation, handover};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Protects every PVC and waits until everything written so far has crossed. What is needed to hand
/// the volumes over is read now, while the primary answers.
pub(super) async fn baseline(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().sync);
    let site = member.site;
    let seeded = world.storage_now(site);
    let work = member.work(world);
    world
        .driver
        .reach(&work, &Goal::Protected { site }, &deadline)
        .await?;
    let synced = Goal::Synced {
        site,
        newer_than: seeded,
    };
    let crossed = world.driver.reach(&work, &synced, &deadline).await;
    // What the objects say is evidence even when, and just when, the sync did not come.
    observe(world, member, site).await?;
    crossed.context("waiting for the first sync")?;
    // What a move must keep is known only while the source can be asked.
    shape::record(world, member)
        .await
        .context("reading how the VM is defined")?;
    member.captured = handover::capture(world.sites.of(site), &member.set).await?;
    Ok(())
}

/// Demotes every volume where the VM ran and waits until the last data has crossed.
pub(super) async fn demote(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let site = member.site;
    observe(world, member, site).await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    let goal = Goal::Demoted { site };
    let demoted = world
        .driver
        .reach(&member.work(world), &goal, &deadline)
        .await;
    observe(world, member, site).await?;
    demoted?;
    member.way = Some(Mode::Planned);
    member.stage(world, Stage::Demoted).await
}

/// Records what the replication objects on a site say.
pub(super) async fn observe(
    world: &World,
    member: &Member,
    site: Site,
) -> anyhow::Result<Observation> {
    let seen = world
        .driver
        .observe(&world.sites, &member.set, site)
        .await?;
    let volumes = seen.facts();
    let fact = Fact::Replication { site, volumes };
    // A disk that joined the others is one of those looked at.
    let joined = member.part.iter().filter(|part| part.set == member.set);
    for part in joined {
        part.tell(world, fact.clone()).await?;
    }
    member.tell(world, fact).await?;
    Ok(seen)
}
