//! Live migration between nodes of a site: a target launcher pod, the phases of the job, the move of
//! the domain. The guest keeps running; its address changes, so open streams break.

use std::sync::Arc;

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::domain::{Attached, Place};
use super::instance::advance;
use super::keys::{MIGRATION_FINALIZER, NODE_LABEL, OBSERVED, POD, VMI, VMIM, is_final, phase};
use super::machine::observed;
use super::mismove;
use super::site::{Ctx, Key, Work, key, settle};
use super::vmi;
use super::{launcher, real};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};

/// Annotation of a target pod: the node that it must not land on.
pub(super) const AVOID: &str = "lab.virtproof.dev/avoid-node";
const COMPONENT: &str = "virtualmachine-controller";
const JOB_UID: &str = "kubevirt.io/migrationJobUID";

/// Looks at one migration job and brings it a step on.
pub(super) fn reconcile(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let Some(job) = ctx.store.get(VMIM, namespace, name) else {
        return Ok(());
    };
    if meta::annotation(&job, OBSERVED[0]).is_none() {
        ctx.store
            .modify(VMIM, namespace, name, Part::Object, observed)?;
    }
    let vmi_name = meta::text(&job, "/spec/vmiName");
    let vmi = ctx.store.get(VMI, namespace, vmi_name);
    if is_final(&job) {
        let_go(ctx, &job);
        return Ok(());
    }
    if meta::deleting(&job) {
        return cancel(ctx, &job, vmi.as_deref());
    }
    let Some(vmi) = vmi.filter(|vmi| !is_final(vmi) && !meta::deleting(vmi)) else {
        return fail(
            ctx,
            &job,
            "Migration target pod was removed during active migration.",
        );
    };
    match phase(&job) {
        "" => {
            let source = ctx.domain(meta::uid(&vmi)).map(|domain| domain.place().pod);
            ctx.store
                .modify(VMIM, namespace, name, Part::Status, |job| {
                    job["status"]["migrationState"]["sourcePod"] = json!(source);
                    advance(job, "Pending");
                })?;
            Ok(())
        }
        "Pending" => {
            let pod = ctx.store.create(POD, target(ctx, &job, &vmi))?;
            let text = format!("Created migration target pod {}", meta::name(&pod));
            ctx.event(&job, "Normal", "SuccessfulCreate", &text, COMPONENT);
            let uid = meta::uid(&pod).to_owned();
            vmi::modify(ctx, &vmi, |vmi| {
                vmi["status"]["activePods"][&uid] = json!("");
            })?;
            step(ctx, &job, "Scheduling")
        }
        _ => Ok(()),
    }
}

fn step(ctx: &Ctx, job: &Value, phase: &str) -> Result<(), ApiError> {
    let (namespace, name) = key(job);
    ctx.store
        .modify(VMIM, &namespace, &name, Part::Status, |job| {
            advance(job, phase);
        })
        .map(drop)
}

fn target(ctx: &Ctx, job: &Value, vmi: &Value) -> Value {
    let mut pod = launcher::pod(vmi);
    pod["metadata"]["labels"][JOB_UID] = json!(meta::uid(job));
    pod["metadata"]["annotations"]["kubevirt.io/migrationJobName"] = json!(meta::name(job));
    let source = ctx.domain(meta::uid(vmi)).map(|domain| domain.place().node);
    pod["metadata"]["annotations"][AVOID] = json!(source.unwrap_or_default());
    if let Some(Value::Object(added)) = job.pointer("/spec/addedNodeSelector") {
        for (label, value) in added {
            pod["spec"]["nodeSelector"][label] = value.clone();
        }
    }
    pod
}

fn job_of(ctx: &Ctx, pod: &Value) -> Option<Arc<Value>> {
    let name = meta::annotation(pod, "kubevirt.io/migrationJobName")?;
    ctx.store
        .get(VMIM, meta::namespace(pod), name)
        .filter(|job| meta::label(pod, JOB_UID) == Some(meta::uid(job)))
}

