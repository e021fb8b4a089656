//! Hotplugged volumes. Those that a VM's template marks so follow into its running VMI; an attachment
//! pod brings each to the node, and then the guest gets it. At a restart they come after the boot, and
//! a node to which the VM moved needs a pod of its own.
//!
//! Contract: the phases of `status.volumeStatus` in their order, one write each, every step later than
//! the one before.

use std::sync::Arc;

use serde_json::{Value, json};

use super::boot::data_disk;
use super::domain::{Attached, Domain};
use super::keys::{POD, PVC, VMI, claim_of, is_final, items, phase};
use super::schedule::{choose_node, handle_of};
use super::site::{Ctx, Key, Work, key, settle};
use super::vmi::{launcher_pod, modify};
use crate::lab::api::{ApiError, DeleteOptions, meta};
use crate::lab::faults::Fault;
use crate::lab::guest::GuestDisk;

const COMPONENT: &str = "virtualmachine-controller";
const HANDLER: &str = "virt-handler";
/// What attachment pods carry under the label `kubevirt.io`.
pub(super) const LABEL: &str = "hotplug-disk";

/// Whether a volume is brought to a running guest, not to its launcher.
pub(super) fn is_hotplugged(volume: &Value) -> bool {
    ["dataVolume", "persistentVolumeClaim"]
        .iter()
        .any(|source| volume[*source]["hotpluggable"] == true)
}

/// A spec without its hotplugged volumes and their disks.
pub(super) fn without(spec: &mut Value) {
    let names: Vec<Value> = items(spec, "/volumes")
        .iter()
        .filter(|volume| is_hotplugged(volume))
        .map(|volume| volume["name"].clone())
        .collect();
    for pointer in ["/volumes", "/domain/devices/disks"] {
        if let Some(list) = spec.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.retain(|entry| !names.contains(&entry["name"]));
        }
    }
}

/// virt-controller: what a VM's template has of hotplugged volumes is what its VMI has.
pub(super) fn declare(ctx: &Ctx, vm: &Value, vmi: &Value) -> Result<(), ApiError> {
    if is_final(vmi) || meta::deleting(vmi) || ctx.board.armed(Fault::PlugForgotten) {
        return Ok(());
    }
    let named = |spec: &Value| -> Vec<Value> {
        let volumes = items(spec, "/volumes").iter();
        volumes.filter(|v| is_hotplugged(v)).cloned().collect()
    };
    let template = &vm["spec"]["template"]["spec"];
    let (wanted, running) = (named(template), named(&vmi["spec"]));
    let lacks = |list: &[Value], one: &Value| list.iter().all(|v| v["name"] != one["name"]);
    let new: Vec<&Value> = wanted.iter().filter(|v| lacks(&running, v)).collect();
    let old: Vec<&Value> = running.iter().filter(|v| lacks(&wanted, v)).collect();
    if new.is_empty() && old.is_empty() {
        return Ok(());
    }
    let disks = items(template, "/domain/devices/disks");
    modify(ctx, vmi, |vmi| {
        let spec = &mut vmi["spec"];
        for pointer in ["/volumes", "/domain/devices/disks"] {
            let Some(list) = spec.pointer_mut(pointer).and_then(Value::as_array_mut) else {
                continue;
            };
            list.retain(|entry| old.iter().all(|gone| gone["name"] != entry["name"]));
            let more = if pointer == "/volumes" {
                &wanted[..]
            } else {
                disks
            };
            let more = more
                .iter()
                .filter(|entry| new.iter().any(|volume| volume["name"] == entry["name"]));
            list.extend(more.cloned());
        }
    })?;
    Ok(())
}

/// The entry of a volume in `status.volumeStatus`.
fn entry<'a>(vmi: &'a Value, volume: &str) -> Option<&'a Value> {
    let mut all = items(vmi, "/status/volumeStatus").iter();
    all.find(|entry| entry["name"] == volume)
}

/// Writes a phase and what goes with it.
fn tell(
    ctx: &Ctx,
    vmi: &Value,
    volume: &str,
    phase: &str,
    change: impl Fn(&mut Value),
) -> Result<(), ApiError> {
    modify(ctx, vmi, |vmi| {
        let status = vmi.pointer_mut("/status/volumeStatus");
        let all = status.and_then(Value::as_array_mut);
        let found = all.and_then(|all| all.iter_mut().find(|entry| entry["name"] == volume));
        if let Some(entry) = found {
            entry["phase"] = json!(phase);
            change(entry);
        }
    })
    .map(drop)
}

