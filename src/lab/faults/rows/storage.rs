//! Faults of the storage array: what data loses or gains on its way.

use super::{BOOT, FAILBACK, NODE_DOWN, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Ordained, Param, Phase, Place};

/// The length of an extent, or by how much a device is too short or too long.
const CELLS: Param = Param {
    name: "cells",
    default: 1024,
    unit: "cells of 4 KiB",
};

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
    .fires(&["D1"])
    .sources(&["diskchecker.pl: acknowledged writes missing after a cut"]),
    FaultSpec::lab(
        Fault::ReorderAcrossBarrier,
        "reorder-across-barrier",
        "a later write reaches the replica although a flushed earlier one on the same volume does not",
    )
    .entries(&["3"])
    .at(Place::Array, Phase::Replication)
    .seen_in(NODE_DOWN)
    .fires(&["D2"])
    .sources(&["dm-log-writes: what a flush covers comes before what follows it"]),
    FaultSpec::lab(
        Fault::GroupSkew,
        "group-skew",
        "the second volume's replica is cut later than the first's",
    )
    .entries(&["4", "F21"])
    .at(Place::Array, Phase::Replication)
    .seen_in(NODE_DOWN)
    .fires(&["D3"])
    .sources(&["replication.md F21: per-PVC mirroring has no common instant"]),
    FaultSpec::lab(
        Fault::TornAckedWrite,
        "torn-acked-write",
        "half the sectors of an acknowledged cell are from the write before",
    )
    .entries(&["5"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D4"])
    .sources(&["vdbench data validation: stamps per 512-byte sector"]),
    FaultSpec::lab(
        Fault::BitFlipCold,
        "bit-flip-cold",
        "one bit of a cold cell flips on the replica",
    )
    .entries(&["6"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D4"])
    .sources(&["fio verify: corruption that checksums find"]),
    FaultSpec::lab(
        Fault::MisdirectedWrite,
        "misdirected-write",
        "one write lands eight cells further on",
    )
    .entries(&["7"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["D5"])
    .sources(&["vdbench data validation: lost and misdirected writes"]),
    FaultSpec::lab(
        Fault::SwapVolumes,
        "swap-volumes",
        "two data volumes' replicas are exchanged",
    )
    .entries(&["8"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D5"])
    .sources(&["ramen#297: a restored PV bound to another claim"]),
    FaultSpec::lab(
        Fault::StaleExtent,
        "stale-extent",
        "a run of cells on the replica is kept from an older snapshot",
    )
    .entries(&["9"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D6"])
    .sources(&["ceph#39155: a deep copy leaves stale extents"]),
    FaultSpec::lab(
        Fault::RecycledVolume,
        "recycled-volume",
        "the replica still carries another run's ledger",
    )
    .entries(&["11"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D6"])
    .sources(&["Jepsen set-full: resurrected elements"]),
    FaultSpec::lab(
        Fault::SkippedExtent,
        "skipped-extent",
        "an extent of the cold region never reaches the replica",
    )
    .entries(&["10"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["D7"])
    .sources(&["ceph#39155: an object map that hides extents"]),
    FaultSpec::lab(
        Fault::OlderPoint,
        "older-point",
        "an older snapshot is promoted than lastSyncTime claims",
    )
    .entries(&["13"])
    .at(Place::Array, Phase::Promote)
    .seen_in(NODE_DOWN)
    .fires(&["R2"])
    .sources(&["replication.md §6: what lastSyncTime promises"]),
    FaultSpec::lab(
        Fault::SyncStalled,
        "sync-stalled",
        "syncs stop while replication still reports healthy, and the loss outgrows the objective",
    )
    .at(Place::Array, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .fires(&["R1"])
    .sources(&["replication.md §3: a dead remote daemon looks healthy from the primary"]),
    FaultSpec::lab(
        Fault::RelocateWithoutFinalSync,
        "relocate-without-final-sync",
        "demote skips the final sync and still reports clean",
    )
    .entries(&["18", "F2"])
    .at(Place::Array, Phase::Demote)
    .seen_in(RELOCATE)
    .fires(&["D1"])
    .sources(&["ramen#176: stale data after failover and relocate"]),
    FaultSpec::lab(
        Fault::UnprotectedVolume,
        "unprotected-volume",
        "one PVC of each VM silently loses its replication",
    )
    .entries(&["22"])
    .at(Place::Array, Phase::Replication)
    .seen_in(RELOCATE)
    .fires(&["O2"])
    .sources(&["RamenDR: PVCs are protected by label"]),
    FaultSpec::lab(
        Fault::LyingFlush,
        "lying-flush",
        "flushes and forced writes are acknowledged while the data stays in a cache, which dies with the guest's process",
    )
    .entries(&["1"])
    .at(Place::Array, Phase::Load)
    .aimed(Moment::Load)
    .params(&[Param {
        name: "writes",
        default: 64,
        unit: "cells that the cache holds back",
    }])
    .seen_in(RELOCATE)
    .fires(&["D1"])
    .sources(&[
        "diskchecker.pl: disks that lie about fsync",
        "KubeVirt: cache modes none, writethrough and writeback",
    ]),
    FaultSpec::lab(
        Fault::MidDeltaPromote,
        "mid-delta-promote",
        "the replica is promoted with a part of the newest delta applied",
    )
    .entries(&["12", "F26"])
    .at(Place::Array, Phase::Promote)
    .aimed(Moment::SyncStart)
    .params(&[Param {
        name: "percent",
        default: 50,
        unit: "percent of the delta that has crossed",
    }])
    .seen_in(NODE_DOWN)
    .fires(&["D2"])
    .sources(&["ramen#651: failover in the middle of a VolSync Direct copy"]),
    FaultSpec::lab(
        Fault::TruncatedDevice,
        "truncated-device",
        "the promoted device is shorter than its source",
    )
    .entries(&["15"])
    .at(Place::Array, Phase::Promote)
    .params(&[CELLS])
    .seen_in(RELOCATE)
    .fires(&["D7"])
    .sources(&["ceph-csi e2e: resize a block PVC and check the device's size"]),
    FaultSpec::lab(
        Fault::EnlargedDevice,
        "enlarged-device",
        "the promoted device is longer than its source",
    )
    .entries(&["15"])
    .at(Place::Array, Phase::Promote)
    .params(&[CELLS])
    .seen_in(RELOCATE)
    .fires(&["D7"])
    .sources(&["ceph-csi e2e: clone a PVC to a bigger size"]),
    FaultSpec::lab(
        Fault::UnreadableExtent,
        "unreadable-extent",
        "reads of an extent of the promoted device fail with EIO",
    )
    .entries(&["16"])
    .at(Place::Array, Phase::Promote)
    .params(&[CELLS])
    .seen_in(RELOCATE)
    .fires(&["D7"])
    .sources(&["dm-error in the crash tests of xfstests"]),
    FaultSpec::lab(
        Fault::StaleReadCache,
        "stale-read-cache",
        "the guest that reads back does so through a cache that holds older data than the storage",
    )
    .entries(&["17"])
    .at(Place::Array, Phase::ReadBack)
    .params(&[Param {
        name: "cells",
        default: 8,
        unit: "cells",
    }])
    .seen_in(BOOT)
    .fires(&["D8"])
    .sources(&["KubeVirt live migration: shared storage and host caches"]),
    FaultSpec::lab(
        Fault::SyncTimeLies,
        "sync-time-lies",
        "lastSyncTime advances from a certain sync on, data does not",
    )
    .entries(&["14", "F10"])
    .at(Place::Array, Phase::Replication)
    .aimed(Moment::SyncEnd)
    .seen_in(NODE_DOWN)
    .fires(&["R2"])
    .sources(&["csi-addons#867: a stale lastSyncTime is kept"]),
    FaultSpec::lab(
        Fault::ReplicaCorruptIdle,
        "replica-corrupt-idle",
        "a delta is lost for good when its snapshot is trimmed under it; the replica counts as idle and whole",
    )
    .entries(&["F22"])
    .at(Place::Array, Phase::Replication)
    .aimed(Moment::SyncStart)
    .seen_in(RELOCATE)
    .fires(&["D1", "D2"])
    .sources(&["ceph commit c4ecf75: mirror snapshots trimmed while syncing"]),
    FaultSpec::lab(
        Fault::BusyPromoteForced,
        "busy-promote-forced",
        "both ends look exchanged before the final snapshot has crossed; the promotion is refused as busy and forced in silence",
    )
    .entries(&["F1"])
    .at(Place::Array, Phase::Promote)
    .seen_in(RELOCATE)
    .fires(&["D1"])
    .sources(&[
        "csi-addons: a promotion that fails its precondition is repeated with force",
        "ramen#176: promotion before the sync",
    ]),
    FaultSpec::lab(
        Fault::BackendDemoted,
        "backend-demoted",
        "the image is demoted behind a VolumeReplication that says primary; the guest gets EROFS",
    )
    .entries(&["F11"])
    .at(Place::Array, Phase::ReadBack)
    .seen_in(RELOCATE)
    .fires(&["O1"])
    .sources(&["csi-addons: a primary is never checked again"]),
    FaultSpec::lab(
        Fault::ResyncOverwritesPrimary,
        "resync-overwrites-primary",
        "the resync after a failover runs in the wrong direction: the older side is copied over the new primary",
    )
    .entries(&["19", "F3"])
    .at(Place::Array, Phase::Reprotect)
    .seen_in(FAILBACK)
    .fires(&["D1", "S3"])
    .sources(&["ceph-csi#3209: a spurious split-brain resyncs from the older copy"]),
    FaultSpec::lab(
        Fault::ResyncDeletesGoodImage,
        "resync-deletes-good-image",
        "a resync deletes the image although there is nothing to make it again from",
    )
    .entries(&["F4"])
    .at(Place::Array, Phase::Reprotect)
    .seen_in(FAILBACK)
    .fires(&["O5"])
    .sources(&["ceph commit e14afbc: resync while the remote is not primary"]),
    FaultSpec::lab(
        Fault::ResyncNeverProgresses,
        "resync-never-progresses",
        "a resync is said to go on while the mirror daemon is down",
    )
    .entries(&["F5"])
    .at(Place::Array, Phase::Reprotect)
    .seen_in(FAILBACK)
    .fires(&["O5"])
    .sources(&["ceph-csi#3289, ceph-csi#3290"]),
    FaultSpec::lab(
        Fault::DegradedForever,
        "degraded-forever",
        "a volume that follows again after a split brain is called split and degraded for ever",
    )
    .entries(&["F6"])
    .at(Place::Array, Phase::Reprotect)
    .seen_in(FAILBACK)
    .fires(&["O5"])
    .sources(&["volume-replication-operator#101"]),
    FaultSpec::lab(
        Fault::ScheduleNotRearmed,
        "schedule-not-rearmed",
        "the snapshot schedule is not set after a failover, so lastSyncTime stands still",
    )
    .entries(&["F9"])
    .at(Place::Array, Phase::Promote)
    .seen_in(FAILBACK)
    .fires(&["O5"])
    .sources(&["ceph-csi#2656"]),
    FaultSpec::lab(
        Fault::ResyncToLastSnapshot,
        "resync-to-last-snapshot",
        "the way back copies up to the latest mirror snapshot, and what was written after it is missing",
    )
    .entries(&["F28"])
    .at(Place::Array, Phase::Demote)
    .seen_in(FAILBACK)
    .fires(&["D1"])
    .sources(&["ceph tracker 70042"]),
    FaultSpec::lab(
        Fault::TornInFlight,
        "torn-in-flight",
        "legal: a write that was under way when a snapshot was cut is torn on the replica",
    )
    .entries(&["47"])
    .at(Place::Array, Phase::Replication)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Green)
    .sources(&["dm-log-writes: only what completed before a flush is durable"]),
    FaultSpec::lab(
        Fault::UnsyncedRollback,
        "unsynced-rollback",
        "legal: writes that no flush covered are lost with the guest's cache",
    )
    .entries(&["48"])
    .at(Place::Array, Phase::Load)
    .seen_in(RELOCATE)
    .plan(&["load.batch=16"])
    .ordained(Ordained::Green)
    .sources(&["ext4: delayed allocation, appends that were never synced"]),
    FaultSpec::lab(
        Fault::SlowStorage,
        "slow-storage",
        "legal: every access to storage and every transfer takes fifty times as long",
    )
    .entries(&["51"])
    .at(Place::Array, Phase::Always)
    .params(&[Param {
        name: "times",
        default: 50,
        unit: "times ordinary",
    }])
    .seen_in(RELOCATE)
    .ordained(Ordained::Green)
    .sources(&["integrity is no matter of speed"]),
    FaultSpec::lab(
        Fault::ReorderWithoutBarrier,
        "reorder-without-barrier",
        "legal: of the writes between two flushes some are kept and some are lost, in any order",
    )
    .entries(&["52"])
    .at(Place::Array, Phase::Replication)
    .seen_in(NODE_DOWN)
    .plan(&["load.batch=16"])
    .ordained(Ordained::Green)
    .sources(&["CrashMonkey: every subset between two barriers is a legal crash state"]),
];
