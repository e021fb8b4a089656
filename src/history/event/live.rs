//! What facts about a VM that lives on are made of: migrations, freezes, captures, file systems.

use serde::{Deserialize, Serialize};

use super::{Outcome, Spoil};

/// A live migration as KubeVirt tells it: the phase of the VirtualMachineInstanceMigration and the
/// `migrationState` of the VMI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationFact {
    /// Name of the VirtualMachineInstanceMigration.
    pub name: String,
    /// Its `status.phase`; empty in the fact that says that it is about to be asked for.
    pub phase: String,
    /// `migrationState.mode`: `PreCopy`, `PostCopy` or `Paused`; empty before it began.
    #[serde(default)]
    pub mode: String,
    /// Node that the VM leaves, empty if unknown.
    #[serde(default)]
    pub source_node: String,
    /// Node that it goes to, empty if unknown.
    #[serde(default)]
    pub target_node: String,
    /// `migrationState.completed`: it is over, well or not.
    #[serde(default)]
    pub completed: bool,
    /// `migrationState.failed`. A failed migration is also completed, so this is to be read first.
    #[serde(default)]
    pub failed: bool,
    /// `migrationState.failureReason` or an event's text, empty if there is none.
    #[serde(default)]
    pub why: String,
    /// How it is spoiled, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoil: Option<Spoil>,
    /// Whether KubeVirt made it of itself because of an eviction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evacuates: bool,
    /// `migrationState.targetPod`, empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target_pod: String,
    /// `migrationState.abortStatus`: `Aborting`, `Succeeded` or `Failed`; empty where nobody aborted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub abort: String,
}

/// How far a freeze of a guest's file systems is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum FreezeFact {
    /// About to be asked for.
    Asked {
        /// After how long a timer thaws, the launcher's or the guest's own, milliseconds; 0 for never.
        timeout_ms: u64,
    },
    /// The call came back and said that the file systems are frozen.
    Frozen,
    /// The call came back with an error; the freeze may still take hold later.
    Refused {
        /// The error.
        why: String,
    },
    /// `status.fsFreezeStatus` of the VMI, which lags by up to two polls of the agent.
    Reported {
        /// Whether it says frozen.
        frozen: bool,
    },
    /// Nobody is to thaw from now on: the launcher's timer must.
    Abandoned,
    /// A thaw is about to be asked for.
    ThawAsked,
    /// The thaw came back. That it succeeded does not say that the guest was still frozen.
    Thawed {
        /// How it ended.
        outcome: Outcome,
    },
}

/// A point in time of a VM's volumes that is being taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureFact {
    /// By what: `VirtualMachineSnapshot`, a Recipe's workflow, a group snapshot.
    pub means: String,
    /// Whether it claims that the file systems are quiesced at that point.
    pub quiesced: bool,
    /// `false` when it is about to be taken, `true` once it has been.
    pub taken: bool,
}

/// What was seen of a file system on a data volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "seen")]
pub enum FileSystemFact {
    /// By the guest that has it mounted.
    Live {
        /// Whether it takes no writes.
        frozen: bool,
    },
    /// On the volume, read past any mount.
    Raw {
        /// Its type, `ext4` or `xfs`.
        kind: String,
        /// Whether its journal has something to replay: `needs_recovery` of ext4, a log of XFS that
        /// does not end with an unmount. Absent if that could not be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dirty: Option<bool>,
        /// What the superblocks said.
        #[serde(default)]
        said: String,
    },
    /// By its own checker, which changes nothing, after a mount recovered its journal or log.
    Checked {
        /// Its type.
        kind: String,
        /// Whether it could be mounted and the checker found nothing to repair.
        sound: bool,
        /// What it said.
        said: String,
    },
    /// It was mounted, which may replay its journal.
    Mounted,
}
