//! Faults of a VM that is paused, rebooted or killed where it is, or finds itself changed.

use super::{HARD_KILL, IDENTITY, RESTART_PAUSE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Param, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::PauseSwallowed,
        "pause-swallowed",
        "a pause is acknowledged and reported, and the guest runs on",
    )
    .at(Place::Controller, Phase::Load)
    .seen_in(RESTART_PAUSE)
    .fires(&["L1"]),
    FaultSpec::lab(
        Fault::UnpauseLate,
        "unpause-late",
        "a guest goes on four seconds after its pause is said to be over",
    )
    .at(Place::Controller, Phase::Load)
    .params(&[Param {
        name: "ms",
        default: 4_000,
        unit: "milliseconds of the guest's clock",
    }])
    .seen_in(RESTART_PAUSE)
    .fires(&["L1"]),
    FaultSpec::lab(
        Fault::ResetForUnpause,
        "reset-for-unpause",
        "a guest is reset when its pause is over, as by a watchdog that took it for a hang",
    )
    .at(Place::Guest, Phase::Load)
    .seen_in(RESTART_PAUSE)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["L2", "O1"]),
    FaultSpec::lab(
        Fault::SoftRebootSwallowed,
        "soft-reboot-swallowed",
        "a soft reboot is acknowledged and the guest does not react",
    )
    .at(Place::Guest, Phase::Load)
    .seen_in(RESTART_PAUSE)
    .plan(&["deadlines.boot=8s"])
    .fires(&["L2", "O1"])
    .sources(&["KubeVirt: softreboot answers 200 to a guest without agent that ignores ACPI"]),
    FaultSpec::lab(
        Fault::KillSwallowed,
        "killed-launcher-lives",
        "a launcher that is deleted by force lives on, as on a node that does not answer",
    )
    .at(Place::Controller, Phase::Load)
    .seen_in(HARD_KILL)
    .fires(&["L3"])
    .sources(&["Kubernetes: a pod deleted with grace period 0 may still run"]),
    FaultSpec::lab(
        Fault::DisksRenamed,
        "disks-renamed",
        "the same disks stand at other PCI addresses on the target, so its kernel names them otherwise",
    )
    .entries(&["25"])
    .at(Place::Guest, Phase::Boot)
    .seen_in(IDENTITY)
    .fires(&["G2"])
    .simulated_only()
    .sources(&["KubeVirt: kubevirt.io/pci-topology-version"]),
    FaultSpec::lab(
        Fault::LyingFlush,
        "lying-flush-at-kill",
        "flushed writes stay in a cache that dies with the launcher",
    )
    .entries(&["1"])
    .at(Place::Array, Phase::Load)
    .aimed(Moment::Load)
    .params(&[Param {
        name: "writes",
        default: 64,
        unit: "cells that the cache holds back",
    }])
    .seen_in(HARD_KILL)
    .fires(&["D1"]),
];
