//! What a check says: pass, fail or inconclusive, with what it saw and how far it can see.

use serde::{Deserialize, Serialize};

/// Three-valued; inconclusive is never counted as a pass. Ordered pass < inconclusive < fail, so
/// the verdict of a whole is the maximum of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Looked, and found as promised.
    Pass,
    /// Could not look well enough to tell.
    Inconclusive,
    /// Looked, and found otherwise.
    Fail,
}

/// A number with its unit, target and bracket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured, `rpo`, `lost-writes`, `rto.promoted`.
    pub name: String,
    /// Unit: `s`, `writes`, `bytes`, `cells`, `1`.
    pub unit: String,
    /// Lower end of the bracket.
    pub low: f64,
    /// Upper end of the bracket; equals `low` for counts.
    pub high: f64,
    /// What the plan allows, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
}

/// One check's word on one subject of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Check id, a row of `check::CATALOGUE`.
    pub check: String,
    /// The trial.
    pub trial: String,
    /// Its scenario id.
    pub scenario: String,
    /// The subject; empty for checks of the trial or the run as a whole (O4).
    pub subject: String,
    /// The word.
    pub status: Status,
    /// One sentence: what was found.
    pub summary: String,
    /// The evidence that decides: offending pairs, cells, events by seq. Empty on a pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witness: Vec<String>,
    /// What breaks no promise and is worth a look all the same; never changes the word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How far the check can see: counts examined, bracket width, what it cannot rule out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
}
