//! Faults of the storage array: what data loses or gains on its way.

use super::{NODE_DOWN, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::DropAckedWrite,
        "drop-acked-write",
        "one acknowledged write never reaches the replica, later ones do",
    )
    .entries(&["2"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["D1"]),
    FaultSpec::lab(
        Fault::ReorderAcrossBarrier,
        "reorder-across-barrier",
        "a later write reaches the replica although a flushed earlier one on the same volume does not",
    )
    .entries(&["3"])
    .at(Place::Array, Phase::Replication)
    .seen_in(NODE_DOWN)
    .fires(&["D2"]),
    FaultSpec::lab(
        Fault::GroupSkew,
        "group-skew",
        "the second volume's replica is cut later than the first's",
    )
    .entries(&["4"])
    .at(Place::Array, Phase::Replication)
    .seen_in(NODE_DOWN)
    .fires(&["D3"]),
    FaultSpec::lab(
        Fault::TornAckedWrite,
        "torn-acked-write",
        "half the sectors of an acknowledged cell are from the write before",
    )
    .entries(&["5"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D4"]),
    FaultSpec::lab(
        Fault::BitFlipCold,
        "bit-flip-cold",
        "one bit of a cold cell flips on the replica",
    )
    .entries(&["6"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D4"]),
    FaultSpec::lab(
        Fault::MisdirectedWrite,
        "misdirected-write",
        "one write lands eight cells further on",
    )
    .entries(&["7"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["D5"]),
    FaultSpec::lab(
        Fault::SwapVolumes,
        "swap-volumes",
        "two data volumes' replicas are exchanged",
    )
    .entries(&["8"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D5"]),
    FaultSpec::lab(
        Fault::StaleExtent,
        "stale-extent",
        "a run of cells on the replica is kept from an older snapshot",
    )
    .entries(&["9"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D6"]),
    FaultSpec::lab(
        Fault::RecycledVolume,
        "recycled-volume",
        "the replica still carries another run's ledger",
    )
    .entries(&["11"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D6"]),
    FaultSpec::lab(
        Fault::SkippedExtent,
        "skipped-extent",
        "an extent of the cold region never reaches the replica",
    )
    .entries(&["10"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["D7"]),
    FaultSpec::lab(
        Fault::OlderPoint,
        "older-point",
        "an older snapshot is promoted than lastSyncTime claims",
    )
    .entries(&["13"])
    .at(Place::Array, Phase::Promote)
    .seen_in(NODE_DOWN)
    .fires(&["R2"]),
    FaultSpec::lab(
        Fault::SyncStalled,
        "sync-stalled",
        "syncs stop while replication still reports healthy, and the loss outgrows the objective",
    )
    .entries(&["F9"])
    .at(Place::Array, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .fires(&["R1"]),
    FaultSpec::lab(
        Fault::RelocateWithoutFinalSync,
        "relocate-without-final-sync",
        "demote skips the final sync and still reports clean",
    )
    .entries(&["18", "F2"])
    .at(Place::Array, Phase::Demote)
    .seen_in(RELOCATE)
    .fires(&["D1"]),
    FaultSpec::lab(
        Fault::UnprotectedVolume,
        "unprotected-volume",
        "one PVC of each VM silently loses its replication",
    )
    .entries(&["22"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["O2"]),
];
