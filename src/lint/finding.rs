//! Findings and the rules behind them.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is refused, or does not do what is written.
    Error,
    /// It works until a disaster, a migration or a second run.
    Warning,
    /// It cannot be helped here, but must be known.
    Note,
}

impl Severity {
    /// The word, which is SARIF's level too.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A rule.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its id, which never changes.
    pub id: &'static str,
    /// How bad a finding of it is, as a rule.
    pub severity: Severity,
    /// What is so, whatever the manifest says.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Where the fact is from.
    pub source: &'static str,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// How bad it is here.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// Line from 1.
    pub line: u64,
    /// Column from 1.
    pub column: u64,
    /// The object, such as `Recipe app/quiesce`.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// Why that matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Where the fact is from.
    pub source: &'static str,
}

/// Findings by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Notes.
    pub notes: usize,
}

impl Counts {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
        }
    }
}
