//! Freezing a guest's file systems, having the replica reach a point inside the freeze, and thawing.
//!
//! A freeze that fails may take hold later, and one whose owner dies is held until the launcher's
//! timer: the thaw is in the undo log before the freeze is asked for, and every way out of these steps
//! asks for it.
//!
//! Whether the guest is frozen is asked of its agent, through `guestosinfo`. Nothing in a guest can
//! try by itself without risk: the only question that the kernel answers is `FIFREEZE`, which freezes
//! what is not frozen, and any other access waits. The agent keeps its own account and answers while
//! frozen; the writers of the ledger, which stand still or do not, are what A1 rests on.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fsfreeze;
use super::look::file_system;
use crate::cluster::{Method, crd::kubevirt::VirtualMachineInstance};
use crate::history::event::{CaptureFact, Fact, FileSystemFact, FreezeFact, LedgerMode, Outcome};
use crate::plan::model::Quiesce;
use crate::probe::host::Progress;
use crate::probe::layout::hot_writer;
use crate::replicate::Goal;
use crate::scenario::member::{Frozen, Member};
use crate::scenario::recipe::{Bound, Part, walk};
use crate::scenario::world::World;

/// What takes the point.
const MEANS: &str = "VolumeReplication sync";
/// How much later than the freeze a sync must have begun: long enough for raw volumes to be written
/// to in between, by which the point is dated.
const CLEAR: SignedDuration = SignedDuration::from_millis(500);
/// For how long the launcher may tell what the agent said before: it asks every five seconds.
const LAG: Duration = Duration::from_secs(15);
/// For how long guests are given to write again after a thaw, where no objective says.
const RESUMES: Duration = Duration::from_secs(10);

/// How much later than its timer a guest that nobody thaws is looked at for writing again.
const LATE: Duration = Duration::from_secs(10);

/// Freezes the member's file systems, as its workload says.
pub(super) async fn freeze(world: &World, member: &mut Member) -> anyhow::Result<()> {
    match member.workload.quiesce {
        Quiesce::Subresource => by_subresource(world, member).await,
        Quiesce::Guest => fsfreeze::freeze(world, member).await,
        Quiesce::Recipe => {
            let bound = Bound::of(world, member)?;
            walk(world, member, &bound, Part::Before).await
        }
    }
}

