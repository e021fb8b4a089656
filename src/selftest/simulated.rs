//! The simulated histories as part of the self-test.

use serde::{Deserialize, Serialize};

use crate::plan::PlanError;
use crate::sim::{self, Campaign, Kind};

/// What the simulation says of one family of faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// The checks of which one must fail.
    pub ordained: Vec<String>,
    /// Histories in which it was planted.
    pub planted: u64,
    /// In which an ordained check failed.
    pub caught: u64,
    /// In which another check must fail and did.
    pub elsewhere: u64,
    /// In which it left no trace in any evidence.
    pub undetectable: u64,
}

/// What the simulation says as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulated {
    /// Legal histories judged.
    pub legal: u64,
    /// Faulty histories judged.
    pub faulty: u64,
    /// Checks that failed, or could not tell, on a history without cause.
    pub false_failures: u64,
    /// Checks that did not fail though the evidence shows the fault.
    pub misses: u64,
    /// By family.
    pub families: Vec<Family>,
    /// What went wrong, each with the command that replays it.
    pub wrong: Vec<String>,
}

impl Simulated {
    /// Whether every history was judged rightly.
    pub const fn holds(&self) -> bool {
        self.false_failures == 0 && self.misses == 0
    }
}

/// Judges `count` legal and `count` faulty histories on some threads.
///
/// # Errors
/// When the simulation's own plan is refused.
pub fn simulate(
    count: u64,
    threads: usize,
    progress: impl Fn(Kind, u64) + Sync,
) -> Result<Simulated, PlanError> {
    let mut all = Simulated::default();
    for kind in [Kind::Legal, Kind::Faulty] {
        let seeds = 0..count;
        let tally = sim::run(&Campaign { seeds, kind }, threads, |done| {
            progress(kind, done);
        })?;
        match kind {
            Kind::Legal => all.legal = tally.histories,
            Kind::Faulty => all.faulty = tally.histories,
        }
        all.false_failures += tally.false_failure_count;
        all.misses += tally.miss_count;
        for failure in tally.false_failures.iter().chain(&tally.misses) {
            all.wrong
                .push(format!("{}: {}", failure.command(), failure.what));
        }
        for spec in sim::families() {
            let Some(count) = tally.by_family.get(spec.name) else {
                continue;
            };
            all.families.push(Family {
                name: spec.name.into(),
                ordained: spec.ordained.iter().map(|c| (*c).into()).collect(),
                planted: count.planted,
                caught: count.caught,
                elsewhere: count.elsewhere,
                undetectable: count.undetectable.values().sum(),
            });
        }
    }
    Ok(all)
}
