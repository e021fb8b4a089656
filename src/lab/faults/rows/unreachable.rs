//! Rows of the catalogue that nothing can show yet. They are counted, never called caught.

use crate::lab::faults::{FaultSpec, Phase, Place};

const MIGRATION: &str = "no scenario migrates a VM yet";
const RECIPE: &str = "no scenario applies a Recipe yet";
const WINDOWS: &str = "no Windows guest is simulated";
const GROUPS: &str = "the VolumeGroupReplication driver does not exist yet";
const VOLSYNC: &str = "the VolSync driver does not exist yet";

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::unreachable(
        "pause-at-migration",
        "the guest stands still for eight seconds while it migrates",
        MIGRATION,
    )
    .entries(&["31"])
    .awaits(&["M1"])
    .at(Place::Controller, Phase::Migration),
    FaultSpec::unreachable(
        "reboot-for-migration",
        "the guest is rebooted on the other node instead of migrated",
        MIGRATION,
    )
    .entries(&["32"])
    .awaits(&["M2"])
    .at(Place::Controller, Phase::Migration),
    FaultSpec::unreachable(
        "two-launchers",
        "both launchers of a migration stay alive",
        MIGRATION,
    )
    .entries(&["33"])
    .awaits(&["M2"])
    .at(Place::Controller, Phase::Migration),
    FaultSpec::unreachable(
        "dirty-cache-lost",
        "the target of a migration loses what the source held in its cache",
        MIGRATION,
    )
    .entries(&["34"])
    .awaits(&["M3"])
    .at(Place::Array, Phase::Migration),
    FaultSpec::unreachable(
        "workflow-misnamed",
        "the Recipe names its workflow as Ramen does not look for it",
        RECIPE,
    )
    .entries(&["35"])
    .awaits(&["A1"])
    .at(Place::Controller, Phase::Recipe),
    FaultSpec::unreachable(
        "vss-self-thaw",
        "Windows VSS thaws by itself after ten seconds",
        WINDOWS,
    )
    .entries(&["40"])
    .awaits(&["A2"])
    .at(Place::Guest, Phase::Recipe),
    FaultSpec::unreachable(
        "group-completed-stale",
        "a VolumeGroupReplication shows Completed of an older generation",
        GROUPS,
    )
    .entries(&["F12"])
    .awaits(&["O1"])
    .at(Place::Controller, Phase::Promote)
    .sources(&["vol-rep-op: VGR status generation"]),
    FaultSpec::unreachable(
        "group-content-error-hidden",
        "the error of a VolumeGroupReplicationContent never reaches its VGR",
        GROUPS,
    )
    .entries(&["F13"])
    .awaits(&["O1"])
    .at(Place::Controller, Phase::Provision)
    .sources(&["csi-addons#1076, csi-addons#1087"]),
    FaultSpec::unreachable(
        "volsync-destination-old",
        "a VolSync source is done while the destination still holds the older image",
        VOLSYNC,
    )
    .entries(&["F24"])
    .awaits(&["D1"])
    .at(Place::Controller, Phase::Replication)
    .sources(&["volsync#14"]),
    FaultSpec::unreachable(
        "volsync-populated-empty",
        "a claim populated by VolSync is bound and empty",
        VOLSYNC,
    )
    .entries(&["F25"])
    .awaits(&["D7"])
    .at(Place::Controller, Phase::Promote)
    .sources(&["volsync#1504, volsync#1520"]),
];
