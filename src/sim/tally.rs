//! What a campaign counts.

use std::collections::BTreeMap;

use super::Kind;
use super::oracle::Must;
use super::trial::{Fate, Judged, Odd};
use crate::check::verdict::Status;

/// The most failures that are kept; all are counted.
const KEPT: usize = 100;

/// One family's count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Histories in which it was planted.
    pub planted: u64,
    /// In which an ordained check failed.
    pub caught: u64,
    /// In which the ordained checks need not fail and another one must and did: a misplaced copy that
    /// was written over shows by what is missing in its place, a torn cell is left to D4.
    pub elsewhere: u64,
    /// In which no check must fail, by reason ([`super::reasons`]).
    pub undetectable: BTreeMap<&'static str, u64>,
    /// How often each check failed.
    pub red: BTreeMap<&'static str, u64>,
}

/// A history on which a check did not say what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Legal or faulty.
    pub kind: Kind,
    /// The planted family, if any.
    pub family: Option<&'static str>,
    /// The check, empty if the simulation contradicts itself.
    pub check: &'static str,
    /// What it should have said and what it said.
    pub what: String,
    /// The whole trial in one line: each check's word.
    pub verdicts: String,
}

impl Failure {
    /// The command that replays it.
    pub fn command(&self) -> String {
        format!(
            "virtproof selftest --replay {}:{}",
            self.kind.name(),
            self.seed
        )
    }
}

/// What a campaign found. The same seeds give the same tally, whatever the number of threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Histories made and judged.
    pub histories: u64,
    /// By family.
    pub by_family: BTreeMap<&'static str, Count>,
    /// Checks that failed, or could not tell, without cause; the first hundred by seed.
    pub false_failures: Vec<Failure>,
    /// How many there were.
    pub false_failure_count: u64,
    /// Checks that did not fail though the evidence shows the fault; the first hundred by seed.
    pub misses: Vec<Failure>,
    /// How many there were.
    pub miss_count: u64,
    /// By check and cause: histories that were made such that the check cannot tell.
    pub inconclusive: BTreeMap<(&'static str, &'static str), u64>,
    /// By check: legal histories that it passed.
    pub green: BTreeMap<&'static str, u64>,
    /// By scenario and number of loads: how many histories.
    pub shapes: BTreeMap<String, u64>,
    /// Of all histories, one hash.
    pub fingerprint: u64,
}

impl Tally {
    /// Whether every check said what it must.
    pub const fn is_clean(&self) -> bool {
        self.false_failure_count == 0 && self.miss_count == 0
    }

    pub(super) fn add(&mut self, seed: u64, kind: Kind, judged: &Judged) {
        self.histories += 1;
        let shape = &judged.world.shape;
        let how: Vec<String> = shape
            .legs
            .iter()
            .map(|leg| format!("{:?}", leg.how))
            .collect();
        *self.shapes.entry(how.join(" then ")).or_default() += 1;
        self.fingerprint ^= super::story::fingerprint(judged);
        for (check, demand, status) in &judged.words {
            match (demand, status) {
                (Must::NotFail(Some(why)), Status::Inconclusive) => {
                    *self.inconclusive.entry((check, why)).or_default() += 1;
                }
                (_, Status::Pass) if kind == Kind::Legal => {
                    *self.green.entry(check).or_default() += 1;
                }
                _ => {}
            }
        }
        self.family(judged);
        for odd in &judged.odd {
            let word = match odd.odd {
                Odd::Miss => "had to fail",
                Odd::False => "must not fail",
                Odd::Lame => "had all that it needs",
            };
            let failure = Failure {
                seed,
                kind,
                family: shape.family.map(|family| family.spec().name),
                check: odd.check,
                what: format!("{} {word}, and said {}", odd.check, odd.said),
                verdicts: summary(judged),
            };
            let (list, count) = if odd.odd == Odd::Miss {
                (&mut self.misses, &mut self.miss_count)
            } else {
                (&mut self.false_failures, &mut self.false_failure_count)
            };
            *count += 1;
            list.push(failure);
        }
        self.trim();
    }

    fn family(&mut self, judged: &Judged) {
        let Some(family) = judged.world.shape.family else {
            return;
        };
        let count = self.by_family.entry(family.spec().name).or_default();
        count.planted += 1;
        match judged.fate {
            Fate::Caught => count.caught += 1,
            Fate::Elsewhere => count.elsewhere += 1,
            Fate::Undetectable(why) => *count.undetectable.entry(why.name()).or_default() += 1,
            Fate::Legal | Fate::Missed => {}
        }
        for (check, _, status) in &judged.words {
            if *status == Status::Fail {
                *count.red.entry(check).or_default() += 1;
            }
        }
    }

    fn trim(&mut self) {
        for list in [&mut self.misses, &mut self.false_failures] {
            if list.len() > 2 * KEPT {
                list.sort_by_key(|failure| failure.seed);
                list.truncate(KEPT);
            }
        }
    }

    /// Takes in what another thread counted.
    pub(super) fn merge(&mut self, other: Self) {
        self.histories += other.histories;
        self.false_failure_count += other.false_failure_count;
        self.miss_count += other.miss_count;
        self.fingerprint ^= other.fingerprint;
        self.misses.extend(other.misses);
        self.false_failures.extend(other.false_failures);
        sum(&mut self.inconclusive, other.inconclusive);
        sum(&mut self.green, other.green);
        sum(&mut self.shapes, other.shapes);
        for (family, more) in other.by_family {
            let count = self.by_family.entry(family).or_default();
            count.planted += more.planted;
            count.caught += more.caught;
            count.elsewhere += more.elsewhere;
            sum(&mut count.undetectable, more.undetectable);
            sum(&mut count.red, more.red);
        }
        for list in [&mut self.misses, &mut self.false_failures] {
            list.sort_by_key(|failure| failure.seed);
            list.truncate(KEPT);
        }
    }
}

fn sum<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, n) in from {
        *into.entry(key).or_default() += n;
    }
}

/// Each check's word in one line.
pub(super) fn summary(judged: &Judged) -> String {
    let words = judged.words.iter().map(|(check, _, status)| {
        let word = match status {
            Status::Pass => "pass",
            Status::Inconclusive => "inconclusive",
            Status::Fail => "fail",
        };
        format!("{check} {word}")
    });
    words.collect::<Vec<_>>().join(", ")
}
