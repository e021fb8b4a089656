//! Faults of disks that come, go and grow under a running guest.

use super::{HOTPLUG, PROTECTED, RESIZE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Param, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::PlugUnseen,
        "plug-unseen",
        "a hotplugged volume is said to be ready, and the guest never gets the disk",
    )
    .at(Place::Controller, Phase::Load)
    .seen_in(HOTPLUG)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["H1", "O1"]),
    FaultSpec::lab(
        Fault::PlugForgotten,
        "plug-forgotten",
        "a hotplugged volume reaches the running VMI alone, and is gone after a restart",
    )
    .at(Place::Controller, Phase::Boot)
    .seen_in(HOTPLUG)
    .plan(&["deadlines.transition=8s"])
    .fires(&["H1", "O1"])
    .simulated_only()
    .sources(&["KubeVirt: addvolume on a VMI is ephemeral"]),
    FaultSpec::lab(
        Fault::PlugStalls,
        "plug-stalls-guest",
        "the guest stands still for four seconds while it gets a disk",
    )
    .at(Place::Controller, Phase::Load)
    .params(&[Param {
        name: "ms",
        default: 4_000,
        unit: "milliseconds of the guest's clock",
    }])
    .seen_in(HOTPLUG)
    .fires(&["H2"])
    .simulated_only(),
    FaultSpec::lab(
        Fault::UnplugWrongDisk,
        "unplug-wrong-disk",
        "another disk of the guest is taken away than the one that was to be",
    )
    .at(Place::Controller, Phase::Load)
    .seen_in(HOTPLUG)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["H1", "O1"])
    .simulated_only(),
    FaultSpec::lab(
        Fault::JoinerLeftOut,
        "joiner-left-out",
        "a volume that joins a group under load is left out of its snapshots, and its replication looks healthy",
    )
    .entries(&["12"])
    .at(Place::Array, Phase::Replication)
    .seen_in(PROTECTED)
    .plan(&["deadlines.sync=8s"])
    .fires(&["O1", "O2"])
    .sources(&["RamenDR: a disk without the label is never protected"]),
    FaultSpec::lab(
        Fault::PlugUnseen,
        "plug-unseen-elsewhere",
        "after a failover a hotplugged volume is said to be ready, and the guest never gets the disk",
    )
    .at(Place::Controller, Phase::Boot)
    .aimed(Moment::Promote)
    .seen_in(PROTECTED)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["H1", "O1"])
    .simulated_only(),
    FaultSpec::lab(
        Fault::ResizeUnseen,
        "resize-unseen",
        "a volume has grown and its claim and VMI say so, and the guest is never told",
    )
    .at(Place::Controller, Phase::Load)
    .seen_in(RESIZE)
    .plan(&["deadlines.ssh=6s"])
    .fires(&["H3", "O1"])
    .sources(&["KubeVirt: without ExpandDisks nobody tells the guest"]),
    FaultSpec::lab(
        Fault::ReplicaKeepsSize,
        "replica-keeps-size",
        "a replica keeps the size that it had when its volume was small",
    )
    .at(Place::Array, Phase::Replication)
    .seen_in(RESIZE)
    .fires(&["D7", "H3"]),
    FaultSpec::lab(
        Fault::GrownRecycled,
        "grown-recycled",
        "what a volume has grown by is not blank: it holds blocks that were in use",
    )
    .at(Place::Array, Phase::Load)
    .seen_in(RESIZE)
    .fires(&["H3"]),
];
