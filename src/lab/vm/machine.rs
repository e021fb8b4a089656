//! The VirtualMachine controller: makes and ends VMIs as the run strategy says, makes the
//! DataVolumes of templates, and tells in the VM's status what it sees.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::condition;
use super::instance;
use super::keys::{
    CREATED_BY, DV, FINALIZER, OBSERVED, PVC, REVISION, VM, VMI, claim_of, is_final, items,
    owned_by, phase, run_strategy,
};
use super::site::{Ctx, Key, Work, settle};
use super::{status, storage_move};
use crate::history::event::Site;
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::faults::Fault;

const COMPONENT: &str = "virtualmachine-controller";

/// Looks at one VM and brings it a step on.
pub(super) fn reconcile(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let Some(vm) = ctx.store.get(VM, namespace, name) else {
        return Ok(());
    };
    if meta::deleting(&vm) {
        return end(ctx, &vm);
    }
    let vm = welcome(ctx, vm)?;
    let vmi = own_instance(ctx, &vm);
    data_volumes(ctx, &vm)?;
    let mut started = false;
    match vmi.as_deref() {
        Some(vmi) => {
            super::hotplug::declare(ctx, &vm, vmi)?;
            storage_move::declare(ctx, &vm, vmi)?;
            ended_or_not(ctx, &vm, vmi)?;
        }
        None => started = start_if_due(ctx, &vm)?,
    }
    storage_move::settle_state(ctx, &vm, vmi.as_deref())?;
    status::write(ctx, &vm, started);
    if started {
        // The controller sees its own new VMI an instant later.
        status::write(ctx, &vm, false);
    }
    Ok(())
}

/// The first things that happen to a new VM, one write each.
fn welcome(ctx: &Ctx, vm: Arc<Value>) -> Result<Arc<Value>, ApiError> {
    let (namespace, name) = (meta::namespace(&vm), meta::name(&vm));
    if vm.pointer("/status/printableStatus").is_none() {
        let snapshots = snapshot_statuses(ctx, &vm);
        ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
            vm["status"]["printableStatus"] = json!("Stopped");
            vm["status"]["volumeSnapshotStatuses"] = snapshots.clone();
        })?;
    }
    if meta::annotation(&vm, OBSERVED[0]).is_none() {
        ctx.store
            .modify(VM, namespace, name, Part::Object, observed)?;
    }
    if meta::finalizers(&vm).contains(&FINALIZER) {
        return Ok(vm);
    }
    ctx.store.modify(VM, namespace, name, Part::Object, |vm| {
        meta::add_finalizer(vm, FINALIZER);
    })
}

/// The annotations that virt-api leaves on objects.
pub(super) fn observed(object: &mut Value) {
    for annotation in OBSERVED {
        object["metadata"]["annotations"][annotation] = json!("v1");
    }
}

fn snapshot_statuses(ctx: &Ctx, vm: &Value) -> Value {
    let namespace = meta::namespace(vm);
    items(vm, "/spec/template/spec/volumes")
        .iter()
        .map(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            let reason = match claim_of(volume) {
                None => format!("Snapshot is not supported for this volumeSource type [{name}]"),
                Some(claim) => match ctx.store.get(PVC, namespace, claim) {
                    None => "PVC not found".to_owned(),
                    Some(claim) => {
                        let class = meta::text(&claim, "/spec/storageClassName");
                        format!(
                            "No VolumeSnapshotClass: Volume snapshots are not configured for this \
                             StorageClass [{class}] [{name}]"
                        )
                    }
                },
            };
            json!({"enabled": false, "name": name, "reason": reason})
        })
        .collect()
}

/// The VMI of a VM.
pub(super) fn own_instance(ctx: &Ctx, vm: &Value) -> Option<Arc<Value>> {
    ctx.store
        .get(VMI, meta::namespace(vm), meta::name(vm))
        .filter(|vmi| owned_by(vmi, meta::uid(vm)))
}

fn end(ctx: &Ctx, vm: &Arc<Value>) -> Result<(), ApiError> {
    if let Some(vmi) = own_instance(ctx, vm) {
        if !meta::deleting(&vmi) {
            stop(ctx, vm, &vmi)?;
        }
        status::write(ctx, vm, false);
        return Ok(());
    }
    status::write(ctx, vm, false);
    if ctx.board.armed(Fault::LeftoverAfterCleanup)
        && ctx.is_struck(Fault::LeftoverAfterCleanup, meta::uid(vm))
    {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(vm), meta::name(vm));
    let gone = ctx.store.modify(VM, namespace, name, Part::Object, |vm| {
        meta::remove_finalizer(vm, FINALIZER);
    });
    settle("letting a VM go", gone);
    Ok(())
}

