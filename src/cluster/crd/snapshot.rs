//! Snapshots of claims: `snapshot.storage.k8s.io/v1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

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

impl VolumeSnapshot {
    /// How it fares, in words.
    pub fn describe(&self) -> String {
        let status = &self.status;
        let mut text = match &status.bound_volume_snapshot_content_name {
            Some(content) => format!("bound to {content}"),
            None => "not bound to any content".into(),
        };
        if let Some(at) = &status.creation_time {
            text = format!("{text}, taken at {}", at.0);
        }
        text.push_str(match status.ready_to_use {
            Some(true) => ", ready",
            Some(false) => ", readyToUse is false",
            None => ", readyToUse is unset",
        });
        let error = status.error.as_ref().and_then(|e| e["message"].as_str());
        if let Some(error) = error {
            text = format!("{text}; its last error: {error}");
        }
        text
    }
}

resource! {
    /// A snapshot as the storage has it; made by a controller for each VolumeSnapshot.
    VolumeSnapshotContent {
        "snapshot.storage.k8s.io" / "v1", "volumesnapshotcontents", cluster
    } {
        /// What is wanted.
        spec: Value,
    }
}

resource! {
    /// How snapshots are made.
    VolumeSnapshotClass { "snapshot.storage.k8s.io" / "v1", "volumesnapshotclasses", cluster } {
        /// The CSI driver.
        driver: String,
        /// `Delete` or `Retain`: whether the storage's snapshot goes with the VolumeSnapshot.
        deletion_policy: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_says_how_it_fares() {
        let read = |status: Value| -> String {
            let object = serde_json::json!({"metadata": {"name": "s"}, "status": status});
            let snapshot: VolumeSnapshot = serde_json::from_value(object).expect("a snapshot");
            snapshot.describe()
        };
        assert_eq!(
            read(serde_json::json!({})),
            "not bound to any content, readyToUse is unset"
        );
        let stuck = read(serde_json::json!({
            "boundVolumeSnapshotContentName": "c", "creationTime": "2026-01-02T03:04:05Z",
            "readyToUse": false, "error": {"message": "busy"},
        }));
        assert_eq!(
            stuck,
            "bound to c, taken at 2026-01-02T03:04:05Z, readyToUse is false; its last error: busy"
        );
    }
}
