//! A2: does the recovered point lie inside the freeze?
//!
//! The raw volumes date it. It comes after the issue of every write that they hold and before the
//! ack of every write that they lack. The file volumes must hold what they held when they were
//! frozen: everything acked until then, and nothing that was issued later.

use super::{Freeze, Writers, freezes, seen};
use crate::check::case::Case;
use crate::check::finding::{Finding, moment};
use crate::check::image::{DAMAGED, Image};
use crate::check::image_after;
use crate::check::order::rule;
use crate::check::rpo::between;

/// A2: the first read-back after the last freeze.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let freezes = freezes(case);
    let Some(freeze) = freezes.last() else {
        return Finding::unsure("no freeze was asked for in this trial");
    };
    let Some((from, to)) = freeze.window() else {
        return Finding::unsure("the guest was not said to be frozen");
    };
    if seen::never_held(case, freeze) {
        return Finding::unsure("the freeze was not real, see A1");
    }
    let image = match image_after(case, from) {
        Ok(image) => image,
        Err(why) => return Finding::unsure(why),
    };
    let writers = Writers::of(case, image.load);
    if writers.file_volumes.is_empty() {
        return Finding::unsure("the subject has no volume with a file system");
    }
    let raw = |volume: usize| !writers.file_volumes.contains(&volume);
    if rule(image).breach(raw).is_some() {
        return Finding::unsure("the raw volumes are not one point, see D2 and D3");
    }
    let (after, before) = (issued(image, raw), missed(image, raw));
    let files = files(image, &writers, from);
    if outside(freeze, from, after, before) {
        // That the file volumes hold something else then is no finding of its own.
        return beside(freeze, from, after, before);
    }
    let dated = dated((from, to), after, before);
    let finding = if files.is_empty() {
        dated
    } else {
        Finding::fail("the file volumes do not hold what they held when they were frozen")
            .witnesses(&files)
            .worst(dated)
    };
    finding.limit(
        "writes to file volumes acked within a token interval of the freeze may be there or not",
    )
}

/// Whether the point that came back last surely lies outside of the last freeze.
pub(super) fn is_outside(case: &Case<'_>) -> bool {
    let freezes = freezes(case);
    let Some((freeze, (from, _))) = freezes.last().and_then(|f| Some((f, f.window()?))) else {
        return false;
    };
    let Ok(image) = image_after(case, from) else {
        return false;
    };
    let writers = Writers::of(case, image.load);
    let raw = |volume: usize| !writers.file_volumes.contains(&volume);
    outside(freeze, from, issued(image, raw), missed(image, raw))
}

/// Says of a point outside the freeze how that is known.
fn beside(freeze: &Freeze<'_>, from: u64, after: Option<u64>, before: Option<u64>) -> Finding {
    let over = freeze.over();
    let mut finding = Finding::fail("the recovered point lies outside the freeze");
    if let Some(before) = before.filter(|before| *before <= from) {
        finding = finding.witness(format!(
            "raw volumes lack what was durable before {}, frozen from {}",
            moment(before),
            moment(from)
        ));
    }
    if let Some(after) = after.filter(|after| *after >= over) {
        finding = finding.witness(format!(
            "raw volumes hold what was issued after {}, frozen until {} at the latest",
            moment(after),
            moment(over)
        ));
    }
    finding.witness(format!("frozen by event {}", freeze.asked.seq))
}

fn outside(freeze: &Freeze<'_>, from: u64, after: Option<u64>, before: Option<u64>) -> bool {
    before.is_some_and(|before| before <= from) || after.is_some_and(|after| after >= freeze.over())
}

/// Where the recovered point lies against the freeze.
fn dated((from, to): (u64, u64), after: Option<u64>, before: Option<u64>) -> Finding {
    let (Some(after), Some(before)) = (after, before) else {
        return Finding::unsure(
            "the raw volumes do not date the point: too little was written to them before or after",
        );
    };
    let said = format!(
        "the recovered point lies {}, the freeze {}",
        between(after, before),
        between(from, to)
    );
    if after > from && before < to {
        return Finding::pass(said);
    }
    Finding::unsure(format!("{said}: it may lie outside"))
}

/// A moment after which the latest of the writes that are there was issued.
fn issued(image: &Image<'_>, volumes: impl Fn(usize) -> bool) -> Option<u64> {
    let mut latest = None;
    for (_, volume) in (image.volumes.iter().enumerate()).filter(|(index, _)| volumes(*index)) {
        for seen in volume.cells {
            latest = latest.max(image.since(&seen.state));
        }
    }
    latest
}

/// A moment before which the first of the acked writes that are not there was durable.
fn missed(image: &Image<'_>, volumes: impl Fn(usize) -> bool) -> Option<u64> {
    let mut first: Option<usize> = None;
    image.walk(|acked, (volume, _), present| {
        if volumes(volume) && present != DAMAGED && present < acked.wseq {
            first.get_or_insert(acked.batch);
        }
    });
    image.load.acks.bracket(first?).map(|bracket| bracket.high)
}

/// What is wrong with the file volumes: writes acked before the freeze that are missing, and writes
/// issued after it that are there.
fn files(image: &Image<'_>, writers: &Writers, frozen: u64) -> Vec<String> {
    let batches = image.load.acks.batches();
    let early = |batch: usize| batches.get(batch).is_some_and(|b| b.at_ns <= frozen);
    let is_file = |volume: usize| writers.file_volumes.contains(&volume);
    let mut bad = image
        .losses(|batch, volume| is_file(volume) && early(batch))
        .samples;
    for (index, volume) in (image.volumes.iter().enumerate()).filter(|(index, _)| is_file(*index)) {
        for (slot, seen) in volume.cells.iter().enumerate() {
            if let Some(at) = image.since(&seen.state).filter(|at| *at > frozen) {
                bad.push(format!(
                    "{} holds a write issued after {}, when the file system was frozen",
                    image.spot(index, slot),
                    moment(at)
                ));
            }
        }
    }
    bad
}
