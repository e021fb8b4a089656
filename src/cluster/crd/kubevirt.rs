//! `kubevirt.io/v1`: VM, VMI, VMIM and the KubeVirt object.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::meta::{Condition, Conditions as _, Truth};
use super::resource;

resource! {
    /// A virtual machine.
    VirtualMachine { "kubevirt.io" / "v1", "virtualmachines", namespaced } {
        /// What is wanted.
        spec: VirtualMachineSpec,
        /// What is.
        status: VirtualMachineStatus,
    }
}

/// What a VM should be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSpec {
    /// `Always`, `Halted`, `Manual`, `RerunOnFailure`, `Once`, `WaitAsReceiver`.
    pub run_strategy: Option<String>,
    /// The deprecated form of it.
    pub running: Option<bool>,
    /// The VMI to be.
    pub template: Value,
    /// DataVolumes that come and go with the VM.
    pub data_volume_templates: Vec<Value>,
}

/// What a VM is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineStatus {
    /// For humans: `Running`, `Stopped`, `Provisioning`, … Stopped can show seconds before the VMI
    /// is gone.
    pub printable_status: String,
    /// Whether a VMI exists.
    pub created: bool,
    /// Whether the guest can be reached.
    pub ready: bool,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

resource! {
    /// A running virtual machine.
    VirtualMachineInstance { "kubevirt.io" / "v1", "virtualmachineinstances", namespaced } {
        /// What is wanted.
        spec: Value,
        /// What is.
        status: VirtualMachineInstanceStatus,
    }
}

/// What a VMI is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineInstanceStatus {
    /// `Pending`, `Scheduling`, `Scheduled`, `Running`, `Succeeded`, `Failed`, … A paused VMI keeps
    /// `Running`.
    pub phase: String,
    /// Where it runs.
    pub node_name: Option<String>,
    /// Conditions: `Ready`, `Paused`, `LiveMigratable`, `AgentConnected`, …
    pub conditions: Vec<Condition>,
    /// Addresses.
    pub interfaces: Vec<Interface>,
    /// The last or running migration.
    pub migration_state: Option<MigrationState>,
    /// `frozen`, or absent.
    pub fs_freeze_status: Option<String>,
    /// What is known of its volumes.
    pub volume_status: Vec<VolumeStatus>,
}

/// What is known of a volume of a VMI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Of a hotplugged one: `Pending`, `Bound`, `AttachedToNode`, `MountedToPod`, `Ready`,
    /// `Detaching`, `UnMountedFromPod`.
    pub phase: String,
    /// Its device in the domain.
    pub target: String,
    /// Remarks.
    pub message: String,
    /// Of a hotplugged one: what brings it to the node.
    pub hotplug_volume: Option<HotplugVolume>,
    /// What its claim says.
    pub persistent_volume_claim_info: Option<ClaimInfo>,
}

/// What a VMI tells of a volume's claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimInfo {
    /// What the claim has, by resource.
    pub capacity: BTreeMap<String, String>,
}

/// What brings a volume to a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HotplugVolume {
    /// Its attachment pod.
    pub attach_pod_name: String,
}

/// A network interface of a VMI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Address.
    pub ip_address: Option<String>,
    /// All addresses.
    pub ip_addresses: Vec<String>,
    /// Name.
    pub name: Option<String>,
}

/// How a migration fares. A failed one has both `completed` and `failed`: ask for failure first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationState {
    /// It is over.
    pub completed: bool,
    /// It failed.
    pub failed: bool,
    /// Why.
    pub failure_reason: Option<String>,
    /// From where.
    pub source_node: Option<String>,
    /// To where.
    pub target_node: Option<String>,
    /// The VMIM's UID.
    pub migration_uid: Option<String>,
    /// When it began, RFC 3339.
    pub start_timestamp: Option<String>,
    /// When it ended, RFC 3339.
    pub end_timestamp: Option<String>,
    /// `PreCopy`, `PostCopy`, `Paused`.
    pub mode: Option<String>,
    /// The launcher to which it goes.
    pub target_pod: Option<String>,
    /// `Aborting`, `Succeeded`, `Failed`.
    pub abort_status: Option<String>,
}

impl VirtualMachineInstance {
    /// Whether its guest runs: phase Running and not paused.
    pub fn is_running(&self) -> bool {
        self.status.phase == "Running" && self.status.conditions.truth("Paused") != Truth::True
    }

    /// Whether it has ended and will not run again.
    pub fn is_final(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// In words, for timeouts.
    pub fn describe(&self) -> String {
        let mut text = format!("VMI phase {:?}", self.status.phase);
        for condition in &self.status.conditions {
            let bad = match condition.type_.as_str() {
                "Ready" | "Synchronized" | "LiveMigratable" => condition.status == Truth::False,
                "Paused" => condition.status == Truth::True,
                _ => false,
            };
            if bad {
                for word in [
                    ", ",
                    &condition.type_,
                    "=",
                    condition.status.as_str(),
                    " ",
                    &condition.reason,
                    " ",
                    &condition.message,
                ] {
                    text.push_str(word);
                }
            }
        }
        text
    }
}

resource! {
    /// A live migration.
    VirtualMachineInstanceMigration {
        "kubevirt.io" / "v1", "virtualmachineinstancemigrations", namespaced
    } {
        /// What is wanted.
        spec: MigrationSpec,
        /// What is.
        status: MigrationStatus,
    }
}

/// Which VMI migrates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationSpec {
    /// Name of the VMI.
    pub vmi_name: String,
}

/// How it fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationStatus {
    /// `Pending`, `Scheduling`, `Scheduled`, `PreparingTarget`, `TargetReady`, `Running`,
    /// `Succeeded`, `Failed`.
    pub phase: String,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Copied from the VMI once final.
    pub migration_state: Option<MigrationState>,
}

resource! {
    /// The terms on which VMIs of certain labels migrate.
    MigrationPolicy { "migrations.kubevirt.io" / "v1alpha1", "migrationpolicies", cluster } {
        /// What is wanted.
        spec: Value,
    }
}

resource! {
    /// The KubeVirt installation.
    KubeVirt { "kubevirt.io" / "v1", "kubevirts", namespaced } {
        /// Configuration.
        spec: Value,
        /// What is.
        status: KubeVirtStatus,
    }
}

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeVirtStatus {
    /// `Deployed` when it is.
    pub phase: String,
    /// Version.
    pub observed_kube_virt_version: Option<String>,
}

impl VirtualMachine {
    /// Whether KubeVirt starts a VMI for it by itself. `Manual` and `Once` wait for a word or have
    /// had their start.
    pub fn will_start(&self) -> bool {
        match self.spec.run_strategy.as_deref() {
            Some(strategy) => matches!(strategy, "Always" | "RerunOnFailure"),
            None => self.spec.running == Some(true),
        }
    }
}
