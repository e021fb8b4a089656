//! Snapshots: `snapshot.storage.k8s.io/v1` and `snapshot.kubevirt.io/v1beta1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

use super::meta::Condition;
use super::resource;

resource! {
    /// A snapshot of one PVC.
    VolumeSnapshot { "snapshot.storage.k8s.io" / "v1", "volumesnapshots", namespaced } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: VolumeSnapshotStatus,
    }
}

/// How the snapshot fares. `creationTime` is the storage's clock and the point in time of the data;
/// `readyToUse` may follow much later.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// The content object.
    pub bound_volume_snapshot_content_name: Option<String>,
    /// When the storage took it.
    pub creation_time: Option<Time>,
    /// Whether it can be restored.
    pub ready_to_use: Option<bool>,
    /// The last error; cleared on success.
    pub error: Option<Value>,
}

resource! {
    /// How snapshots are made.
    VolumeSnapshotClass { "snapshot.storage.k8s.io" / "v1", "volumesnapshotclasses", cluster } {
        /// The CSI driver.
        driver: String,
    }
}

resource! {
    /// A snapshot of a whole VM.
    VirtualMachineSnapshot {
        "snapshot.kubevirt.io" / "v1beta1", "virtualmachinesnapshots", namespaced
    } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: VirtualMachineSnapshotStatus,
    }
}

/// How a VM snapshot fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSnapshotStatus {
    /// `InProgress`, `Succeeded`, `Failed`, `Deleting`, `Unknown`.
    pub phase: String,
    /// Whether it can be restored.
    pub ready_to_use: Option<bool>,
    /// `Online`, `GuestAgent`, `NoGuestAgent`, `QuiesceTimeout`, `Paused`, …
    pub indications: Vec<String>,
    /// The last error.
    pub error: Option<Value>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

resource! {
    /// A restore of a whole VM.
    VirtualMachineRestore {
        "snapshot.kubevirt.io" / "v1beta1", "virtualmachinerestores", namespaced
    } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: VirtualMachineRestoreStatus,
    }
}

/// How a restore fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineRestoreStatus {
    /// Whether it is done.
    pub complete: Option<bool>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}
