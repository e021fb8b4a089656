//! The validated plan: every value typed, in range and consistent with the others. Only
//! `plan::parse` and its kin make a [`Plan`], and nothing changes it afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::database::{Database, Engine};
pub use super::quiesce::{Quiesce, RecipeMode};

/// A rehearsal that may be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) name: String,
    pub(super) sites: Sites,
    pub(super) protection: Protection,
    pub(super) workloads: Vec<Workload>,
    pub(super) objectives: Objectives,
    pub(super) patterns: Vec<String>,
    pub(super) scenarios: Vec<String>,
    pub(super) unreachable: Vec<String>,
    pub(super) load: Load,
    pub(super) migration: Migration,
    pub(super) faults: Faults,
    pub(super) deadlines: Deadlines,
    pub(super) namespace_prefix: String,
    pub(super) evidence: Evidence,
}

/// Who answers for the rehearsal, as its reports say. Empty texts are left to be filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// Who ordered it.
    #[serde(default)]
    pub invoker: String,
    /// Who approved it.
    #[serde(default)]
    pub approver: String,
    /// The change ticket.
    #[serde(default)]
    pub change: String,
}

impl Plan {
    /// The rehearsal's name, a DNS label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clusters, which are not the same.
    pub const fn sites(&self) -> &Sites {
        &self.sites
    }

    /// How volumes are replicated.
    pub const fn protection(&self) -> &Protection {
        &self.protection
    }

    /// The workloads, at least one, with distinct names.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// What is allowed.
    pub const fn objectives(&self) -> &Objectives {
        &self.objectives
    }

    /// The scenario ids or globs as the plan has them.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The ids that the patterns select, each once, in the order to run. Empty when the plan was
    /// read without a catalogue (`Known::nothing`).
    pub fn scenarios(&self) -> &[String] {
        &self.scenarios
    }

    /// `host:port` of what a VM must not reach after a move, each once.
    pub fn unreachable(&self) -> &[String] {
        &self.unreachable
    }

    /// The load that guests write.
    pub const fn load(&self) -> &Load {
        &self.load
    }

    /// How VMs are live-migrated.
    pub const fn migration(&self) -> &Migration {
        &self.migration
    }

    /// How a site is broken and healed.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How long each wait may take.
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Who answers for the rehearsal.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What namespaces of a run begin with, a DNS label of at most 30 characters.
    pub fn namespace_prefix(&self) -> &str {
        &self.namespace_prefix
    }
}

/// The clusters of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// Where workloads start.
    pub primary: SiteRef,
    /// Where they go.
    pub secondary: SiteRef,
}

/// How to reach a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteRef {
    /// Kubeconfig file; `$KUBECONFIG`, then `~/.kube/config`, when absent. Relative to the plan.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// Context in it; its current context when absent.
    #[serde(default)]
    pub context: Option<String>,
}

/// How the volumes are replicated.
#[derive(Debug, Clone, PartialEq)]
pub struct Protection {
    /// Driver with its own fields.
    pub driver: Driver,
    /// How often replicas are brought up to date, above zero.
    pub scheduling_interval: Duration,
    /// Whether every acked write survives even an unplanned failover.
    pub synchronous: bool,
    /// How a live site is kept from writing before an unplanned promotion.
    pub fencing: Fencing,
    /// Text in a volume handle of the primary to its text on the secondary; values are distinct, so
    /// the map can be read both ways.
    pub handle_map: BTreeMap<String, String>,
    /// VolumeSnapshotClass on both sites, for a second reader of what was read back.
    pub volume_snapshot_class: Option<String>,
    /// VolumeGroupSnapshotClass on both sites; the driver's default one if `None`.
    pub volume_group_snapshot_class: Option<String>,
}

/// A replication driver and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// One csi-addons VolumeReplication per PVC.
    VolumeReplication {
        /// VolumeReplicationClass on both sites.
        class: String,
    },
}

impl Driver {
    /// Which driver it is.
    pub const fn kind(&self) -> DriverKind {
        match self {
            Self::VolumeReplication { .. } => DriverKind::VolumeReplication,
        }
    }
}

/// The replication drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DriverKind {
    /// One csi-addons VolumeReplication per PVC.
    VolumeReplication,
}

impl DriverKind {
    /// Every driver.
    pub const ALL: &[Self] = &[Self::VolumeReplication];

    /// Its name in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VolumeReplication => "volumeReplication",
        }
    }
}

/// Fencing of a live site, with what the method needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fencing {
    /// Stop the VM with grace period 0 and wait until its VMI is gone.
    StopVm,
    /// A csi-addons NetworkFence over the site's nodes.
    NetworkFence {
        /// NetworkFenceClass on the site to be fenced.
        class: String,
        /// CIDRs to fence; the driver's own and node addresses when empty.
        cidrs: Vec<String>,
    },
    /// Do nothing.
    None,
}

/// The ways to fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FencingMethod {
    /// Stop the VM with grace period 0 and wait until its VMI is gone.
    #[default]
    StopVm,
    /// A csi-addons NetworkFence over the site's nodes.
    NetworkFence,
    /// Do nothing: an overlap of writers is then to be expected, and S1 will say so.
    None,
}

