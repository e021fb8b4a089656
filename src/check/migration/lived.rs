//! M2: is what runs on the target node the guest that ran on the source, and only there? Of a migration
//! that was spoiled: did it fail, and is the guest where it was, the same, and only there?

use std::collections::BTreeSet;

use super::Move;
use crate::check::case::Case;
use crate::check::finding::{Finding, seconds};
use crate::history::event::{Event, Fact, MigrationFact, Purpose};
use crate::history::read::Incarnation;
use crate::probe::frame::Opened;

/// What speaks against it, what nobody looked at, and how far the looks reach.
#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
    limits: Vec<String>,
}

/// M2.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let moved = super::each(case, |moved| judge(case, moved));
    match super::evicted::judge(case) {
        Some(evicted) if super::moves(case).is_empty() => evicted,
        Some(evicted) => moved.worst(evicted),
        None => moved,
    }
}

fn judge(case: &Case<'_>, moved: &Move<'_>) -> Finding {
    let Some((end, fact)) = moved.end else {
        return Finding::unsure(moved.window().err().unwrap_or_default());
    };
    if let Some(how) = moved.spoil {
        return spoiled(case, moved, end, fact, how.done());
    }
    // A failed migration is also completed, so this comes first.
    if fact.failed || fact.phase == "Failed" {
        return Finding::fail(format!(
            "migration {} failed: {}",
            moved.name,
            if fact.why.is_empty() {
                "no reason was given"
            } else {
                &fact.why
            }
        ))
        .witness(format!("event {}", end.seq));
    }
    let said = format!(
        "the same VMI, boot and probe went on on node {}, and nobody else wrote",
        fact.target_node
    );
    whole(case, moved, end, Place::At(&fact.target_node), said)
}

/// A migration that was spoiled must have failed and left the guest alone. One that was through before
/// it was hit proves nothing.
fn spoiled(
    case: &Case<'_>,
    moved: &Move<'_>,
    end: &Event,
    fact: &MigrationFact,
    how: &str,
) -> Finding {
    let name = moved.name;
    if !fact.failed && fact.phase != "Failed" {
        return Finding::unsure(format!(
            "migration {name} was to be {how} and went through before, event {}",
            end.seq
        ));
    }
    let said = format!(
        "migration {name} was {how} and failed; the same VMI, boot and probe went on where it was, and \
         nobody else wrote"
    );
    let why = if fact.why.is_empty() {
        "no reason was given"
    } else {
        &fact.why
    };
    whole(case, moved, end, Place::Unchanged, said).limit(format!("{name}: {why}"))
}

/// Where a guest is to be afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// On another node, this one if it is known.
    At(&'a str),
    /// Where it was.
    Unchanged,
}

/// Whether the guest lived on as one, in the right place; what is `said` of it if so.
pub(super) fn whole(
    case: &Case<'_>,
    moved: &Move<'_>,
    end: &Event,
    target: Place<'_>,
    said: String,
) -> Finding {
    let mut notes = Notes::default();
    place(case, moved, end, target, &mut notes);
    match case.load_at(moved.asked.at_ns) {
        Some(load) => {
            guest(case, moved, end, load, &mut notes);
            writers(case, moved, end, load, &mut notes);
        }
        None => notes
            .unseen
            .push("no load ran when it was asked for".into()),
    }
    let finding = if !notes.bad.is_empty() {
        Finding::fail("the guest did not live on as one").witnesses(&notes.bad)
    } else if !notes.unseen.is_empty() {
        Finding::unsure("too little says that the guest lived on").witnesses(&notes.unseen)
    } else {
        Finding::pass(said)
    };
    finding.limits(notes.limits)
}

