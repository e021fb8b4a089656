//! Faults of disks that come and go under a running guest.

use super::HOTPLUG;
use crate::lab::faults::{Fault, FaultSpec, Param, Phase, Place};

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
    .fires(&["H1", "O1"])
    .simulated_only(),
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
];