/// The target pod runs: the copying begins.
pub(super) fn target_ready(ctx: &Ctx, pod: &Value, place: &Place, attached: Vec<Attached>) {
    let Some(job) = job_of(ctx, pod).filter(|job| !is_final(job)) else {
        return;
    };
    let (namespace, name) = key(&job);
    let Some(vmi) = ctx
        .store
        .get(VMI, &namespace, meta::text(&job, "/spec/vmiName"))
    else {
        return;
    };
    let Some(domain) = ctx.domain(meta::uid(&vmi)) else {
        return;
    };
    let from = domain.place();
    let state = json!({
        "migrationUid": meta::uid(&job),
        "sourceNode": from.node,
        "sourcePod": from.pod,
        "targetNode": place.node,
        "targetPod": place.pod,
        "targetNodeAddress": place.ip.to_string(),
        "targetPodUID": place.pod_uid,
        "targetNodeDomainDetected": true,
        "startTimestamp": meta::now(),
        "mode": "PreCopy",
    });
    for phase in ["Scheduled", "PreparingTarget", "TargetReady", "Running"] {
        settle("a migration's phase", step(ctx, &job, phase));
    }
    let written = vmi::modify(ctx, &vmi, |vmi| {
        vmi["status"]["migrationState"] = state.clone();
    });
    settle("a migration's state", written);
    let job = (namespace, name);
    let guest = domain.guest();
    match guest.as_ref().and_then(|guest| guest.real()) {
        None => mismove::end_later(ctx, &domain, Work::Migrated(job)),
        Some(machine) => {
            let (machine, node) = (Arc::clone(machine), place.node.clone());
            real::migrate(ctx, job, &domain, machine, node, attached);
        }
    }
}

/// The copying is over: the guest goes on at the target.
pub(super) fn finish(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let Some(job) = ctx
        .store
        .get(VMIM, namespace, name)
        .filter(|job| !is_final(job))
    else {
        return Ok(());
    };
    let vmi_name = meta::text(&job, "/spec/vmiName");
    let Some(vmi) = ctx
        .store
        .get(VMI, namespace, vmi_name)
        .filter(|vmi| !is_final(vmi))
    else {
        return fail(ctx, &job, "Target pod is down");
    };
    let Some(domain) = ctx.domain(meta::uid(&vmi)).filter(|domain| !domain.ended()) else {
        return fail(ctx, &job, "Target pod is down");
    };
    let text =
        |field: &str| meta::text(&vmi, &format!("/status/migrationState/{field}")).to_owned();
    let Ok(ip) = text("targetNodeAddress").parse() else {
        return fail(ctx, &job, "Target pod is down");
    };
    let from = domain.place();
    domain.moved(Place {
        node: text("targetNode"),
        pod: text("targetPod"),
        pod_uid: text("targetPodUID"),
        ip,
    });
    if let Some(guest) = domain.guest() {
        guest.moved();
    }
    let to = domain.place();
    vmi::modify(ctx, &vmi, |vmi| {
        let status = &mut vmi["status"];
        status["migrationState"]["endTimestamp"] = json!(meta::now());
        status["migrationState"]["completed"] = json!(true);
        status["nodeName"] = json!(to.node);
        status["activePods"] = json!({to.pod_uid.clone(): to.node});
        if let Some(first) = status.pointer_mut("/interfaces/0") {
            first["ipAddress"] = json!(to.ip.to_string());
            first["ipAddresses"] = json!([to.ip.to_string()]);
        }
        if let Some(status) = status.as_object_mut() {
            status.shift_remove("evacuationNodeName");
        }
        vmi["metadata"]["labels"][NODE_LABEL] = json!(to.node);
    })?;
    step(ctx, &job, "Succeeded")?;
    if mismove::moved(ctx, &domain) {
        ctx.push(Work::PodStopped((namespace.clone(), from.pod)));
    }
    Ok(())
}

/// The copying failed: the guest goes on where it is.
pub(super) fn broke(ctx: &Ctx, (namespace, name): &Key, why: &str) -> Result<(), ApiError> {
    let Some(job) = ctx
        .store
        .get(VMIM, namespace, name)
        .filter(|job| !is_final(job))
    else {
        return Ok(());
    };
    let vmi_name = meta::text(&job, "/spec/vmiName");
    if let Some(vmi) = ctx.store.get(VMI, namespace, vmi_name) {
        vmi::modify(ctx, &vmi, |vmi| {
            let state = &mut vmi["status"]["migrationState"];
            state["endTimestamp"] = json!(meta::now());
            state["completed"] = json!(true);
            state["failed"] = json!(true);
            state["failureReason"] = json!(why);
        })?;
    }
    fail(ctx, &job, why)
}

