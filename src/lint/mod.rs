//! Manifests in, findings out: what an API server takes without a word and a disaster then shows.
//!
//! Contract: pure and total. Texts go in together, because half of the traps lie between two objects;
//! out come findings with file, line, reason, fix and source, and the kinds that nobody looked at. It
//! says nothing of what a cluster holds. Hostile text gives a [`Malformed`], never a panic.
//! May use: plan, workload.

mod claims;
mod finding;
mod object;
mod rules;
mod sarif;
mod schema;
mod text;

pub use finding::{Counts, Finding, Rule, Severity};
pub use object::Skipped;
pub use rules::all as rules;
pub use sarif::sarif;
pub use text::{Part, page, render};

use crate::plan::yaml::Malformed;
use object::Set;

/// A text to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in findings.
    pub name: String,
    /// The text: one or more YAML documents, or JSON.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The findings, by file and line.
    pub findings: Vec<Finding>,
    /// How many objects were looked at.
    pub looked_at: usize,
    /// Objects of kinds for which there are no rules.
    pub skipped: Vec<Skipped>,
    /// Texts that are no YAML.
    pub malformed: Vec<(String, Malformed)>,
}

impl Report {
    /// How many findings there are of each severity.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.findings)
    }
}

/// Looks at all texts together.
pub fn lint(sources: &[Source]) -> Report {
    let (set, skipped, malformed) = Set::read(sources);
    let mut findings = rules::run(&set);
    findings.sort_by(|a, b| {
        (&a.file, a.line, a.column, a.severity, a.rule)
            .cmp(&(&b.file, b.line, b.column, b.severity, b.rule))
    });
    findings.dedup();
    Report {
        findings,
        looked_at: set
            .objects
            .iter()
            .filter(|object| object.kind.has_rules())
            .count(),
        skipped,
        malformed,
    }
}

#[cfg(test)]
mod tests;
