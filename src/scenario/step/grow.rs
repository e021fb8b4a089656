//! A volume that grows under the running guest. What it grew by is a subject of its own: a ledger behind
//! the old end of the device, written by a probe of its own beside the load that goes on before it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::sync::Mutex;

use super::{hotplug, probe};
use crate::cluster::crd::core::PersistentVolumeClaim;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::{Error, ObjRef, Patch, Scope, Seen, Wake, repeat};
use crate::guest::GuestFacts;
use crate::history::event::{ConditionFact, Fact, LedgerMode, Outcome, ResizeFact};
use crate::history::scanfile;
use crate::plan::text::{format_quantity, quantity};
use crate::probe::frame::CellState;
use crate::probe::host::Prober;
use crate::probe::layout::CELL;
use crate::replicate::handover;
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// The volume that grows.
struct Growing {
    ordinal: u8,
    volume: String,
    pvc: String,
    serial: String,
    /// Bytes before and after.
    from: u64,
    to: u64,
}

/// Doubles the first raw volume, waits until the guest shows it, and has a ledger written on what it grew
/// by. What is needed to hand the volumes over is read anew: what was read before names the old size.
pub(super) async fn grow(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let what = ask(world, member).await?;
    granted(world, member, &what).await?;
    shown(world, member, &what).await?;
    let cells = what.from / CELL as u64;
    let mut part = Box::new(member.grown(world, what.ordinal, cells)?);
    let written = write(world, member, &mut part).await;
    // Whatever became of it, its stream is to be closed.
    member.part = Some(part);
    written.context("writing behind the old end of the volume")?;
    member.captured = handover::capture(member.cluster(world), &member.set).await?;
    Ok(())
}

/// Looks at what the volume grew by, which must be blank, then fills a ledger there and writes load.
async fn write(world: &World, member: &Member, part: &mut Member) -> anyhow::Result<()> {
    hotplug::created(world, part).await?;
    let (prober, incarnation) = probe::open(world, part).await?;
    let deadline = world.deadline(world.plan.deadlines().sync);
    let file = format!("{}-{}-blank", part.name(), incarnation.name);
    let scans = prober.scan(&[], &file, &deadline).await;
    let scan = scans.context("looking at it")?.into_iter().next();
    let scan = scan.context("nothing was read")?;
    let path = world.recorder.dir().join(&scan.file);
    let (found, _) = scanfile::read(&path).context("what was read")?;
    let cells = found.iter().flat_map(|volume| &volume.cells);
    let strange = cells.filter(|seen| seen.state != CellState::Zeroed).count();
    let behind = ResizeFact::Behind {
        read: scan.read,
        strange: strange as u64,
        scan,
    };
    tell(world, member, behind).await?;
    probe::fill(world, part, prober, incarnation).await?;
    probe::load(world, part).await
}

