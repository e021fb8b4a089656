//! The deterministic simulation: ledger, array and checks without any API, in virtual time.
//!
//! Contract: a seed is a history. Guests write, an array cuts, transfers and crashes, a host hears
//! what it hears; the real checks judge what was recorded, and what they say is held against what
//! they must say, which the simulation derives from the truth by definition and never by running a
//! check. A check that fails on a legal history, or does not fail where the evidence shows a fault,
//! is a failure of the campaign, and its seed replays it.
//! May use: plan, history, check, probe.

use std::ops::Range;
use std::path::Path;

use crate::check::Verdicts;
use crate::history::read::History;
use crate::plan::{Known, Plan, PlanError};

mod array;
mod campaign;
mod cells;
mod draw;
mod family;
mod guest;
mod hear;
mod oracle;
mod passage;
mod shape;
mod shrink;
mod story;
mod strike;
mod tally;
mod tell;
#[cfg(test)]
mod tests;
mod times;
mod trial;
mod world;

pub use campaign::{run, run_with};
pub use shrink::{shrink, shrink_with};
pub use story::{Story, replay, replay_with};
pub use tally::{Count, Failure, Tally};

/// Whether a fault is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing is wrong: no check may fail.
    Legal,
    /// One fault of one family is planted.
    Faulty,
}

impl Kind {
    /// Its name in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legal => "legal",
            Self::Faulty => "faulty",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Legal, Self::Faulty]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{text:?} is neither legal nor faulty"))
    }
}

/// Histories to make and judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// One history each.
    pub seeds: Range<u64>,
    /// Legal or faulty.
    pub kind: Kind,
}

/// What judges the histories: [`crate::check::judge`], or a variant that a test has broken.
pub type Judge<'a> = dyn Fn(&Plan, &History) -> Verdicts + Sync + 'a;

/// A family of planted faults, for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilySpec {
    /// Its name.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// The checks of which one must fail.
    pub ordained: &'static [&'static str],
}

/// Every family of faults that the simulation plants.
pub fn families() -> impl Iterator<Item = FamilySpec> {
    family::FAMILIES.iter().map(|spec| FamilySpec {
        name: spec.name,
        what: spec.what,
        ordained: spec.ordained,
    })
}

/// Why planted faults may leave no trace: the id used in counts, and the explanation.
pub fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = family::REASONS.iter();
    all.map(|reason| (reason.name(), reason.sentence()))
}

/// The plan by which simulated histories are judged.
const PLAN: &str = "apiVersion: virtproof.dev/v1alpha1
kind: Plan
metadata: {name: simulation}
sites:
  primary: {context: east}
  secondary: {context: west}
protection:
  driver: volumeReplication
  volumeReplicationClass: fast
  schedulingInterval: 1s
workloads:
  - name: ledger
    template: any
objectives: {rpo: 1s, rto: 10s}
scenarios: [relocate.zero-loss]
";

fn plan() -> Result<Plan, PlanError> {
    Ok(crate::plan::parse(PLAN, "simulation", Path::new("."), &Known::nothing())?.plan)
}
