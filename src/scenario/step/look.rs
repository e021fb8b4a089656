//! Looking at the file systems of what was recovered before anybody mounts them.

use anyhow::Context as _;

use super::probe;
use crate::history::event::{Fact, FileSystemFact};
use crate::probe::config::{Config, Purpose};
use crate::probe::host::{Reach, check_files, look_at_files};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Reads the superblocks past any mount, then has each file system mounted, unmounted and checked.
/// The two are commands of their own: what a look found is on record before a mount changes it.
pub(super) async fn look(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let address = probe::address(world, member, &deadline).await?;
    let reach = member.reach(world, address.as_deref())?;
    // No probe is started, so this number never stands in a cell.
    let config = member.config(world, world.mint.incarnation(member.site), Purpose::Verify);
    past_mounts(world, member, &reach, &config).await?;
    for volume in member.files() {
        file_system(world, member, volume, FileSystemFact::Mounted).await?;
    }
    let checked = check_files(&reach, &config, &deadline)
        .await
        .context("having the file systems checked")?;
    for told in checked {
        let (kind, said) = (told.kind, told.said);
        if let Some(sound) = told.well {
            let state = FileSystemFact::Checked { kind, sound, said };
            file_system(world, member, told.volume, state).await?;
        } else {
            let volume = told.volume;
            let text = format!("the {kind} on volume {volume} was not checked: {said}");
            member.tell(world, Fact::Note { text }).await?;
        }
    }
    Ok(())
}

/// Reads the superblocks of the member's file systems past any mount, in the guest that is reached, and
/// records what they say.
pub(super) async fn past_mounts(
    world: &World,
    member: &Member,
    reach: &Reach,
    config: &Config,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let seen = look_at_files(reach, &world.binary, config, &deadline)
        .await
        .context("looking at the file systems past any mount")?;
    for told in seen {
        let (kind, said) = (told.kind, told.said);
        let dirty = told.well.map(|clean| !clean);
        let state = FileSystemFact::Raw { kind, dirty, said };
        file_system(world, member, told.volume, state).await?;
    }
    Ok(())
}

/// Records what was seen of a volume's file system.
pub(super) async fn file_system(
    world: &World,
    member: &Member,
    volume: u8,
    state: FileSystemFact,
) -> anyhow::Result<()> {
    let site = member.site;
    let fact = Fact::FileSystem {
        site,
        volume,
        state,
    };
    member.tell(world, fact).await
}