/// What the run strategy says to a VMI that exists.
fn ended_or_not(ctx: &Ctx, vm: &Arc<Value>, vmi: &Value) -> Result<(), ApiError> {
    if meta::deleting(vmi) {
        return Ok(());
    }
    let asked = stop_requested(vm, vmi);
    let (failed, done) = (phase(vmi) == "Failed", is_final(vmi));
    let ends = match run_strategy(vm) {
        "Halted" => true,
        "Always" => asked || done,
        "RerunOnFailure" => {
            if failed && !asked {
                request_start(ctx, vm)?;
            }
            asked || done
        }
        _ => asked,
    };
    if ends {
        if done {
            note_failure(ctx, vm, vmi)?;
        }
        stop(ctx, vm, vmi)?;
    }
    Ok(())
}

fn stop_requested(vm: &Value, vmi: &Value) -> bool {
    items(vm, "/status/stateChangeRequests")
        .first()
        .is_some_and(|request| request["action"] == "Stop" && request["uid"] == meta::uid(vmi))
}

fn start_requested(vm: &Value) -> bool {
    items(vm, "/status/stateChangeRequests")
        .iter()
        .any(|request| request["action"] == "Start")
}

fn request_start(ctx: &Ctx, vm: &Value) -> Result<(), ApiError> {
    let (namespace, name) = (meta::namespace(vm), meta::name(vm));
    ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
        vm["status"]["stateChangeRequests"] = json!([{"action": "Start"}]);
    })?;
    Ok(())
}

fn stop(ctx: &Ctx, vm: &Value, vmi: &Value) -> Result<(), ApiError> {
    let (namespace, name) = (meta::namespace(vmi), meta::name(vmi));
    let generation = meta::generation(vm).to_string();
    let key = "kubevirt.io/vm-generation";
    if !meta::deleting(vm) && run_strategy(vm) == "Halted" {
        ctx.store.modify(VMI, namespace, name, Part::Any, |vmi| {
            vmi["metadata"]["annotations"][key] = json!(generation);
        })?;
    }
    ctx.store
        .delete(VMI, namespace, name, &DeleteOptions::default())?;
    let text = format!(
        "Stopped the virtual machine by deleting the virtual machine instance {}",
        meta::uid(vmi)
    );
    ctx.event(vm, "Normal", "SuccessfulDelete", &text, COMPONENT);
    Ok(())
}

/// A VMI that failed before it ran makes the next start wait: 10·n² seconds, at most 300. One that
/// ran forgives what was before.
fn note_failure(ctx: &Ctx, vm: &Value, vmi: &Value) -> Result<(), ApiError> {
    let failed_early = phase(vmi) == "Failed" && !instance::has_been(vmi, "Running");
    let uid = json!(meta::uid(vmi));
    let (namespace, name) = (meta::namespace(vm), meta::name(vm));
    ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
        let Some(status) = vm["status"].as_object_mut() else {
            return;
        };
        if !failed_early {
            status.shift_remove("startFailure");
            return;
        }
        let before = status.get("startFailure");
        if before.is_some_and(|before| before["lastFailedVMIUID"] == uid) {
            return;
        }
        let count = before
            .and_then(|b| b["consecutiveFailCount"].as_u64())
            .unwrap_or(0)
            + 1;
        let wait = backoff(count);
        let until =
            jiff::Timestamp::now() + jiff::SignedDuration::try_from(wait).unwrap_or_default();
        status.insert(
            "startFailure".to_owned(),
            json!({"consecutiveFailCount": count, "lastFailedVMIUID": uid,
                "retryAfterTimestamp": meta::stamp(until)}),
        );
    })?;
    Ok(())
}

/// How long the n-th start in a row waits.
fn backoff(failures: u64) -> Duration {
    Duration::from_secs((10 * failures * failures).min(300))
}

/// Starts a VMI if the run strategy wants one and nothing stands against it.
fn start_if_due(ctx: &Ctx, vm: &Arc<Value>) -> Result<bool, ApiError> {
    let requested = start_requested(vm);
    let wanted = match run_strategy(vm) {
        "Always" | "Once" => true,
        "Manual" => requested,
        "RerunOnFailure" => requested || meta::text(vm, "/status/runStrategy") != "RerunOnFailure",
        _ => false,
    };
    let unsafe_to = condition::is_true(vm, storage_move::RECOVERY);
    if !wanted || unsafe_to || !claims_are_ready(ctx, vm) {
        return Ok(false);
    }
    if ctx.site == Site::Secondary && ctx.board.armed(Fault::VmLeftHalted) {
        return Ok(false);
    }
    if let Some(failures) = vm
        .pointer("/status/startFailure/consecutiveFailCount")
        .and_then(Value::as_u64)
        && !waited(ctx, vm, failures)
    {
        return Ok(false);
    }
    start(ctx, vm)?;
    Ok(true)
}

