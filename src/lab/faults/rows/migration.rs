//! Faults of live migrations.

use super::MIGRATE;
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
];
