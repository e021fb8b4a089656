//! Faults of snapshots, of what is made from them, and of what they claim.

use super::{CHAIN, CLONE, DISK_GROUP, MULTI_DISK, RESTORE, THEN_FAILOVER};
use crate::lab::faults::{Fault, FaultSpec, Ordained, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::RestoreIsNoOp,
        "restore-is-a-no-op",
        "a restore says that it is complete and leaves every volume as it is",
    )
    .at(Place::Controller, Phase::Restore)
    .seen_in(RESTORE)
    .fires(&["C1", "D1", "D6"]),
    FaultSpec::lab(
        Fault::RestoreLosesWrite,
        "restore-loses-a-write",
        "a volume that is made from a snapshot lacks one write that the snapshot holds",
    )
    .at(Place::Array, Phase::Restore)
    .seen_in(RESTORE)
    .fires(&["C1", "D1"]),
    FaultSpec::lab(
        Fault::FreezeInPod,
        "snapshot-freezes-the-pod",
        "the freeze of a snapshot acts on the launcher's pod, and the snapshot says GuestAgent all the same",
    )
    .at(Place::Controller, Phase::Restore)
    .seen_in(MULTI_DISK)
    .fires(&["C3"]),
    FaultSpec::lab(
        Fault::FreezeUnclean,
        "snapshot-of-an-unclean-freeze",
        "the freeze of a snapshot stops writers and leaves the journal of ext4 to be replayed",
    )
    .at(Place::Guest, Phase::Restore)
    .seen_in(MULTI_DISK)
    .fires(&["C3"]),
    FaultSpec::lab(
        Fault::AgentMissing,
        "snapshot-without-agent",
        "no agent runs, so nothing is frozen, and the snapshot says so",
    )
    .at(Place::Guest, Phase::Restore)
    .seen_in(MULTI_DISK)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::GroupSnapshotSkew,
        "group-snapshot-skew",
        "the members of a group snapshot are cut one after the other, and all are said to be of one instant",
    )
    .at(Place::Array, Phase::Restore)
    .seen_in(DISK_GROUP)
    .fires(&["C3"])
    .sources(&["Ceph CSI e2e: volume group snapshots, which compare no volume with another"]),
    FaultSpec::lab(
        Fault::AgentGivesUp,
        "snapshot-quiesce-timeout",
        "the guest thaws by itself before all is taken, and the snapshot says QuiesceTimeout",
    )
    .at(Place::Guest, Phase::Restore)
    .seen_in(MULTI_DISK)
    .simulated_only()
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::AgentGivesUpUnseen,
        "snapshot-hides-timeout",
        "the guest thaws by itself before all is taken, and the snapshot says GuestAgent and no more",
    )
    .at(Place::Guest, Phase::Restore)
    .seen_in(MULTI_DISK)
    .simulated_only()
    .fires(&["C3"]),
    FaultSpec::lab(
        Fault::CloneSharesBlocks,
        "clone-shares-blocks",
        "a clone writes to the blocks of its source",
    )
    .at(Place::Array, Phase::Restore)
    .seen_in(CLONE)
    .fires(&["C2"]),
    FaultSpec::lab(
        Fault::ReplicaOfDiscarded,
        "replica-of-the-discarded",
        "the replica of a restored volume is the one from before the restore",
    )
    .at(Place::Array, Phase::Promote)
    .seen_in(THEN_FAILOVER)
    .fires(&["C1", "D6"]),
    FaultSpec::lab(
        Fault::RestoreLosesWrite,
        "chain-loses-a-write",
        "every volume in a chain that is made from a snapshot lacks one write that the snapshot holds",
    )
    .at(Place::Array, Phase::Restore)
    .seen_in(CHAIN)
    .fires(&["C1"]),
];
