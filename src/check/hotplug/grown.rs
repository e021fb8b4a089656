//! H3: did a volume grow inside the guest and on the replica, and not only in the API?

use crate::check::case::Case;
use crate::check::finding::{Finding, time};
use crate::history::event::{Event, Fact, InsideFact, Outcome, ResizeFact, Site};

/// A volume that was to grow, and what was seen of it before the next order.
#[derive(Debug, Clone)]
pub(in crate::check) struct Growth<'a> {
    ordinal: u8,
    /// Bytes that were asked for.
    to: u64,
    /// Bytes that the guest showed in the end.
    seen: Option<(&'a Event, u64, &'a str)>,
    asked: &'a Event,
    serial: &'a str,
    boot: &'a str,
    answer: Option<(&'a Event, &'a Outcome)>,
    /// What the claim says that it has, and the conditions that stood then.
    claimed: Option<(u64, String)>,
    reported: Option<u64>,
    /// What was read behind the old end, and how much of it was not blank.
    behind: Option<(&'a Event, u64, u64)>,
}

impl Growth<'_> {
    /// Whether it was granted for this volume by this moment: whoever reads it then is owed the size.
    pub(in crate::check) fn had(&self, ordinal: u8, at_ns: u64) -> bool {
        let granted = self
            .claimed
            .as_ref()
            .is_some_and(|(has, _)| *has >= self.to);
        self.ordinal == ordinal && granted && self.asked.at_ns < at_ns
    }

    /// Bytes that it has since: storage may round up, and the guest shows to what.
    pub(in crate::check) fn size(&self) -> u64 {
        let claimed = self.claimed.as_ref().map_or(0, |(has, _)| *has);
        match self.seen {
            Some((_, size, _)) if size >= self.to => size,
            _ => claimed.max(self.to),
        }
    }
}

/// The growths of a case, in the order in which they were asked for.
pub(in crate::check) fn growths<'a>(case: &Case<'a>) -> Vec<Growth<'a>> {
    let mut growths: Vec<Growth<'a>> = Vec::new();
    for event in case.events() {
        let Fact::Resize { resize, .. } = &event.fact else {
            continue;
        };
        if let ResizeFact::Asked {
            ordinal,
            serial,
            to,
            boot_id,
            ..
        } = resize
        {
            growths.push(Growth {
                ordinal: *ordinal,
                to: *to,
                seen: None,
                asked: event,
                serial,
                boot: boot_id,
                answer: None,
                claimed: None,
                reported: None,
                behind: None,
            });
        }
        let Some(growth) = growths.last_mut() else {
            continue;
        };
        match resize {
            ResizeFact::Asked { .. } => {}
            ResizeFact::Answered { outcome } => growth.answer = Some((event, outcome)),
            ResizeFact::Claimed {
                capacity,
                conditions,
            } => {
                let told: Vec<&str> = conditions.keys().map(String::as_str).collect();
                growth.claimed = Some((*capacity, told.join(", ")));
            }
            ResizeFact::Reported { capacity } => growth.reported = Some(*capacity),
            ResizeFact::Seen { size, boot_id } => growth.seen = Some((event, *size, boot_id)),
            ResizeFact::Behind { read, strange, .. } => {
                growth.behind = Some((event, *read, *strange));
            }
        }
    }
    growths
}

/// What is wrong, what had not come about when nobody waited any more, and what nobody looked at.
#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    late: Vec<String>,
    unseen: Vec<String>,
}

