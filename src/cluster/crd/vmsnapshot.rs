//! Snapshots, restores and clones of whole VMs: `snapshot.kubevirt.io/v1beta1` and
//! `clone.kubevirt.io/v1beta1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

use super::meta::{Condition, Truth};
use super::resource;

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

/// How a VM snapshot fares. It is taken once it has a creation time, and can be restored later.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSnapshotStatus {
    /// `InProgress`, `Succeeded`, `Failed`, `Deleting`, `Unknown`.
    pub phase: String,
    /// Whether it can be restored.
    pub ready_to_use: Option<bool>,
    /// When the controller saw that all of it had been taken, by the cluster's clock.
    pub creation_time: Option<Time>,
    /// Its content.
    pub virtual_machine_snapshot_content_name: Option<String>,
    /// `Online`, `GuestAgent`, `NoGuestAgent`, `QuiesceTimeout`, `Paused`, …
    pub indications: Vec<String>,
    /// The last error.
    pub error: Option<Value>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl VirtualMachineSnapshot {
    /// How it fares, in words.
    pub fn describe(&self) -> String {
        said(&self.status.phase, &self.status.conditions, self.error())
    }

    /// The last error, if there is one.
    pub fn error(&self) -> Option<&str> {
        self.status.error.as_ref()?["message"].as_str()
    }

    /// Why it will never be taken, if that is so.
    pub fn failure(&self) -> Option<String> {
        (self.status.phase == "Failed").then(|| self.describe())
    }
}

resource! {
    /// What a snapshot of a VM holds; made by a controller.
    VirtualMachineSnapshotContent {
        "snapshot.kubevirt.io" / "v1beta1", "virtualmachinesnapshotcontents", namespaced
    } {
        /// What is wanted.
        spec: VirtualMachineSnapshotContentSpec,
        /// What is.
        status: VirtualMachineSnapshotContentStatus,
    }
}

/// What a content holds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSnapshotContentSpec {
    /// The volumes.
    pub volume_backups: Vec<VolumeBackup>,
}

/// One volume of a content.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeBackup {
    /// The VM's volume.
    pub volume_name: String,
    /// The claim as it was.
    pub persistent_volume_claim: Value,
    /// Its VolumeSnapshot.
    pub volume_snapshot_name: Option<String>,
}

/// How a content fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSnapshotContentStatus {
    /// The VolumeSnapshots.
    pub volume_snapshot_status: Vec<VolumeSnapshotState>,
}

/// One VolumeSnapshot of a content.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotState {
    /// Its name.
    pub volume_snapshot_name: String,
    /// When the storage took it.
    pub creation_time: Option<Time>,
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
    /// What became of the volumes.
    pub restores: Vec<VolumeRestore>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// One restored volume.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRestore {
    /// The VM's volume.
    pub volume_name: String,
    /// The claim that it has now.
    pub persistent_volume_claim: String,
}

impl VirtualMachineRestore {
    /// How it fares, in words.
    pub fn describe(&self) -> String {
        let phase = match self.status.complete {
            Some(true) => "complete",
            _ => "not complete",
        };
        said(phase, &self.status.conditions, None)
    }

    /// Why it will never be complete, if that is so.
    pub fn failure(&self) -> Option<String> {
        let failed = (self.status.conditions.iter())
            .find(|c| c.type_ == "Failure" && c.status == Truth::True);
        failed.map(|_| self.describe())
    }
}

resource! {
    /// A clone of a whole VM.
    VirtualMachineClone {
        "clone.kubevirt.io" / "v1beta1", "virtualmachineclones", namespaced
    } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: VirtualMachineCloneStatus,
    }
}

/// How a clone fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineCloneStatus {
    /// `SnapshotInProgress`, `RestoreInProgress`, `CreatingTargetVM`, `Succeeded`, `Failed`.
    pub phase: String,
    /// The VM that was made.
    pub target_name: Option<String>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl VirtualMachineClone {
    /// How it fares, in words.
    pub fn describe(&self) -> String {
        said(&self.status.phase, &self.status.conditions, None)
    }

    /// Whether its source has been snapshotted, so that nothing later can be in it.
    pub fn is_cut(&self) -> bool {
        matches!(
            self.status.phase.as_str(),
            "RestoreInProgress" | "CreatingTargetVM" | "Succeeded"
        )
    }
}

fn said(phase: &str, conditions: &[Condition], error: Option<&str>) -> String {
    let mut text = match phase {
        "" => "nothing yet".to_owned(),
        phase => phase.to_owned(),
    };
    for condition in conditions {
        let (kind, status) = (&condition.type_, &condition.status);
        text = format!("{text}, {kind}={status:?} ({})", condition.reason);
    }
    if let Some(error) = error {
        text = format!("{text}; its last error: {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_failed_says_so_and_what_goes_on_does_not() {
        let snapshot = |status: Value| -> VirtualMachineSnapshot {
            let object = json!({"metadata": {"name": "s"}, "status": status});
            serde_json::from_value(object).expect("a snapshot")
        };
        let stuck = snapshot(json!({
            "phase": "InProgress", "error": {"message": "agent is not connected"},
            "conditions": [{"type": "Progressing", "status": "False", "reason": "In error state"}],
        }));
        assert_eq!(stuck.failure(), None);
        assert_eq!(
            stuck.describe(),
            "InProgress, Progressing=False (In error state); its last error: agent is not connected"
        );
        assert!(snapshot(json!({"phase": "Failed"})).failure().is_some());
        let restore: VirtualMachineRestore = serde_json::from_value(json!({
            "metadata": {"name": "r"},
            "status": {"complete": false, "conditions": [
                {"type": "Failure", "status": "True", "reason": "Restore target not ready"},
            ]},
        }))
        .expect("a restore");
        let why = restore.failure().expect("a failure");
        assert!(why.contains("Restore target not ready"), "{why}");
    }
}
