//! `status.printableStatus` of a VirtualMachine: the first match in KubeVirt's order of evaluation.

use serde_json::Value;

use super::condition::{false_reason, is_true};
use super::keys::{is_final, items, phase, run_strategy};
use crate::lab::api::meta;

/// Everything that the answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// The VM.
    pub(super) vm: &'a Value,
    /// Its VMI, if there is one.
    pub(super) vmi: Option<&'a Value>,
    /// Whether a VMI was just asked for and is not seen yet.
    pub(super) start_expected: bool,
    /// The DataVolumes that the VM's volumes name, those that exist.
    pub(super) data_volumes: &'a [Value],
    /// Whether a claim that the VM's volumes name is not bound.
    pub(super) unbound: bool,
}

/// The word that `kubectl get vm` shows.
pub(super) fn status(inputs: &Inputs<'_>) -> &'static str {
    let vmi = inputs.vmi;
    let has = |test: &dyn Fn(&Value) -> bool| vmi.is_some_and(test);
    let dv_phase = |phases: &[&str]| {
        inputs
            .data_volumes
            .iter()
            .any(|dv| phases.contains(&phase(dv)))
    };
    let synchronized = |reason: &str| has(&|vmi| false_reason(vmi, "Synchronized") == Some(reason));
    let running = has(&|vmi| phase(vmi) == "Running");
    if meta::deleting(inputs.vm) {
        "Terminating"
    } else if has(&|vmi| meta::deleting(vmi) && !is_final(vmi)) {
        "Stopping"
    } else if has(&migrating) {
        "Migrating"
    } else if has(&|vmi| is_true(vmi, "Paused")) {
        "Paused"
    } else if running {
        "Running"
    } else if synchronized("FailedPvcNotFound") {
        "ErrorPvcNotFound"
    } else if inputs.data_volumes.iter().any(failed) {
        "DataVolumeError"
    } else if has(&|vmi| false_reason(vmi, "PodScheduled") == Some("Unschedulable")) {
        "ErrorUnschedulable"
    } else if inputs.data_volumes.iter().any(provisioning) {
        "Provisioning"
    } else if wanted(inputs)
        && (dv_phase(&["WaitForFirstConsumer", "PendingPopulation"]) || inputs.unbound)
    {
        "WaitingForVolumeBinding"
    } else if synchronized("ErrImagePull") {
        "ErrImagePull"
    } else if synchronized("ImagePullBackOff") {
        "ImagePullBackOff"
    } else if inputs.start_expected || has(&|vmi| !is_final(vmi)) {
        "Starting"
    } else if inputs
        .vm
        .pointer("/status/startFailure/consecutiveFailCount")
        .is_some()
    {
        "CrashLoopBackOff"
    } else if run_strategy(inputs.vm) == "WaitAsReceiver" {
        "WaitingForReceiver"
    } else {
        "Stopped"
    }
}

/// A VM whose claims wait counts as waiting only if it is told to run.
fn wanted(inputs: &Inputs<'_>) -> bool {
    inputs.vmi.is_some() || matches!(run_strategy(inputs.vm), "Always" | "Once")
}

fn migrating(vmi: &Value) -> bool {
    let state = |field: &str| vmi.pointer(&format!("/status/migrationState/{field}"));
    state("startTimestamp").is_some() && state("endTimestamp").is_none()
}

fn failed(dv: &Value) -> bool {
    phase(dv) == "Failed"
        || items(dv, "/status/conditions")
            .iter()
            .any(|c| c["type"] == "Running" && c["status"] == "False" && c["reason"] == "Error")
}

fn provisioning(dv: &Value) -> bool {
    !matches!(
        phase(dv),
        "Succeeded" | "WaitForFirstConsumer" | "PendingPopulation" | "Failed"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(vm: &Value, vmi: Option<&Value>, dvs: &[Value], unbound: bool) -> &'static str {
        status(&Inputs {
            vm,
            vmi,
            start_expected: false,
            data_volumes: dvs,
            unbound,
        })
    }

    fn vmi(phase: &str, condition: &Value) -> Value {
        json!({"metadata": {}, "status": {"phase": phase, "conditions": [condition]}})
    }

    #[test]
    fn the_first_match_wins() {
        let vm = json!({"metadata": {}, "spec": {"runStrategy": "Always"}});
        let dying = json!({"metadata": {"deletionTimestamp": "t"}, "spec": {}});
        let pvc = json!({"type": "Synchronized", "status": "False", "reason": "FailedPvcNotFound"});
        let unschedulable =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        let paused = json!({"type": "Paused", "status": "True"});
        let mut stopping = vmi("Running", &json!({}));
        stopping["metadata"]["deletionTimestamp"] = json!("t");
        let mut stopped = stopping.clone();
        stopped["status"]["phase"] = json!("Failed");
        let mut moving = vmi("Running", &paused);
        moving["status"]["migrationState"] = json!({"startTimestamp": "t"});
        for (want, vm, vmi) in [
            ("Terminating", &dying, Some(stopping.clone())),
            ("Stopping", &vm, Some(stopping)),
            ("Migrating", &vm, Some(moving)),
            ("Paused", &vm, Some(vmi("Running", &paused))),
            ("Running", &vm, Some(vmi("Running", &json!({})))),
            ("ErrorPvcNotFound", &vm, Some(vmi("Pending", &pvc))),
            (
                "ErrorUnschedulable",
                &vm,
                Some(vmi("Scheduling", &unschedulable)),
            ),
            ("Starting", &vm, Some(vmi("Scheduled", &json!({})))),
            ("Stopped", &vm, Some(stopped)),
            ("Stopped", &vm, None),
        ] {
            assert_eq!(of(vm, vmi.as_ref(), &[], false), want);
        }
    }

    #[test]
    fn data_volumes_and_claims() {
        let vm = json!({"metadata": {}, "spec": {"runStrategy": "Always"}});
        let halted = json!({"metadata": {}, "spec": {"runStrategy": "Halted"}});
        let dv = |phase: &str| json!({"status": {"phase": phase}});
        assert_eq!(
            of(&vm, None, &[dv("ImportInProgress")], false),
            "Provisioning"
        );
        assert_eq!(
            of(&vm, None, &[dv("Failed"), dv("Pending")], false),
            "DataVolumeError"
        );
        assert_eq!(
            of(&vm, None, &[dv("WaitForFirstConsumer")], false),
            "WaitingForVolumeBinding"
        );
        assert_eq!(
            of(&halted, None, &[dv("WaitForFirstConsumer")], true),
            "Stopped"
        );
        assert_eq!(of(&vm, None, &[dv("Succeeded")], false), "Stopped");
    }

    #[test]
    fn a_start_that_failed_before_is_a_crash_loop() {
        let vm = json!({"metadata": {}, "spec": {"runStrategy": "Always"},
            "status": {"startFailure": {"consecutiveFailCount": 2}}});
        assert_eq!(of(&vm, None, &[], false), "CrashLoopBackOff");
    }
}