/// Whether the backoff is over; if not, looks again when it is.
fn waited(ctx: &Ctx, vm: &Value, failures: u64) -> bool {
    let until: Option<jiff::Timestamp> = meta::text(vm, "/status/startFailure/retryAfterTimestamp")
        .parse()
        .ok();
    let Some(until) = until else {
        return true;
    };
    // The timestamp is real time, the wait is the lab's: what counts is the time since the failure.
    let failed_at = until - jiff::SignedDuration::try_from(backoff(failures)).unwrap_or_default();
    let since = jiff::Timestamp::now().duration_since(failed_at);
    let due = ctx.clock.wait(backoff(failures));
    if since.unsigned_abs() >= due {
        return true;
    }
    ctx.after(backoff(failures), Work::Vm(super::site::key(vm)));
    false
}

fn start(ctx: &Ctx, vm: &Arc<Value>) -> Result<(), ApiError> {
    let namespace = meta::namespace(vm);
    let revision = instance::revision_name(vm);
    for old in ctx.store.list(REVISION, Some(namespace)) {
        if owned_by(&old, meta::uid(vm)) && meta::name(&old) != revision {
            let gone = ctx.store.delete(
                REVISION,
                namespace,
                meta::name(&old),
                &DeleteOptions::default(),
            );
            settle("dropping an old revision", gone);
        }
    }
    if ctx.store.get(REVISION, namespace, &revision).is_none() {
        ctx.store.create(
            REVISION,
            json!({
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {"name": revision, "namespace": namespace,
                    "ownerReferences": [meta::owner_reference(vm)]},
                "data": {"spec": vm["spec"]},
                "revision": 0,
            }),
        )?;
    }
    ctx.store.create(VMI, instance::build(vm))?;
    let text = format!(
        "Started the virtual machine by creating the new virtual machine instance {}",
        meta::name(vm)
    );
    ctx.event(vm, "Normal", "SuccessfulCreate", &text, COMPONENT);
    Ok(())
}

/// A DataVolume of a template's name that nobody owns, as a restore leaves it, is the VM's from then on.
fn adopt(ctx: &Ctx, vm: &Value, found: &Value) -> Result<(), ApiError> {
    if meta::deleting(found) || meta::controller(found).is_some() {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(found), meta::name(found));
    ctx.store.modify(DV, namespace, name, Part::Object, |dv| {
        meta::entry(dv, "ownerReferences", || json!([]));
        if let Some(owners) = dv["metadata"]["ownerReferences"].as_array_mut() {
            owners.push(meta::owner_reference(vm));
        }
    })?;
    Ok(())
}

/// DataVolumes of templates are made whether or not the VM is to run.
fn data_volumes(ctx: &Ctx, vm: &Value) -> Result<(), ApiError> {
    let namespace = meta::namespace(vm);
    for template in items(vm, "/spec/dataVolumeTemplates") {
        let name = meta::name(template);
        if let Some(found) = ctx.store.get(DV, namespace, name) {
            adopt(ctx, vm, &found)?;
            continue;
        }
        let mut labels = template["metadata"]["labels"].clone();
        labels[CREATED_BY] = json!(meta::uid(vm));
        let made = ctx.store.create(
            DV,
            json!({
                "apiVersion": "cdi.kubevirt.io/v1beta1",
                "kind": "DataVolume",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "annotations": template["metadata"]["annotations"],
                    "ownerReferences": [meta::owner_reference(vm)],
                },
                "spec": template["spec"],
            }),
        )?;
        let text = format!("Created DataVolume {}", meta::name(&made));
        ctx.event(vm, "Normal", "SuccessfulDataVolumeCreate", &text, COMPONENT);
    }
    Ok(())
}

/// The DataVolumes that a VM names in templates and volumes, those that exist.
pub(super) fn named_data_volumes(ctx: &Ctx, vm: &Value) -> Vec<Value> {
    let templates = items(vm, "/spec/dataVolumeTemplates")
        .iter()
        .map(meta::name);
    let volumes = items(vm, "/spec/template/spec/volumes")
        .iter()
        .filter_map(|volume| volume.pointer("/dataVolume/name")?.as_str());
    let mut names: Vec<&str> = templates.chain(volumes).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| ctx.store.get(DV, meta::namespace(vm), name))
        .map(Arc::unwrap_or_clone)
        .collect()
}

fn claims_are_ready(ctx: &Ctx, vm: &Value) -> bool {
    named_data_volumes(ctx, vm).iter().all(|dv| {
        matches!(
            phase(dv),
            "Succeeded" | "WaitForFirstConsumer" | "PendingPopulation"
        )
    })
}
