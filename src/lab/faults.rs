//! Faults as data, and the board where they are planted. Array, controllers and guests ask the
//! board at the point where a fault would strike; nothing else in the lab knows of faults.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Every fault that the lab can plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// One acknowledged write never reaches the replica, later ones do.
    DropAckedWrite,
    /// A later write reaches the replica although a flushed earlier one does not.
    ReorderAcrossBarrier,
    /// Volume B's replica is cut later than volume A's.
    GroupSkew,
    /// Half the sectors of an acked cell are from the write before.
    TornAckedWrite,
    /// One bit of a cold cell flips on the replica.
    BitFlipCold,
    /// One write lands eight cells further on.
    MisdirectedWrite,
    /// Two data volumes' replicas are exchanged.
    SwapVolumes,
    /// A run of cells on the replica is kept from the snapshot before.
    StaleExtent,
    /// The replica is a volume that still carries another run's ledger.
    RecycledVolume,
    /// An extent of the cold region never reaches the replica.
    SkippedExtent,
    /// The replica is promoted from an older snapshot than `lastSyncTime` says.
    OlderPoint,
    /// Syncs stop while replication still reports healthy.
    SyncStalled,
    /// Demote skips the final sync and still reports clean.
    RelocateWithoutFinalSync,
    /// The claim on the target is provisioned fresh and empty instead of bound to the replica.
    FreshEmptyDisk,
    /// Fencing is acknowledged and not enforced; stopping the old VM likewise.
    TwoLiveWriters,
    /// Promotion hangs far longer than it should.
    PromoteStalls,
    /// The VM on the target stays halted although it is told to run.
    VmLeftHalted,
    /// One PVC of each VM is left without replication.
    UnprotectedVolume,
    /// An object survives cleanup: its finalizer is put back.
    LeftoverAfterCleanup,
    /// The wrong guest's disks come up on the target.
    WrongGuest,
    /// Every stream to the guests breaks well before the site does.
    AckStreamCut,
}

