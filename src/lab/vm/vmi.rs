//! The VirtualMachineInstance controller: launcher pods, phases and conditions, as virt-controller
//! and virt-handler write them between them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::boot::missing_claim;
use super::condition::{self, Condition, Times};
use super::instance::advance;
use super::keys::{
    CREATED_BY, FINALIZER, FOREGROUND, NODE_LABEL, OBSERVED, POD, PVC, UNPAUSED, VMI, is_final,
    items, phase,
};
use super::launcher;
use super::machine::observed;
use super::migratable;
use super::report;
use super::site::{Ctx, Key, Work, key, settle};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};

const CONTROLLER: &str = "virtualmachine-controller";

/// The launcher pods of a VMI.
pub(super) fn pods(ctx: &Ctx, vmi: &Value) -> Vec<Arc<Value>> {
    ctx.store
        .list(POD, Some(meta::namespace(vmi)))
        .into_iter()
        .filter(|pod| meta::label(pod, CREATED_BY) == Some(meta::uid(vmi)))
        .collect()
}

/// The launcher pod that runs the VMI or will, not a migration's target.
pub(super) fn launcher_pod(ctx: &Ctx, vmi: &Value) -> Option<Arc<Value>> {
    let current = ctx
        .domain(meta::uid(vmi))
        .map(|domain| domain.place().pod_uid);
    let pods = pods(ctx, vmi);
    current
        .and_then(|uid| pods.iter().find(|pod| meta::uid(pod) == uid).cloned())
        .or_else(|| {
            pods.into_iter()
                .find(|pod| meta::label(pod, "kubevirt.io/migrationJobUID").is_none())
        })
}

/// Writes a VMI, which has no status subresource.
pub(super) fn modify(
    ctx: &Ctx,
    vmi: &Value,
    change: impl FnMut(&mut Value),
) -> Result<Arc<Value>, ApiError> {
    ctx.store.modify(
        VMI,
        meta::namespace(vmi),
        meta::name(vmi),
        Part::Any,
        change,
    )
}

/// Looks at one VMI and brings it a step on.
pub(super) fn reconcile(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let Some(vmi) = ctx.store.get(VMI, namespace, name) else {
        return Ok(());
    };
    if meta::annotation(&vmi, OBSERVED[0]).is_none() {
        modify(ctx, &vmi, observed)?;
    }
    if is_final(&vmi) {
        return finished(ctx, &vmi);
    }
    if meta::deleting(&vmi) {
        return stopping(ctx, &vmi);
    }
    match phase(&vmi) {
        "Pending" | "" => pending(ctx, &vmi),
        "Scheduling" => scheduling(ctx, &vmi),
        "Scheduled" => scheduled(ctx, &vmi),
        "Running" => running(ctx, &vmi),
        _ => Ok(()),
    }
}

fn pending(ctx: &Ctx, vmi: &Arc<Value>) -> Result<(), ApiError> {
    let namespace = meta::namespace(vmi);
    if let Some(pod) = launcher_pod(ctx, vmi) {
        return begin_scheduling(ctx, vmi, &pod);
    }
    if let Some(claim) = missing_claim(ctx, vmi) {
        let text = format!("PVC {namespace}/{claim} does not exist, waiting for it to appear");
        ctx.event(vmi, "Normal", "FailedPvcNotFound", &text, CONTROLLER);
        modify(ctx, vmi, |vmi| waits_for_claim(vmi, &text))?;
        return Ok(());
    }
    if !populated(ctx, vmi) {
        return Ok(());
    }
    modify(ctx, vmi, |vmi| {
        condition::remove(vmi, "Synchronized");
        condition::remove(vmi, "PodScheduled");
    })?;
    let pod = ctx.store.create(POD, launcher::pod(vmi))?;
    let text = format!("Created virtual machine pod {}", meta::name(&pod));
    ctx.event(vmi, "Normal", "SuccessfulCreate", &text, CONTROLLER);
    begin_scheduling(ctx, vmi, &pod)
}

fn waits_for_claim(vmi: &mut Value, text: &str) {
    if condition::get(vmi, "Synchronized").is_some() {
        // From the second look on, virt-controller writes PodScheduled anew, behind the others.
        condition::to_end(vmi, "PodScheduled");
        return;
    }
    for condition in [
        Condition {
            kind: "Ready",
            status: false,
            reason: "PodNotExists",
            message: "virt-launcher pod has not yet been scheduled",
            times: Times::Both,
        },
        Condition {
            kind: "PodScheduled",
            status: false,
            reason: "Unschedulable",
            message: text,
            times: Times::Neither,
        },
        Condition {
            kind: "Synchronized",
            status: false,
            reason: "FailedPvcNotFound",
            message: text,
            times: Times::Transition,
        },
    ] {
        condition::set(vmi, &condition);
    }
}

