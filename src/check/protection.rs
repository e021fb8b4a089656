//! O2: was every PVC of the VM protected, and did each come back as its own replica?

use std::collections::BTreeMap;

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Fact, MovedDisk, Outcome, ReplicationFact, Site, StorageFact};

/// What is wrong, and what nobody looked at.
#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
}

/// O2.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let Some(created) = case.created() else {
        return Finding::unsure("the history does not say how the subject was made");
    };
    if created.pvcs.is_empty() {
        return Finding::unsure("the history names no PVC of the subject");
    }
    let mut notes = Notes::default();
    let home = case
        .incarnations()
        .next()
        .map_or(Site::Primary, |first| first.site);
    let fault = case.fault().unwrap_or(u64::MAX);
    let pvcs = moved(case, created.pvcs);
    before(case, &pvcs, home, fault, &mut notes);
    let target = case.target().filter(|target| *target != home);
    if let (true, Some(target)) = (case.moves(), target) {
        after(case, &pvcs, target, fault, &mut notes);
        claims(case, &pvcs, target, &mut notes);
    }
    // What a trial that stopped half-way did not get to see is nobody's fault.
    if case.trial.outcome == Some(&Outcome::Ok) && !notes.bad.is_empty() {
        notes.bad.append(&mut notes.unseen);
    }
    if !notes.bad.is_empty() {
        return Finding::fail("not every PVC was protected and came back as its own replica")
            .witnesses(&notes.bad);
    }
    if !notes.unseen.is_empty() {
        return Finding::unsure("the protection of some PVCs was not seen")
            .witnesses(&notes.unseen);
    }
    Finding::pass(format!(
        "all {} PVCs are protected{}",
        created.pvcs.len(),
        target.map_or("", |_| " and came back as their own replicas")
    ))
    .limit("sync states are what the replication objects say; R2 and D1 test them")
}

/// The PVCs of the VM at last: what its disks moved to in the place of what they left.
fn moved(case: &Case<'_>, pvcs: &[String]) -> Vec<String> {
    let mut pvcs = pvcs.to_vec();
    let mut asked: &[MovedDisk] = &[];
    for event in case.events() {
        match &event.fact {
            Fact::Storage {
                storage: StorageFact::Asked { disks, .. },
                ..
            } => asked = disks,
            Fact::Storage {
                storage: StorageFact::Moved { .. },
                ..
            } => {
                for disk in asked {
                    let left = pvcs.iter_mut().filter(|pvc| **pvc == disk.from);
                    left.for_each(|pvc| pvc.clone_from(&disk.to));
                }
            }
            _ => {}
        }
    }
    pvcs
}

/// The last word of the replication objects on each PVC in a window, and whether any was heard.
pub(super) fn last_words<'a>(
    case: &Case<'a>,
    wanted: Site,
    from: u64,
    to: u64,
) -> (BTreeMap<&'a str, &'a ReplicationFact>, bool) {
    let mut words = BTreeMap::new();
    let mut any = false;
    for event in case
        .events()
        .filter(|event| from <= event.at_ns && event.at_ns <= to)
    {
        if let Fact::Replication { site, volumes } = &event.fact
            && *site == wanted
        {
            any |= !volumes.is_empty();
            words.extend(volumes.iter().map(|volume| (volume.pvc.as_str(), volume)));
        }
    }
    (words, any)
}

/// Why a PVC is not held as primary, if it is not.
pub(super) fn primary(fact: &ReplicationFact) -> Option<String> {
    let is = |kind: &str, status: &str| {
        fact.conditions
            .get(kind)
            .is_some_and(|condition| condition.status == status)
    };
    if !fact.current {
        Some("its status is of an older generation".into())
    } else if !fact.state.eq_ignore_ascii_case("primary") {
        Some(format!("its state is {:?}: {}", fact.state, fact.message))
    } else if is("Completed", "False") || is("Degraded", "True") {
        Some(format!("it is not healthy: {}", fact.message))
    } else if is("Replicating", "False") {
        Some("it does not replicate".into())
    } else {
        None
    }
}

fn before(case: &Case<'_>, pvcs: &[String], home: Site, fault: u64, notes: &mut Notes) {
    let (words, any) = last_words(case, home, 0, fault);
    let synced = words.values().any(|fact| fact.last_sync_time.is_some());
    for pvc in pvcs {
        match words.get(pvc.as_str()) {
            None if any => notes.bad.push(format!(
                "{pvc} has no replication object on the {home}, others have"
            )),
            None => notes.unseen.push(format!(
                "no replication object of {pvc} was seen on the {home}"
            )),
            Some(fact) => {
                if let Some(why) = primary(fact) {
                    notes.bad.push(format!("{pvc} on the {home}: {why}"));
                } else if synced && fact.last_sync_time.is_none() {
                    notes.bad.push(format!("{pvc} never synced, others did"));
                }
            }
        }
    }
}

fn after(case: &Case<'_>, pvcs: &[String], target: Site, fault: u64, notes: &mut Notes) {
    let from = if fault == u64::MAX { 0 } else { fault };
    let (words, any) = last_words(case, target, from, u64::MAX);
    for pvc in pvcs {
        match words.get(pvc.as_str()) {
            None if any => notes.bad.push(format!(
                "{pvc} has no replication object on the {target}, others have"
            )),
            None => notes.unseen.push(format!(
                "no replication object of {pvc} was seen on the {target}"
            )),
            Some(fact) if !fact.state.eq_ignore_ascii_case("primary") => {
                notes.bad.push(format!(
                    "{pvc} on the {target}: its state is {:?}",
                    fact.state
                ));
            }
            Some(_) => {}
        }
    }
}

fn claims(case: &Case<'_>, pvcs: &[String], target: Site, notes: &mut Notes) {
    let mut seen = BTreeMap::new();
    for event in case.events() {
        if let Fact::Claim {
            site,
            pvc,
            handle,
            expected,
            ..
        } = &event.fact
            && *site == target
        {
            seen.insert(pvc.as_str(), (handle, expected));
        }
    }
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for pvc in pvcs {
        match seen.get(pvc.as_str()) {
            None => notes
                .unseen
                .push(format!("the claim {pvc} was not seen on the {target}")),
            Some((_, None)) => notes.unseen.push(format!(
                "nobody knows which volume {pvc} must hold on the {target}"
            )),
            Some((handle, Some(expected))) => {
                if *handle != expected {
                    notes.bad.push(format!(
                        "{pvc} on the {target} holds {handle}, its replica is {expected}"
                    ));
                }
                if let Some(other) = holders.insert(handle, pvc) {
                    notes
                        .bad
                        .push(format!("{pvc} and {other} hold the same volume {handle}"));
                }
            }
        }
    }
}
