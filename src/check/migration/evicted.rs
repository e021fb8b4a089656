//! Evictions: was a VM whose launcher somebody evicted moved or left alone, and not killed?

use super::lived::{Place, whole};
use super::{Move, moves};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::history::event::{Event, EvictionFact, Fact, Site};

/// The eviction of a launcher that carried the VM.
#[derive(Debug, Clone, Copy)]
struct Eviction<'a> {
    site: Site,
    asked: &'a Event,
    fact: &'a EvictionFact,
    answer: Option<(&'a Event, &'a EvictionFact)>,
}

/// The worst word on the evictions whose promises no migration kept; `None` if there is none.
pub(super) fn judge(case: &Case<'_>) -> Option<Finding> {
    let moves = moves(case);
    let words = evictions(case).into_iter().filter_map(|eviction| {
        let kept = moves
            .iter()
            .any(|moved| moved.asked.seq == eviction.asked.seq);
        (!kept).then(|| word(case, &eviction))
    });
    words.reduce(Finding::worst)
}

/// The evictions of launchers that carried the VM, with the first answer to each.
fn evictions<'a>(case: &Case<'a>) -> Vec<Eviction<'a>> {
    let mut all: Vec<Eviction<'a>> = Vec::new();
    for event in case.events() {
        let Fact::Eviction { site, eviction } = &event.fact else {
            continue;
        };
        if !eviction.carries {
            continue;
        }
        match (eviction.code, all.last_mut()) {
            (None, _) => all.push(Eviction {
                site: *site,
                asked: event,
                fact: eviction,
                answer: None,
            }),
            (Some(_), Some(last)) => last.answer = last.answer.or(Some((event, eviction))),
            (Some(_), None) => {}
        }
    }
    all
}

fn word(case: &Case<'_>, eviction: &Eviction<'_>) -> Finding {
    let pod = &eviction.fact.pod;
    let Some((event, answer)) = eviction.answer else {
        return Finding::unsure(format!(
            "the eviction of {pod} has no answer in the history"
        ));
    };
    let code = answer.code.unwrap_or_default();
    let witness = format!("event {}: {code} {}", event.seq, answer.said);
    match code {
        429 if answer.said.contains("not live-migratable") => {
            let said = format!("the eviction of {pod} was refused, and the VM stayed as it was");
            stayed(case, eviction, event, said).limit(witness)
        }
        429 => {
            let said = "an eviction promised an evacuation, and no migration came of it";
            Finding::fail(said).witness(witness)
        }
        200..=299 => Finding::fail(format!(
            "launcher {pod} was evicted while the VM ran in it (strategy {})",
            if answer.strategy.is_empty() {
                "not set"
            } else {
                &answer.strategy
            }
        ))
        .witness(witness),
        _ => Finding::unsure(format!("what came of the eviction of {pod} is not known"))
            .witness(witness),
    }
}

/// Whether the VM went on where it was, as after a migration that failed.
fn stayed(case: &Case<'_>, eviction: &Eviction<'_>, end: &Event, said: String) -> Finding {
    let stay = Move {
        site: eviction.site,
        name: &eviction.fact.pod,
        spoil: None,
        asked: eviction.asked,
        end: None,
    };
    whole(case, &stay, end, Place::Unchanged, said)
}
