//! The VirtualMachineInstance that a VirtualMachine starts: defaults that virt-api fills in, and the
//! first status.

use serde_json::{Map, Value, json};

use super::keys::{FINALIZER, FOREGROUND};
use crate::lab::api::meta;

/// The VMI of a VM at its current generation.
pub(super) fn build(vm: &Value) -> Value {
    let template = |field: &str| {
        vm.pointer(&format!("/spec/template/metadata/{field}"))
            .cloned()
    };
    let map = |value: Option<Value>| match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut annotations = map(template("annotations"));
    annotations.insert(
        "kubevirt.io/vm-generation".to_owned(),
        json!(meta::generation(vm).to_string()),
    );
    let mut spec = vm
        .pointer("/spec/template/spec")
        .cloned()
        .unwrap_or_else(|| json!({}));
    default_spec(&mut spec);
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": meta::name(vm),
            "namespace": meta::namespace(vm),
            "labels": map(template("labels")),
            "annotations": annotations,
            "finalizers": [FINALIZER, FOREGROUND],
            "ownerReferences": [meta::owner_reference(vm)],
        },
        "status": first_status(&spec, &revision_name(vm)),
        "spec": spec,
    })
}

/// The ControllerRevision that keeps the template of a start.
pub(super) fn revision_name(vm: &Value) -> String {
    format!(
        "revision-start-vm-{}-{}",
        meta::uid(vm),
        meta::generation(vm)
    )
}

/// Fills in what virt-api fills in when a VMI is created.
pub(super) fn default_spec(spec: &mut Value) {
    let domain = &mut spec["domain"];
    let guest = domain.pointer("/memory/guest").cloned();
    let request = domain.pointer("/resources/requests/memory").cloned();
    let memory = guest
        .or_else(|| request.clone())
        .unwrap_or_else(|| json!("512Mi"));
    if !domain["resources"].is_object() {
        domain["resources"] = json!({});
    }
    if request.is_none() {
        domain["resources"]["requests"]["memory"] = memory.clone();
    }
    domain["memory"]["guest"] = memory;
    let cpu = &mut domain["cpu"];
    for (field, default) in [("cores", 1), ("sockets", 1), ("threads", 1)] {
        if cpu[field].as_u64().unwrap_or(0) == 0 {
            cpu[field] = json!(default);
        }
    }
    if cpu["maxSockets"].is_null() {
        cpu["maxSockets"] = json!(4 * cpu["sockets"].as_u64().unwrap_or(1));
    }
    if cpu["model"].is_null() {
        cpu["model"] = json!("host-model");
    }
    if domain.pointer("/features/acpi").is_none() {
        domain["features"]["acpi"]["enabled"] = json!(true);
    }
    if domain.pointer("/machine/type").is_none() {
        domain["machine"]["type"] = json!("q35");
    }
    for (field, default) in [
        ("evictionStrategy", json!("None")),
        ("architecture", json!("amd64")),
        ("terminationGracePeriodSeconds", json!(180)),
    ] {
        if spec[field].is_null() {
            spec[field] = default;
        }
    }
    if spec["networks"].is_null() {
        spec["networks"] = json!([{"name": "default", "pod": {}}]);
        if spec.pointer("/domain/devices/interfaces").is_none() {
            spec["domain"]["devices"]["interfaces"] = json!([{"name": "default", "bridge": {}}]);
        }
    }
}

/// The status that the creating webhook gives to a VMI.
pub(super) fn first_status(spec: &Value, revision: &str) -> Value {
    let cpu = &spec["domain"]["cpu"];
    let memory = &spec["domain"]["memory"]["guest"];
    let mut status = json!({
        "currentCPUTopology": {"cores": cpu["cores"], "sockets": cpu["sockets"], "threads": cpu["threads"]},
        "guestOSInfo": {},
        "memory": {"guestAtBoot": memory, "guestCurrent": memory, "guestRequested": memory},
        "phase": "Pending",
        "phaseTransitionTimestamps": [
            {"phase": "Pending", "phaseTransitionTimestamp": meta::now()},
        ],
        "runtimeUser": 107,
    });
    if !revision.is_empty() {
        status["virtualMachineRevisionName"] = json!(revision);
    }
    status
}

/// Moves a VMI or VMIM to a phase and notes when.
pub(super) fn advance(object: &mut Value, phase: &str) {
    let status = &mut object["status"];
    if status["phase"] == phase {
        return;
    }
    status["phase"] = json!(phase);
    let step = json!({"phase": phase, "phaseTransitionTimestamp": meta::now()});
    match status["phaseTransitionTimestamps"].as_array_mut() {
        Some(steps) => steps.push(step),
        None => status["phaseTransitionTimestamps"] = json!([step]),
    }
}

/// Whether a VMI has been in a phase.
pub(super) fn has_been(vmi: &Value, phase: &str) -> bool {
    super::keys::items(vmi, "/status/phaseTransitionTimestamps")
        .iter()
        .any(|step| step["phase"] == phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_a_recorded_vmi() {
        let vm = json!({
            "metadata": {"name": "vm1", "namespace": "default", "uid": "u", "generation": 2},
            "spec": {"template": {
                "metadata": {"labels": {"app": "vm1"}},
                "spec": {"domain": {
                    "cpu": {"model": "host-model"},
                    "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
                    "machine": {"type": "q35"},
                    "resources": {"requests": {"memory": "128Mi"}}},
                "networks": [{"name": "default", "pod": {}}],
                "architecture": "amd64",
                "terminationGracePeriodSeconds": 3}}},
        });
        let vmi = build(&vm);
        let cpu =
            json!({"model": "host-model", "cores": 1, "sockets": 1, "threads": 1, "maxSockets": 4});
        assert_eq!(vmi["spec"]["domain"]["cpu"], cpu);
        assert_eq!(vmi["spec"]["domain"]["memory"], json!({"guest": "128Mi"}));
        assert_eq!(vmi["spec"]["evictionStrategy"], "None");
        assert_eq!(
            vmi["metadata"]["annotations"],
            json!({"kubevirt.io/vm-generation": "2"})
        );
        assert_eq!(
            vmi["status"]["virtualMachineRevisionName"],
            "revision-start-vm-u-2"
        );
        assert_eq!(vmi["status"]["phase"], "Pending");
    }

    #[test]
    fn phases_are_noted_once() {
        let mut vmi = json!({"status": {"phase": "Pending"}});
        advance(&mut vmi, "Scheduling");
        advance(&mut vmi, "Scheduling");
        assert!(has_been(&vmi, "Scheduling") && !has_been(&vmi, "Running"));
        assert_eq!(
            vmi["status"]["phaseTransitionTimestamps"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
