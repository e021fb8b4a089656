//! How long did acks stay away, on the host's clock and on the guest's?

use std::time::Duration;

use super::finding::{Finding, seconds, time};
use super::verdict::Status;
use crate::history::acks::AckLog;

/// The longest time between two durable writes in a window, bracketed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// Not shorter.
    pub(super) low: u64,
    /// Not longer.
    pub(super) high: u64,
    /// Between the arrivals of two ack frames.
    pub(super) heard: u64,
}

/// The longest gap between neighbours among ack frames, by index ascending, that touches the window
/// `from..=to`. `None` if no frame lies before its end or none after.
pub(super) fn longest(acks: &AckLog, frames: &[usize], from: u64, to: u64) -> Option<Gap> {
    let mut longest: Option<Gap> = None;
    let mut closed = false;
    for pair in frames.windows(2) {
        let [before, after] = *pair else { continue };
        let (before, after) = (acks.bracket(before)?, acks.bracket(after)?);
        if after.high < from || before.high > to {
            continue;
        }
        closed |= after.high >= to;
        let gap = longest.get_or_insert_default();
        gap.low = gap.low.max(after.low.saturating_sub(before.high));
        gap.high = gap.high.max(after.high.saturating_sub(before.low));
        gap.heard = gap.heard.max(after.high.saturating_sub(before.high));
    }
    longest.filter(|_| closed)
}

/// Where a bracketed time lies against what is allowed; without an objective it passes.
pub(super) fn against(low: u64, high: u64, allowed: Option<Duration>) -> Status {
    let allowed = allowed.map_or(u64::MAX, |allowed| {
        u64::try_from(allowed.as_nanos()).unwrap_or(u64::MAX)
    });
    if low > allowed {
        Status::Fail
    } else if high > allowed {
        Status::Inconclusive
    } else {
        Status::Pass
    }
}

/// The writes never came back after something: a failure if the guest was heard idle for longer than
/// allowed.
pub(super) fn unended(acks: &AckLog, from: u64, allowed: Option<Duration>, what: &str) -> Finding {
    let last = acks.batches().last().map_or(from, |batch| batch.at_ns);
    let heard = acks.last_frame_at(u64::MAX).unwrap_or(last);
    let idle = heard.saturating_sub(last);
    let said = format!("no ack was heard after {what}");
    if against(idle, idle, allowed) == Status::Fail {
        let more = format!(
            "{said}, and the probe spoke for {:.3} s more",
            seconds(idle)
        );
        return Finding::fail(more).measure(time("blackout", idle, u64::MAX, None));
    }
    Finding::unsure(said)
}

/// How far from the window acks compare the clocks, nanoseconds. Clocks whose rates differ by 100 ppm
/// part by 6 ms in that time, and an emulated guest may take half of it to take its stream up again.
pub(super) const NEAR_NS: u64 = 60_000_000_000;

/// The longest gap on the guest's clock in the frames that may touch the window: of those that came
/// after it, all that a broken stream may have delayed, and the first of which that is excluded,
/// because its gap may have begun before.
pub(super) fn in_guest(acks: &AckLog, from: u64, to: u64) -> u64 {
    let batches = acks.batches();
    let first = batches.partition_point(|batch| batch.at_ns < from);
    let after = |at: &usize| acks.bracket(*at).is_some_and(|bracket| bracket.low > to);
    let last = (first..batches.len()).find(after).unwrap_or(batches.len());
    let touched = batches.get(first..=last.min(batches.len().saturating_sub(1)));
    let gaps = touched.unwrap_or(&[]).iter().map(|batch| batch.max_gap_ns);
    gaps.max().unwrap_or(0)
}

/// The host's bracket and the guest's gap laid over each other. Acks that arrived between `open` and
/// `shut` compare the clocks.
pub(super) fn narrowed(
    acks: &AckLog,
    gap: Gap,
    guest: u64,
    (from, to): (u64, u64),
    (open, shut): (u64, u64),
) -> (u64, u64) {
    let host = (gap.low, gap.high);
    let Some((before, after)) = clocks(acks, (from, to), (open, shut)) else {
        return host;
    };
    // By how much the guest's clock may have stood still or jumped ahead over the window.
    let stood = clamp(after.1 - before.0);
    let jumped = clamp(before.1 - after.0);
    let both = (
        guest.saturating_sub(jumped).max(host.0),
        guest.saturating_add(stood).min(host.1),
    );
    // A clock that contradicts the host's says nothing.
    if both.0 <= both.1 { both } else { host }
}

/// For how long the guest's clock stood still over the window for certain: its virtual CPUs did too.
fn clock_stood(acks: &AckLog, window: (u64, u64), around: (u64, u64)) -> u64 {
    let clocks = clocks(acks, window, around);
    clocks.map_or(0, |(before, after)| clamp(after.0 - before.1))
}

fn clamp(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

/// The host's clock less the guest's before a window and after it, by acks that arrived between `open`
/// and `shut`.
fn clocks(
    acks: &AckLog,
    (from, to): (u64, u64),
    (open, shut): (u64, u64),
) -> Option<((i128, i128), (i128, i128))> {
    let batches = acks.batches();
    let first = batches.partition_point(|batch| batch.at_ns < from);
    let last = batches.partition_point(|batch| batch.at_ns <= to);
    let near = |at: &usize| {
        let batch = batches.get(*at);
        batch.is_some_and(|batch| open <= batch.at_ns && batch.at_ns <= shut)
    };
    let before = offset(acks, (0..first).filter(near))?;
    let after = offset(acks, (last..batches.len()).filter(near))?;
    Some((before, after))
}

/// The host's clock less the guest's, as all these acks bracket it together.
fn offset(acks: &AckLog, frames: impl Iterator<Item = usize>) -> Option<(i128, i128)> {
    let mut both: Option<(i128, i128)> = None;
    for frame in frames {
        let at = acks.bracket(frame)?;
        let own = i128::from(acks.batches().get(frame)?.mono_ns);
        let (low, high) = (i128::from(at.low) - own, i128::from(at.high) - own);
        both = Some(both.map_or((low, high), |(l, h)| (l.max(low), h.min(high))));
    }
    both.filter(|(low, high)| low <= high)
}

/// For how long a guest stood still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Still {
    /// Not shorter.
    pub(super) low: u64,
    /// Not longer.
    pub(super) high: u64,
    /// For how long its clock stood still for certain.
    pub(super) clock: u64,
}

/// The longest time between two durable writes that touches a window, as host and guest bracket it
/// together; `None` if no write was heard of on one side of it.
pub(super) fn still(acks: &AckLog, (from, to): (u64, u64)) -> Option<Still> {
    let frames: Vec<usize> = (0..acks.batches().len()).collect();
    let gap = longest(acks, &frames, from, to)?;
    let around = (from.saturating_sub(NEAR_NS), to.saturating_add(NEAR_NS));
    let guest = in_guest(acks, from, to);
    let (low, high) = narrowed(acks, gap, guest, (from, to), around);
    let clock = clock_stood(acks, (from, to), around);
    Some(Still { low, high, clock })
}