/// A row of the fault table.
#[derive(Debug, Clone, Copy)]
pub struct FaultSpec {
    /// Which.
    pub fault: Fault,
    /// The name to plant it by.
    pub name: &'static str,
    /// When it strikes: `replication`, `promote`, `demote`, `fence`, `boot`, `cleanup`; a fault of the
    /// phase `load` must be planted once the load runs, not before.
    pub phase: &'static str,
    /// The check that must fire, or `inconclusive`.
    pub fires: &'static str,
    /// A scenario in which it can be seen.
    pub scenario: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

const fn row(
    fault: Fault,
    name: &'static str,
    phase: &'static str,
    fires: &'static str,
    scenario: &'static str,
    summary: &'static str,
) -> FaultSpec {
    FaultSpec {
        fault,
        name,
        phase,
        fires,
        scenario,
        summary,
    }
}

const RELOCATE: &str = "relocate.zero-loss";
const DOWN: &str = "failover.unplanned.node-down";
const UP: &str = "failover.unplanned.primary-up";

/// The fault table. `integrity.md` numbers in the summary name the catalogue entry.
pub const TABLE: &[FaultSpec] = &[
    row(
        Fault::DropAckedWrite,
        "drop-acked-write",
        "replication",
        "D1",
        RELOCATE,
        "one acknowledged write never reaches the replica, later ones do (2)",
    ),
    row(
        Fault::ReorderAcrossBarrier,
        "reorder-across-barrier",
        "replication",
        "D2",
        DOWN,
        "a later write reaches the replica although a flushed earlier one on the same volume does not (3)",
    ),
    row(
        Fault::GroupSkew,
        "group-skew",
        "replication",
        "D3",
        DOWN,
        "the second volume's replica is cut later than the first's (4)",
    ),
    row(
        Fault::TornAckedWrite,
        "torn-acked-write",
        "promote",
        "D4",
        RELOCATE,
        "half the sectors of an acknowledged cell are from the write before (5)",
    ),
    row(
        Fault::BitFlipCold,
        "bit-flip-cold",
        "promote",
        "D4",
        RELOCATE,
        "one bit of a cold cell flips on the replica (6)",
    ),
    row(
        Fault::MisdirectedWrite,
        "misdirected-write",
        "replication",
        "D5",
        RELOCATE,
        "one write lands eight cells further on (7)",
    ),
    row(
        Fault::SwapVolumes,
        "swap-volumes",
        "promote",
        "D5",
        RELOCATE,
        "two data volumes' replicas are exchanged (8)",
    ),
    row(
        Fault::StaleExtent,
        "stale-extent",
        "promote",
        "D6",
        RELOCATE,
        "a run of cells on the replica is kept from an older snapshot (9)",
    ),
    row(
        Fault::RecycledVolume,
        "recycled-volume",
        "promote",
        "D6",
        RELOCATE,
        "the replica still carries another run's ledger (11)",
    ),
    row(
        Fault::SkippedExtent,
        "skipped-extent",
        "replication",
        "D7",
        RELOCATE,
        "an extent of the cold region never reaches the replica (10)",
    ),
    row(
        Fault::OlderPoint,
        "older-point",
        "promote",
        "R2",
        DOWN,
        "an older snapshot is promoted than lastSyncTime claims (13)",
    ),
    row(
        Fault::SyncStalled,
        "sync-stalled",
        "load",
        "R1",
        DOWN,
        "syncs stop while replication still reports healthy, and the loss outgrows the objective (F9)",
    ),
    row(
        Fault::RelocateWithoutFinalSync,
        "relocate-without-final-sync",
        "demote",
        "D1",
        RELOCATE,
        "demote skips the final sync and still reports clean (18, F2)",
    ),
    row(
        Fault::FreshEmptyDisk,
        "fresh-empty-disk",
        "promote",
        "D7",
        RELOCATE,
        "the claim on the target gets a fresh empty volume instead of the replica (23, F18)",
    ),
    row(
        Fault::TwoLiveWriters,
        "two-live-writers",
        "fence",
        "S1",
        UP,
        "fencing is acknowledged and not enforced, so the old guest keeps writing (20, F16)",
    ),
    row(
        Fault::PromoteStalls,
        "promote-stalls",
        "promote",
        "T1",
        DOWN,
        "promotion hangs far beyond the objective (30, F8)",
    ),
    row(
        Fault::VmLeftHalted,
        "vm-left-halted",
        "boot",
        "O1",
        RELOCATE,
        "the VM on the target stays halted although it is told to run (24)",
    ),
    row(
        Fault::UnprotectedVolume,
        "unprotected-volume",
        "replication",
        "O2",
        RELOCATE,
        "one PVC of each VM silently loses its replication (22)",
    ),
    row(
        Fault::LeftoverAfterCleanup,
        "leftover-after-cleanup",
        "cleanup",
        "O4",
        "boot.replicated",
        "an object survives cleanup (27)",
    ),
    row(
        Fault::WrongGuest,
        "wrong-guest",
        "boot",
        "G1",
        RELOCATE,
        "another VM's disks come up on the target (23)",
    ),
    row(
        Fault::AckStreamCut,
        "ack-stream-cut",
        "load",
        "inconclusive",
        DOWN,
        "every stream to the guests breaks well before the site does (45)",
    ),
];

/// The row of a fault by name.
pub fn by_name(name: &str) -> Option<&'static FaultSpec> {
    TABLE.iter().find(|row| row.name == name)
}

/// Where faults are planted and looked up.
#[derive(Debug, Default)]
pub struct Board {
    planted: Mutex<BTreeSet<Fault>>,
}

impl Board {
    /// Plants a fault; it stays until healed or taken.
    pub fn plant(&self, fault: Fault) {
        self.planted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(fault);
    }

    /// Heals a fault.
    pub fn heal(&self, fault: Fault) {
        self.planted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&fault);
    }

    /// Whether a fault is planted.
    pub fn armed(&self, fault: Fault) -> bool {
        self.planted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&fault)
    }

    /// The faults that are planted.
    pub fn planted(&self) -> Vec<Fault> {
        self.planted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}
