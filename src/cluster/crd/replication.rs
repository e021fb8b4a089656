//! `replication.storage.openshift.io/v1alpha1`: VolumeReplication and its class.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::meta::Condition;
use super::resource;

resource! {
    /// The replication of one PVC.
    VolumeReplication {
        "replication.storage.openshift.io" / "v1alpha1", "volumereplications", namespaced
    } {
        /// What is wanted.
        spec: VolumeReplicationSpec,
        /// What is. Blank while the controller cannot or will not look at it.
        status: VolumeReplicationStatus,
    }
}

/// What is wanted of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeReplicationSpec {
    /// Its class; immutable.
    pub volume_replication_class: String,
    /// What it should be.
    pub replication_state: Option<ReplicationState>,
    /// Whether a volume that diverged may be overwritten by its peer.
    pub auto_resync: bool,
    /// The PVC; immutable.
    pub data_source: DataSource,
}

/// The object that is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataSource {
    /// `PersistentVolumeClaim`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// `spec.replicationState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicationState {
    /// Writable, sends.
    Primary,
    /// Read-only, receives.
    Secondary,
    /// Discards its own data and copies the peer's.
    Resync,
}

impl ReplicationState {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Resync => "resync",
        }
    }
}

/// How the volume fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeReplicationStatus {
    /// `Primary`, `Secondary`, `Unknown`; empty before the first word of the controller.
    pub state: String,
    /// In words.
    pub message: String,
    /// `Completed`, `Degraded`, `Resyncing`, `Validated`, `Replicating`, …
    pub conditions: Vec<Condition>,
    /// The generation of which all this speaks.
    pub observed_generation: Option<i64>,
    /// The point in time that the replica holds, as the primary knows it.
    pub last_sync_time: Option<Time>,
    /// Bytes of the last sync.
    pub last_sync_bytes: Option<i64>,
    /// The volume's handle on the other side, when it differs.
    #[serde(rename = "destinationVolumeID")]
    pub destination_volume_id: Option<String>,
}

impl VolumeReplicationStatus {
    /// Whether the controller has said anything at all.
    pub fn is_blank(&self) -> bool {
        self.state.is_empty() && self.conditions.is_empty() && self.observed_generation.is_none()
    }
}

resource! {
    /// How volumes are replicated.
    VolumeReplicationClass {
        "replication.storage.openshift.io" / "v1alpha1", "volumereplicationclasses", cluster
    } {
        /// Driver and parameters.
        spec: VolumeReplicationClassSpec,
    }
}

/// Driver and parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeReplicationClassSpec {
    /// The CSI driver.
    pub provisioner: String,
    /// Its parameters: `schedulingInterval`, `mirroringMode`, secrets, …
    pub parameters: BTreeMap<String, String>,
}
