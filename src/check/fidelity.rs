//! O3: is the VM on the target the one that ran on the source?

use std::collections::BTreeMap;

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Fact, HotplugFact, ShapeFact, Site};

/// What one comparison of two shapes came to.
#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
    limits: Vec<String>,
}

/// O3: every shape seen against the first, the newest where the subject was brought among them. A disk
/// that was plugged or taken away since makes it another machine on purpose, so looks begin anew.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let changed = case.events().filter(|event| {
        let Fact::Hotplug { hotplug, .. } = &event.fact else {
            return false;
        };
        matches!(hotplug, HotplugFact::Asked { .. })
    });
    let since = changed.last().map(|event| event.seq);
    let shapes: Vec<(u64, Site, &ShapeFact)> = case
        .events()
        .filter(|event| Some(event.seq) > since)
        .filter_map(|event| match &event.fact {
            Fact::Shape { site, shape } => Some((event.seq, *site, shape)),
            _ => None,
        })
        .collect();
    let Some((from, home, source)) = shapes.first() else {
        return Finding::unsure("nobody looked how the VM is defined");
    };
    // A VM that comes back home is compared with what it was before it left.
    let target = case.target().unwrap_or_else(|| home.peer());
    let newest = shapes.iter().rfind(|(_, site, _)| *site == target);
    let Some((to, ..)) = newest.filter(|(to, ..)| to != from) else {
        return Finding::unsure(format!("the VM's shape on the {target} was not seen"));
    };
    let mut notes = Notes::default();
    for (_, _, shape) in shapes.iter().skip(1) {
        compare(source, shape, &mut notes);
    }
    for lines in [&mut notes.bad, &mut notes.unseen, &mut notes.limits] {
        let mut seen = std::collections::BTreeSet::new();
        lines.retain(|line| seen.insert(line.clone()));
    }
    let between = format!(
        "{} looks, from event {from} on the {home} to event {to} on the {target}",
        shapes.len()
    );
    let finding = if !notes.bad.is_empty() {
        Finding::fail("the VM came up as another machine").witnesses(&notes.bad)
    } else if !notes.unseen.is_empty() {
        Finding::unsure("too little of the VM's shape was seen").witnesses(&notes.unseen)
    } else {
        Finding::pass(format!(
            "firmware, machine type, {} MAC addresses, {} disks, {} references, CPU and memory are the same",
            source.macs.len(),
            source.disks.len(),
            source.references.len()
        ))
    };
    finding.limit(between).limits(notes.limits)
}

fn compare(source: &ShapeFact, target: &ShapeFact, notes: &mut Notes) {
    let texts = [
        (
            "firmware UUID",
            &source.firmware_uuid,
            &target.firmware_uuid,
        ),
        (
            "firmware serial",
            &source.firmware_serial,
            &target.firmware_serial,
        ),
        ("machine type", &source.machine, &target.machine),
        ("CPU topology", &source.cpu, &target.cpu),
        ("memory", &source.memory, &target.memory),
    ];
    for (what, was, is) in texts {
        if was != is {
            notes
                .bad
                .push(format!("the {what} is {is:?} and was {was:?}"));
        }
    }
    // KubeVirt gives every VMI one, so its absence says that nobody read it.
    if source.firmware_uuid.is_empty() && target.firmware_uuid.is_empty() {
        notes.unseen.push("no firmware UUID was seen".into());
    }
    strategy(source, target, notes);
    if source.disks.is_empty() && target.disks.is_empty() {
        notes.unseen.push("no disk was seen".into());
    } else if source.disks != target.disks {
        notes.bad.push(format!(
            "the disks are [{}] and were [{}]",
            target.disks.join(", "),
            source.disks.join(", ")
        ));
    }
    each(&source.macs, &target.macs, |name, was, is| {
        let told =
            |mac: Option<&String>| mac.map_or_else(|| "absent".into(), |mac| format!("{mac:?}"));
        let line = format!(
            "the MAC address of interface {name} is {} and was {}",
            told(is),
            told(was)
        );
        if was != is {
            notes.bad.push(line);
        }
    });
    each(&source.references, &target.references, |name, was, is| {
        references(name, was, is, notes);
    });
}

/// Stopping a VM halts it for good and hand-over tools define it halted first, so a halted source
/// promises nothing. Otherwise what keeps the VM up here must keep it up there.
fn strategy(source: &ShapeFact, target: &ShapeFact, notes: &mut Notes) {
    let (was, is) = (&source.run_strategy, &target.run_strategy);
    if was.is_empty() || was == "Halted" {
        notes.limits.push(format!(
            "the run strategy of the source was {was:?}, so that of the target, {is:?}, is not judged"
        ));
    } else if was != is {
        notes
            .bad
            .push(format!("the run strategy is {is:?} and was {was:?}"));
    }
}

fn references(
    name: &str,
    was: Option<&Option<String>>,
    is: Option<&Option<String>>,
    notes: &mut Notes,
) {
    match (was, is) {
        (Some(Some(was)), Some(Some(is))) if was == is => {}
        (Some(Some(_)), Some(Some(_))) => notes.bad.push(format!("{name} has other contents")),
        (Some(Some(_)), Some(None)) => notes.bad.push(format!("{name} is missing")),
        (Some(_), None) => notes
            .bad
            .push(format!("{name} is no longer referred to by the VM")),
        (Some(None), Some(_)) => notes
            .limits
            .push(format!("{name} was missing on the source already")),
        (None, _) => notes
            .bad
            .push(format!("{name} was not referred to by the VM before")),
    }
}

/// Visits each key that either map has.
fn each<'a, V>(
    was: &'a BTreeMap<String, V>,
    is: &'a BTreeMap<String, V>,
    mut found: impl FnMut(&'a str, Option<&'a V>, Option<&'a V>),
) {
    for (name, value) in was {
        found(name, Some(value), is.get(name));
    }
    for (name, value) in is.iter().filter(|(name, _)| !was.contains_key(*name)) {
        found(name, None, Some(value));
    }
}
