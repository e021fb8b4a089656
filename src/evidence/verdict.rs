//! What verifying a run directory comes to.

use serde::Serialize;

use crate::check::verdict::Status;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It cannot be told: another version of virtproof judged or rendered otherwise.
    Doubt,
    /// It does not hold.
    Broken,
}

/// Something that verifying found, with its place as exactly as it can be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, relative to the run directory.
    pub file: String,
    /// Line, byte, or what else tells the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What is wrong there.
    pub what: String,
    /// How much it weighs.
    pub weight: Weight,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, at, what, .. } = self;
        match at {
            Some(at) => write!(f, "{file}, {at}: {what}"),
            None => write!(f, "{file}: {what}"),
        }
    }
}

/// Whose word the manifest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "key")]
pub enum Signed {
    /// Nobody's.
    Unsigned,
    /// The key with this fingerprint, which is the expected one.
    Expected(String),
    /// The key with this fingerprint; nobody said which to expect.
    Unnamed(String),
    /// The signature does not hold, or is not the expected key's.
    Wrong,
}

/// What verifying came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Run id, as far as it could be read.
    pub run: Option<String>,
    /// The verdict that the evidence gives.
    pub verdict: Option<Status>,
    /// The last hash of the event chain.
    pub head: Option<String>,
    /// Files that the manifest lists.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whose word it is.
    pub signature: Signed,
    /// What was found, worst first, then by file.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// The weight of the worst finding, `None` without any.
    pub fn worst(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).max()
    }

    /// Whether everything holds.
    pub fn is_whole(&self) -> bool {
        self.worst().is_none_or(|worst| worst == Weight::Note)
    }
}
