//! The way back to a protected state after a site took over.

use anyhow::Context as _;

use super::protect::observe;
use crate::history::event::{Fact, Reprotect};
use crate::replicate::{Crossed, Goal};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// How many syncs newer than the order say that replication goes on: the first may be the resync
/// itself, and a schedule that was not armed again after a promotion would bring no other.
const SYNCS: u32 = 2;

/// Gives up the other site's copies, which may have diverged, and waits until they follow this
/// site's volumes and replication is as it was before.
pub(super) async fn reprotect(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let (site, old) = (member.site, member.site.peer());
    let mut crossed = Crossed::since(world.storage_now(site));
    progress(world, member, Reprotect::Ordered).await?;
    let deadline = world.deadline(world.plan.deadlines().sync);
    while crossed.syncs(&member.set) < SYNCS {
        let goal = Goal::Resynced {
            site: old,
            newer_than: crossed.newest(),
        };
        let reached = world
            .driver
            .reach(&member.work(world), &goal, &deadline)
            .await;
        crossed.note(&observe(world, member, site).await?);
        observe(world, member, old).await?;
        reached.with_context(|| {
            let syncs = crossed.syncs(&member.set);
            format!("waiting for the {old} site to be the replica again, after {syncs} syncs")
        })?;
    }
    // A later divergence is somebody's to decide: nothing may copy the older side over the newer.
    let follows = Goal::Follows { site: old };
    let followed = world
        .driver
        .reach(&member.work(world), &follows, &deadline)
        .await;
    observe(world, member, old).await?;
    followed?;
    let restored = Reprotect::Restored {
        syncs: crossed.syncs(&member.set),
        bytes: crossed.bytes(),
    };
    progress(world, member, restored).await
}

async fn progress(world: &World, member: &Member, progress: Reprotect) -> anyhow::Result<()> {
    let site = member.site;
    member
        .tell(world, Fact::Reprotection { site, progress })
        .await
}
