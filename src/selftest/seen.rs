//! What a row's run showed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::Verdicts;
use crate::check::verdict::Status;

/// What one run of a row showed, at one seed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The seed.
    pub seed: u64,
    /// The exit code of the run, or of what looked at its evidence afterwards; `None` if it was
    /// killed or did not end in time.
    pub exit: Option<i32>,
    /// Whether the tool refused to go on, or to believe its evidence.
    pub refused: bool,
    /// The worst word of each check, by id.
    pub checks: BTreeMap<String, Status>,
    /// For each check that did not pass: the sentence of its worst verdict.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, String>,
    /// The longest stage of any recovery, as T2 measured them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_stage: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
    /// The end of what was printed.
    pub said: String,
}

impl Seen {
    /// Takes in what the checks said.
    pub fn take(&mut self, verdicts: &Verdicts) {
        let mut longest = 0.0;
        for verdict in &verdicts.verdicts {
            let worst = self
                .checks
                .entry(verdict.check.clone())
                .or_insert(verdict.status);
            if verdict.status > *worst {
                self.why.remove(&verdict.check);
            }
            *worst = verdict.status.max(*worst);
            if *worst != Status::Pass && verdict.status == *worst {
                let why = self.why.entry(verdict.check.clone());
                why.or_insert_with(|| verdict.summary.clone());
            }
            for measure in verdict.measures.iter().filter(|_| verdict.check == "T2") {
                if let Some(stage) = measure.name.strip_prefix("rto.")
                    && measure.high > longest
                {
                    longest = measure.high;
                    self.longest_stage = Some(stage.to_owned());
                }
            }
        }
    }

    /// The checks that said this at worst.
    pub fn with(&self, status: Status) -> impl Iterator<Item = &str> {
        self.checks
            .iter()
            .filter(move |(_, worst)| **worst == status)
            .map(|(check, _)| check.as_str())
    }

    /// Why a check did not pass, to be put behind what it said.
    pub fn because(&self, check: &str) -> String {
        let why = self.why.get(check);
        why.map(|why| format!(" ({why})")).unwrap_or_default()
    }
}
