//! S1: did both sites ever write at once?
//!
//! An ack of the old side whose token was sent after the new side's first ack had arrived was made
//! durable after it, whatever any clock in a guest says. One such ack is a split brain. That there
//! were none counts only if the old side was listened to meanwhile, or was surely off.

use super::case::{Case, SILENCE_NS};
use super::finding::{Finding, moment};
use crate::history::event::{Fact, Outcome, Site};
use crate::history::read::Incarnation;

/// Faults that turn a whole site off, by name.
pub(super) const SITE_OFF: [&str; 3] = ["site-power-off", "power-off", "site-down"];

/// S1.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let lives: Vec<_> = case.incarnations().collect();
    let mut worst: Option<Finding> = None;
    for (index, old) in lives.iter().enumerate() {
        for new in lives
            .iter()
            .skip(index + 1)
            .filter(|new| new.site != old.site)
        {
            let found = pair(case, old, new);
            worst = Some(match worst {
                None => found,
                Some(before) => before.worst(found),
            });
        }
    }
    worst.unwrap_or_else(|| Finding::unsure("the subject did not run on two sites in this trial"))
}

fn pair(case: &Case<'_>, old: &Incarnation, new: &Incarnation) -> Finding {
    let Some(first) = new.acks.batches().first() else {
        return Finding::unsure(format!("{} acked nothing on the {}", new.name, new.site));
    };
    if old.acks.batches().is_empty() {
        return Finding::unsure(format!("{} acked nothing on the {}", old.name, old.site));
    }
    let since = first.at_ns;
    let batches = old.acks.batches();
    let after: Vec<_> = (0..batches.len())
        .filter_map(|at| old.acks.bracket(at).zip(batches.get(at)))
        .filter(|(bracket, _)| bracket.low > since)
        .collect();
    if let Some((bracket, divergent)) = after.first() {
        let ranks: u64 = after.iter().map(|(_, batch)| u64::from(batch.ranks)).sum();
        return Finding::fail(format!(
            "the {} went on writing after the {} had begun: {ranks} ranks became durable",
            old.site, new.site
        ))
        .witness(format!(
            "{} on the {} acked its first write by {}",
            new.name,
            new.site,
            moment(since)
        ))
        .witness(format!(
            "{} on the {} made rank {} durable between {} and {}",
            old.name,
            old.site,
            divergent.first_rank,
            moment(bracket.low),
            moment(bracket.high)
        ))
        .count("old-side-ranks", "1", ranks)
        .count("new-side-ranks", "1", new.acks.last_rank());
    }
    let until = new.acks.last_ns();
    let said = format!(
        "no write of {} became durable after {} began",
        old.name, new.name
    );
    match silence(case, old, since, until) {
        Ok(how) => Finding::pass(said)
            .limit(how)
            .limit("an overlap shorter than one token interval is not seen")
            .count("old-side-ranks", "1", 0)
            .count("new-side-ranks", "1", new.acks.last_rank()),
        Err(why) => Finding::unsure(format!("{said}, as far as the host heard; {why}")),
    }
}

/// When the first ack of a probe run that began on a site after a moment was heard.
pub(super) fn first_ack_after(case: &Case<'_>, site: Site, at_ns: u64) -> Option<u64> {
    let later = case.incarnations();
    later
        .filter(|life| life.site == site && life.at_ns > at_ns)
        .filter_map(|life| life.acks.batches().first().map(|first| first.at_ns))
        .min()
}

/// Says so if a probe run was listened to throughout a window.
pub(super) fn listened(old: &Incarnation, since: u64, until: u64) -> Option<String> {
    // The stream is in order: a frame that came later would have brought earlier acks with it.
    let beyond = old
        .acks
        .last_frame_at(u64::MAX)
        .is_some_and(|heard| heard > since);
    (beyond && old.acks.longest_silence(since, until) <= SILENCE_NS).then(|| {
        format!(
            "the old side was listened to throughout, {} to {}",
            moment(since),
            moment(until)
        )
    })
}

/// Says so if a whole site was off at a moment.
pub(super) fn off(case: &Case<'_>, wanted: Site, since: u64) -> Option<String> {
    let last = case.history.events.iter().rfind(|event| {
        let mine = event.trial.is_none() || event.trial.as_deref() == Some(case.trial.name);
        mine && event.at_ns <= since
            && matches!(&event.fact, Fact::Fault { name, site: Some(site), .. }
                if *site == wanted && SITE_OFF.contains(&name.as_str()))
    })?;
    matches!(last.fact, Fact::Fault { active: true, .. })
        .then(|| format!("the {wanted} was off, event {}", last.seq))
}

/// Why silence of the old side in a window means that it did not write.
fn silence(case: &Case<'_>, old: &Incarnation, since: u64, until: u64) -> Result<String, String> {
    if let Some(how) = listened(old, since, until).or_else(|| off(case, old.site, since)) {
        return Ok(how);
    }
    let fenced = fence(case, old.site, since);
    // Once its site is promoted again, or the new side is silent, it may rightly run there.
    let returned = case.events().find(|event| {
        event.at_ns > since
            && matches!(event.fact, Fact::Gate { site, open: true, .. } if site == old.site)
    });
    let until = returned.map_or(until, |event| event.at_ns.min(until));
    let running = case.events().find(|event| {
        (since..=until).contains(&event.at_ns)
            && matches!(&event.fact, Fact::Vm { site, phase, .. }
                if *site == old.site && phase == "Running")
    });
    match (fenced, running) {
        (Some((_, "stopVm")), Some(event)) => Err(format!(
            "the VM was said to be stopped, yet event {} shows it running",
            event.seq
        )),
        (Some((seq, method)), _) => Ok(format!(
            "the old side was not listened to; rests on the word of {method}, event {seq}"
        )),
        (None, _) => Err("the old side was not listened to and is not known to be off".into()),
    }
}

/// The last word on the fence of a site before a moment, if it was that the fence holds.
fn fence<'a>(case: &Case<'a>, wanted: Site, before: u64) -> Option<(u64, &'a str)> {
    let last = case.events().filter(|event| event.at_ns <= before);
    last.filter_map(|event| match &event.fact {
        Fact::Fencing {
            site,
            method,
            outcome: Some(outcome),
        } if *site == wanted => Some((event.seq, method.as_str(), outcome)),
        _ => None,
    })
    .last()
    .filter(|(.., outcome)| **outcome == Outcome::Ok)
    .map(|(seq, method, _)| (seq, method))
}
