//! `cdi.kubevirt.io/v1beta1`: DataVolumes.

use serde::Deserialize;
use serde_json::Value;

use super::meta::Condition;
use super::resource;

resource! {
    /// A volume with an origin; its PVC has the same name.
    DataVolume { "cdi.kubevirt.io" / "v1beta1", "datavolumes", namespaced } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: DataVolumeStatus,
    }
}

/// How the volume fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVolumeStatus {
    /// `Pending`, `ImportInProgress`, `Succeeded`, `Failed`, …
    pub phase: String,
    /// `NN.NN%` or `N/A`.
    pub progress: Option<String>,
    /// Conditions: `Ready`, `Bound`, `Running`.
    pub conditions: Vec<Condition>,
}
