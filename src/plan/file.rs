//! The plan as its users write it (`docs/plan.md`), before validation. Field names are camelCase in
//! YAML. The JSON Schema made from these types is both `docs/plan.schema.json` and what the reader
//! holds a plan against; `plan::validate` turns a [`PlanFile`] into a `Plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{
    AccessMode, Database, DriverKind, Evidence, FencingMethod, FileSystem, LedgerKind, Quiesce,
    RecipeMode, RouteKind, Sites, VolumeMode,
};
use super::text::{DurationText, ParameterText, QuantityText};

/// A rehearsal: where, what, how it is protected, what is allowed and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanFile {
    /// `virtproof.dev/v1alpha1`.
    pub api_version: String,
    /// `Plan`.
    pub kind: String,
    /// Name of the rehearsal.
    pub metadata: Metadata,
    /// The clusters.
    pub sites: Sites,
    /// How volumes are replicated.
    pub protection: Protection,
    /// The VMs under test.
    pub workloads: Vec<Workload>,
    /// What is allowed.
    #[serde(default)]
    pub objectives: Objectives,
    /// Scenario ids or globs, in the order to run.
    pub scenarios: Vec<String>,
    /// What a rehearsed VM must not reach.
    #[serde(default)]
    pub isolation: Isolation,
    /// The load that guests write.
    #[serde(default)]
    pub load: Load,
    /// How VMs are live-migrated.
    #[serde(default)]
    pub migration: Migration,
    /// How faults are brought about, for scenarios that need one.
    #[serde(default)]
    pub faults: Faults,
    /// How long each wait may take.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// Namespace prefix on both sites; each run gets `PREFIX-RUN`.
    #[serde(default = "namespace_prefix")]
    pub namespace_prefix: String,
    /// Who answers for the rehearsal, for its reports.
    #[serde(default)]
    pub evidence: Evidence,
}

fn namespace_prefix() -> String {
    "virtproof".into()
}

/// Plan metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label.
    pub name: String,
}

/// How the volumes are replicated. Each driver takes its own fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Protection {
    /// Which driver.
    pub driver: DriverKind,
    /// VolumeReplicationClass on both sites (`volumeReplication`).
    #[serde(default)]
    pub volume_replication_class: Option<String>,
    /// How often replicas are brought up to date, as the class says it; used for deadlines and for
    /// the staleness rule.
    pub scheduling_interval: DurationText,
    /// Whether every acked write survives even an unplanned failover (synchronous replication).
    #[serde(default)]
    pub synchronous: bool,
    /// How a site that is still alive is kept from writing before an unplanned promotion.
    #[serde(default)]
    pub fencing: Fencing,
    /// Volume handles on the peer: old text to new text, applied to the handle of each PV that is
    /// handed over; some drivers embed cluster and pool ids in handles.
    #[serde(default)]
    pub handle_map: BTreeMap<String, String>,
    /// VolumeSnapshotClass on both sites, with `deletionPolicy: Delete`: read-backs are repeated by
    /// another guest from clones of snapshots (D8). Without it D8 is not judged.
    #[serde(default)]
    pub volume_snapshot_class: Option<String>,
    /// VolumeGroupSnapshotClass on both sites for `snapshot.multi-disk-group`; the driver's default one
    /// when absent.
    #[serde(default)]
    pub volume_group_snapshot_class: Option<String>,
}

/// Fencing of a live site.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fencing {
    /// How.
    #[serde(default)]
    pub method: FencingMethod,
    /// NetworkFenceClass on the site to be fenced (`networkFence`).
    #[serde(default)]
    pub network_fence_class: Option<String>,
    /// CIDRs to fence; the addresses that CSIAddonsNode reports, then node addresses, when empty.
    #[serde(default)]
    pub cidrs: Vec<String>,
}

/// VMs made from one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// A DNS label.
    pub name: String,
    /// An embedded template's name, or the path of a manifest, relative to the plan.
    pub template: String,
    /// How many VMs.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// Values for the template's `${PARAM}` placeholders.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterText>,
    /// Recipe whose `backup` workflow quiesces the VM, by embedded name or path.
    #[serde(default)]
    pub recipe: Option<String>,
    /// How the Recipe is understood: `strict` as a user means it, `faithful` as Ramen does it.
    #[serde(default)]
    pub recipe_mode: RecipeMode,
    /// Values for the Recipe's `${NAME}`, besides `NAMESPACE`, `VM` and `UNFREEZE_SECONDS`.
    #[serde(default)]
    pub recipe_parameters: BTreeMap<String, Vec<String>>,
    /// How the VM is frozen; by its Recipe if it has one, else by KubeVirt's subresource.
    #[serde(default)]
    pub quiesce: Option<Quiesce>,
    /// The database in the VM's guest, for scenarios that ask what becomes of its transactions; SQLite
    /// where they find none named.
    #[serde(default)]
    pub database: Option<Database>,
    /// How to log in.
    #[serde(default)]
    pub ssh: Ssh,
    /// Data volumes that virtproof adds when the template marks none with the label
    /// `virtproof.dev/ledger`.
    #[serde(default)]
    pub data_volumes: Vec<DataVolume>,
}

fn twenty() -> u32 {
    20
}

fn one() -> u32 {
    1
}

