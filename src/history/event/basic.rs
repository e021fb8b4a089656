//! Where something happened and how it ended.

use serde::{Deserialize, Serialize};

/// Which of the plan's sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Where workloads start.
    Primary,
    /// Where they go.
    Secondary,
}

impl Site {
    /// The other one.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// How an action ended. `Unknown` is for anything that may or may not have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It happened.
    Ok,
    /// It did not happen; the text says what was tried, seen, and what to do.
    Failed(String),
    /// It may have happened.
    Unknown(String),
    /// It was not done, for the reason given: a trial before its first deed, or a step that only
    /// gathers evidence, without which the check that needs it has no verdict.
    Skipped(String),
}
