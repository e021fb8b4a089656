//! What virt-api's mutating webhooks fill in.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::lab::api::meta;
use crate::lab::vm::instance;
use crate::lab::vm::keys::{FINALIZER, FOREGROUND, MIGRATION_FINALIZER};

/// Fills in a new VM's template. The firmware UUID is new for every VM, so a VM that is created
/// again from the same manifest on another cluster is another machine to cloud-init's NoCloud.
pub(super) fn machine(vm: &mut Value, mut fresh: impl FnMut() -> Uuid) {
    let template = &mut vm["spec"]["template"];
    let topology = "kubevirt.io/pci-topology-version";
    if template
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(topology))
        .is_none()
    {
        template["metadata"]["annotations"][topology] = json!("v3");
    }
    let spec = &mut template["spec"];
    if spec["architecture"].is_null() {
        spec["architecture"] = json!("amd64");
    }
    let domain = &mut spec["domain"];
    for field in ["uuid", "serial"] {
        if domain["firmware"][field].is_null() {
            domain["firmware"][field] = json!(fresh().to_string());
        }
    }
    if domain["machine"]["type"].is_null() {
        domain["machine"]["type"] = json!("q35");
    }
    if domain["resources"].is_null() {
        domain["resources"] = json!({});
    }
}

/// Fills in a VMI that somebody creates directly.
pub(super) fn instance(vmi: &mut Value, mut fresh: impl FnMut() -> Uuid) {
    instance::default_spec(&mut vmi["spec"]);
    let firmware = &mut vmi["spec"]["domain"]["firmware"];
    for field in ["uuid", "serial"] {
        if firmware[field].is_null() {
            firmware[field] = json!(fresh().to_string());
        }
    }
    vmi["status"] = instance::first_status(&vmi["spec"], "");
    for finalizer in [FINALIZER, FOREGROUND] {
        meta::add_finalizer(vmi, finalizer);
    }
}

/// Marks a migration job with the VMI that it moves.
pub(super) fn migration(job: &mut Value) {
    let name = job["spec"]["vmiName"].clone();
    job["metadata"]["labels"]["kubevirt.io/vmi-name"] = name;
    meta::add_finalizer(job, MIGRATION_FINALIZER);
}