/// Whether every DataVolume of the VMI has its content. One that waits for a consumer gets one: the
/// pod that virt-controller starts for that purpose alone does nothing but pick a node.
fn populated(ctx: &Ctx, vmi: &Value) -> bool {
    let namespace = meta::namespace(vmi);
    let mut ready = true;
    for name in items(vmi, "/spec/volumes")
        .iter()
        .filter_map(|volume| volume.pointer("/dataVolume/name")?.as_str())
    {
        let Some(dv) = ctx.store.get(super::keys::DV, namespace, name) else {
            continue;
        };
        if phase(&dv) == "Succeeded" {
            continue;
        }
        ready = false;
        if matches!(phase(&dv), "WaitForFirstConsumer" | "PendingPopulation") {
            super::schedule::select_node(ctx, namespace, name);
        }
    }
    ready
}

fn begin_scheduling(ctx: &Ctx, vmi: &Value, pod: &Value) -> Result<(), ApiError> {
    let uid = meta::uid(pod).to_owned();
    modify(ctx, vmi, |vmi| {
        vmi["status"]["activePods"][&uid] = json!("");
        not_running(vmi);
        vmi["status"]["launcherContainerImageVersion"] = json!(launcher::IMAGE);
        vmi["status"]["memory"]["memoryOverhead"] = json!(launcher::OVERHEAD);
        advance(vmi, "Scheduling");
    })?;
    Ok(())
}

fn not_running(vmi: &mut Value) {
    condition::set(
        vmi,
        &Condition {
            kind: "Ready",
            status: false,
            reason: "GuestNotRunning",
            message: "Guest VM is not reported as running",
            times: Times::Both,
        },
    );
}

fn scheduling(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let Some(pod) = launcher_pod(ctx, vmi) else {
        // Somebody took the pod away before it ran.
        modify(ctx, vmi, |vmi| advance(vmi, "Failed"))?;
        return Ok(());
    };
    if matches!(phase(&pod), "Failed" | "Succeeded") {
        modify(ctx, vmi, |vmi| advance(vmi, "Failed"))?;
        return Ok(());
    }
    let node = meta::text(&pod, "/spec/nodeName").to_owned();
    let uid = meta::uid(&pod).to_owned();
    let unscheduled = condition::get(&pod, "PodScheduled")
        .filter(|condition| condition["status"] == "False")
        .cloned();
    let waiting = items(&pod, "/status/containerStatuses")
        .iter()
        .find_map(|status| status.pointer("/state/waiting").cloned());
    if node.is_empty() && unscheduled.is_none() {
        return Ok(());
    }
    modify(ctx, vmi, |vmi| {
        vmi["status"]["activePods"][&uid] = json!(node);
        vmi["status"]["qosClass"] = json!("Burstable");
        match &unscheduled {
            Some(condition) => condition::put(vmi, condition.clone()),
            None => condition::remove(vmi, "PodScheduled"),
        }
        if let Some(waiting) = &waiting {
            let text = |field: &str| waiting[field].as_str().unwrap_or_default().to_owned();
            condition::set(
                vmi,
                &Condition {
                    kind: "Synchronized",
                    status: false,
                    reason: &text("reason"),
                    message: &text("message"),
                    times: Times::Transition,
                },
            );
        }
    })?;
    if phase(&pod) != "Running" {
        return Ok(());
    }
    let statuses = report::volume_statuses(ctx, vmi, false);
    modify(ctx, vmi, |vmi| {
        condition::remove(vmi, "Synchronized");
        vmi["metadata"]["labels"][NODE_LABEL] = json!(node);
        vmi["status"]["nodeName"] = json!(node);
        vmi["status"]["migrationTransport"] = json!("Unix");
        vmi["status"]["interfaces"] = interfaces(vmi);
        vmi["status"]["volumeStatus"] = statuses.clone();
        advance(vmi, "Scheduled");
    })?;
    Ok(())
}

fn interfaces(vmi: &Value) -> Value {
    items(vmi, "/spec/domain/devices/interfaces")
        .iter()
        .map(|interface| json!({"name": interface["name"], "podInterfaceName": "eth0"}))
        .collect()
}