/// Looks at the hotplugged volumes of a running VMI.
pub(super) fn reconcile(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let wanted = items(&vmi["spec"], "/volumes").iter();
    for volume in wanted.filter(|volume| is_hotplugged(volume)) {
        let name = volume["name"].as_str().unwrap_or_default();
        let claim = claim_of(volume).unwrap_or_default();
        match entry(vmi, name).map(|entry| entry["phase"].as_str().unwrap_or_default()) {
            None => {
                modify(ctx, vmi, |vmi| begin(vmi, name))?;
            }
            Some("Pending") => bind(ctx, vmi, name, claim)?,
            Some("Bound") => bring(ctx, vmi, name, claim)?,
            Some("Ready") => follow(ctx, vmi, name, claim)?,
            Some(_) => {}
        }
    }
    let gone = |entry: &&Value| {
        entry.get("hotplugVolume").is_some()
            && entry["phase"] != "Detaching"
            && entry["phase"] != "UnMountedFromPod"
            && items(&vmi["spec"], "/volumes")
                .iter()
                .all(|volume| volume["name"] != entry["name"])
    };
    for entry in items(vmi, "/status/volumeStatus").iter().filter(gone) {
        let name = entry["name"].as_str().unwrap_or_default();
        tell(ctx, vmi, name, "Detaching", |_| {})?;
        later(ctx, vmi, name);
    }
    Ok(())
}

fn begin(vmi: &mut Value, name: &str) {
    let new = json!({
        "name": name, "target": "", "phase": "Pending", "reason": "PVCNotReady",
        "message": "PVC is in phase Pending", "hotplugVolume": {},
    });
    match vmi
        .pointer_mut("/status/volumeStatus")
        .and_then(Value::as_array_mut)
    {
        Some(all) => all.push(new),
        None => vmi["status"]["volumeStatus"] = json!([new]),
    }
}

/// Waits for the claim; one that waits for its first consumer learns the node.
fn bind(ctx: &Ctx, vmi: &Value, name: &str, claim: &str) -> Result<(), ApiError> {
    let namespace = meta::namespace(vmi);
    let pvc = ctx.store.get(PVC, namespace, claim);
    let Some(pvc) = pvc.filter(|pvc| phase(pvc) == "Bound") else {
        if ctx.store.get(PVC, namespace, claim).is_some() {
            choose_node(ctx, namespace, claim, meta::text(vmi, "/status/nodeName"));
        }
        ctx.after(ctx.timing.attach_retry, Work::Vmi(key(vmi)));
        return Ok(());
    };
    let info = super::report::claim_info(claim, &pvc);
    tell(ctx, vmi, name, "Bound", |entry| {
        entry["reason"] = json!("");
        entry["message"] = json!("");
        entry["persistentVolumeClaimInfo"] = info.clone();
    })
}

/// Makes the attachment pod of a volume on the VMI's node.
fn attachment(ctx: &Ctx, vmi: &Value, name: &str, claim: &str) -> Result<Arc<Value>, ApiError> {
    let owner = launcher_pod(ctx, vmi);
    let owners: Vec<Value> = owner.iter().map(|pod| meta::owner_reference(pod)).collect();
    ctx.store.create(
        POD,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": "hp-volume-", "namespace": meta::namespace(vmi),
                "labels": {"kubevirt.io": LABEL},
                "ownerReferences": owners,
            },
            "spec": {
                "nodeName": vmi["status"]["nodeName"],
                "containers": [{
                    "name": "hotplug-disk", "image": super::launcher::IMAGE,
                    "volumeDevices": [{"name": name, "devicePath": "/path/volume"}],
                }],
                "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": claim}}],
            },
            "status": {"phase": "Running"},
        }),
    )
}

