//! Freezing a guest's file systems from inside it, by `fsfreeze` over SSH.
//!
//! The timer that thaws lives in the guest and is armed there before the first file system is frozen, so
//! it needs neither SSH nor us; the thaw is in the undo log before that. The agent has an account of
//! its own and knows nothing of this, so the kernel is asked, by another freeze, whether it is frozen.

use anyhow::Context as _;
use tokio::time::Instant;

use super::freeze::tell;
use super::look::file_system;
use super::probe;
use crate::cluster::Deadline;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::undo::{Thaw, Undo};
use crate::history::event::{Fact, FileSystemFact, FreezeFact, Outcome};
use crate::probe::config::{Config, Purpose};
use crate::probe::host::{Inside, Reach};
use crate::scenario::member::{Frozen, Member};
use crate::scenario::world::World;

/// How the guest is reached, and what its volumes are.
async fn place(
    world: &World,
    member: &Member,
    deadline: &Deadline,
) -> anyhow::Result<(Reach, Config)> {
    let address = probe::address(world, member, deadline).await?;
    let reach = member.reach(world, address.as_deref())?;
    // No probe is started, so this number never stands in a cell.
    let config = member.config(world, world.mint.incarnation(member.site), Purpose::Verify);
    Ok((reach, config))
}

async fn enter(world: &World, member: &Member, deadline: &Deadline) -> anyhow::Result<Inside> {
    let (reach, config) = place(world, member, deadline).await?;
    Ok(Inside::enter(&reach, &world.binary, config, deadline).await?)
}

/// Freezes.
pub(super) async fn freeze(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let timer = world.plan.deadlines().unfreeze;
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let inside = enter(world, member, &deadline).await?;
    let undo = record(world, member, &deadline).await?;
    let timeout_ms = u64::try_from(timer.as_millis()).unwrap_or(u64::MAX);
    tell(world, member, FreezeFact::Asked { timeout_ms }).await?;
    let frozen = inside.freeze(timer, &deadline).await;
    if let Err(error) = frozen {
        let why = error.to_string();
        tell(world, member, FreezeFact::Refused { why }).await?;
        // What could not say that it froze may have done so.
        release(world, member, Some(undo)).await?;
        return Err(error).context("freezing the guest's file systems from inside");
    }
    member.frozen = Some(Frozen {
        storage: world.storage_now(member.site),
        at: Instant::now(),
        inside: Some(undo),
    });
    member.inside = Some(inside);
    tell(world, member, FreezeFact::Frozen).await
}

/// Writes down how the freeze is taken back; the number of the entry.
async fn record(world: &World, member: &Member, deadline: &Deadline) -> anyhow::Result<u64> {
    let (reach, config) = place(world, member, deadline).await?;
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let cluster = member.cluster(world);
    let vmi = cluster.get::<VirtualMachineInstance>(ns, vm).await?;
    let undo = Undo::Thaw(Box::new(Thaw {
        site: member.site,
        object: member.vmi(),
        uid: vmi.metadata.uid.clone().context("the VMI has no UID")?,
        workload: member.workload.name.clone(),
        user: reach.login.user.clone(),
        command: reach.remote(config.run_id).thaw(),
        stdin: config.to_string(),
    }));
    let owner = &member.owner;
    Ok(owner.undo().record(owner.lane_name(), undo).await?)
}

/// Asks the kernel of the guest whether the file systems are frozen, and records what it said.
pub(super) async fn live(world: &World, member: &Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let told = async {
        if let Some(inside) = member.inside.as_ref().filter(|inside| inside.holds()) {
            return Ok(inside.are_frozen(&deadline).await?);
        }
        let inside = enter(world, member, &deadline).await?;
        let told = inside.are_frozen(&deadline).await?;
        inside.leave().await;
        anyhow::Ok(told)
    };
    let told = match told.await {
        Ok(told) => told,
        Err(error) => {
            let text = format!("the guest did not tell whether it is frozen: {error:#}");
            return member.tell(world, Fact::Note { text }).await;
        }
    };
    for one in told {
        if let Some(frozen) = one.well {
            let state = FileSystemFact::Live { frozen };
            file_system(world, member, one.volume, state).await?;
        }
    }
    Ok(())
}

/// Thaws and records what came of it; the undo of this number is then done.
pub(super) async fn release(
    world: &World,
    member: &mut Member,
    undo: Option<u64>,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let held = member.inside.take().filter(Inside::holds);
    tell(world, member, FreezeFact::ThawAsked).await?;
    member.frozen = None;
    let thawed = thaw(world, member, held, &deadline).await;
    let outcome = match &thawed {
        Ok(()) => Outcome::Ok,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    tell(world, member, FreezeFact::Thawed { outcome }).await?;
    thawed.context("thawing the guest's file systems from inside")?;
    if let Some(undo) = undo {
        member.owner.undo().done(undo).await?;
    }
    Ok(())
}

/// Thaws by the login that froze, else by another: a thaw may be asked for twice.
async fn thaw(
    world: &World,
    member: &Member,
    held: Option<Inside>,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    if let Some(inside) = held {
        match inside.thaw(deadline).await {
            Ok(_) => {
                inside.leave().await;
                return Ok(());
            }
            Err(error) => tracing::debug!(%error, "the login that froze is no good any more"),
        }
    }
    let inside = enter(world, member, deadline).await?;
    inside.thaw(deadline).await?;
    inside.leave().await;
    Ok(())
}
