//! The status of a VirtualMachine: conditions, generations, requests and the printable word, as they
//! follow from the VM, its VMI and the revision that the VMI was started from.

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::keys::{PVC, REVISION, VM, claim_of, is_final, items, phase, run_strategy};
use super::machine::{named_data_volumes, own_instance};
use super::site::{Ctx, settle};
use super::{printable, storage_move};
use crate::lab::api::{Part, meta};

/// Writes what the controller sees into the VM's status. With `start_expected` the VMI was just made
/// and is not seen yet.
pub(super) fn write(ctx: &Ctx, vm: &Value, start_expected: bool) {
    let (namespace, name) = (meta::namespace(vm), meta::name(vm));
    let vmi = if start_expected {
        None
    } else {
        own_instance(ctx, vm)
    };
    let data_volumes = named_data_volumes(ctx, vm);
    let unbound = items(vm, "/spec/template/spec/volumes")
        .iter()
        .filter_map(claim_of)
        .filter_map(|claim| ctx.store.get(PVC, namespace, claim))
        .any(|claim| phase(&claim) == "Pending");
    let revision = vmi.as_ref().and_then(|vmi| {
        let name = meta::text(vmi, "/status/virtualMachineRevisionName");
        ctx.store.get(REVISION, namespace, name)
    });
    let refused = vmi.as_ref();
    let refused = refused.and_then(|vmi| storage_move::refusal(ctx, vm, vmi));
    let written = ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
        let word = printable::status(&printable::Inputs {
            vm,
            vmi: vmi.as_deref(),
            start_expected,
            data_volumes: &data_volumes,
            unbound,
        });
        fill(
            vm,
            vmi.as_deref(),
            (revision.as_deref(), refused.as_deref()),
        );
        vm["status"]["printableStatus"] = json!(word);
    });
    settle("a VM's status", written);
}

/// Everything in a VM's status but the printable word.
fn fill(vm: &mut Value, vmi: Option<&Value>, (revision, refused): (Option<&Value>, Option<&str>)) {
    let strategy = run_strategy(vm).to_owned();
    let generation = meta::generation(vm);
    let status = &mut vm["status"];
    if vmi.is_some() || status.get("desiredGeneration").is_some() {
        status["runStrategy"] = json!(strategy);
        status["desiredGeneration"] = json!(generation);
    }
    let observed = vmi
        .and_then(|vmi| meta::annotation(vmi, "kubevirt.io/vm-generation"))
        .and_then(|text| text.parse::<i64>().ok());
    if let Some(observed) = observed {
        status["observedGeneration"] = json!(observed);
    }
    let ready = vmi.is_some_and(|vmi| condition::is_true(vmi, "Ready"));
    let running = vmi.is_some_and(|vmi| phase(vmi) == "Running");
    if let Some(status) = status.as_object_mut() {
        for (field, holds) in [("created", vmi.is_some()), ("ready", ready)] {
            if holds {
                status.insert(field.to_owned(), json!(true));
            } else {
                status.shift_remove(field);
            }
        }
        if running {
            status.shift_remove("startFailure");
        }
    }
    settle_requests(vm, vmi);
    conditions(vm, vmi);
    restart_required(vm, vmi, (revision, refused));
}

/// Requests that came true are taken off the list: a stop when its VMI is gone, a start when a VMI
/// lives that nobody asked to stop.
fn settle_requests(vm: &mut Value, vmi: Option<&Value>) {
    let Some(requests) = vm
        .pointer_mut("/status/stateChangeRequests")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    requests.retain(|request| {
        request["action"] != "Stop" || vmi.is_some_and(|vmi| request["uid"] == meta::uid(vmi))
    });
    let lives = vmi.is_some_and(|vmi| !meta::deleting(vmi) && !is_final(vmi));
    if lives && requests.iter().all(|request| request["action"] == "Start") {
        requests.clear();
    }
    if requests.is_empty()
        && let Some(status) = vm["status"].as_object_mut()
    {
        status.shift_remove("stateChangeRequests");
    }
}

fn conditions(vm: &mut Value, vmi: Option<&Value>) {
    let absent = |reason, message| Condition {
        kind: "Ready",
        status: false,
        reason,
        message,
        times: Times::Both,
    };
    let Some(vmi) = vmi else {
        condition::set(vm, &absent("VMINotExists", "VMI does not exist"));
        return;
    };
    match condition::get(vmi, "Ready") {
        Some(ready) => condition::put(vm, ready.clone()),
        None => condition::set(
            vm,
            &absent("VMIConditionMissing", "VMI is missing the Ready condition"),
        ),
    }
    let theirs = items(vmi, "/status/conditions");
    for theirs in theirs.iter().filter(|theirs| theirs["type"] != "Ready") {
        condition::put(vm, theirs.clone());
    }
    let ours = [
        "Ready",
        "Failure",
        "RestartRequired",
        "ManualRecoveryRequired",
    ];
    if let Some(all) = vm["status"]["conditions"].as_array_mut() {
        all.retain(|condition| {
            ours.iter().any(|kind| condition["type"] == *kind)
                || theirs
                    .iter()
                    .any(|theirs| theirs["type"] == condition["type"])
        });
    }
}

/// RestartRequired compares the template with the one that the VMI was started from. That a start
/// with `cpu` but no socket count "reduces" the sockets to none is how the real server computes it.
fn restart_required(
    vm: &mut Value,
    vmi: Option<&Value>,
    (revision, refused): (Option<&Value>, Option<&str>),
) {
    let template = &vm["spec"]["template"]["spec"];
    let sockets = |spec: &Value| {
        let count = spec.pointer("/domain/cpu/sockets");
        count.and_then(Value::as_u64).unwrap_or(0)
    };
    let changed = vmi.is_some()
        && revision.is_some_and(|revision| {
            fixed(template) != fixed(&revision["data"]["spec"]["template"]["spec"])
        });
    let fewer = vmi.is_some_and(|vmi| {
        !meta::deleting(vmi)
            && !is_final(vmi)
            && template["domain"]["cpu"].is_object()
            && sockets(template) < sockets(&vmi["spec"])
    });
    let message = if let Some(refused) = refused {
        refused
    } else if changed {
        "a non-live-updatable field was changed in the template spec"
    } else if fewer {
        "Reduction of CPU socket count requires a restart"
    } else {
        condition::remove(vm, "RestartRequired");
        return;
    };
    condition::set(
        vm,
        &Condition {
            kind: "RestartRequired",
            status: true,
            reason: "",
            message,
            times: Times::Transition,
        },
    );
    condition::to_end(vm, "RestartRequired");
}

/// A template without the fields that can change under a running guest.
fn fixed(template: &Value) -> Value {
    let mut spec = template.clone();
    super::hotplug::without(&mut spec);
    // What other claims take is said by their own strategy.
    let volumes = spec.pointer_mut("/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if claim_of(volume).is_some() {
            *volume = json!({"name": volume["name"]});
        }
    }
    for pointer in [
        "/domain/cpu/sockets",
        "/domain/memory/guest",
        "/nodeSelector",
        "/affinity",
        "/tolerations",
    ] {
        if let Some(field) = spec.pointer_mut(pointer) {
            *field = Value::Null;
        }
    }
    spec
}
