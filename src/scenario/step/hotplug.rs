//! A disk that comes and goes under the running guest, or stays and moves with the others. It is a
//! subject of its own: its ledger lies on this one volume and is written by a probe of its own, so that
//! nobody has to touch the load that the VM's other volumes carry meanwhile.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::probe;
use crate::cluster::crd::core::PersistentVolumeClaim;
use crate::cluster::crd::kubevirt::{VirtualMachine, VirtualMachineInstance, VolumeStatus};
use crate::cluster::{Error, Method, ObjRef, Scope, Seen, Typed as _, Wake, repeat};
use crate::guest::GuestFacts;
use crate::history::event::{Fact, HotplugFact, LedgerMode, Outcome};
use crate::probe::host::Prober;
use crate::scenario::member::{Extent, Member};
use crate::scenario::world::World;
use crate::workload::fit_name;

/// Makes a claim, plugs it into the running guest, and has a ledger written on it beside the load.
pub(super) async fn plug(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let claim = claim(world, member).await?;
    let mut disk = Box::new(member.disk(world, &claim));
    let added = add(world, member, &disk).await;
    let written = match added {
        Ok(()) => write(world, &mut disk).await,
        Err(error) => Err(error),
    };
    // Whatever became of it, its stream is to be closed.
    member.part = Some(disk);
    written
}

/// Makes a claim like that of the member's first raw volume.
async fn claim(world: &World, member: &Member) -> anyhow::Result<String> {
    let raw = member.volumes.iter().find(|v| v.ledger == LedgerMode::Raw);
    let like = raw.context("the VM has no raw data volume whose claim to copy")?;
    let (ns, kind) = (&member.subject.namespace, PersistentVolumeClaim::KIND);
    let cluster = member.cluster(world);
    let like = cluster
        .read(&ObjRef::of::<PersistentVolumeClaim>(ns, &like.pvc))
        .await?;
    let name = fit_name(&member.subject.vm, "plugged");
    let spec = &like["spec"];
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {"name": name, "namespace": ns},
        "spec": {
            "storageClassName": spec["storageClassName"],
            "accessModes": spec["accessModes"],
            "volumeMode": spec["volumeMode"],
            "resources": {"requests": {"storage": spec["resources"]["requests"]["storage"]}},
        },
    });
    cluster.create(&member.owner, object).await?;
    Ok(name)
}

/// Asks for the disk and waits until KubeVirt says that it is there and the guest shows it.
async fn add(world: &World, member: &Member, disk: &Member) -> anyhow::Result<()> {
    let (name, serial, claim) = told(disk)?;
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    let asked = HotplugFact::Asked {
        adding: true,
        serial: serial.clone(),
    };
    tell(world, member, &name, asked).await?;
    let body = json!({
        "name": name,
        "disk": {"name": name, "serial": serial, "disk": {"bus": "scsi"}},
        "volumeSource": {"persistentVolumeClaim": {"claimName": claim, "hotpluggable": true}},
    });
    let inverse = ("removevolume", Some(json!({ "name": name })));
    let called = member
        .cluster(world)
        .subresource_recorded(
            &member.owner,
            &member.vm(),
            "addvolume",
            Some(&body),
            inverse,
        )
        .await;
    answered(world, member, &name, true, called).await?;
    reported(world, member, &name, true).await?;
    shown(world, member, prober, (&name, &serial), true).await
}

/// Protects the disk together with the VM's other volumes, which have one consistency group, and waits
/// until everything written so far has crossed. From then on all of them move together.
pub(super) async fn join(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut disk) = member.part.take() else {
        bail!("no disk is plugged")
    };
    let defined = follow(world, member, &disk).await;
    member.set.pvcs.extend(disk.subject.claims.iter().cloned());
    disk.set = member.set.clone();
    member.part = Some(disk);
    defined?;
    super::protect::baseline(world, member).await
}

