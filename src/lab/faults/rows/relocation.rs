//! Faults of disks that move to other storage.

use super::MOVE;
use crate::lab::faults::{Fault, FaultSpec, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::CopyMissesWrites,
        "copy-misses-writes",
        "what is written to extents that are copied already does not reach the disk's new volume",
    )
    .at(Place::Array, Phase::Migration)
    .seen_in(MOVE)
    .fires(&["D1", "M3"]),
    FaultSpec::lab(
        Fault::MoveIsNoOp,
        "move-is-a-no-op",
        "the disks are said to have moved, and the guest writes to the volumes that they had",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(MOVE)
    .fires(&["M5"]),
    FaultSpec::lab(
        Fault::MovedDiskUnprotected,
        "moved-disk-unprotected",
        "the volumes that disks moved to are replicated in name only",
    )
    .at(Place::Array, Phase::Replication)
    .seen_in(MOVE)
    .plan(&["deadlines.sync=6s"])
    .fires(&["O1", "O2"])
    .simulated_only(),
];
