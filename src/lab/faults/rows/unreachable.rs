//! Rows of the catalogue that nothing can show yet. They are counted, never called caught.

use crate::lab::faults::{FaultSpec, Phase, Place};

const WINDOWS: &str = "no Windows guest is simulated";
const GROUPS: &str = "the VolumeGroupReplication driver does not exist yet";
const VOLSYNC: &str = "the VolSync driver does not exist yet";

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
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