fn bring(ctx: &Ctx, vmi: &Value, name: &str, claim: &str) -> Result<(), ApiError> {
    let pending = entry(vmi, name)
        .is_some_and(|entry| entry.pointer("/hotplugVolume/attachPodName").is_none());
    if !pending {
        return Ok(());
    }
    let pod = attachment(ctx, vmi, name, claim)?;
    let text = format!("Created attachment pod {}", meta::name(&pod));
    ctx.event(vmi, "Normal", "SuccessfulCreate", &text, COMPONENT);
    tell(ctx, vmi, name, "Bound", |entry| attached_by(entry, &pod))?;
    ctx.after(
        ctx.timing.pod_start,
        Work::Hotplug(key(vmi), name.to_owned()),
    );
    Ok(())
}

fn attached_by(entry: &mut Value, pod: &Value) {
    entry["hotplugVolume"] = json!({
        "attachPodName": meta::name(pod), "attachPodUID": meta::uid(pod),
    });
}

/// A volume whose pod is gone or on another node than the guest gets a new pod where the guest is.
fn follow(ctx: &Ctx, vmi: &Value, name: &str, claim: &str) -> Result<(), ApiError> {
    let namespace = meta::namespace(vmi);
    let old = entry(vmi, name)
        .and_then(|entry| entry.pointer("/hotplugVolume/attachPodName"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let pod = ctx.store.get(POD, namespace, old);
    let here = |pod: &Arc<Value>| pod["spec"]["nodeName"] == vmi["status"]["nodeName"];
    if pod.as_ref().is_some_and(here) {
        return Ok(());
    }
    let new = attachment(ctx, vmi, name, claim)?;
    tell(ctx, vmi, name, "Ready", |entry| attached_by(entry, &new))?;
    drop_pod(ctx, namespace, old);
    Ok(())
}

fn drop_pod(ctx: &Ctx, namespace: &str, pod: &str) {
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let gone = ctx.store.delete(POD, namespace, pod, &now);
    settle("an attachment pod's end", gone);
}

/// Queues the next step of a volume.
fn later(ctx: &Ctx, vmi: &Value, name: &str) {
    ctx.after(
        ctx.timing.attach_retry,
        Work::Hotplug(key(vmi), name.to_owned()),
    );
}

/// Brings one volume a step on.
pub(super) fn step(ctx: &Ctx, at: &Key, name: &str) -> Result<(), ApiError> {
    let Some(vmi) = ctx.store.get(VMI, &at.0, &at.1) else {
        return Ok(());
    };
    let Some(entry) = entry(&vmi, name).filter(|_| !is_final(&vmi)) else {
        return Ok(());
    };
    let next = match entry["phase"].as_str().unwrap_or_default() {
        "Bound" => "AttachedToNode",
        "AttachedToNode" => "MountedToPod",
        "MountedToPod" => {
            plug(ctx, &vmi, name);
            return Ok(());
        }
        "Detaching" => {
            unplug(ctx, &vmi, name);
            return Ok(());
        }
        "UnMountedFromPod" => return forget(ctx, &vmi, name),
        _ => return Ok(()),
    };
    tell(ctx, &vmi, name, next, |_| {})?;
    later(ctx, &vmi, name);
    Ok(())
}

/// virt-handler: the guest gets the disk.
fn plug(ctx: &Ctx, vmi: &Arc<Value>, name: &str) {
    let named = |list: &str| {
        items(&vmi["spec"], list)
            .iter()
            .find(|one| one["name"] == name)
    };
    let (volume, device) = (named("/volumes"), named("/domain/devices/disks"));
    let domain = ctx.domain(meta::uid(vmi)).filter(|domain| !domain.ended());
    let (Some((volume, device)), Some(domain)) = (volume.zip(device), domain) else {
        return;
    };
    let claim = claim_of(volume).unwrap_or_default();
    let node = domain.place().node;
    let opened = handle_of(ctx, meta::namespace(vmi), claim)
        .ok_or_else(|| "the claim has no volume".to_owned())
        .and_then(|handle| {
            let disk = ctx.array.attach(ctx.site, &handle, &node, true);
            let disk = disk.map_err(|error| format!("rbd: map failed: {error}"))?;
            Ok(Attached {
                volume: name.to_owned(),
                handle,
                bytes: disk.size(),
                disk,
            })
        });
    let open = match opened {
        Ok(open) => open,
        Err(why) => {
            ctx.event(vmi, "Warning", "FailedMount", &why, HANDLER);
            later(ctx, vmi, name);
            return;
        }
    };
    let target = target(&domain);
    let disk = data_disk(device, target, open.clone());
    hand_over(ctx, vmi, domain, open, disk);
}

/// The name that the next hotplugged disk gets: they sit on a SCSI controller.
fn target(domain: &Domain) -> String {
    let letter = u8::try_from(domain.plugged().len()).unwrap_or(0).min(25) + b'a';
    format!("sd{}", char::from(letter))
}

fn hand_over(ctx: &Ctx, vmi: &Arc<Value>, domain: Arc<Domain>, open: Attached, disk: GuestDisk) {
    let (site, vmi) = (Arc::clone(ctx), Arc::clone(vmi));
    ctx.tracker.spawn(async move {
        let name = open.volume.clone();
        let Some(guest) = domain.guest() else {
            later(&site, &vmi, &name);
            return;
        };
        if let Some(ms) = site.board.param(Fault::PlugStalls, "ms") {
            stand_still(&site, &domain, ms).await;
        }
        let target = disk.name.clone();
        let told = if site.board.armed(Fault::PlugUnseen) {
            Ok(())
        } else {
            guest.plug(disk).await
        };
        let written = match told {
            Ok(()) => {
                domain.plug(open);
                tell(&site, &vmi, &name, "Ready", |entry| {
                    entry["target"] = json!(target);
                    entry["reason"] = json!("VolumeReady");
                    entry["message"] = json!(format!(
                        "Successfully attach hotplugged volume {} to VM",
                        entry["name"].as_str().unwrap_or_default()
                    ));
                })
            }
            Err(why) => tell(&site, &vmi, &name, "MountedToPod", |entry| {
                entry["message"] = json!(why);
            }),
        };
        settle("a hotplugged volume", written);
    });
}

/// Fault `plug-stalls`: the guest stands still while it gets a disk.
async fn stand_still(ctx: &Ctx, domain: &Domain, ms: i64) {
    let Some(guest) = domain.guest() else { return };
    let still = std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    if let Err(error) = guest.pause(true).await {
        tracing::debug!(%error, "a guest does not stand still");
    }
    ctx.clock.pass(ctx.clock.lab(still)).await;
    if let Err(error) = guest.pause(false).await {
        tracing::debug!(%error, "a guest does not go on");
    }
}

/// virt-handler: the guest gives the disk up.
fn unplug(ctx: &Ctx, vmi: &Arc<Value>, name: &str) {
    let Some(domain) = ctx.domain(meta::uid(vmi)) else {
        return;
    };
    let (site, vmi, name) = (Arc::clone(ctx), Arc::clone(vmi), name.to_owned());
    ctx.tracker.spawn(async move {
        let victim = if site.board.armed(Fault::UnplugWrongDisk) {
            domain.attached().last().map(|open| open.volume.clone())
        } else {
            None
        };
        if let Some(guest) = domain.guest()
            && let Err(why) = guest.unplug(victim.unwrap_or_else(|| name.clone())).await
        {
            // The entry stays as it is, and libvirt is asked again.
            tracing::debug!(why, name, "detaching device");
            return later(&site, &vmi, &name);
        }
        if let Some(open) = domain.unplug(&name) {
            for node in domain.nodes() {
                site.array.detach(site.site, &open.handle, &node);
            }
        }
        settle(
            "a hotplugged volume",
            tell(&site, &vmi, &name, "UnMountedFromPod", |_| {}),
        );
        later(&site, &vmi, &name);
    });
}

/// The volume is gone from node and guest: so are its pod and its entry.
fn forget(ctx: &Ctx, vmi: &Value, name: &str) -> Result<(), ApiError> {
    let pod = entry(vmi, name)
        .and_then(|entry| entry.pointer("/hotplugVolume/attachPodName")?.as_str())
        .unwrap_or_default()
        .to_owned();
    modify(ctx, vmi, |vmi| {
        if let Some(all) = vmi
            .pointer_mut("/status/volumeStatus")
            .and_then(Value::as_array_mut)
        {
            all.retain(|entry| entry["name"] != name);
        }
    })?;
    drop_pod(ctx, meta::namespace(vmi), &pod);
    Ok(())
}
