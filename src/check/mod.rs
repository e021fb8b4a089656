//! History in, verdicts out: pure and total.
//!
//! Contract: no I/O, no clock, no randomness; the same history gives byte-identical verdicts. A check
//! that cannot look says inconclusive, and nothing passes on no evidence.
//! May use: plan, history, the probe's record format.

use serde::{Deserialize, Serialize};

use crate::history::read::History;
use crate::plan::model::Plan;
use case::{Case, Trial};
use finding::Finding;
use image::Image;
use verdict::{Status, Verdict};

mod case;
mod catalogue;
mod cold;
mod cut;
mod damage;
mod database;
mod discarded;
mod durability;
mod fence;
mod fidelity;
mod finding;
mod freeze;
mod gap;
mod honesty;
mod hooks;
mod hotplug;
mod identity;
mod image;
mod inside;
mod isolation;
mod lifecycle;
mod migration;
mod order;
mod outcome;
mod protection;
mod reprotection;
mod residue;
mod rpo;
mod rto;
mod sample;
mod second;
mod split;
mod stale;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
mod torn;
pub mod verdict;

pub use catalogue::{CATALOGUE, CheckSpec, Per};

/// What the checks say of a whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// The worst of them; inconclusive if there are none.
    pub overall: Status,
    /// The last hash of the history that was judged.
    pub history: String,
    /// By trial, subject and check, in the order of the trials, their subjects and the catalogue.
    pub verdicts: Vec<Verdict>,
}

/// Every check, in the order of reports.
pub const fn catalogue() -> &'static [CheckSpec] {
    CATALOGUE
}

/// Judges a history: for each trial and subject the checks that its `TrialStarted` names.
pub fn judge(plan: &Plan, history: &History) -> Verdicts {
    judge_with(CATALOGUE, plan, history)
}

/// The same with a table of one's own: a check that a trial names and `specs` lacks comes out
/// inconclusive, so that its absence is noticed.
pub fn judge_with(specs: &[CheckSpec], plan: &Plan, history: &History) -> Verdicts {
    let trials = Trial::all(history);
    let mut verdicts = Vec::new();
    for trial in &trials {
        if trial.subjects.is_empty() {
            let none = || Finding::unsure("the trial had no subject");
            verdicts.extend(trial.checks.iter().map(|id| verdict(trial, "", id, none())));
            continue;
        }
        let wanted = |subject: &'_ str, per: Per| {
            let asked = |spec: &&CheckSpec| spec.per == per && trial.asks(subject, spec.id);
            specs.iter().filter(asked).collect::<Vec<_>>()
        };
        let subjects = trial
            .subjects
            .iter()
            .map(|subject| (subject.as_str(), Per::Subject));
        for (subject, per) in subjects.chain([("", Per::Trial)]) {
            let case = Case::new(plan, history, trial, subject);
            verdicts.extend(
                wanted(subject, per)
                    .into_iter()
                    .map(|spec| verdict(trial, subject, spec.id, word(spec, &case))),
            );
        }
        let unknown = trial
            .checks
            .iter()
            .filter(|id| specs.iter().all(|spec| spec.id != **id));
        verdicts.extend(unknown.map(|id| {
            let finding = Finding::unsure("this version of virtproof has no such check");
            verdict(trial, "", id, finding)
        }));
    }
    sample::bound(specs, &trials, &mut verdicts);
    let worst = verdicts.iter().map(|verdict| verdict.status).max();
    Verdicts {
        overall: worst.unwrap_or(Status::Inconclusive),
        history: history.head.clone(),
        verdicts,
    }
}

/// One check's word, after what is true of all of them: what lacks its end proves nothing
/// whole, be it the history, an ack segment or the trial.
fn word(spec: &CheckSpec, case: &Case<'_>) -> Finding {
    let mut finding = (spec.run)(case);
    if let Some(why) = case.doubt().filter(|_| finding.status == Status::Pass) {
        finding.status = Status::Inconclusive;
        finding.summary = format!("{}, but {why}", finding.summary);
    }
    finding
}

fn verdict(trial: &Trial<'_>, subject: &str, check: &str, finding: Finding) -> Verdict {
    Verdict {
        check: check.into(),
        trial: trial.name.into(),
        scenario: trial.scenario.into(),
        subject: subject.into(),
        status: finding.status,
        summary: finding.summary,
        witness: finding.witness,
        warnings: finding.warnings,
        limits: finding.limits,
        measures: finding.measures,
    }
}

/// Judges every read-back of a case; the worst word counts, and no read-back is no word.
fn each_image(case: &Case<'_>, judge: impl Fn(&Image<'_>) -> Finding) -> Finding {
    let words = case.images().iter().map(|image| match image {
        Ok(image) => judge(image),
        Err(why) => Finding::unsure(why.clone()),
    });
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no volume was read back in this trial"))
}

/// The first read-back after a moment whose load began before it.
fn image_after<'c, 'a>(case: &'c Case<'a>, at_ns: u64) -> Result<&'c Image<'a>, String> {
    let after = case.scans().zip(case.images());
    let mut after = after.filter(|(scan, _)| scan.at_ns > at_ns);
    let (_, image) = after
        .next()
        .ok_or("no volume was read back after the transition")?;
    image.as_ref().map_err(Clone::clone)
}
