//! Cloning a VM, and living with two of them.
//!
//! The clone carries the ledger of its source up to the cut, under the same volume ids and on disks with
//! the same serials, so that each can be read for what the other wrote. What each writes afterwards bears
//! the number of its own probe run.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{boot, cut, probe};
use crate::cluster::crd::kubevirt::VirtualMachine;
use crate::cluster::crd::vmsnapshot::VirtualMachineClone;
use crate::cluster::undo::Undo;
use crate::cluster::{Deadline, ObjRef, Scope, Seen};
use crate::history::event::{CutClaims, CutState};
use crate::history::recorder;
use crate::scenario::member::{Member, Taken};
use crate::scenario::world::World;
use crate::workload::{Identity, fit_name};

const CLONE: &str = "VirtualMachineClone";

/// Clones the member's VM and waits until the clone is there, halted.
pub(super) async fn clone(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let name = cut::next_name(member);
    let named = (CLONE, name.as_str());
    let target = fit_name(&name, "clone");
    let cluster = member.cluster(world);
    let site = member.site;
    // A controller makes it, with the labels of its source.
    let made = Undo::Delete {
        site,
        object: ObjRef::of::<VirtualMachine>(&member.subject.namespace, &target),
        uid: None,
    };
    let owner = &member.owner;
    owner.undo().record(owner.lane_name(), made).await?;
    cut::tell(world, member, named, CutState::Asked).await?;
    let object = manifest(world, member, &name, &target).await?;
    cluster.create(owner, object).await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    until(world, member, &name, &deadline, VirtualMachineClone::is_cut).await?;
    let claims = CutClaims::default();
    cut::tell(world, member, named, CutState::Taken { claims }).await?;
    until(world, member, &name, &deadline, |clone| {
        clone.status.phase == "Succeeded"
    })
    .await?;
    let vm = ObjRef::of::<VirtualMachine>(&member.subject.namespace, &target);
    let claims = claims_of(&cluster.read(&vm).await?);
    member.cuts.push(Taken {
        loads: member.loads.len(),
        volumes: Vec::new(),
        name: name.clone(),
    });
    let subject = fit_name(member.name(), "clone");
    let scope = recorder::Scope {
        subject: Some(subject.clone()),
        ..member.scope.clone()
    };
    let twin = member.clone_of(&target, &claims, scope)?;
    member.twin = Some(Box::new(twin));
    cut::tell(world, member, named, CutState::Cloned { subject }).await
}

/// The clone's manifest: MAC addresses, serial and firmware UUID of its own. KubeVirt's own rules take a
/// patch apart at colons, so addresses are written with dashes.
async fn manifest(
    world: &World,
    member: &Member,
    name: &str,
    target: &str,
) -> anyhow::Result<Value> {
    let (namespace, vm) = (&member.subject.namespace, &member.subject.vm);
    let source = ObjRef::of::<VirtualMachine>(namespace, vm);
    let source = member.cluster(world).read(&source).await?;
    let identity = Identity::derive(world.owner.run(), &format!("{namespace}/{target}"));
    let interfaces = source.pointer("/spec/template/spec/domain/devices/interfaces");
    let interfaces = interfaces.and_then(Value::as_array).into_iter().flatten();
    let macs: BTreeMap<&str, String> = interfaces
        .enumerate()
        .filter_map(|(index, interface)| {
            let mac = identity.mac(index).replace(':', "-");
            Some((interface["name"].as_str()?, mac))
        })
        .collect();
    Ok(json!({
        "apiVersion": "clone.kubevirt.io/v1beta1",
        "kind": CLONE,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm},
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target},
            "newMacAddresses": macs,
            "newSMBiosSerial": identity.serial(),
        },
    }))
}

async fn until(
    world: &World,
    member: &Member,
    name: &str,
    deadline: &Deadline,
    holds: impl Fn(&VirtualMachineClone) -> bool,
) -> anyhow::Result<()> {
    let namespace = &member.subject.namespace;
    let view = member
        .cluster(world)
        .view::<VirtualMachineClone>(&Scope::Namespace(namespace.clone()));
    let waiting = format!("{CLONE} {name}");
    let found = view
        .until_object(deadline, namespace, name, &waiting, |found| match found {
            Some(clone) if clone.status.phase == "Failed" => Seen::Met(Err(clone.describe())),
            Some(clone) if holds(clone) => Seen::Met(Ok(())),
            Some(clone) => Seen::Not(clone.describe()),
            None => Seen::Not(format!("no {CLONE}")),
        })
        .await?;
    found.map_err(|why| anyhow::anyhow!("{CLONE} {name}: {why}"))
}

/// The claims of a VM by volume name.
fn claims_of(vm: &Value) -> BTreeMap<String, String> {
    let volumes = vm.pointer("/spec/template/spec/volumes");
    let volumes = volumes.and_then(Value::as_array).into_iter().flatten();
    volumes
        .filter_map(|volume| {
            let claim = volume.pointer("/persistentVolumeClaim/claimName");
            let claim = claim.or_else(|| volume.pointer("/dataVolume/name"))?;
            let name = volume["name"].as_str()?;
            Some((name.to_owned(), claim.as_str()?.to_owned()))
        })
        .collect()
}

/// Starts the clone, or restarts it so that it reads past what it wrote, and reads it back.
pub(super) async fn read(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut twin) = member.twin.take() else {
        bail!("nothing was cloned");
    };
    let done = read_twin(world, member, &mut twin).await;
    member.twin = Some(twin);
    done
}

async fn read_twin(world: &World, member: &Member, twin: &mut Member) -> anyhow::Result<()> {
    let started = twin.cluster(world).read(&twin.vmi()).await;
    match started {
        Ok(_) => boot::restart(world, twin).await?,
        Err(error) if error.is_not_found() => boot::come_back(world, twin).await?,
        Err(error) => return Err(error.into()),
    }
    probe::read_clone(world, member, twin).await
}

/// Writes a load on the clone for as long as the plan says, then stops it with a full account.
pub(super) async fn serve(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(mut twin) = member.twin.take() else {
        bail!("nothing was cloned");
    };
    let mut done = probe::serve(world, &mut twin).await;
    if done.is_ok() {
        done = probe::quiesce(world, &mut twin).await;
    }
    member.twin = Some(twin);
    done
}

/// Starts the clone and goes on with it in the place of the VM that it was made from, which is left to
/// itself.
pub(super) async fn succeed(world: &World, member: &mut Member) -> anyhow::Result<()> {
    probe::end_load(world, member).await?;
    let Some(twin) = member.twin.take() else {
        bail!("nothing was cloned");
    };
    let scope = member.scope.clone();
    *member = *twin;
    member.scope = scope;
    boot::come_back(world, member)
        .await
        .context("starting the clone")
}
