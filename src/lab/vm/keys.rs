//! Names that the KubeVirt controllers share: resources, labels, annotations, finalizers, and small
//! questions about objects.

use serde_json::Value;

use crate::lab::api::meta;

/// VirtualMachines.
pub(super) const VM: &str = "virtualmachines.kubevirt.io";
/// VirtualMachineInstances.
pub(super) const VMI: &str = "virtualmachineinstances.kubevirt.io";
/// VirtualMachineInstanceMigrations.
pub(super) const VMIM: &str = "virtualmachineinstancemigrations.kubevirt.io";
/// DataVolumes.
pub(super) const DV: &str = "datavolumes.cdi.kubevirt.io";
/// Pods.
pub(super) const POD: &str = "pods";
/// PersistentVolumeClaims.
pub(super) const PVC: &str = "persistentvolumeclaims";
/// PersistentVolumes.
pub(super) const PV: &str = "persistentvolumes";
/// ControllerRevisions, which keep the template that a VMI was made from.
pub(super) const REVISION: &str = "controllerrevisions.apps";

/// Finalizer that virt-controller and virt-handler hold while the guest may run.
pub(super) const FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// Finalizer of a VMI until virt-handler has let go of it.
pub(super) const FOREGROUND: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// Finalizer of a migration job.
pub(super) const MIGRATION_FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// Label of a VMI: the node that runs it.
pub(super) const NODE_LABEL: &str = "kubevirt.io/nodeName";
/// Label of launcher pods and template DataVolumes: the UID of their owner.
pub(super) const CREATED_BY: &str = "kubevirt.io/created-by";
/// Readiness gate of launcher pods.
pub(super) const UNPAUSED: &str = "kubevirt.io/virtual-machine-unpaused";
/// Annotations that virt-api leaves on every object that it stores.
pub(super) const OBSERVED: [&str; 2] = [
    "kubevirt.io/latest-observed-api-version",
    "kubevirt.io/storage-observed-api-version",
];
/// The KubeVirt version that the lab plays.
pub(super) const VERSION: &str = "v1.9.0";

/// `status.phase`, empty when there is none.
pub(super) fn phase(object: &Value) -> &str {
    meta::text(object, "/status/phase")
}

/// Whether a VMI has reached an end.
pub(super) fn is_final(vmi: &Value) -> bool {
    matches!(phase(vmi), "Succeeded" | "Failed")
}

/// Whether `object` is controlled by the owner with this UID.
pub(super) fn owned_by(object: &Value, uid: &str) -> bool {
    meta::controller(object).is_some_and(|owner| owner["uid"] == uid)
}

/// The run strategy that a VM's spec asks for; the deprecated `running` counts as Always or Halted.
pub(super) fn run_strategy(vm: &Value) -> &str {
    match vm.pointer("/spec/running") {
        Some(Value::Bool(true)) => "Always",
        Some(Value::Bool(false)) => "Halted",
        _ => match meta::text(vm, "/spec/runStrategy") {
            "" => "Halted",
            strategy => strategy,
        },
    }
}

/// The entries of an array at a JSON pointer.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The claim behind a volume of a VMI spec: that of a PVC, or the one that a DataVolume makes under
/// its own name.
pub(super) fn claim_of(volume: &Value) -> Option<&str> {
    let direct = volume.pointer("/persistentVolumeClaim/claimName");
    direct
        .or_else(|| volume.pointer("/dataVolume/name"))
        .and_then(Value::as_str)
}