fn scheduled(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    if condition::get(vmi, "LiveMigratable").is_some() {
        return Ok(());
    }
    let namespace = meta::namespace(vmi);
    let claim = |name: &str| ctx.store.get(PVC, namespace, name);
    let whole = migratable::check(vmi, claim);
    let storage = migratable::but_disks(vmi);
    modify(ctx, vmi, |vmi| {
        for (kind, result) in [
            ("LiveMigratable", &whole),
            ("StorageLiveMigratable", &storage),
        ] {
            let (reason, message) = match result {
                Ok(()) => ("", ""),
                Err(refusal) => (refusal.reason, refusal.message.as_str()),
            };
            condition::set(
                vmi,
                &Condition {
                    kind,
                    status: result.is_ok(),
                    reason,
                    message,
                    times: Times::Neither,
                },
            );
        }
        vmi["status"]["migrationMethod"] = json!(migratable::method(vmi));
        vmi["status"]["selinuxContext"] = json!("none");
    })?;
    ctx.after(
        ctx.timing.domain_start,
        Work::DomainStart(meta::uid(vmi).to_owned()),
    );
    Ok(())
}

fn running(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let paused = condition::is_true(vmi, "Paused");
    let Some(pod) = launcher_pod(ctx, vmi) else {
        return Ok(());
    };
    gate(ctx, &pod, !paused)?;
    modify(ctx, vmi, |vmi| {
        if paused {
            let message = format!(
                "the status of pod readiness gate \"{UNPAUSED}\" is not \"True\", but False"
            );
            condition::set(
                vmi,
                &Condition {
                    kind: "Ready",
                    status: false,
                    reason: "ReadinessGatesNotReady",
                    message: &message,
                    times: Times::Both,
                },
            );
        } else {
            condition::set(
                vmi,
                &Condition {
                    kind: "Ready",
                    status: true,
                    reason: "",
                    message: "",
                    times: Times::Transition,
                },
            );
        }
    })?;
    super::hotplug::reconcile(ctx, vmi)?;
    super::storage_move::progress(ctx, vmi)?;
    super::resize::reconcile(ctx, vmi)?;
    super::migration::evacuate(ctx, vmi)
}

/// The launcher pod's readiness gate follows the pause of its guest.
fn gate(ctx: &Ctx, pod: &Value, open: bool) -> Result<(), ApiError> {
    let status = if open { "True" } else { "False" };
    if condition::get(pod, UNPAUSED).is_some_and(|gate| gate["status"] == status) {
        return Ok(());
    }
    let (namespace, name) = key(pod);
    let (reason, message) = if open {
        ("NotPaused", "the virtual machine is not paused")
    } else {
        ("Paused", "the virtual machine is paused")
    };
    for (kind, reason, message) in [(UNPAUSED, reason, message), ("Ready", "", "")] {
        ctx.store
            .modify(POD, &namespace, &name, Part::Status, |pod| {
                condition::set(
                    pod,
                    &Condition {
                        kind,
                        status: open,
                        reason,
                        message,
                        times: Times::Both,
                    },
                );
            })?;
    }
    Ok(())
}

fn stopping(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let pods = pods(ctx, vmi);
    for pod in pods.iter().filter(|pod| !meta::deleting(pod)) {
        delete_pod(ctx, vmi, pod)?;
    }
    if let Some(domain) = ctx.domain(meta::uid(vmi)) {
        if domain.guest().is_some() {
            super::node::shut_down(ctx, vmi, &domain);
        } else {
            // Deleted between its containers' start and its own: nothing is left to shut down.
            super::node::stopped(ctx, meta::uid(vmi), false)?;
        }
    } else if pods.is_empty() {
        modify(ctx, vmi, |vmi| {
            condition::remove(vmi, "Synchronized");
            advance(vmi, "Failed");
        })?;
        return Ok(());
    }
    modify(ctx, vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: "Ready",
                status: false,
                reason: "PodTerminating",
                message: "virt-launcher pod is terminating",
                times: Times::Both,
            },
        );
    })?;
    Ok(())
}

fn delete_pod(ctx: &Ctx, vmi: &Value, pod: &Value) -> Result<(), ApiError> {
    let (namespace, name) = key(pod);
    ctx.store
        .delete(POD, &namespace, &name, &DeleteOptions::default())?;
    let text = format!("Deleted virtual machine pod {name}");
    ctx.event(vmi, "Normal", "SuccessfulDelete", &text, CONTROLLER);
    Ok(())
}

fn finished(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    if meta::finalizers(vmi).contains(&FINALIZER) {
        modify(ctx, vmi, |vmi| meta::remove_finalizer(vmi, FINALIZER))?;
    }
    if !meta::deleting(vmi) {
        return Ok(());
    }
    let pods = pods(ctx, vmi);
    for pod in pods.iter().filter(|pod| !meta::deleting(pod)) {
        delete_pod(ctx, vmi, pod)?;
    }
    if pods.is_empty() {
        let gone = modify(ctx, vmi, |vmi| meta::remove_finalizer(vmi, FOREGROUND));
        settle("letting a VMI go", gone);
    }
    Ok(())
}
