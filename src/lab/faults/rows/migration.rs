//! Faults of live migrations.

use super::{ABORT, ACROSS, DRAIN, MASS, MIGRATE};
use crate::lab::faults::{Fault, FaultSpec, Param, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::PauseAtMigration,
        "pause-at-migration",
        "the guest stands still for eight seconds while it migrates",
    )
    .entries(&["31"])
    .at(Place::Controller, Phase::Migration)
    .params(&[Param {
        name: "ms",
        default: 8_000,
        unit: "milliseconds of the guest's clock",
    }])
    .seen_in(MIGRATE)
    .fires(&["M1"]),
    FaultSpec::lab(
        Fault::RebootForMigration,
        "reboot-for-migration",
        "the guest is rebooted on the other node instead of migrated",
    )
    .entries(&["32"])
    .at(Place::Controller, Phase::Migration)
    .seen_in(MIGRATE)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["M2"]),
    FaultSpec::lab(
        Fault::TwoLaunchers,
        "two-launchers",
        "both launchers of a migration stay alive, and the one that was left renews its leases too",
    )
    .entries(&["33"])
    .at(Place::Controller, Phase::Migration)
    .seen_in(MIGRATE)
    .fires(&["M2"])
    .sources(&["kubevirt#16622", "kubevirt#15373"]),
    FaultSpec::lab(
        Fault::DirtyCacheLost,
        "dirty-cache-lost",
        "the target of a migration lacks the writes that the source held in its cache",
    )
    .entries(&["34"])
    .at(Place::Array, Phase::Migration)
    .seen_in(MIGRATE)
    .fires(&["M3"]),
    FaultSpec::lab(
        Fault::FailureHidden,
        "failure-hidden",
        "a migration that failed is said to have succeeded, and the guest is where it was",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(MIGRATE)
    .plan(&["deadlines.transition=8s"])
    .fires(&["M2"])
    .sources(&["kubevirt.md §8: failure reported as completion"]),
    FaultSpec::lab(
        Fault::EvictionKills,
        "eviction-kills",
        "the eviction of a launcher ends it, and the VM is started anew elsewhere",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(DRAIN)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["M2"])
    .sources(&["KubeVirt: the eviction webhook is ignored where it does not answer"]),
    FaultSpec::lab(
        Fault::EvacuationNeverComes,
        "evacuation-never-comes",
        "an eviction is said to have triggered an evacuation, and no migration comes",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(DRAIN)
    .plan(&["deadlines.transition=8s"])
    .fires(&["M2", "O1"]),
    FaultSpec::lab(
        Fault::FailedButMoved,
        "failed-but-moved",
        "a migration that was given up is said to have failed, and the guest is at the target",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(ABORT)
    .simulated_only()
    .fires(&["M2"]),
    FaultSpec::lab(
        Fault::AbortLeavesTwo,
        "abort-leaves-two",
        "after a migration that was given up, the copy at the target goes on and renews the leases too",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(ABORT)
    .fires(&["M2"]),
    FaultSpec::lab(
        Fault::TargetTakesSource,
        "target-takes-source",
        "the loss of its target pod takes the guest of a migration down; it boots again where it was",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(ABORT)
    .plan(&["deadlines.ssh=8s"])
    .simulated_only()
    .fires(&["M2"]),
    FaultSpec::lab(
        Fault::MoveStopsSync,
        "move-stops-sync",
        "no sync crosses any more once a guest has migrated, and replication still reports healthy",
    )
    .at(Place::Array, Phase::Migration)
    .seen_in(ACROSS)
    .plan(&["deadlines.sync=8s"])
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::MoveBlindsSync,
        "move-blinds-sync",
        "once a guest has migrated lastSyncTime advances and its data does not cross",
    )
    .at(Place::Array, Phase::Migration)
    .seen_in(ACROSS)
    .fires(&["R2"]),
    FaultSpec::lab(
        Fault::OneOfManyRebooted,
        "one-of-many-rebooted",
        "of many guests that migrate at once, one is rebooted on the way",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(MASS)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["M2"]),
    FaultSpec::lab(
        Fault::OneOfManyLeft,
        "one-of-many-left",
        "of many migrations that were asked for at once, one never gets its turn",
    )
    .at(Place::Controller, Phase::Migration)
    .seen_in(MASS)
    .plan(&["deadlines.transition=8s"])
    .fires(&["M4", "O1"])
    .sources(&["kube-burner vmimLatency: what never succeeds is left out of the figures"]),
];