/// A data volume added to a manifest that brings none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataVolume {
    /// Size as a Kubernetes quantity.
    pub size: QuantityText,
    /// StorageClass; the default one when absent.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// `Block` or `Filesystem`: what the claim asks for.
    #[serde(default)]
    pub volume_mode: VolumeMode,
    /// Access mode of the claim; `ReadWriteMany` for `Block` (live migration needs it) and
    /// `ReadWriteOnce` for `Filesystem` when absent.
    #[serde(default)]
    pub access_mode: Option<AccessMode>,
    /// How the ledger lies on it: `raw` owns the device, `file` is one file on a file system.
    #[serde(default)]
    pub ledger: LedgerKind,
    /// The file system for a ledger that is a file: `ext4` or `xfs`, which needs at least `300Mi`.
    #[serde(default)]
    pub filesystem: FileSystem,
}

/// How to log in to a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ssh {
    /// Login name; the template's own when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Port in the guest.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Private key file; a fresh key per run when absent. Relative to the plan.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// How to get a byte stream to the guest.
    #[serde(default)]
    pub route: RouteKind,
    /// `user@host[:port]` of a jump host (`jump`).
    #[serde(default)]
    pub jump_host: Option<String>,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            user: None,
            port: 22,
            key_file: None,
            route: RouteKind::default(),
            jump_host: None,
        }
    }
}

fn ssh_port() -> u16 {
    22
}

/// What is allowed. Durations as text: `90s`, `2m`, `1h 30m`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objectives {
    /// Most data loss in time after an unplanned failover.
    #[serde(default)]
    pub rpo: Option<DurationText>,
    /// Longest outage of a transition.
    #[serde(default)]
    pub rto: Option<DurationText>,
    /// Longest gap between acks in a live migration.
    #[serde(default)]
    pub migration_blackout: Option<DurationText>,
    /// Longest stall in a freeze.
    #[serde(default)]
    pub freeze_stall: Option<DurationText>,
}

/// The bubble in which VMs are rehearsed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// `host:port` of services that a VM must not reach after a move; its guest tries each over TCP.
    #[serde(default)]
    pub unreachable: Vec<String>,
}

/// What the probes write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Load {
    /// Writes per second and VM; 0 is as fast as it goes.
    #[serde(default = "rate")]
    #[schemars(range(max = 1_000_000))]
    pub rate: u32,
    /// Writes between flushes; 0 makes each write durable by itself.
    #[serde(default)]
    #[schemars(range(max = 65_536))]
    pub batch: u32,
    /// How long the load runs before the transition.
    #[serde(default = "warm_up")]
    pub duration: DurationText,
    /// Hot region per volume.
    #[serde(default = "hot")]
    pub hot: QuantityText,
    /// Log ring per volume.
    #[serde(default = "log")]
    pub log: QuantityText,
    /// Distance between filled cold cells; `0` fills the ends only, `4Ki` all.
    #[serde(default = "stride")]
    pub cold_stride: QuantityText,
}

fn rate() -> u32 {
    400
}
fn warm_up() -> DurationText {
    "30s".into()
}
fn hot() -> QuantityText {
    "16Mi".into()
}
fn log() -> QuantityText {
    "4Mi".into()
}
fn stride() -> QuantityText {
    "1Mi".into()
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rate: rate(),
            batch: 0,
            duration: warm_up(),
            hot: hot(),
            log: log(),
            cold_stride: stride(),
        }
    }
}

/// How VMs are live-migrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migration {
    /// How often each VM is migrated, one after the other.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// How many migrations are asked for in a second where all VMs are migrated at once.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 1000))]
    pub qps: u32,
    /// StorageClass on both sites to which `storage.migrate` moves the data disks; that which they
    /// have when absent.
    #[serde(default)]
    pub storage_class: Option<String>,
}

impl Default for Migration {
    fn default() -> Self {
        Self {
            count: one(),
            qps: twenty(),
            storage_class: None,
        }
    }
}

/// How a site is broken and healed for unplanned scenarios.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// Argument vector that cuts the power of every node of the primary; no shell is used.
    #[serde(default)]
    pub power_off: Vec<String>,
    /// Argument vector that brings the primary back. Registered before `powerOff` runs.
    #[serde(default)]
    pub power_on: Vec<String>,
}

/// How long each wait may take, as durations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deadlines {
    /// A VM from created to Running.
    #[serde(default = "boot")]
    pub boot: DurationText,
    /// From Running to an SSH login.
    #[serde(default = "ssh_login")]
    pub ssh: DurationText,
    /// A first or further full sync.
    #[serde(default = "sync")]
    pub sync: DurationText,
    /// Promotion, demotion, fencing: each.
    #[serde(default = "transition")]
    pub transition: DurationText,
    /// Cleanup of one site.
    #[serde(default = "cleanup")]
    pub cleanup: DurationText,
    /// After how long virt-launcher thaws a guest by itself that a scenario froze.
    #[serde(default = "unfreeze")]
    pub unfreeze: DurationText,
}

fn boot() -> DurationText {
    "5m".into()
}
fn ssh_login() -> DurationText {
    "5m".into()
}
fn sync() -> DurationText {
    "15m".into()
}
fn transition() -> DurationText {
    "15m".into()
}
fn cleanup() -> DurationText {
    "10m".into()
}
fn unfreeze() -> DurationText {
    "5m".into()
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            boot: boot(),
            ssh: ssh_login(),
            sync: sync(),
            transition: transition(),
            cleanup: cleanup(),
            unfreeze: unfreeze(),
        }
    }
}
