//! Faults of freezes: of what carries them out, of what they leave, and of the point taken in them.

use super::{FREEZE, THAW_GUARANTEE};
use crate::lab::faults::{Fault, FaultSpec, Param, Phase, Place};

/// Longer than the ten seconds that virt-api waits.
const SLOW: &[Param] = &[Param {
    name: "seconds",
    default: 60,
    unit: "seconds of lab time",
}];

/// The guest freezes itself.
const INSIDE: &[&str] = &["workloads.0.quiesce=guest"];

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::FreezeInPod,
        "freeze-in-the-pod",
        "the freeze acts on the launcher's pod, not on the guest, and says that it succeeded",
    )
    .entries(&["36"])
    .at(Place::Controller, Phase::Recipe)
    .seen_in(FREEZE)
    .fires(&["A1"])
    .doubts(&["A2", "A3", "A4"]),
    FaultSpec::lab(
        Fault::FreezeSwallowed,
        "freeze-error-swallowed",
        "the agent does not answer the freeze, and its error is swallowed",
    )
    .entries(&["37"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(FREEZE)
    .fires(&["A1"])
    .doubts(&["A2", "A3", "A4"]),
    FaultSpec::lab(
        Fault::FreezeSlow,
        "freeze-outlasts-the-api",
        "a freeze takes a minute: after ten seconds it is answered with an error, and holds later all the same",
    )
    .at(Place::Guest, Phase::Recipe)
    .params(SLOW)
    .seen_in(FREEZE)
    .fires(&["A1"])
    .doubts(&["A2", "A3", "A4"]),
    FaultSpec::lab(
        Fault::SnapshotOutsideFreeze,
        "snapshot-outside-freeze",
        "storage takes no snapshot while file systems are frozen, so the launcher's timer thaws them first",
    )
    .entries(&["38"])
    .at(Place::Array, Phase::Recipe)
    .seen_in(FREEZE)
    .plan(&["deadlines.unfreeze=2s"])
    .fires(&["A2", "A4"])
    .doubts(&["A3"]),
    FaultSpec::lab(
        Fault::ThawSwallowed,
        "thaw-never-issued",
        "the thaw is acknowledged and never reaches the guest",
    )
    .entries(&["39"])
    .at(Place::Controller, Phase::Recipe)
    .seen_in(FREEZE)
    .plan(&["objectives.freezeStall=2s"])
    .fires(&["A4"]),
    FaultSpec::lab(
        Fault::FreezeUnclean,
        "unclean-claimed-consistent",
        "the freeze stops writers and leaves the journal of ext4 to be replayed",
    )
    .entries(&["41"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(FREEZE)
    .fires(&["A3"]),
    FaultSpec::lab(
        Fault::FsfreezeIdles,
        "fsfreeze-does-nothing",
        "fsfreeze in the guest ends with 0 and neither freezes nor thaws",
    )
    .entries(&["37"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(FREEZE)
    .plan(INSIDE)
    .simulated_only()
    .fires(&["A1"])
    .doubts(&["A2", "A3", "A4"]),
    FaultSpec::lab(
        Fault::GuestThawLost,
        "thaw-in-guest-lost",
        "a thaw inside the guest is answered and lost on its way",
    )
    .entries(&["39"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(FREEZE)
    .plan(&["workloads.0.quiesce=guest", "objectives.freezeStall=2s"])
    .simulated_only()
    .fires(&["A4"]),
    FaultSpec::lab(
        Fault::HolderKilled,
        "freeze-holder-killed",
        "what holds a freeze inside the guest is killed, and its timer with it",
    )
    .entries(&["39"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(THAW_GUARANTEE)
    .plan(&["workloads.0.quiesce=guest", "deadlines.unfreeze=2s"])
    .simulated_only()
    .fires(&["A4"]),
];