/// VMs made from one template.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// A DNS label, unique in the plan, at most 30 characters.
    pub name: String,
    /// An embedded template's name or a path (see `workload::Template::load`).
    pub template: String,
    /// How many VMs, 1 to 1000.
    pub count: u32,
    /// Values for the template's placeholders.
    pub parameters: BTreeMap<String, String>,
    /// Recipe by embedded name or path.
    pub recipe: Option<String>,
    /// How it is understood.
    pub recipe_mode: RecipeMode,
    /// Values for its parameters.
    pub recipe_parameters: BTreeMap<String, Vec<String>>,
    /// How the VM is frozen.
    pub quiesce: Quiesce,
    /// The database in its guests, where the plan names one.
    pub database: Option<Database>,
    /// How to log in.
    pub ssh: Ssh,
    /// Data volumes to add when the template marks none; empty means the default pair.
    pub data_volumes: Vec<DataVolume>,
}

/// A data volume added to a manifest that brings none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataVolume {
    /// Bytes, a multiple of 4096, at least 8 MiB.
    pub size: u64,
    /// StorageClass; the default one when absent.
    pub storage_class: Option<String>,
    /// `Block` or `Filesystem`.
    pub volume_mode: VolumeMode,
    /// Access mode.
    pub access_mode: AccessMode,
    /// How the ledger lies on it.
    pub ledger: LedgerKind,
    /// The file system for a ledger that is a file.
    pub filesystem: FileSystem,
}

/// What a claim asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum VolumeMode {
    /// A raw block device.
    #[default]
    Block,
    /// A file system, in which KubeVirt keeps a disk image.
    Filesystem,
}

impl VolumeMode {
    /// Its name in the Kubernetes API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "Block",
            Self::Filesystem => "Filesystem",
        }
    }
}

/// Who may mount a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// One node at a time.
    ReadWriteOnce,
    /// Several nodes at a time, which live migration needs.
    ReadWriteMany,
}

impl AccessMode {
    /// Its name in the Kubernetes API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// The file system that the probe makes for a ledger file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// The smallest device that its tools take, bytes: `mkfs.xfs` refuses less than 300 MiB since
    /// xfsprogs 5.19.
    pub const fn smallest(self) -> u64 {
        match self {
            Self::Ext4 => 8 << 20,
            Self::Xfs => 300 << 20,
        }
    }

    /// Its name in plans and in the label `virtproof.dev/filesystem`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// How the ledger lies on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LedgerKind {
    /// The whole device.
    #[default]
    Raw,
    /// One preallocated file on a file system that the probe makes.
    File,
}

impl LedgerKind {
    /// Its name in plans and in the label `virtproof.dev/ledger`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::File => "file",
        }
    }
}

/// How to log in to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Login name; the template's own when absent.
    pub user: Option<String>,
    /// Port in the guest.
    pub port: u16,
    /// Private key file, relative to the plan; a fresh key per run when absent.
    pub key_file: Option<PathBuf>,
    /// How to get a byte stream to the guest.
    pub route: Route,
}

/// A way to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// KubeVirt's port-forward subresource.
    PortForward,
    /// TCP to the VMI's address.
    Direct,
    /// TCP to the VMI's address from a jump host.
    Jump(JumpHost),
}

/// A host that SSH goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpHost {
    /// Login name on it.
    pub user: String,
    /// Name or address.
    pub host: String,
    /// SSH port.
    pub port: u16,
}

/// The ways to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RouteKind {
    /// KubeVirt's port-forward subresource.
    #[default]
    PortForward,
    /// TCP to the VMI's address.
    Direct,
    /// TCP to the VMI's address from a jump host.
    Jump,
}

/// What is allowed; absent means measured and not judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// Most data loss in time after an unplanned failover.
    pub rpo: Option<Duration>,
    /// Longest outage of a transition.
    pub rto: Option<Duration>,
    /// Longest gap between acks in a live migration.
    pub migration_blackout: Option<Duration>,
    /// Longest stall in a freeze.
    pub freeze_stall: Option<Duration>,
}

/// What the probes write. Sizes are bytes and multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Writes per second and VM; 0 is as fast as it goes.
    pub rate: u32,
    /// Writes between flushes; 0 makes each write durable by itself.
    pub batch: u32,
    /// How long the load runs before the transition, above zero.
    pub duration: Duration,
    /// Hot region per volume, above zero.
    pub hot: u64,
    /// Log ring per volume, above zero.
    pub log: u64,
    /// Distance between filled cold cells; 0 fills the ends only.
    pub cold_stride: u64,
}

/// How VMs are live-migrated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// How often each VM, one after the other, 1 to 1000.
    pub count: u32,
    /// How many are asked for in a second where all VMs move at once, 1 to 1000.
    pub qps: u32,
    /// The StorageClass to which data disks move; the one that they have if `None`.
    pub storage_class: Option<String>,
}

/// How a site is broken and healed for unplanned scenarios: both are given or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Argument vector that cuts the power of every node of the primary; no shell is used.
    pub power_off: Vec<String>,
    /// Argument vector that brings the primary back.
    pub power_on: Vec<String>,
}

/// How long each wait may take, each above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A VM from created to Running.
    pub boot: Duration,
    /// From Running to an SSH login.
    pub ssh: Duration,
    /// A first or further full sync.
    pub sync: Duration,
    /// Promotion, demotion, fencing: each.
    pub transition: Duration,
    /// Cleanup of one site.
    pub cleanup: Duration,
    /// After how long virt-launcher thaws a guest by itself that was frozen.
    pub unfreeze: Duration,
}