/// Has the VM that is made on the other site name the disk as the one here does.
async fn follow(world: &World, member: &mut Member, disk: &Member) -> anyhow::Result<()> {
    let (name, ..) = told(disk)?;
    let here = member.cluster(world).read(&member.vm()).await?;
    let lists = [
        "/spec/template/spec/volumes",
        "/spec/template/spec/domain/devices/disks",
    ];
    let mut objects = member.subject.peer_objects.iter_mut();
    let there = objects.find(|object| object["kind"] == *VirtualMachine::KIND.kind);
    let there = there.context("the VM for the other site")?;
    for list in lists {
        let entries = here.pointer(list).and_then(Value::as_array);
        let entry = entries.and_then(|all| all.iter().find(|one| one["name"] == *name));
        let entry = entry.with_context(|| format!("the VM's template has no {name} in {list}"))?;
        let all = there.pointer_mut(list).and_then(Value::as_array_mut);
        all.with_context(|| format!("the VM for the other site has no {list}"))?
            .push(entry.clone());
    }
    Ok(())
}

/// Fills the disk's ledger and writes load on it.
async fn write(world: &World, disk: &mut Member) -> anyhow::Result<()> {
    created(world, disk).await?;
    probe::seed(world, disk).await?;
    probe::load(world, disk).await
}

/// Records what a part was made as.
pub(super) async fn created(world: &World, part: &Member) -> anyhow::Result<()> {
    let created = Fact::SubjectCreated {
        workload: part.workload.name.clone(),
        namespace: part.subject.namespace.clone(),
        vm: part.subject.vm.clone(),
        volumes: part.volumes.clone(),
        pvcs: part.subject.claims.clone(),
        seed: part.seed,
    };
    part.tell(world, created).await
}

/// Stops the writers of a member and of the disk plugged into it.
pub(super) async fn quiesce(world: &World, member: &mut Member) -> anyhow::Result<()> {
    if let Some(disk) = member.part.as_deref_mut() {
        probe::quiesce(world, disk).await?;
    }
    probe::quiesce(world, member).await
}

/// Reads a member back, then its part. A disk that was plugged comes to a guest that booted in its own
/// time, and nobody has been served before it is there.
pub(super) async fn read_back(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut part) = member.part.take() else {
        return probe::read_back(world, member).await;
    };
    let read = async {
        if part.extent == Extent::Plugged {
            let (name, ..) = told(&part)?;
            let ready = reported(world, member, &name, true).await;
            ready.context("the disk that was plugged")?;
        }
        probe::read_back(world, member).await?;
        let read = probe::read_back(world, &mut part).await;
        read.with_context(|| format!("reading {} back", part.name()))
    };
    let read = Box::pin(read).await;
    member.part = Some(part);
    read
}

/// Writes a further load on a member and on the disk plugged into it, side by side.
pub(super) async fn serve(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut disk) = member.part.take() else {
        return probe::serve(world, member).await;
    };
    let (own, plugged) = tokio::join!(probe::serve(world, member), probe::serve(world, &mut disk),);
    member.part = Some(disk);
    own?;
    plugged.context("the disk that was plugged")
}

/// Reads the disk back and takes it away while the VM's other volumes are written to.
pub(super) async fn unplug(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut disk) = member.part.take() else {
        bail!("no disk is plugged")
    };
    let read = async {
        probe::quiesce(world, &mut disk).await?;
        probe::read_back(world, &mut disk).await
    };
    let read = read.await;
    let removed = match read {
        Ok(()) => remove(world, member, &disk).await,
        Err(error) => Err(error.context("the disk that was plugged")),
    };
    if removed.is_err() {
        member.part = Some(disk);
    }
    removed
}

async fn remove(world: &World, member: &Member, disk: &Member) -> anyhow::Result<()> {
    let (name, serial, _) = told(disk)?;
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    let asked = HotplugFact::Asked {
        adding: false,
        serial: serial.clone(),
    };
    tell(world, member, &name, asked).await?;
    let body = json!({ "name": name });
    let called = member
        .cluster(world)
        .subresource(Method::Put, &member.vm(), "removevolume", Some(&body))
        .await;
    answered(world, member, &name, false, called).await?;
    reported(world, member, &name, false).await?;
    shown(world, member, prober, (&name, &serial), false).await?;
    let deadline = world.deadline(world.plan.deadlines().ssh);
    prober
        .ack_from_now(&deadline)
        .await
        .context("waiting for the guest to write after the disk was unplugged")
}

