//! Reading what a move of the disks left behind: the old claims, which must be as they were.

use anyhow::{Context as _, bail};

use super::second;
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Reads copies of the claims that were left behind, through another guest.
pub(super) async fn read_left(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(class) = &world.plan.protection().volume_snapshot_class else {
        bail!("the plan names no volumeSnapshotClass");
    };
    let left = member.left.as_ref().context("nothing was left behind")?;
    let deadline = world.deadline(world.plan.deadlines().boot);
    let taken = second::snapshots(world, member, class, &left.disks).await?;
    let names = ("left", "left-reader");
    let reader = second::reader(world, member, &taken, names, &deadline).await?;
    let seen = second::read(world, member, &reader, left.loads).await?;
    second::tell(world, member, seen, Some(left.name.clone())).await
}
