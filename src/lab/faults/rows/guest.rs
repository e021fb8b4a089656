//! Faults of the guests and of their surroundings.

use super::{BOOT, CRASH, NODE_DOWN, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Ordained, Param, Phase, Place};

/// A time that a guest takes longer, as the lab counts time.
const LONGER: &[Param] = &[Param {
    name: "seconds",
    default: 60,
    unit: "seconds of lab time",
}];

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::ReachesProduction,
        "guest-reaches-production",
        "the guest on the target reaches every address",
    )
    .entries(&["26"])
    .at(Place::Guest, Phase::Boot)
    .simulated_only()
    .seen_in(RELOCATE)
    .plan(&["isolation.unreachable=[\"db.production.example:5432\"]"])
    .fires(&["O6"]),
    FaultSpec::lab(
        Fault::AgentMissing,
        "agent-missing",
        "the guest agent does not run",
    )
    .at(Place::Guest, Phase::Always)
    .seen_in(BOOT)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::AgentSlow,
        "agent-slow",
        "the guest agent answers a minute late",
    )
    .at(Place::Guest, Phase::Always)
    .params(LONGER)
    .seen_in(BOOT)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::SshdDown,
        "sshd-down",
        "nothing listens for SSH in the guest on the target",
    )
    .at(Place::Guest, Phase::Boot)
    .seen_in(RELOCATE)
    .plan(&["deadlines.ssh=8s"])
    .fires(&["O1"]),
    FaultSpec::lab(
        Fault::SshdSlow,
        "sshd-slow",
        "SSH comes up a minute late in the guest on the target",
    )
    .at(Place::Guest, Phase::Boot)
    .params(LONGER)
    .seen_in(RELOCATE)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::GuestClock,
        "guest-clock",
        "the guest's clock is ahead on the primary and behind on the secondary",
    )
    .entries(&["50"])
    .at(Place::Guest, Phase::Always)
    .params(&[Param {
        name: "seconds",
        default: 300,
        unit: "seconds",
    }])
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Green),
    FaultSpec::lab(
        Fault::GuestFrozen,
        "guest-frozen",
        "the guest's file systems are frozen under load and nobody thaws them",
    )
    .at(Place::Guest, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Inconclusive),
    FaultSpec::lab(
        Fault::GuestReboots,
        "guest-reboots",
        "the guest reboots by itself under load, and its writers are gone",
    )
    .at(Place::Guest, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Inconclusive),
    FaultSpec::lab(
        Fault::JournalReplay,
        "journal-replay",
        "the file system under the ledger file replays its journal before it is read back",
    )
    .entries(&["49"])
    .at(Place::Guest, Phase::ReadBack)
    .seen_in(CRASH)
    .ordained(Ordained::Green),
];
