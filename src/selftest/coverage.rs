//! What the rows together must show: every check of every scenario turned red by a fault and kept
//! green by a control, and every check of the catalogue tied to a row.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::matrix::Row;
use super::seen::Seen;
use super::word::Word;
use crate::check::verdict::Status;
use crate::lab::faults::{FaultSpec, Ordained};
use crate::scenario::catalogue::{Need, catalogue as scenarios};

/// Checks that never fail by design: their alarm is a doubt. The stages of a recovery that do not
/// add up say that the measurement is not to be trusted, not that the storage is.
const DOUBTERS: &[&str] = &["T2"];

/// Something that the table should show and does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gap", content = "check")]
pub enum Gap {
    /// No fault turned the check red.
    NeverRed(String),
    /// No control or run without a fault kept it green.
    NeverGreen(String),
    /// A scenario or a row names it, and the catalogue has no such check.
    NoSuchCheck(String),
    /// The catalogue has it, and neither a scenario nor a row knows it.
    Untied(String),
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeverRed(check) => write!(f, "no fault turned {check} red"),
            Self::NeverGreen(check) => write!(f, "no control kept {check} green"),
            Self::NoSuchCheck(check) => {
                write!(f, "{check} is asked for, and there is no such check")
            }
            Self::Untied(check) => {
                write!(f, "{check} is in no scenario and no row of the fault table")
            }
        }
    }
}

/// The checks that scenarios name.
pub fn scenario_checks() -> BTreeSet<&'static str> {
    scenarios().flat_map(|spec| spec.checks).copied().collect()
}

/// What is missing, given the checks that exist.
pub fn gaps(specs: &[&FaultSpec], rows: &[Row], catalogue: &[&str]) -> Vec<Gap> {
    let mut gaps = BTreeSet::new();
    let seen: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| &row.seen)
        .flat_map(|seen| seen.checks.keys())
        .map(String::as_str)
        .collect();
    let wired: BTreeSet<&str> = scenario_checks().union(&seen).copied().collect();
    let of_rows = specs
        .iter()
        .flat_map(|spec| [spec.red(), spec.doubts, spec.awaits])
        .flatten()
        .copied();
    let named: BTreeSet<&str> = wired.iter().copied().chain(of_rows).collect();
    for check in named.iter().filter(|check| !catalogue.contains(check)) {
        gaps.insert(Gap::NoSuchCheck((*check).into()));
    }
    for check in catalogue.iter().filter(|check| !named.contains(**check)) {
        gaps.insert(Gap::Untied((*check).into()));
    }
    for check in wired.difference(&elsewhere(specs, rows)).copied() {
        let red = specs.iter().zip(rows).any(|(spec, row)| {
            let doubt = DOUBTERS.contains(&check) && spec.doubts.contains(&check);
            row.word == Word::AsOrdained && (spec.red().contains(&check) || doubt)
        });
        if !red {
            gaps.insert(Gap::NeverRed(check.into()));
        }
        let green = specs.iter().zip(rows).any(|(spec, row)| {
            let passed = |seen: &Seen| seen.checks.get(check) == Some(&Status::Pass);
            spec.ordained == Ordained::Green
                && row.word == Word::AsOrdained
                && row.seen.iter().any(passed)
        });
        if !green {
            gaps.insert(Gap::NeverGreen(check.into()));
        }
    }
    gaps.into_iter().collect()
}

/// The checks that only scenarios for real guests name, where none of those was played: they are for
/// a self-test with such guests to show.
fn elsewhere(specs: &[&FaultSpec], rows: &[Row]) -> BTreeSet<&'static str> {
    let mut real = specs.iter().zip(rows).filter(|(spec, _)| spec.real_only);
    if real.any(|(_, row)| !row.seen.is_empty()) {
        return BTreeSet::new();
    }
    let checks = |real: bool| {
        let of = scenarios().filter(move |spec| spec.needs.contains(&Need::RealGuests) == real);
        of.flat_map(|spec| spec.checks).copied()
    };
    let mut only: BTreeSet<&str> = checks(true).collect();
    for check in checks(false) {
        only.remove(check);
    }
    only
}

/// What a run would have shown had a check not existed.
#[must_use]
pub fn without(seen: &Seen, check: &str) -> Seen {
    let mut rest = seen.clone();
    if rest.checks.remove(check).is_some() {
        rest.exit = rest.exit.map(|_| match rest.checks.values().max() {
            Some(Status::Pass) => 0,
            Some(Status::Fail) => 1,
            Some(Status::Inconclusive) | None => 4,
        });
        if check == "T2" {
            rest.longest_stage = None;
        }
    }
    rest
}
