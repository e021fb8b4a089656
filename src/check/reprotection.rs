//! O5: was the VM protected again after the transition, and how long did that take?

use super::case::Case;
use super::finding::{Finding, seconds, time};
use super::honesty::claimed;
use super::protection::{last_words, primary};
use crate::history::event::{Event, Fact, Outcome, ReplicationFact, Reprotect, Site};

/// Syncs newer than the order that prove a running schedule: one could have been under way.
const SYNCS: u32 = 2;

/// O5.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let Some((order, site)) = ordered(case) else {
        return Finding::unsure("nobody ordered that the VM be protected again");
    };
    let restored = case.events().find_map(|event| match &event.fact {
        Fact::Reprotection {
            progress: Reprotect::Restored { syncs, bytes },
            site: told,
        } if *told == site && event.seq > order.seq => Some((event, *syncs, *bytes)),
        _ => None,
    });
    let Some((end, syncs, bytes)) = restored else {
        let said = format!(
            "protection was ordered on the {site}, event {}, and never restored",
            order.seq
        );
        // What a trial that was cut short did not get to see is nobody's fault.
        return match case.trial.outcome {
            Some(Outcome::Ok | Outcome::Failed(_)) => Finding::fail(said),
            _ => Finding::unsure(said),
        };
    };
    let mut bad = Vec::new();
    let mut unseen = Vec::new();
    if syncs < SYNCS {
        bad.push(format!(
            "only {syncs} syncs newer than the order were seen, event {}",
            end.seq
        ));
    }
    words(case, order, end, site, &mut bad, &mut unseen);
    let took = end.at_ns.saturating_sub(order.at_ns);
    let finding = if !bad.is_empty() {
        Finding::fail("protection is said to be restored and is not").witnesses(&bad)
    } else if !unseen.is_empty() {
        Finding::unsure("too little says that protection is restored").witnesses(&unseen)
    } else {
        Finding::pass(format!(
            "protected again after {:.3} s, {syncs} syncs newer than the order",
            seconds(took)
        ))
    };
    let finding = finding
        .measure(time("reprotect", took, took, None))
        .limit("rests on what the replication objects say; the next read-back tests it");
    match bytes {
        Some(bytes) => finding.count("reprotect-bytes", "bytes", bytes),
        None => finding.limit("the replication objects do not say how many bytes crossed"),
    }
}

/// The last order to protect the VM again, and the site that was to be primary.
fn ordered<'a>(case: &Case<'a>) -> Option<(&'a Event, Site)> {
    let orders = case.events().filter_map(|event| match &event.fact {
        Fact::Reprotection {
            site,
            progress: Reprotect::Ordered,
        } => Some((event, *site)),
        _ => None,
    });
    orders.last()
}

/// What the replication objects said on both sites between the order and the next transition.
fn words(
    case: &Case<'_>,
    order: &Event,
    end: &Event,
    site: Site,
    bad: &mut Vec<String>,
    unseen: &mut Vec<String>,
) {
    let next = case.events().find(|event| {
        event.seq > end.seq
            && matches!(
                event.fact,
                Fact::Fencing { .. } | Fact::Gate { .. } | Fact::StageReached { .. }
            )
    });
    let until = next.map_or(u64::MAX, |event| event.at_ns);
    let (here, _) = last_words(case, site, order.at_ns, until);
    let (there, _) = last_words(case, site.peer(), order.at_ns, until);
    let pvcs = case.created().map_or(&[][..], |created| created.pvcs);
    if pvcs.is_empty() {
        unseen.push("the history names no PVC of the subject".into());
    }
    for pvc in pvcs {
        match here.get(pvc.as_str()) {
            None => unseen.push(format!("nobody looked at {pvc} on the {site} afterwards")),
            Some(fact) => {
                bad.extend(
                    primary(fact)
                        .or_else(|| unhealthy(fact))
                        .map(|why| format!("{pvc} on the {site}: {why}")),
                );
                synced(case, order, site, fact, bad, unseen);
            }
        }
        if let Some(why) = there.get(pvc.as_str()).and_then(|fact| replica(fact)) {
            bad.push(format!("{pvc} on the {}: {why}", site.peer()));
        }
    }
}

/// Why a PVC's replication is not healthy and up to date, if it is not.
fn unhealthy(fact: &ReplicationFact) -> Option<String> {
    let wrong = [
        ("Completed", "True"),
        ("Degraded", "False"),
        ("Resyncing", "False"),
    ]
    .into_iter()
    .find(|(kind, wanted)| {
        fact.conditions
            .get(*kind)
            .is_some_and(|condition| condition.status != *wanted)
    });
    if !fact.current {
        return Some("its status is of an older generation".into());
    }
    wrong.map(|(kind, wanted)| format!("{kind} is not {wanted}: {}", fact.message))
}

/// Why a PVC is not the replica that it should be, if it is not. `Degraded` and `Resyncing` stay true
/// on a healthy replica as long as its peer is primary; only their reasons tell trouble.
fn replica(fact: &ReplicationFact) -> Option<String> {
    let is = |kind: &str, reason: &str| {
        fact.conditions
            .get(kind)
            .is_some_and(|condition| condition.reason == reason)
    };
    if !fact.current {
        Some("its status is of an older generation".into())
    } else if !fact.state.eq_ignore_ascii_case("secondary") {
        Some(format!("its state is {:?}: {}", fact.state, fact.message))
    } else if is("Degraded", "Error") || is("Resyncing", "FailedToResync") {
        Some(format!("it does not follow: {}", fact.message))
    } else {
        None
    }
}

/// The newest sync must not be surely older than the order.
fn synced(
    case: &Case<'_>,
    order: &Event,
    site: Site,
    fact: &ReplicationFact,
    bad: &mut Vec<String>,
    unseen: &mut Vec<String>,
) {
    let pvc = &fact.pvc;
    let Some(stamp) = fact.last_sync_time else {
        unseen.push(format!("{pvc} on the {site} names no sync"));
        return;
    };
    match claimed(case, site, order, stamp) {
        None => unseen.push(format!("the clock of the {site} was never compared")),
        Some((_, high)) if high < order.at_ns => bad.push(format!(
            "the newest sync of {pvc} is of {stamp}, before the order"
        )),
        Some(_) => {}
    }
}
