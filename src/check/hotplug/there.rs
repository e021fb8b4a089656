//! H1: did the disk come, stay and go as ordered, in the guest and not only in the API?

use std::collections::BTreeSet;

use super::{Change, changes};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::history::event::{Fact, InsideFact};

/// What is wrong, and what nobody looked at.
#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
}

/// H1.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let changes = changes(case);
    if changes.is_empty() {
        return Finding::unsure("no disk was to come or to go in this trial");
    }
    let looks = looks(case);
    let mut notes = Notes::default();
    for (at, change) in changes.iter().enumerate() {
        once(change, &mut notes);
        let until = changes.get(at + 1).map_or(u64::MAX, |next| next.asked.seq);
        later(change, until, &looks, &mut notes);
    }
    others(&changes, &looks, &mut notes);
    if !notes.bad.is_empty() {
        return Finding::fail("a disk did not come, stay or go as ordered").witnesses(&notes.bad);
    }
    if !notes.unseen.is_empty() {
        return Finding::unsure("too little was seen of the disk").witnesses(&notes.unseen);
    }
    Finding::pass(format!(
        "the disk came and went as ordered, {} looks in the guest say so too",
        looks.len()
    ))
}

/// What the guest's kernel showed at each login, by event.
fn looks<'a>(case: &Case<'a>) -> Vec<(u64, &'a InsideFact)> {
    let looks = case.events().filter_map(|event| match &event.fact {
        Fact::Inside { inside, .. } => Some((event.seq, inside)),
        _ => None,
    });
    looks.collect()
}

/// What became of one change when it was made.
fn once(change: &Change<'_>, notes: &mut Notes) {
    let (what, event) = (
        if change.adding { "plug" } else { "unplug" },
        change.asked.seq,
    );
    if !change.taken {
        notes.unseen.push(format!(
            "the order to {what} it, event {event}, was not taken"
        ));
        return;
    }
    match change.reported {
        None => notes.unseen.push(format!(
            "the VMI said nothing after the order to {what} it, event {event}"
        )),
        Some((seq, phase, pod)) if change.adding => {
            if phase != "Ready" {
                notes
                    .bad
                    .push(format!("the VMI last said {phase:?} of it, event {seq}"));
            } else if pod.is_empty() {
                notes
                    .bad
                    .push(format!("it is ready and no pod brought it, event {seq}"));
            }
        }
        Some((seq, phase, _)) if !phase.is_empty() => {
            notes
                .bad
                .push(format!("the VMI still said {phase:?} of it, event {seq}"));
        }
        Some(_) => {}
    }
    match change.seen {
        None => notes.unseen.push(format!(
            "nobody looked in the guest after the order to {what} it, event {event}"
        )),
        Some((seen, present)) if present != change.adding => notes.bad.push(format!(
            "the guest {} it, event {}",
            if present {
                "still shows"
            } else {
                "does not show"
            },
            seen.seq
        )),
        Some(_) => {}
    }
}

/// Whether later logins, up to the next change, saw the same.
fn later(change: &Change<'_>, until: u64, looks: &[(u64, &InsideFact)], notes: &mut Notes) {
    let since = change.seen.map_or(change.asked.seq, |(event, _)| event.seq);
    let within = looks.iter().filter(|(seq, _)| since < *seq && *seq < until);
    for (seq, inside) in within {
        let shown = inside.disks.iter().any(|disk| disk.serial == change.serial);
        if shown != change.adding {
            let word = if shown { "came back" } else { "was gone again" };
            notes
                .bad
                .push(format!("the disk {word} at a later login, event {seq}"));
        }
    }
}

/// The disks that nobody touched must be there at every login.
fn others(changes: &[Change<'_>], looks: &[(u64, &InsideFact)], notes: &mut Notes) {
    let plugged: BTreeSet<&str> = changes.iter().map(|change| change.serial).collect();
    let own = |inside: &InsideFact| -> BTreeSet<String> {
        let serials = inside.disks.iter().map(|disk| disk.serial.clone());
        serials
            .filter(|serial| !serial.is_empty() && !plugged.contains(serial.as_str()))
            .collect()
    };
    let Some(((from, first), rest)) = looks.split_first() else {
        notes
            .unseen
            .push("nobody looked at the guest's disks".into());
        return;
    };
    let first = own(first);
    for (seq, inside) in rest {
        let now = own(inside);
        let gone: Vec<_> = first.difference(&now).cloned().collect();
        if !gone.is_empty() {
            notes.bad.push(format!(
                "the guest lost the disks {}, event {seq} against event {from}",
                gone.join(", ")
            ));
        }
    }
}