/// The VMI must be the same one, in the right place.
fn place(case: &Case<'_>, moved: &Move<'_>, end: &Event, target: Place<'_>, notes: &mut Notes) {
    let states: Vec<(u64, Option<&str>, Option<&str>)> = case
        .events()
        .filter_map(|event| match &event.fact {
            Fact::Vm {
                site,
                vmi_uid,
                node,
                ..
            } if *site == moved.site => Some((event.seq, vmi_uid.as_deref(), node.as_deref())),
            _ => None,
        })
        .collect();
    let before = states.iter().rfind(|(seq, ..)| *seq < moved.asked.seq);
    let after = states.iter().find(|(seq, ..)| *seq > end.seq);
    let (Some((from, old_uid, old_node)), Some((to, new_uid, new_node))) = (before, after) else {
        notes
            .unseen
            .push("nobody looked at the VMI before and after".into());
        return;
    };
    let between = format!("event {from} against event {to}");
    match (old_uid, new_uid) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => notes
            .bad
            .push(format!("the VMI is {new} and was {old}, {between}")),
        (Some(old), None) => notes.bad.push(format!("VMI {old} is gone, {between}")),
        (None, _) => notes.unseen.push("the VMI's UID was not seen".into()),
    }
    match (old_node, new_node, target) {
        (Some(old), Some(new), Place::At(_)) if old == new => notes
            .bad
            .push(format!("the VM is still on node {old}, {between}")),
        (Some(_), Some(new), Place::At(target)) if !target.is_empty() && *new != target => {
            notes.bad.push(format!(
                "the VM is on node {new} and went to {target}, {between}"
            ));
        }
        (Some(old), Some(new), Place::Unchanged) if old != new => notes.bad.push(format!(
            "the VM is on node {new} and was to stay on {old}, {between}"
        )),
        (Some(_), Some(_), _) => {}
        _ => notes.unseen.push("the VM's node was not seen".into()),
    }
}

/// The guest must not have booted, nor the probe have been started again.
fn guest(case: &Case<'_>, moved: &Move<'_>, end: &Event, load: &Incarnation, notes: &mut Notes) {
    let boot = &load.identity.boot_id;
    for attach in load.acks.attaches() {
        if attach.boot_id != *boot || attach.pid != load.identity.pid {
            notes.bad.push(format!(
                "the probe speaks as process {} of boot {} and was process {} of boot {boot}",
                attach.pid, attach.boot_id, load.identity.pid
            ));
        }
    }
    for event in case.events().filter(|event| event.seq > moved.asked.seq) {
        if let Fact::Guest { site, boot_id, .. } = &event.fact
            && *site == moved.site
            && boot_id != boot
        {
            notes.bad.push(format!(
                "the guest is of boot {boot_id} and was of boot {boot}, event {}",
                event.seq
            ));
        }
    }
    let others = case
        .incarnations()
        .filter(|life| life.site == moved.site && life.at_ns > moved.asked.at_ns);
    for life in others {
        if life.identity.boot_id != *boot {
            notes.bad.push(format!(
                "{} runs on boot {}, the load ran on boot {boot}",
                life.name, life.identity.boot_id
            ));
        }
        if life.purpose == Purpose::Load && life.at_ns <= end.at_ns {
            notes.bad.push(format!(
                "{} began to write while the VM was migrated",
                life.name
            ));
        }
    }
    let batches = load.acks.batches();
    let later = (0..batches.len())
        .filter_map(|at| load.acks.bracket(at))
        .any(|bracket| bracket.low > end.at_ns);
    if !later {
        notes
            .unseen
            .push("no write was made durable after the migration".into());
    }
}

/// Nobody else may have left a stamp in the lease cells.
fn writers(case: &Case<'_>, moved: &Move<'_>, end: &Event, load: &Incarnation, notes: &mut Notes) {
    let mut longest: Option<u64> = None;
    let mut seen: BTreeSet<u8> = BTreeSet::new();
    // What a guest's own cache answers says nothing of what stands on the volume.
    let volumes = load.identity.volumes.iter();
    let (direct, cached): (Vec<&Opened>, Vec<&Opened>) =
        volumes.partition(|opened| opened.grants.direct);
    for event in case.events().filter(|event| event.seq > moved.asked.seq) {
        let Fact::Lease {
            incarnation,
            volume,
            reads,
            longest_ns,
            foreign,
        } = &event.fact
        else {
            continue;
        };
        if *incarnation != load.name {
            continue;
        }
        notes.bad.extend(foreign.iter().map(|stamp| {
            format!(
                "somebody else wrote {stamp} into the lease of volume {volume}, event {}",
                event.seq
            )
        }));
        let past = direct.iter().any(|opened| opened.volume == *volume);
        if *reads > 0 && event.seq > end.seq && past {
            seen.insert(*volume);
            longest = Some(longest.unwrap_or(0).max(*longest_ns));
        }
    }
    notes.limits.extend(cached.iter().map(|opened| {
        format!(
            "the lease on {} was read through the guest's cache",
            opened.path
        )
    }));
    let unread = direct
        .iter()
        .filter(|opened| !seen.contains(&opened.volume));
    if longest.is_some() {
        notes
            .limits
            .extend(unread.map(|opened| format!("no lease on {} was read after it", opened.path)));
    }
    match longest {
        Some(longest) => notes.limits.push(format!(
            "a second writer that lived for less than {:.3} s is not seen",
            seconds(longest)
        )),
        None => notes
            .unseen
            .push("the leases were not read after the migration".into()),
    }
}
