//! Rows and words put together.

use serde::{Deserialize, Serialize};

use super::coverage::Gap;
use super::seen::Seen;
use super::simulated::Simulated;
use super::word::{Word, judge};
use crate::lab::faults::FaultSpec;

/// Why simulated guests do not show a row.
const NEEDS_REAL: &str = "it needs real guests: `selftest --guests qemu`";

/// One row as it came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The fault.
    pub name: String,
    /// The catalogue entries that it stands for.
    pub entries: Vec<String>,
    /// Where it is injected.
    pub place: String,
    /// When it strikes.
    pub phase: String,
    /// What must come of it.
    pub ordained: String,
    /// The scenario.
    pub scenario: String,
    /// What it does.
    pub summary: String,
    /// What is to be said of it: the worst over its seeds.
    pub word: Word,
    /// The seed of that word.
    pub seed: u64,
    /// Its runs.
    pub seen: Vec<Seen>,
}

impl Row {
    /// Judges the runs of a row.
    pub fn new(spec: &FaultSpec, seen: Vec<Seen>) -> Self {
        let words = seen.iter().map(|one| (judge(spec, one), one.seed));
        let worst = words.max().unwrap_or_else(|| (unplayed(spec), 0));
        Self {
            name: spec.name.into(),
            entries: spec.entries.iter().map(|e| (*e).into()).collect(),
            place: spec.place.name().into(),
            phase: spec.phase.name().into(),
            ordained: spec.word(),
            scenario: spec.scenario.into(),
            summary: spec.summary.into(),
            word: worst.0,
            seed: worst.1,
            seen,
        }
    }
}

/// What is to be said of a row that was not put into effect.
fn unplayed(spec: &FaultSpec) -> Word {
    if spec.real_only {
        return Word::Unreachable(NEEDS_REAL.into());
    }
    judge(spec, &Seen::default())
}

/// How many rows there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// As ordained.
    pub held: usize,
    /// Faults missed, or controls that did not pass.
    pub missed: usize,
    /// Checks that failed wrongly.
    pub false_alarms: usize,
    /// Rows whose run did not work.
    pub broken: usize,
    /// Rows that nothing can show yet.
    pub unreachable: usize,
}

/// The whole self-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// Check ids in the order of the catalogue.
    pub checks: Vec<String>,
    /// Rows in the order of the table.
    pub rows: Vec<Row>,
    /// What no row shows although it must; empty for a part of the table.
    pub gaps: Vec<Gap>,
    /// What the simulated histories say, if any were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<Simulated>,
}

impl Matrix {
    /// Counts the rows.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for row in &self.rows {
            *match row.word {
                Word::AsOrdained => &mut tally.held,
                Word::Miss(_) => &mut tally.missed,
                Word::FalseAlarm(_) => &mut tally.false_alarms,
                Word::Broken(_) => &mut tally.broken,
                Word::Unreachable(_) => &mut tally.unreachable,
            } += 1;
        }
        tally
    }

    /// Whether everything that could be shown was shown as ordained.
    pub fn holds(&self) -> bool {
        self.gaps.is_empty()
            && self.simulated.as_ref().is_none_or(Simulated::holds)
            && self.rows.iter().any(|row| row.word == Word::AsOrdained)
            && self.rows.iter().all(|row| !row.word.is_bad())
    }
}
