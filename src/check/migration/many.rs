//! M4: of all VMs of a trial, how long were the blackouts, and is nobody left out of the count? What
//! failed, never had its turn or never wrote again counts as endless, so that it cannot make the
//! figures look better.

use std::collections::BTreeSet;

use super::{blackout, moves};
use crate::check::case::Case;
use crate::check::finding::{Finding, time};
use crate::check::gap;
use crate::check::verdict::Status;
use crate::history::event::Fact;

/// How the last migration of one VM went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    low: u64,
    high: u64,
}

/// Of one that did not move.
const ENDLESS: Span = Span {
    low: u64::MAX,
    high: u64::MAX,
};

/// M4, once per trial.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let (mut out, mut unheard) = (Vec::new(), Vec::new());
    let mut spans = Vec::new();
    for subject in case.trial.subjects {
        let one = Case::new(case.plan, case.history, case.trial, subject);
        let all = moves(&one);
        let last = all.last().and_then(|last| Some((last, last.end?.1)));
        let span = match last {
            None if all.is_empty() => {
                unheard.push(format!("{subject}: no migration of it was asked for"));
                ENDLESS
            }
            None => {
                out.push(format!("{subject}: no migration of it came to an end"));
                ENDLESS
            }
            Some((last, fact)) if fact.failed || fact.phase == "Failed" => {
                out.push(format!("{subject}: migration {} failed", last.name));
                ENDLESS
            }
            Some((last, _)) => {
                if let Some((low, high)) = blackout::bracket(&one, last) {
                    Span { low, high }
                } else {
                    unheard.push(format!("{subject}: no write of it was heard afterwards"));
                    ENDLESS
                }
            }
        };
        spans.push(span);
    }
    let all = spans.len();
    let allowed = case.plan.objectives().migration_blackout;
    let longest = quantile(&mut spans, 100);
    let counted = format!("{all} VMs, all of them counted");
    let finding = if !out.is_empty() {
        Finding::fail(format!("{} of {all} VMs did not move", out.len())).witnesses(&out)
    } else if !unheard.is_empty() {
        let said = format!(
            "of {} of {all} VMs no move or no write after it was seen",
            unheard.len()
        );
        Finding::unsure(said).witnesses(&unheard)
    } else {
        match gap::against(longest.low, longest.high, allowed) {
            Status::Fail => Finding::fail("the longest blackout is longer than allowed"),
            Status::Inconclusive => {
                Finding::unsure("the objective lies inside the bracket of the longest blackout")
            }
            Status::Pass => Finding::pass(format!("all {all} VMs moved")),
        }
    };
    let finding = finding.limit(counted).count(
        "at-once",
        "migrations under way at the same time",
        at_once(case),
    );
    let target = allowed.map(|allowed| allowed.as_secs_f64());
    [(50, "p50"), (99, "p99"), (100, "max")].into_iter().fold(
        finding,
        |finding, (percent, name)| {
            let span = quantile(&mut spans, percent);
            if span == ENDLESS {
                return finding.limit(format!("{name} is endless: so many did not come back"));
            }
            finding.measure(time(
                &format!("blackout.{name}"),
                span.low,
                span.high,
                target,
            ))
        },
    )
}

/// The span that so many percent do not exceed: the nearest rank, so that it is always one that was
/// measured.
fn quantile(spans: &mut [Span], percent: usize) -> Span {
    spans.sort_unstable_by_key(|span| (span.high, span.low));
    let rank = (spans.len() * percent).div_ceil(100).max(1);
    spans.get(rank - 1).copied().unwrap_or(ENDLESS)
}

/// The most migrations of the trial that were under way at the same time, as their jobs told.
fn at_once(case: &Case<'_>) -> u64 {
    let (mut running, mut most) = (BTreeSet::new(), 0);
    let events = case.history.events.iter();
    for event in events.filter(|event| event.trial.as_deref() == Some(case.trial.name)) {
        let Fact::Migration { migration, .. } = &event.fact else {
            continue;
        };
        match migration.phase.as_str() {
            "" | "Pending" => {}
            "Succeeded" | "Failed" => {
                running.remove(migration.name.as_str());
            }
            _ => {
                running.insert(migration.name.as_str());
            }
        }
        most = most.max(running.len());
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_move_makes_the_figures_worse_and_never_better() {
        let span = |ms: u64| Span { low: ms, high: ms };
        let mut spans: Vec<Span> = (1..=9).map(span).collect();
        assert_eq!(quantile(&mut spans, 50), span(5));
        assert_eq!(quantile(&mut spans, 100), span(9));
        spans.push(ENDLESS);
        assert_eq!(quantile(&mut spans, 50), span(5));
        assert_eq!(quantile(&mut spans, 99), ENDLESS);
        assert_eq!(quantile(&mut [], 50), ENDLESS);
        assert_eq!(quantile(&mut [span(3)], 50), span(3));
    }
}
