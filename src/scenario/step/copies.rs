//! Reading a cut beside the VM that it was taken of: copies of its volumes in another guest, while the
//! VM goes on writing.

use anyhow::Context as _;

use super::{look, second};
use crate::probe::config::Purpose;
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Restores copies from the newest cut's VolumeSnapshots, looks at their file systems before anybody
/// mounts them, and reads them in another guest.
pub(super) async fn read_cut(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let cut = member.cuts.last().cloned().context("nothing was taken")?;
    let number = member.cuts.len();
    let deadline = world.deadline(world.plan.deadlines().boot);
    let disks = &member.subject.data_disks;
    let snapshots = disks.iter().map(|disk| {
        let volume = cut.volumes.iter().find(|volume| volume.pvc == disk.pvc);
        let volume = volume.filter(|volume| !volume.snapshot.is_empty());
        let volume =
            volume.with_context(|| format!("{} holds no volume {}", cut.name, disk.name))?;
        Ok((disk, volume.snapshot.clone()))
    });
    let snapshots = snapshots.collect::<anyhow::Result<Vec<_>>>()?;
    let names = (format!("cut{number}"), format!("cut{number}-reader"));
    let names = (names.0.as_str(), names.1.as_str());
    let reader = second::reader(world, member, &snapshots, names, &deadline).await?;
    let reach = second::reach(world, &reader).await?;
    // No probe is started, so this number never stands in a cell.
    let config = member.config(world, world.mint.incarnation(member.site), Purpose::Verify);
    look::past_mounts(world, member, &reach, &config).await?;
    let seen = second::read(world, member, &reader, cut.loads).await?;
    second::tell(world, member, seen, Some(cut.name)).await
}