/// A target pod went while the guest was on its way to it.
pub(super) fn target_gone(ctx: &Ctx, pod: &Value) {
    if job_of(ctx, pod).is_none_or(|job| is_final(&job)) {
        return;
    }
    let uid = meta::label(pod, super::keys::CREATED_BY).unwrap_or_default();
    let guest = ctx.domain(uid).and_then(|domain| domain.guest());
    if let Some(machine) = guest.as_ref().and_then(|guest| guest.real()) {
        machine.lose_target();
    }
}

fn target_pods(ctx: &Ctx, job: &Value) -> Vec<Arc<Value>> {
    ctx.store
        .list(POD, Some(meta::namespace(job)))
        .into_iter()
        .filter(|pod| meta::label(pod, JOB_UID) == Some(meta::uid(job)))
        .collect()
}

fn fail(ctx: &Ctx, job: &Value, why: &str) -> Result<(), ApiError> {
    ctx.event(job, "Warning", "FailedMigration", why, COMPONENT);
    drop_target(ctx, job);
    step(ctx, job, "Failed")
}

fn drop_target(ctx: &Ctx, job: &Value) {
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    for pod in target_pods(ctx, job) {
        let (namespace, name) = key(&pod);
        settle(
            "dropping a target pod",
            ctx.store.delete(POD, &namespace, &name, &now),
        );
    }
}

/// Deleting the job cancels the migration. A cancelled one is completed *and* failed.
fn cancel(ctx: &Ctx, job: &Value, vmi: Option<&Value>) -> Result<(), ApiError> {
    let (namespace, name) = key(job);
    let guest = vmi
        .and_then(|vmi| ctx.domain(meta::uid(vmi)))
        .and_then(|domain| domain.guest());
    if let Some(machine) = guest.as_ref().and_then(|guest| guest.real()) {
        machine.abort_migration();
    }
    drop_target(ctx, job);
    ctx.store
        .modify(VMIM, &namespace, &name, Part::Status, |job| {
            condition::set(
                job,
                &Condition {
                    kind: "migrationAbortRequested",
                    status: true,
                    reason: "",
                    message: "",
                    times: Times::Transition,
                },
            );
            advance(job, "Failed");
        })?;
    let why = "Migration failed due to being canceled";
    ctx.event(job, "Warning", "FailedMigration", why, COMPONENT);
    if let Some(vmi) = vmi {
        vmi::modify(ctx, vmi, |vmi| {
            let started = vmi
                .pointer("/status/migrationState/startTimestamp")
                .is_some();
            let ended = vmi.pointer("/status/migrationState/endTimestamp").is_some();
            if started && !ended {
                let state = &mut vmi["status"]["migrationState"];
                state["endTimestamp"] = json!(meta::now());
                state["completed"] = json!(true);
                state["failed"] = json!(true);
                state["abortStatus"] = json!("Succeeded");
                state["failureReason"] = json!("Live migration has been aborted");
            }
        })?;
    }
    Ok(())
}

fn let_go(ctx: &Ctx, job: &Value) {
    if !meta::finalizers(job).contains(&MIGRATION_FINALIZER) {
        return;
    }
    let (namespace, name) = key(job);
    let gone = ctx
        .store
        .modify(VMIM, &namespace, &name, Part::Object, |job| {
            meta::remove_finalizer(job, MIGRATION_FINALIZER);
        });
    settle("letting a migration go", gone);
}

/// A VMI that is marked for evacuation gets a migration of its own.
pub(super) fn evacuate(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let node = meta::text(vmi, "/status/evacuationNodeName");
    if node.is_empty() || node != meta::text(vmi, "/status/nodeName") {
        return Ok(());
    }
    vmi::modify(ctx, vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: "EvictionRequested",
                status: true,
                reason: "EvictionRequested",
                message: "VMI is marked for eviction",
                times: Times::Both,
            },
        );
    })?;
    let (namespace, name) = key(vmi);
    if super::webhooks::refusal(&ctx.store, &namespace, &name).is_some() {
        return Ok(());
    }
    let job = ctx.store.create(
        VMIM,
        json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {
                "generateName": "kubevirt-evacuation-",
                "namespace": namespace,
                "labels": {"kubevirt.io/vmi-name": name},
                "annotations": {"kubevirt.io/evacuationMigration": node},
                "finalizers": [MIGRATION_FINALIZER],
            },
            "spec": {"vmiName": name},
        }),
    )?;
    let text = format!("Created Migration {}", meta::name(&job));
    ctx.event(
        vmi,
        "Normal",
        "SuccessfulCreate",
        &text,
        "evacuation-controller",
    );
    Ok(())
}
