//! Faults of the controllers: orders that are not carried out, or not as they say.

use super::{BOOT, NODE_DOWN, PRIMARY_UP, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Ordained, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::FreshEmptyDisk,
        "fresh-empty-disk",
        "the claim on the target gets a fresh empty volume instead of the replica",
    )
    .entries(&["23", "F18"])
    .at(Place::Controller, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D7"]),
    FaultSpec::lab(
        Fault::TwoLiveWriters,
        "two-live-writers",
        "fencing is acknowledged and not enforced, so the old guest keeps writing",
    )
    .entries(&["20", "F16"])
    .at(Place::Controller, Phase::Fence)
    .seen_in(PRIMARY_UP)
    .fires(&["S1"]),
    FaultSpec::lab(
        Fault::PromoteStalls,
        "promote-stalls",
        "promotion hangs far beyond the objective",
    )
    .entries(&["30", "F8"])
    .at(Place::Controller, Phase::Promote)
    .seen_in(NODE_DOWN)
    .fires(&["T1"]),
    FaultSpec::lab(
        Fault::VmLeftHalted,
        "vm-left-halted",
        "the VM on the target stays halted although it is told to run",
    )
    .entries(&["24"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::LeftoverAfterCleanup,
        "leftover-after-cleanup",
        "an object survives cleanup",
    )
    .entries(&["27"])
    .at(Place::Controller, Phase::Cleanup)
    .seen_in(BOOT)
    .fires(&["O4"]),
    FaultSpec::lab(
        Fault::WrongGuest,
        "wrong-guest",
        "another VM's disks come up on the target",
    )
    .entries(&["23"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .fires(&["G1"]),
    FaultSpec::lab(
        Fault::SnapshotNeverReady,
        "snapshot-never-ready",
        "a VolumeSnapshot stays unready for ever after an error that was set and cleared again",
    )
    .entries(&["F27"])
    .at(Place::Controller, Phase::ReadBack)
    .seen_in(BOOT)
    .plan(&["deadlines.boot=8s"])
    .ordained(Ordained::Inconclusive)
    .sources(&["external-snapshotter#953"]),
];