/// H3.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let growths = growths(case);
    if growths.is_empty() {
        return Finding::unsure("no volume was to grow in this trial");
    }
    let mut notes = Notes::default();
    let mut times = Vec::new();
    for growth in &growths {
        here(growth, &mut notes);
        behind(growth, &mut notes);
        elsewhere(case, growth, &mut notes);
        if let Some(((answered, _), (seen, ..))) = growth.answer.zip(growth.seen) {
            let since = |event: &Event| event.at_ns.saturating_sub(growth.asked.at_ns);
            times.push((since(answered), since(seen)));
        }
    }
    // Whoever stopped the trial did not wait for it.
    match case.trial.outcome {
        Some(Outcome::Ok | Outcome::Failed(_)) => notes.bad.append(&mut notes.late),
        _ => notes.unseen.append(&mut notes.late),
    }
    if !notes.bad.is_empty() {
        return Finding::fail("a volume did not grow for its guest").witnesses(&notes.bad);
    }
    if !notes.unseen.is_empty() {
        return Finding::unsure("too little was seen of the growth").witnesses(&notes.unseen);
    }
    let finding = Finding::pass(format!(
        "{} bytes were asked for, and the guest shows them without a reboot and wherever it went",
        growths
            .iter()
            .map(|g| g.to.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    ));
    // The guest is looked at every now and then: it had the size by the end of that time.
    times.into_iter().fold(finding, |finding, (low, high)| {
        finding.measure(time("growth.seen", low, high, None))
    })
}

/// What became of it where it was ordered.
fn here(growth: &Growth<'_>, notes: &mut Notes) {
    let (event, to) = (growth.asked.seq, growth.to);
    match growth.answer {
        Some((_, Outcome::Ok)) => {}
        Some((answered, Outcome::Failed(why))) => {
            let at = answered.seq;
            return notes
                .unseen
                .push(format!("the order to grow was refused, event {at}: {why}"));
        }
        _ => {
            return notes.unseen.push(format!(
                "nobody knows whether the order of event {event} was taken"
            ));
        }
    }
    match &growth.claimed {
        None => notes
            .unseen
            .push(format!("the claim was not looked at after event {event}")),
        Some((has, conditions)) if *has < to => {
            return notes.late.push(format!(
                "the claim was asked for {to} bytes in event {event} and still has {has}; conditions: [{conditions}]"
            ));
        }
        Some(_) => {}
    }
    match growth.seen {
        None => notes
            .unseen
            .push(format!("nobody looked in the guest after event {event}")),
        Some((seen, size, _)) if size < to => {
            let reported = growth.reported.map_or_else(
                || "the VMI does not say".to_owned(),
                |has| format!("the VMI says {has}"),
            );
            notes.late.push(format!(
                "the claim has {to} bytes ({reported}), and the guest shows {size}, event {}",
                seen.seq
            ));
        }
        Some((seen, _, boot)) if boot != growth.boot => notes.bad.push(format!(
            "the guest shows the size since a reboot: boot {boot} in event {}, {} before",
            seen.seq, growth.boot
        )),
        Some(_) => {}
    }
}

/// What it grew by must be nobody's.
fn behind(growth: &Growth<'_>, notes: &mut Notes) {
    match growth.behind {
        Some((event, read, strange)) if strange > 0 => notes.bad.push(format!(
            "{strange} of {read} cells behind the old end were not blank, event {}",
            event.seq
        )),
        Some((_, read, _)) if read > 0 => {}
        _ => notes.unseen.push(format!(
            "nobody read what lay behind the old end after event {}",
            growth.asked.seq
        )),
    }
}

/// What later logins showed, on whichever site.
fn elsewhere(case: &Case<'_>, growth: &Growth<'_>, notes: &mut Notes) {
    let Some((seen, size, _)) = growth.seen.filter(|(_, size, _)| *size >= growth.to) else {
        return;
    };
    let looks: Vec<(u64, Site, &InsideFact)> = case
        .events()
        .filter(|event| event.seq > seen.seq)
        .filter_map(|event| match &event.fact {
            Fact::Inside { site, inside } => Some((event.seq, *site, inside)),
            _ => None,
        })
        .collect();
    for (event, site, inside) in &looks {
        let mut disks = inside.disks.iter();
        match disks.find(|disk| disk.serial == growth.serial) {
            Some(disk) if disk.size >= growth.to => {}
            Some(disk) => notes.bad.push(format!(
                "on the {site} the disk has {} bytes, event {event}, and had {size} in event {}",
                disk.size, seen.seq
            )),
            None => notes.bad.push(format!(
                "on the {site} the guest has no disk with serial {}, event {event}",
                growth.serial
            )),
        }
    }
    let target = case.target().filter(|_| case.moves());
    if let Some(target) = target
        && looks.iter().all(|(_, site, _)| *site != target)
    {
        notes
            .unseen
            .push(format!("nobody looked in the guest on the {target}"));
    }
}
