//! Faults of the controllers: orders that are not carried out, or not as they say.

use super::{BOOT, FAILBACK, NODE_DOWN, PRIMARY_UP, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Ordained, Param, Phase, Place};

/// Shortens the wait for what will never come.
const SOON: &[&str] = &["deadlines.transition=8s", "deadlines.boot=8s"];
/// Half a minute of lab time.
const LATE: &[Param] = &[Param {
    name: "ms",
    default: 30_000,
    unit: "milliseconds of lab time",
}];

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
    .fires(&["T1"])
    .blames("promoted"),
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
    FaultSpec::lab(
        Fault::FenceLate,
        "fence-late",
        "fencing is acknowledged at once and takes hold half a minute later",
    )
    .entries(&["21"])
    .at(Place::Controller, Phase::Fence)
    .params(LATE)
    .seen_in(PRIMARY_UP)
    .fires(&["S2"])
    .sources(&["csi-addons#380", "ceph-csi#4315"]),
    FaultSpec::lab(
        Fault::MacChanged,
        "mac-changed",
        "the VM gets another MAC address on the target",
    )
    .entries(&["25"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .fires(&["O3"])
    .sources(&["KubeMacPool allocates from a range per cluster"]),
    FaultSpec::lab(
        Fault::FirmwareUuidChanged,
        "firmware-uuid-changed",
        "the VM gets another firmware UUID on the target, as one made anew without the field does",
    )
    .entries(&["25"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .fires(&["O3"])
    .sources(&["KubeVirt 1.6: firmware UUID drawn when a VM is created"]),
    FaultSpec::lab(
        Fault::DiskOrderChanged,
        "disk-order-changed",
        "the VM's data disks stand in another order on the target",
    )
    .entries(&["25"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .fires(&["O3"]),
    FaultSpec::lab(
        Fault::SecretMissing,
        "secret-missing",
        "the Secrets that the VM names are pruned on the target, so its pod never starts",
    )
    .entries(&["25"])
    .at(Place::Controller, Phase::Boot)
    .seen_in(RELOCATE)
    .plan(SOON)
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::ReplicationPaused,
        "replication-paused-after",
        "the side that was promoted takes no scheduled mirror snapshot any more",
    )
    .entries(&["28"])
    .at(Place::Controller, Phase::Reprotect)
    .seen_in(FAILBACK)
    .fires(&["O5"])
    .sources(&["ramen#2521"]),
    FaultSpec::lab(
        Fault::CompletedNotPrimary,
        "completed-not-primary",
        "VolumeReplications on the target say Completed of the new generation and were never promoted",
    )
    .entries(&["29"])
    .at(Place::Controller, Phase::Promote)
    .seen_in(NODE_DOWN)
    .plan(SOON)
    .fires(&["O1"])
    .sources(&["ramen#176"]),
    FaultSpec::lab(
        Fault::PromotionUnrecognised,
        "promotion-unrecognised",
        "volumes are promoted while their VolumeReplications stay at FailedToPromote",
    )
    .entries(&["F7"])
    .at(Place::Controller, Phase::Promote)
    .seen_in(NODE_DOWN)
    .plan(SOON)
    .fires(&["O1"])
    .sources(&["ceph-csi#3215", "ceph-csi#3268"]),
    FaultSpec::lab(
        Fault::VrStuckTerminating,
        "vr-stuck-terminating",
        "a secondary's VolumeReplication cannot be deleted because its mirror is not replaying",
    )
    .entries(&["F14"])
    .at(Place::Controller, Phase::Cleanup)
    .seen_in(RELOCATE)
    .plan(&["deadlines.cleanup=8s"])
    .fires(&["O4"])
    .sources(&["volume-replication-operator#119", "ramen#302", "ramen#2370"]),
    FaultSpec::lab(
        Fault::ClaimrefMismatch,
        "claimref-mismatch",
        "the restored PV is reserved for the claim of the old cluster, so the new claim stays Pending",
    )
    .entries(&["F19"])
    .at(Place::Controller, Phase::Promote)
    .seen_in(RELOCATE)
    .plan(SOON)
    .fires(&["O1"])
    .sources(&["ramen#297"]),
    FaultSpec::lab(
        Fault::VmBeforePromotion,
        "vm-before-promotion",
        "the promotion is reported before the volume can be attached; the launcher fails and is tried again",
    )
    .entries(&["F20"])
    .at(Place::Controller, Phase::Promote)
    .params(LATE)
    .seen_in(RELOCATE)
    .ordained(Ordained::Green)
    .sources(&["rook#12915"]),
    FaultSpec::lab(
        Fault::DemoteUnderRunningVm,
        "demote-under-running-vm",
        "the launcher writes on under a VM that says it is stopped, and the demotion permits it",
    )
    .entries(&["F15"])
    .at(Place::Controller, Phase::Demote)
    .params(LATE)
    .seen_in(RELOCATE)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::BlocklistLeft,
        "fence-leaves-blocklist",
        "lifting a fence is acknowledged and the addresses stay blocked",
    )
    .entries(&["F17"])
    .at(Place::Controller, Phase::Reprotect)
    .seen_in(FAILBACK)
    .plan(&["protection.fencing={method: networkFence, networkFenceClass: lab-fence}"])
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::NoLeader,
        "no-leader",
        "no csi-addons sidecar leads, so VolumeReplications stay without a status",
    )
    .entries(&["F29"])
    .at(Place::Controller, Phase::Provision)
    .seen_in(BOOT)
    .plan(&["deadlines.sync=8s"])
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::ParentNotMirrored,
        "clone-parent-not-mirrored",
        "the root volume is a clone whose parent is not mirrored, so it cannot be either",
    )
    .entries(&["F30"])
    .at(Place::Controller, Phase::Provision)
    .seen_in(BOOT)
    .plan(&["deadlines.sync=8s"])
    .fires(&["O1"])
    .sources(&["ceph-csi: flattenMode"]),
    FaultSpec::lab(
        Fault::ReplicaRemovedWithVr,
        "replica-removed-with-vr",
        "a VolumeReplication is pruned on the primary under load, and the replica goes with it",
    )
    .entries(&["F23"])
    .at(Place::Controller, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .plan(SOON)
    .fires(&["O1", "O2"]),
    FaultSpec::lab(
        Fault::NewIdentity,
        "new-identity-on-target",
        "the guest has another address, another PVC UID and new SSH host keys on the target",
    )
    .entries(&["53"])
    .at(Place::Guest, Phase::Boot)
    .seen_in(RELOCATE)
    .ordained(Ordained::Green)
    .sources(&["cloud-init: ssh_deletekeys for a new instance-id"]),
    FaultSpec::lab(
        Fault::ClusterClockSkew,
        "cluster-clock-skew",
        "the primary's control plane is ahead and the secondary's behind, sync times included",
    )
    .entries(&["50"])
    .at(Place::Controller, Phase::Always)
    .params(&[Param {
        name: "seconds",
        default: 5,
        unit: "seconds",
    }])
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Green),
];