async fn by_subresource(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let timeout = world.plan.deadlines().unfreeze;
    let asked = FreezeFact::Asked {
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    tell(world, member, asked).await?;
    let body = json!({"unfreezeTimeout": format!("{}ms", timeout.as_millis())});
    let called = member
        .cluster(world)
        .subresource_recorded(
            &member.owner,
            &member.vmi(),
            "freeze",
            Some(&body),
            ("unfreeze", None),
        )
        .await;
    if let Err(error) = called {
        let why = error.to_string();
        tell(world, member, FreezeFact::Refused { why }).await?;
        // It may take hold all the same.
        release(world, member, Quiesce::Subresource).await?;
        return Err(error).context("freezing the guest's file systems");
    }
    member.frozen = Some(Frozen {
        storage: world.storage_now(member.site),
        at: Instant::now(),
        inside: None,
    });
    tell(world, member, FreezeFact::Frozen).await
}

/// Waits until a sync that began after the freeze has crossed for every volume.
pub(super) async fn capture(world: &World, member: &mut Member) -> anyhow::Result<()> {
    // A Recipe without a hook that freezes claims nothing; the others have frozen, or failed.
    let by = member.workload.quiesce;
    let quiesced = match by {
        Quiesce::Subresource | Quiesce::Guest => true,
        Quiesce::Recipe => Bound::of(world, member)?.quiesces(),
    };
    if member.frozen.is_none() && by != Quiesce::Recipe {
        bail!("the guest's file systems are not frozen");
    }
    let taken = async {
        let point = Point::begin(world, member, MEANS.into(), quiesced).await?;
        point.finish(world, member).await
    };
    let taken = taken.await;
    if taken.is_err() && member.frozen.is_some() {
        release(world, member, by).await?;
    }
    taken
}

/// A point of the replication that is being taken.
pub(in crate::scenario) struct Point {
    fact: CaptureFact,
    /// Syncs count that began later than this, by the clock of the storage.
    newer_than: Timestamp,
}

impl Point {
    /// Says that it is to be taken, and from when on.
    pub(in crate::scenario) async fn begin(
        world: &World,
        member: &Member,
        means: String,
        quiesced: bool,
    ) -> anyhow::Result<Self> {
        let site = member.site;
        let fact = CaptureFact {
            means,
            quiesced,
            taken: false,
        };
        let capture = fact.clone();
        member.tell(world, Fact::Capture { site, capture }).await?;
        if let Some(frozen) = member.frozen {
            live(world, member, frozen).await?;
        }
        let since = member.frozen.map(|frozen| frozen.storage);
        let since = since.unwrap_or_else(|| world.storage_now(site));
        Ok(Self {
            fact,
            newer_than: since.saturating_add(CLEAR)?,
        })
    }

    /// Waits until such a sync has crossed for every volume.
    pub(in crate::scenario) async fn finish(
        self,
        world: &World,
        member: &Member,
    ) -> anyhow::Result<()> {
        let (site, newer_than) = (member.site, self.newer_than);
        let goal = Goal::Synced { site, newer_than };
        let deadline = world.deadline(world.plan.deadlines().sync);
        let crossed = world
            .driver
            .reach(&member.work(world), &goal, &deadline)
            .await;
        super::protect::observe(world, member, site).await?;
        crossed.context("waiting for a sync that began after the freeze")?;
        let capture = CaptureFact {
            taken: true,
            ..self.fact
        };
        member.tell(world, Fact::Capture { site, capture }).await?;
        let Some(frozen) = member.frozen else {
            return Ok(());
        };
        live(world, member, frozen).await?;
        if frozen.inside.is_some() {
            // The VMI tells what the agent knows, and it knows nothing of this freeze.
            return Ok(());
        }
        reported(world, member).await
    }
}

/// Asks the guest's agent whether its file systems are frozen. A `thawed` counts only once the
/// launcher must have asked the agent again since the freeze; no answer says nothing.
async fn live(world: &World, member: &Member, frozen: Frozen) -> anyhow::Result<()> {
    if frozen.inside.is_some() {
        return fsfreeze::live(world, member).await;
    }
    let cluster = member.cluster(world);
    let asked = cluster
        .subresource(Method::Get, &member.vmi(), "guestosinfo", None)
        .await;
    let said = match asked {
        Ok(info) => info["fsFreezeStatus"].as_str().map(str::to_owned),
        Err(error) => {
            let text = format!("the guest agent did not tell whether it is frozen: {error}");
            return member.tell(world, Fact::Note { text }).await;
        }
    };
    let is = match said.as_deref() {
        Some("frozen") => true,
        Some("thawed") if frozen.at.elapsed() > LAG => false,
        _ => return Ok(()),
    };
    for volume in member.files() {
        let state = FileSystemFact::Live { frozen: is };
        file_system(world, member, volume, state).await?;
    }
    Ok(())
}

/// Records what the VMI's status says, which lags behind the agent.
async fn reported(world: &World, member: &Member) -> anyhow::Result<()> {
    let (namespace, name) = (&member.subject.namespace, &member.subject.vm);
    let found = member
        .cluster(world)
        .find::<VirtualMachineInstance>(namespace, name)
        .await?;
    let Some(vmi) = found else { return Ok(()) };
    let frozen = vmi.status.fs_freeze_status.as_deref() == Some("frozen");
    tell(world, member, FreezeFact::Reported { frozen }).await
}

/// Thaws the member's file systems, as its workload says, and waits until they are written to again.
pub(super) async fn thaw(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let by = member.workload.quiesce;
    match by {
        Quiesce::Subresource | Quiesce::Guest => release(world, member, by).await?,
        Quiesce::Recipe => {
            let bound = Bound::of(world, member)?;
            walk(world, member, &bound, Part::After).await?;
        }
    }
    resumes(world, member, by).await
}

/// Lets nobody thaw the member's file systems and waits until their timer has done it, as it must when
/// whoever froze them is gone.
pub(super) async fn abandon(world: &World, member: &mut Member) -> anyhow::Result<()> {
    tell(world, member, FreezeFact::Abandoned).await?;
    let timer = world.plan.deadlines().unfreeze;
    // What was written before the freeze may be heard of now; after the timer only what was written then.
    let rest = u64::try_from(timer.as_nanos()).unwrap_or(u64::MAX);
    let since = world.recorder.now_ns().saturating_add(rest);
    if written(world, member, since, timer.saturating_add(LATE)).await? {
        member.frozen = None;
        return Ok(());
    }
    release(world, member, member.workload.quiesce).await
}

/// Waits for as long as file systems may stand still, and as long again so that a stall beyond that is
/// seen for what it is, until they are written to. If they are not, that is for A4 to say, and the
/// guest is thawed past whatever was to do it.
pub(in crate::scenario) async fn resumes(
    world: &World,
    member: &mut Member,
    by: Quiesce,
) -> anyhow::Result<()> {
    let since = world.recorder.now_ns();
    let stall = world.plan.objectives().freeze_stall.unwrap_or(RESUMES);
    if written(world, member, since, stall.saturating_mul(2)).await? {
        return Ok(());
    }
    release(world, member, by).await
}

/// Whether a write to a file system is heard of after a moment and within some time. Without a load
/// nothing would be, and nothing is missed.
async fn written(
    world: &World,
    member: &Member,
    since: u64,
    limit: Duration,
) -> anyhow::Result<bool> {
    let Some((prober, load)) = member.loader.as_ref().zip(member.load()) else {
        return Ok(true);
    };
    let files: Vec<u32> = load
        .layouts
        .iter()
        .zip(&member.volumes)
        .enumerate()
        .filter(|(_, (_, volume))| volume.ledger == LedgerMode::File)
        .flat_map(|(index, (layout, _))| {
            (0..layout.hot_writers).map(move |k| hot_writer(&load.layouts, index, k))
        })
        .collect();
    let deadline = world.deadline(limit);
    let waiting = "a write to a file system after the thaw";
    let after = |progress: &Progress, writer: u32, since: u64| {
        let heard = progress.heard_of.get(&writer).copied();
        heard.filter(|at| *at > since)
    };
    let resumed = async {
        let first = prober.wait(&deadline, waiting, |progress| {
            let mut writers = files.iter().copied();
            writers.find_map(|writer| Some((writer, after(progress, writer, since)?)))
        });
        let (writer, at) = first.await?;
        // That may be the write that the freeze held up; the writer's next one was issued after it.
        let next = |progress: &Progress| after(progress, writer, at).map(|_| ());
        prober.wait(&deadline, waiting, next).await
    };
    let Err(error) = resumed.await else {
        return Ok(true);
    };
    if world.cancel.is_cancelled() {
        return Err(error.into());
    }
    let text = format!("the guest did not write to its file systems after the thaw: {error}");
    member.tell(world, Fact::Note { text }).await?;
    Ok(false)
}

/// Asks whoever froze for the thaw and records what came of it; Recipes freeze through the launcher, as
/// the subresource does.
pub(in crate::scenario) async fn release(
    world: &World,
    member: &mut Member,
    by: Quiesce,
) -> anyhow::Result<()> {
    if by == Quiesce::Guest {
        let undo = member.frozen.and_then(|frozen| frozen.inside);
        return fsfreeze::release(world, member, undo).await;
    }
    tell(world, member, FreezeFact::ThawAsked).await?;
    member.frozen = None;
    let thawed = member
        .cluster(world)
        .subresource(Method::Put, &member.vmi(), "unfreeze", None)
        .await
        .map(|_: Value| ());
    let outcome = match &thawed {
        Ok(()) => Outcome::Ok,
        Err(error) if error.is_blind() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    tell(world, member, FreezeFact::Thawed { outcome }).await?;
    thawed.context("thawing the guest's file systems")
}

/// Records a fact of a freeze.
pub(in crate::scenario) async fn tell(
    world: &World,
    member: &Member,
    freeze: FreezeFact,
) -> anyhow::Result<()> {
    let site = member.site;
    member.tell(world, Fact::Freeze { site, freeze }).await
}
