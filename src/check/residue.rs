//! O4: did cleanup leave anything behind?

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Fact, Outcome, Site};

/// The step that takes everything back.
const HEAL: &str = "heal";

/// O4, once per trial.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let events = &case.history.events;
    let started = events
        .iter()
        .position(|event| {
            matches!(event.fact, Fact::TrialStarted { .. })
                && event.trial.as_deref() == Some(case.trial.name)
        })
        .unwrap_or(0);
    let sweeps = |own: bool| {
        let later = events.iter().skip(started);
        later
            .filter(move |event| event.trial.as_deref() == own.then_some(case.trial.name))
            .filter_map(|event| match &event.fact {
                Fact::Swept { sites, residue } => Some((event.seq, sites, residue)),
                _ => None,
            })
            .last()
    };
    let Some((seq, sites, residue)) = sweeps(true).or_else(|| sweeps(false)) else {
        return Finding::unsure("nobody looked for what cleanup left behind");
    };
    if !residue.is_empty() {
        let left: Vec<_> = residue
            .iter()
            .map(|left| {
                format!(
                    "{} {} on the {}: {}",
                    left.kind, left.name, left.site, left.why
                )
            })
            .collect();
        let said = format!("{} objects were left behind", left.len());
        return match unheard(case, started) {
            Some(why) => Finding::unsure(format!("{said}, but they could not be removed: {why}")),
            None => Finding::fail(said),
        }
        .witnesses(&left);
    }
    let unseen: Vec<_> = [Site::Primary, Site::Secondary]
        .into_iter()
        .filter(|site| !sites.contains(site))
        .map(|site| site.to_string())
        .collect();
    if !unseen.is_empty() {
        return Finding::unsure(format!("the {} could not be swept", unseen.join(" and ")));
    }
    Finding::pass(format!(
        "both sites were swept and nothing is left, event {seq}"
    ))
    .limit("only objects of kinds that virtproof makes are looked for")
}

/// Why cleanup could not be done at all, if no API took its orders: what is left then says nothing
/// about whether it can be removed.
fn unheard<'a>(case: &Case<'a>, started: usize) -> Option<&'a str> {
    let later = case.history.events.iter().skip(started);
    let own = later.filter(|event| event.trial.as_deref() == Some(case.trial.name));
    let mut ended = own.filter_map(|event| match &event.fact {
        Fact::StepEnded { step, outcome } if step == HEAL => Some(outcome),
        _ => None,
    });
    match ended.next_back() {
        Some(Outcome::Unknown(why)) => Some(why),
        _ => None,
    }
}
