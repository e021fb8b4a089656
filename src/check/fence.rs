//! S2: how long after it was asked for did the fence hold, and did it hold once it was said to?
//!
//! The fence holds from the last write of the old side on. That one lies between the sending of its
//! token and the arrival of its ack. A write that became durable wholly after the fence was said to
//! hold shows that it did not.

use super::case::Case;
use super::finding::{Finding, moment, seconds, time};
use super::rpo::between;
use super::split::{first_ack_after, listened, off};
use crate::history::event::{Event, Fact, Outcome, Purpose, Site};
use crate::history::read::Incarnation;

/// A fence that was asked for.
#[derive(Debug, Clone, Copy)]
struct Fence<'a> {
    site: Site,
    method: &'a str,
    /// When it was asked for.
    asked: u64,
    /// The event that says that it holds.
    held: Option<&'a Event>,
}

/// S2: each fence of the trial.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let words = fences(case).into_iter().map(|fence| judge(case, fence));
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no fence was asked for"))
}

fn fences<'a>(case: &Case<'a>) -> Vec<Fence<'a>> {
    let mut fences: Vec<Fence<'a>> = Vec::new();
    for event in case.events() {
        let Fact::Fencing {
            site,
            method,
            outcome,
        } = &event.fact
        else {
            continue;
        };
        match outcome {
            None => fences.push(Fence {
                site: *site,
                method,
                asked: event.at_ns,
                held: None,
            }),
            Some(Outcome::Ok) => {
                let open = fences
                    .iter_mut()
                    .rfind(|f| f.site == *site && f.held.is_none());
                if let Some(fence) = open {
                    fence.held = Some(event);
                }
            }
            Some(_) => {}
        }
    }
    fences
}

fn judge(case: &Case<'_>, fence: Fence<'_>) -> Finding {
    let Fence { site, asked, .. } = fence;
    let old = case
        .incarnations()
        .filter(|life| life.purpose == Purpose::Load && life.site == site && life.at_ns <= asked)
        .last();
    let Some(old) = old else {
        return Finding::unsure(format!("nothing wrote on the {site} when it was fenced"));
    };
    let batches = old.acks.batches();
    let Some(last) = batches
        .len()
        .checked_sub(1)
        .and_then(|at| old.acks.bracket(at))
    else {
        return Finding::unsure(format!("{} acked nothing on the {site}", old.name));
    };
    let first = first_ack_after(case, site.peer(), asked);
    let (low, high) = (
        last.low.saturating_sub(asked),
        last.high.saturating_sub(asked),
    );
    let latency = time("fence-latency", low, high, None);
    let late = |after: u64, than: String| -> Option<Finding> {
        let wholly: Vec<usize> = (0..batches.len())
            .filter(|at| old.acks.bracket(*at).is_some_and(|b| b.low > after))
            .collect();
        let at = *wholly.first()?;
        let bracket = old.acks.bracket(at)?;
        let ranks: u64 = wholly
            .iter()
            .filter_map(|at| batches.get(*at))
            .map(|batch| u64::from(batch.ranks))
            .sum();
        Some(
            Finding::fail(format!(
                "{ranks} ranks of the {site} became durable after {than}"
            ))
            .witness(format!("{than} at {}", moment(after)))
            .witness(format!(
                "{} on the {site} made rank {} durable {}",
                old.name,
                batches.get(at)?.first_rank,
                between(bracket.low, bracket.high)
            ))
            .count("late-ranks", "1", ranks),
        )
    };
    let said = fence.held.filter(|_| fence.method != "none");
    let failed = said
        .and_then(|event| late(event.at_ns, format!("{} was said to hold", fence.method)))
        .or_else(|| late(first?, "the new side's first ack".into()));
    if let Some(failed) = failed {
        return failed.measure(latency);
    }
    let word = format!(
        "the last write of the {site} came {:.3} s to {:.3} s after {} was asked for",
        seconds(low),
        seconds(high),
        fence.method
    );
    let Some(held) = said else {
        return Finding::unsure(format!("{word}, but no fence was said to hold")).measure(latency);
    };
    let until = first.unwrap_or(held.at_ns);
    match watched(case, old, held, until) {
        Ok(how) => Finding::pass(word).limit(how),
        Err(why) => Finding::unsure(format!("{word}, as far as the host heard; {why}")),
    }
    .limit("both ends are known to within a token interval")
    .measure(latency)
}

/// Why the old side's silence from the fence to the new side's first ack means that it did not
/// write. The fence's own word is what is tested, so it does not count.
fn watched(case: &Case<'_>, old: &Incarnation, held: &Event, until: u64) -> Result<String, String> {
    if let Some(how) = listened(old, held.at_ns, until).or_else(|| off(case, old.site, held.at_ns))
    {
        return Ok(how);
    }
    let states: Vec<(u64, u64, &str)> = case
        .events()
        .filter_map(|event| match &event.fact {
            Fact::Vm { site, phase, .. } if *site == old.site => {
                Some((event.at_ns, event.seq, phase.as_str()))
            }
            _ => None,
        })
        .filter(|(at_ns, ..)| *at_ns <= until)
        .collect();
    match states.last() {
        Some((_, seq, "" | "Succeeded" | "Failed")) => Ok(format!("its VMI was gone, event {seq}")),
        Some((_, seq, phase)) => Err(format!(
            "the old side was not listened to and its VMI was {phase}, event {seq}"
        )),
        None => Err("the old side was not listened to and nobody looked at its VMI".into()),
    }
}