/// Name, serial and claim of a plugged disk.
fn told(disk: &Member) -> anyhow::Result<(String, String, String)> {
    let only = disk.subject.data_disks.first().context("the disk itself")?;
    Ok((only.name.clone(), only.serial.clone(), only.pvc.clone()))
}

/// Records every change of what the VMI says of a volume until it is there, or gone.
async fn reported(world: &World, member: &Member, volume: &str, there: bool) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = member
        .cluster(world)
        .view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    let deadline = world.deadline(world.plan.deadlines().transition);
    let state = if there { "ready" } else { "gone" };
    let waiting = format!("volume {volume} of VMI {vm} to be {state}");
    let last: Mutex<Option<VolumeStatus>> = Mutex::new(None);
    let look = || async {
        let found = view.peek(|vmis| {
            let vmi = vmis.get(ns, vm)?;
            let all = &vmi.status.volume_status;
            Some(all.iter().find(|one| one.name == volume).cloned())
        });
        let Some(entry) = found.flatten() else {
            return Ok(Seen::Not("no VMI".into()));
        };
        let entry = entry.unwrap_or_default();
        let mut last = last.lock().await;
        if last.as_ref() != Some(&entry) {
            let fact = HotplugFact::Reported {
                phase: entry.phase.clone(),
                target: entry.target.clone(),
                attach_pod: entry
                    .hotplug_volume
                    .clone()
                    .unwrap_or_default()
                    .attach_pod_name,
                message: entry.message.clone(),
            };
            if let Err(error) = tell(world, member, volume, fact).await {
                return Ok(Seen::Met(Err(error)));
            }
            *last = Some(entry.clone());
        }
        Ok::<_, Error>(match (there, entry.phase.as_str()) {
            (true, "Ready") | (false, "") => Seen::Met(Ok(())),
            (_, phase) => Seen::Not(format!("phase {phase:?}: {}", entry.message)),
        })
    };
    repeat(&deadline, &waiting, view.wake(), look).await?
}

/// Waits until the guest shows the disk, or no longer does; records what it shows.
async fn shown(
    world: &World,
    member: &Member,
    prober: &Prober,
    (volume, serial): (&str, &str),
    there: bool,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let verb = if there { "show" } else { "give up" };
    let waiting = format!("the guest to {verb} the disk with serial {serial}");
    let last: Mutex<Option<GuestFacts>> = Mutex::new(None);
    let waited = repeat(&deadline, &waiting, Wake::paced(), || async {
        let (facts, _) = match prober.who(&world.binary, &deadline).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Seen::Not(error.to_string())),
        };
        let present = facts.disk(serial).is_ok();
        let disks = facts.disks.len();
        *last.lock().await = Some(facts);
        Ok::<_, Error>(if present == there {
            Seen::Met(())
        } else {
            Seen::Not(format!("it shows {disks} disks"))
        })
    })
    .await;
    if let Some(facts) = last.into_inner() {
        let present = facts.disk(serial).is_ok();
        tell(world, member, volume, HotplugFact::Seen { present }).await?;
        // What else the guest shows, or no longer does.
        super::inside::record(world, member, &facts).await?;
    }
    Ok(waited?)
}

async fn answered(
    world: &World,
    member: &Member,
    volume: &str,
    adding: bool,
    answer: Result<Value, Error>,
) -> anyhow::Result<()> {
    let outcome = match &answer {
        Ok(_) => Outcome::Ok,
        Err(error) if error.is_blind() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let fact = HotplugFact::Answered { adding, outcome };
    tell(world, member, volume, fact).await?;
    answer?;
    Ok(())
}

async fn tell(
    world: &World,
    member: &Member,
    volume: &str,
    hotplug: HotplugFact,
) -> anyhow::Result<()> {
    let fact = Fact::Hotplug {
        site: member.site,
        volume: volume.to_owned(),
        hotplug,
    };
    member.tell(world, fact).await
}