/// Asks for more.
async fn ask(world: &World, member: &Member) -> anyhow::Result<Growing> {
    let raw = member.volumes.iter().find(|v| v.ledger == LedgerMode::Raw);
    let raw = raw.context("the VM has no raw data volume that could grow")?;
    let mut disks = member.subject.data_disks.iter();
    let disk = disks.find(|disk| disk.ordinal == raw.ordinal);
    let serial = disk.context("the volume's disk")?.serial.clone();
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let (facts, _) = prober(member)?.who(&world.binary, &deadline).await?;
    let from = facts.disk(&serial)?.size;
    let what = Growing {
        ordinal: raw.ordinal,
        volume: raw.name.clone(),
        pvc: raw.pvc.clone(),
        serial,
        from,
        to: from.saturating_mul(2),
    };
    let asked = ResizeFact::Asked {
        ordinal: what.ordinal,
        pvc: what.pvc.clone(),
        serial: what.serial.clone(),
        from,
        to: what.to,
        boot_id: facts.boot_id,
    };
    tell(world, member, asked).await?;
    let claim = ObjRef::of::<PersistentVolumeClaim>(&member.subject.namespace, &what.pvc);
    let size = format_quantity(what.to);
    let change = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let cluster = member.cluster(world);
    let answer = cluster.patch(&claim, &Patch::Merge(change)).await;
    let outcome = match &answer {
        Ok(_) => Outcome::Ok,
        Err(error) if error.is_blind() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    tell(world, member, ResizeFact::Answered { outcome }).await?;
    answer?;
    Ok(what)
}

/// Records every change of what the claim says until it has what was asked for.
async fn granted(world: &World, member: &Member, what: &Growing) -> anyhow::Result<()> {
    let (ns, pvc) = (&member.subject.namespace, &what.pvc);
    let view = member
        .cluster(world)
        .view::<PersistentVolumeClaim>(&Scope::Namespace(ns.clone()));
    let deadline = world.deadline(world.plan.deadlines().transition);
    let waiting = format!("PVC {pvc} to have {} bytes", what.to);
    let last: Mutex<Option<ResizeFact>> = Mutex::new(None);
    let look = || async {
        let found = view.peek(|claims| claims.get(ns, pvc).map(claimed));
        let Some((capacity, conditions)) = found.flatten() else {
            return Ok(Seen::Not("no such claim".into()));
        };
        let state = conditions.keys().cloned().collect::<Vec<_>>().join(", ");
        let fact = ResizeFact::Claimed {
            capacity,
            conditions,
        };
        if let Err(error) = once(world, member, &last, fact).await {
            return Ok(Seen::Met(Err(error)));
        }
        Ok::<_, Error>(if capacity >= what.to {
            Seen::Met(Ok(()))
        } else {
            Seen::Not(format!("it has {capacity}; conditions: [{state}]"))
        })
    };
    repeat(&deadline, &waiting, view.wake(), look).await?
}

/// What a claim has, in bytes, and its conditions.
fn claimed(claim: &PersistentVolumeClaim) -> (u64, BTreeMap<String, ConditionFact>) {
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage").cloned());
    let conditions = status.and_then(|status| status.conditions.clone());
    let conditions = conditions.unwrap_or_default().into_iter().map(|one| {
        let fact = ConditionFact {
            status: one.status,
            reason: one.reason.unwrap_or_default(),
            message: one.message.unwrap_or_default(),
        };
        (one.type_, fact)
    });
    let bytes = capacity.and_then(|capacity| quantity(&capacity.0).ok());
    (bytes.unwrap_or(0), conditions.collect())
}

/// Waits until the guest shows the size; records what it shows, and what the VMI says meanwhile.
async fn shown(world: &World, member: &Member, what: &Growing) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = member
        .cluster(world)
        .view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    let prober = prober(member)?;
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let waiting = format!(
        "the guest to show {} bytes on the disk with serial {}",
        what.to, what.serial
    );
    let said: Mutex<Option<ResizeFact>> = Mutex::new(None);
    let last: Mutex<Option<GuestFacts>> = Mutex::new(None);
    let waited = repeat(&deadline, &waiting, Wake::paced(), || async {
        let told = view.peek(|vmis| reported(vmis.get(ns, vm)?, &what.volume));
        if let Some(capacity) = told.flatten()
            && let Err(error) = once(world, member, &said, ResizeFact::Reported { capacity }).await
        {
            return Ok(Seen::Met(Err(error)));
        }
        let (facts, _) = match prober.who(&world.binary, &deadline).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Seen::Not(error.to_string())),
        };
        let size = facts.disk(&what.serial).map_or(0, |disk| disk.size);
        *last.lock().await = Some(facts);
        Ok::<_, Error>(if size >= what.to {
            Seen::Met(Ok(()))
        } else {
            Seen::Not(format!("it shows {size}"))
        })
    })
    .await;
    if let Some(facts) = last.into_inner() {
        let seen = ResizeFact::Seen {
            size: facts.disk(&what.serial).map_or(0, |disk| disk.size),
            boot_id: facts.boot_id.clone(),
        };
        tell(world, member, seen).await?;
        super::inside::record(world, member, &facts).await?;
    }
    waited?
}

/// What a VMI says that the claim of a volume has, bytes.
fn reported(vmi: &VirtualMachineInstance, volume: &str) -> Option<u64> {
    let all = &vmi.status.volume_status;
    let entry = all.iter().find(|one| one.name == volume)?;
    let info = entry.persistent_volume_claim_info.as_ref()?;
    quantity(info.capacity.get("storage")?).ok()
}

/// Records a fact unless it was the last one.
async fn once(
    world: &World,
    member: &Member,
    last: &Mutex<Option<ResizeFact>>,
    fact: ResizeFact,
) -> anyhow::Result<()> {
    let mut last = last.lock().await;
    if last.as_ref() != Some(&fact) {
        tell(world, member, fact.clone()).await?;
        *last = Some(fact);
    }
    Ok(())
}

/// The probe that writes on the member's volumes.
fn prober(member: &Member) -> anyhow::Result<&Prober> {
    match &member.loader {
        Some(prober) => Ok(prober),
        None => bail!("no probe writes"),
    }
}

async fn tell(world: &World, member: &Member, resize: ResizeFact) -> anyhow::Result<()> {
    let site = member.site;
    member.tell(world, Fact::Resize { site, resize }).await
}
