//! Live migration between nodes of a site: a target launcher pod, the phases of the job, the move of
//! the domain. The guest keeps running; its address changes, so open streams break.

mod evacuation;
mod failure;
mod policy;
mod quota;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::domain::{Attached, Domain, Place};
use super::instance::advance;
use super::keys::{MIGRATION_FINALIZER, NODE_LABEL, OBSERVED, POD, VMI, VMIM, is_final, phase};
use super::machine::observed;
use super::mismove;
use super::site::{Ctx, Key, Work, key, settle};
use super::vmi;
use super::{launcher, real, storage_move};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::faults::Fault;
pub(super) use evacuation::evacuate;
pub(super) use failure::{Broken, broke, target_gone};
pub(super) use policy::Terms;
pub(super) use quota::target_overdue;

/// Annotation of a target pod: the node that it must not land on.
pub(super) const AVOID: &str = "lab.virtproof.dev/avoid-node";
const COMPONENT: &str = "virtualmachine-controller";
const JOB_UID: &str = "kubevirt.io/migrationJobUID";
/// How many jobs of a VMI that are over are kept.
const KEPT: usize = 5;

/// Whether a job counts as running: it has a target pod and is not over.
fn is_running(job: &Value) -> bool {
    !is_final(job) && !matches!(phase(job), "" | "Pending")
}

