//! One line of the history: when and of whom a fact is.

use serde::{Deserialize, Serialize};

use super::Fact;

/// The version of the event schema.
pub const VERSION: u32 = 1;

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Schema version.
    pub v: u32,
    /// Position in the history, from 0, without gaps.
    pub seq: u64,
    /// Host monotonic clock, nanoseconds since the run started. Verdicts use only this clock.
    pub at_ns: u64,
    /// Host wall clock, RFC 3339 UTC with nanoseconds; evidence, never arithmetic.
    pub wall: jiff::Timestamp,
    /// The trial it belongs to, if any: one scenario run on one set of subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<String>,
    /// The subject (VM under test) it concerns, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What happened.
    pub fact: Fact,
}
