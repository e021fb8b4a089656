//! `csiaddons.openshift.io/v1alpha1`: network fencing and the nodes' sidecars.

use serde::Deserialize;

use super::resource;

resource! {
    /// Addresses that the storage refuses. Deleting a fenced one does not unfence.
    NetworkFence { "csiaddons.openshift.io" / "v1alpha1", "networkfences", cluster } {
        /// What is wanted.
        spec: NetworkFenceSpec,
        /// What is; has no observed generation.
        status: NetworkFenceStatus,
    }
}

/// Which addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkFenceSpec {
    /// Class; immutable.
    pub network_fence_class_name: Option<String>,
    /// `Fenced` or `Unfenced`.
    pub fence_state: String,
    /// Addresses in CIDR form.
    pub cidrs: Vec<String>,
}

/// How it went. Stays empty without a class or a leader of the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkFenceStatus {
    /// `Succeeded`, `Failed` or empty.
    pub result: String,
    /// `fencing operation successful`, `unfencing operation successful`, or an error.
    pub message: String,
}

resource! {
    /// How fencing is done.
    NetworkFenceClass { "csiaddons.openshift.io" / "v1alpha1", "networkfenceclasses", cluster } {
        /// Driver.
        spec: NetworkFenceClassSpec,
    }
}

/// Driver of a fence class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkFenceClassSpec {
    /// The CSI driver.
    pub provisioner: String,
}

resource! {
    /// A CSI driver's csi-addons sidecar.
    CSIAddonsNode { "csiaddons.openshift.io" / "v1alpha1", "csiaddonsnodes", namespaced } {
        /// The driver.
        spec: CSIAddonsNodeSpec,
        /// What is.
        status: CSIAddonsNodeStatus,
    }
}

/// Which driver and node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CSIAddonsNodeSpec {
    /// The driver.
    pub driver: CSIAddonsDriver,
}

/// A CSI driver on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CSIAddonsDriver {
    /// The driver's name.
    pub name: String,
    /// The node.
    #[serde(rename = "nodeID")]
    pub node_id: String,
}

/// How the sidecar fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CSIAddonsNodeStatus {
    /// `Connected`, `Failed`, `Retrying`.
    pub state: String,
    /// In words.
    pub message: String,
    /// `volume_replication.VOLUME_REPLICATION`, `network_fence.NETWORK_FENCE`, …
    pub capabilities: Vec<String>,
    /// Addresses that the storage knows the node by, per fence class.
    pub network_fence_client_status: Vec<FenceClients>,
}

/// Addresses of a node for one fence class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FenceClients {
    /// Class.
    pub network_fence_class_name: String,
    /// Clients; the field really has a capital C, unlike its documentation.
    #[serde(rename = "ClientDetails", alias = "clientDetails")]
    pub client_details: Vec<FenceClient>,
}

/// One client of the storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FenceClient {
    /// Its id.
    pub id: String,
    /// Its addresses.
    pub cidrs: Vec<String>,
}

impl NetworkFence {
    /// Whether the addresses are fenced: the last word is a success, and in this direction (the
    /// status has no generation, so a success of the opposite direction may still stand there).
    pub fn is_fenced(&self) -> bool {
        self.spec.fence_state != "Unfenced"
            && self.status.result == "Succeeded"
            && self.status.message.starts_with("fencing")
    }

    /// Whether the fence is lifted.
    pub fn is_lifted(&self) -> bool {
        self.spec.fence_state == "Unfenced"
            && self.status.result == "Succeeded"
            && self.status.message.starts_with("unfencing")
    }

    /// In words, for timeouts.
    pub fn describe(&self) -> String {
        if self.status.result.is_empty() {
            return format!(
                "{} asked for, no result yet; a result that stays empty means that the class is missing or that the driver has no csi-addons leader",
                self.spec.fence_state
            );
        }
        let NetworkFenceStatus { result, message } = &self.status;
        format!("{} asked for, {result}: {message}", self.spec.fence_state)
    }
}
