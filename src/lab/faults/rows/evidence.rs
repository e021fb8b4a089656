//! What happens to the tool and to its evidence.

use super::BOOT;
use crate::lab::faults::{FaultSpec, How, Ordained, Phase, Place, Tamper};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::new(
        How::Tamper(Tamper::TruncateSegment),
        "segment-truncated",
        "the ack segment of the load loses its second half",
    )
    .entries(&["42"])
    .at(Place::Evidence, Phase::After)
    .seen_in(BOOT)
    .ordained(Ordained::Inconclusive),
    FaultSpec::new(
        How::Kill,
        "orchestrator-killed",
        "virtproof is killed with signal 9 under load",
    )
    .entries(&["43"])
    .at(Place::Tool, Phase::Load)
    .seen_in(BOOT)
    .ordained(Ordained::Inconclusive),
    FaultSpec::new(
        How::Tamper(Tamper::EditSigned),
        "edited-after-signing",
        "one byte of a signed bundle changes",
    )
    .entries(&["46"])
    .at(Place::Evidence, Phase::After)
    .seen_in(BOOT)
    .ordained(Ordained::Refused),
];
