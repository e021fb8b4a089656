//! What facts are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Site;

/// One data volume of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFact {
    /// Ordinal within the VM, also the ledger's volume ordinal.
    pub ordinal: u8,
    /// The VM's volume and disk name.
    pub name: String,
    /// The PVC that backs it.
    pub pvc: String,
    /// The ledger's volume id, 32 hex digits.
    pub vol_id: String,
    /// Whether the PVC is `Block` or `Filesystem`.
    pub volume_mode: String,
    /// Whether the ledger owns the raw device or a file on a file system in it.
    pub ledger: LedgerMode,
}

/// How the ledger lies on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LedgerMode {
    /// The whole device.
    Raw,
    /// One preallocated file on a file system that the probe makes.
    File,
}

/// Why an incarnation exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Fills the cold region and then writes load.
    Load,
    /// Boots read-only after a transition; writes canaries only.
    Verify,
}

/// The step of a recovery that a stage mark closes, in the order of the RTO sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The fault or the order to move: the clock starts at the last ack heard before it.
    Fault,
    /// The transition was ordered.
    Ordered,
    /// The old side is fenced, stopped or known dead.
    Fenced,
    /// All volumes are demoted and in sync (planned moves only).
    Demoted,
    /// PVs and PVCs stand on the target and are bound.
    HandedOver,
    /// All volumes are promoted on the target.
    Promoted,
    /// The VM object exists on the target.
    VmCreated,
    /// The VMI is Running.
    VmiRunning,
    /// The SSH banner was read: a kernel and a network are up.
    SshBanner,
    /// SSH authentication succeeded.
    SshAuth,
    /// The probe holds every data volume open.
    DevicesOpen,
    /// The first canary is acked: the service could serve.
    FirstAck,
}

/// A condition as typed tri-state evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionFact {
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Its reason.
    #[serde(default)]
    pub reason: String,
    /// Its message.
    #[serde(default)]
    pub message: String,
}

/// What a replication object said at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationFact {
    /// The PVC.
    pub pvc: String,
    /// `spec.replicationState`.
    pub desired: String,
    /// `status.state`.
    pub state: String,
    /// Whether status belongs to the current generation.
    pub current: bool,
    /// Conditions by type.
    pub conditions: BTreeMap<String, ConditionFact>,
    /// `status.lastSyncTime`: the point in time that the replica holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<jiff::Timestamp>,
    /// `status.message`.
    #[serde(default)]
    pub message: String,
}

/// An object that a run left behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Residue {
    /// The site.
    pub site: Site,
    /// apiVersion and kind, `v1/PersistentVolumeClaim`.
    pub kind: String,
    /// `namespace/name`, or `name` for cluster-scoped kinds.
    pub name: String,
    /// Why it is still there, as far as its status tells: finalizers, deletion timestamp.
    pub why: String,
}

/// A scan of one volume, its cells in a binary file beside the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanFact {
    /// Volume ordinal.
    pub volume: u8,
    /// Device size in bytes as the guest saw it.
    pub size: u64,
    /// Cells read.
    pub read: u64,
    /// Cold cells found as they should be.
    pub cold_ok: u64,
    /// Frames as received, path relative to the run directory.
    pub file: String,
    /// BLAKE3 of that file, hex.
    pub blake3: String,
}

/// How a VM is defined and was started where it runs: what a move must keep (O3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShapeFact {
    /// `spec.runStrategy` of the VM.
    pub run_strategy: String,
    /// The machine type that the VMI runs with, empty if unset.
    pub machine: String,
    /// The firmware UUID that the VMI runs with.
    pub firmware_uuid: String,
    /// The firmware serial, empty if unset.
    pub firmware_serial: String,
    /// MAC address by network interface name, as the VMI has it.
    pub macs: BTreeMap<String, String>,
    /// The VMI's disks in their order: `name bus serial`.
    pub disks: Vec<String>,
    /// The Secrets and ConfigMaps that the VM names, `Kind/name`, each with a keyed digest of what is
    /// in it, or `None` where it is missing. Never the content itself.
    pub references: BTreeMap<String, Option<String>>,
    /// CPU topology, `sockets:cores:threads`.
    pub cpu: String,
    /// Guest memory as asked for.
    pub memory: String,
}

/// Through which eyes a volume was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadVia {
    /// By the guest itself, through whatever caches lie under it.
    #[default]
    Guest,
    /// By another guest, from clones of snapshots: what the storage itself holds.
    Clone,
}

/// How far the way back to a protected state is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Reprotect {
    /// The other side was told to become the replica again.
    Ordered,
    /// Replication to the other side is healthy, current and has synced anew.
    Restored {
        /// How many syncs newer than the order were seen.
        syncs: u32,
        /// Bytes that crossed, as far as the replication objects say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
}