/// Whether the VMI's migration state speaks of this job: its target has been handed over.
fn handed_off(job: &Value, vmi: &Value) -> bool {
    meta::text(vmi, "/status/migrationState/migrationUid") == meta::uid(job)
}

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
        let_go(ctx, &job, vmi.as_deref());
        return Ok(());
    }
    let Some(vmi) = vmi.filter(|vmi| !is_final(vmi) && !meta::deleting(vmi)) else {
        let why = "Migration failed vmi shutdown during migration.";
        return fail(ctx, &job, why);
    };
    if meta::deleting(&job) {
        return failure::cancel(ctx, &job, &vmi);
    }
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
            let left = ctx.board.armed(Fault::OneOfManyLeft)
                && ctx.is_struck(Fault::OneOfManyLeft, meta::uid(&vmi));
            if left || !quota::has_room(ctx, &job, &vmi) {
                return Ok(());
            }
            let pod = ctx.store.create(POD, target(ctx, &job, &vmi))?;
            let text = format!("Created migration target pod {}", meta::name(&pod));
            ctx.event(&job, "Normal", "SuccessfulCreate", &text, COMPONENT);
            quota::watch_target(ctx, &pod);
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
    let terms = policy::terms(ctx, &vmi);
    let mut state = json!({
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
    terms.tell(&mut state);
    for phase in ["Scheduled", "PreparingTarget", "TargetReady", "Running"] {
        settle("a migration's phase", step(ctx, &job, phase));
    }
    let written = vmi::modify(ctx, &vmi, |vmi| {
        vmi["status"]["migrationState"] = state.clone();
    });
    settle("a migration's state", written);
    let job = (namespace, name);
    let guest = domain.guest();
    let machine = guest.as_ref().and_then(|guest| guest.real());
    let time = copying(ctx, &terms);
    let mut disks = time.unwrap_or_else(|| Duration::from_secs(terms.limit()));
    if machine.is_some() {
        disks = disks.max(real::DISKS);
    }
    let node = &place.node;
    let begun = storage_move::begin(ctx, &vmi, &domain, node, attached.clone(), disks);
    let copies = match begun {
        Ok(copies) => copies,
        Err(why) => return ctx.push(Work::MigrationFailed(job, Broken::Lost(why))),
    };
    if let Some(machine) = machine {
        let (here, names) = ((&ctx.array, ctx.site), storage_move::copied(&vmi));
        match real::opened(here, &domain, &names, node, attached) {
            Ok(opened) => {
                let trip = real::Trip {
                    job,
                    node: node.clone(),
                    opened,
                    copies,
                    terms,
                };
                real::migrate(ctx, &domain, Arc::clone(machine), trip);
            }
            Err(why) => ctx.push(Work::MigrationFailed(job, Broken::Lost(why))),
        }
    } else if let Some(time) = time {
        mismove::end_later(ctx, &domain, time, Work::Migrated(job));
    } else {
        let limit = terms.limit();
        let overdue = Work::MigrationFailed(job, Broken::Overdue(limit));
        ctx.after(Duration::from_secs(limit), overdue);
    }
}

/// How long the copying takes, if it ends before virt-launcher gives up.
fn copying(ctx: &Ctx, terms: &Terms) -> Option<Duration> {
    let time = terms.copying(ctx.timing.migration)?;
    (time <= Duration::from_secs(terms.limit())).then_some(time)
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
    if ctx.board.armed(Fault::FailureHidden) {
        // The guest stays, and what failed is called a success.
        drop_target(ctx, &job);
    } else {
        if let Err(broken) = storage_move::pivot(ctx, &domain) {
            return broke(ctx, &(namespace.clone(), name.clone()), &broken);
        }
        let Some(from) = land(ctx, &vmi, &domain)? else {
            return fail(ctx, &job, "Target pod is down");
        };
        if mismove::moved(ctx, &domain) {
            ctx.push(Work::PodStopped((namespace.clone(), from.pod)));
        }
    }
    vmi::modify(ctx, &vmi, |vmi| {
        let state = &mut vmi["status"]["migrationState"];
        state["endTimestamp"] = json!(meta::now());
        state["completed"] = json!(true);
    })?;
    storage_move::moved(ctx, &vmi)?;
    step(ctx, &job, "Succeeded")
}

/// The guest goes on where its target pod is; from where it came, unless there is no such pod.
fn land(ctx: &Ctx, vmi: &Value, domain: &Arc<Domain>) -> Result<Option<Place>, ApiError> {
    let text = |field: &str| meta::text(vmi, &format!("/status/migrationState/{field}")).to_owned();
    let Ok(ip) = text("targetNodeAddress").parse() else {
        return Ok(None);
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
    vmi::modify(ctx, vmi, |vmi| {
        let status = &mut vmi["status"];
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
    Ok(Some(from))
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
    let vmi = meta::text(job, "/spec/vmiName");
    let vmi = ctx.store.get(VMI, meta::namespace(job), vmi);
    let vmi = vmi.filter(|vmi| handed_off(job, vmi));
    if let Some(domain) = vmi.and_then(|vmi| ctx.domain(meta::uid(&vmi))) {
        storage_move::abandon(ctx, &domain);
    }
    for pod in target_pods(ctx, job) {
        delete_now(ctx, &pod);
    }
}

fn delete_now(ctx: &Ctx, pod: &Value) {
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let (namespace, name) = key(pod);
    settle(
        "dropping a target pod",
        ctx.store.delete(POD, &namespace, &name, &now),
    );
}

/// A job that is over gets the VMI's account of it and may go; of those that a VMI has, the oldest
/// beyond five do.
fn let_go(ctx: &Ctx, job: &Value, vmi: Option<&Value>) {
    if !meta::finalizers(job).contains(&MIGRATION_FINALIZER) {
        return;
    }
    let (namespace, name) = key(job);
    if let Some(vmi) = vmi.filter(|vmi| handed_off(job, vmi)) {
        let state = vmi["status"]["migrationState"].clone();
        let told = ctx
            .store
            .modify(VMIM, &namespace, &name, Part::Status, |job| {
                job["status"]["migrationState"] = state.clone();
            });
        settle("an account of a migration", told);
    }
    let gone = ctx
        .store
        .modify(VMIM, &namespace, &name, Part::Object, |job| {
            meta::remove_finalizer(job, MIGRATION_FINALIZER);
        });
    settle("letting a migration go", gone);
    // One that moved disks may have to be tried again.
    let vmi_name = meta::text(job, "/spec/vmiName").to_owned();
    ctx.push(Work::Vmi((namespace.clone(), vmi_name)));
    let all = ctx.store.list(VMIM, Some(&namespace));
    let of_vmi = meta::text(job, "/spec/vmiName");
    let mut over: Vec<_> = all
        .iter()
        .filter(|other| is_final(other) && meta::text(other, "/spec/vmiName") == of_vmi)
        .collect();
    over.sort_by_key(|job| {
        let version = meta::text(job, "/metadata/resourceVersion");
        version.parse::<u64>().unwrap_or(0)
    });
    let spare = over.len().saturating_sub(KEPT);
    for old in &over[..spare] {
        let gone = ctx
            .store
            .delete(VMIM, &namespace, meta::name(old), &DeleteOptions::default());
        settle("collecting a migration", gone);
    }
}
