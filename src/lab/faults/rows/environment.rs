//! Faults of the API server and of the environment around the tool.

use super::NODE_DOWN;
use crate::lab::faults::{Fault, FaultSpec, Moment, Ordained, Phase, Place};

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[FaultSpec::lab(
    Fault::AckStreamCut,
    "ack-stream-cut",
    "every stream to the guests breaks well before the site does",
)
.entries(&["45"])
.at(Place::ApiServer, Phase::Load)
.aimed(Moment::Load)
.seen_in(NODE_DOWN)
.ordained(Ordained::Inconclusive)];
