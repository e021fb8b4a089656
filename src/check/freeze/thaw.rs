//! A4: was the guest thawed in time, and how long did its file systems stand still?

use super::{Freeze, Writers, frames_of, seen, wholly};
use crate::check::case::Case;
use crate::check::finding::{Finding, float, seconds, time};
use crate::check::gap;
use crate::check::verdict::Status;
use crate::history::event::{Event, Outcome};
use crate::history::read::Incarnation;

const MS: u64 = 1_000_000;
/// How much later than its timer a guest may thaw by itself, nanoseconds: the agent has to answer,
/// and the writer to be heard.
const LATE: u64 = 5_000_000_000;

/// A4.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    super::each(case, |freeze| {
        if seen::never_held(case, freeze) {
            return Finding::unsure("the freeze was not real, see A1");
        }
        if freeze.abandoned.is_some() {
            return by_itself(case, freeze);
        }
        let timely = match freeze.cut {
            Some(cut) => before_power(freeze, cut),
            None => timely(case, freeze),
        };
        timely.worst(stalled(case, freeze))
    })
}

/// Whether a guest was still frozen when its power went: then there was nothing to thaw.
fn before_power(freeze: &Freeze<'_>, (asked, cut): (&Event, &Event)) -> Finding {
    let since = freeze.frozen.map_or(cut.at_ns, |frozen| frozen.at_ns);
    let low = asked.at_ns.saturating_sub(since);
    let high = cut.at_ns.saturating_sub(freeze.asked.at_ns);
    let timeout = freeze.timeout_ms.saturating_mul(MS);
    let said = format!(
        "its power was cut after {:.3} s to {:.3} s, its timer's own thaw after {:.1} s",
        seconds(low),
        seconds(high),
        float(freeze.timeout_ms) / 1e3
    );
    let finding = if timeout != 0 && low > timeout {
        Finding::fail(format!("{said}: the guest had thawed by itself"))
            .witness(format!("event {} to event {}", freeze.asked.seq, cut.seq))
    } else if timeout != 0 && high > timeout {
        Finding::unsure(format!("{said}: either may have come first"))
    } else {
        Finding::pass(said)
    };
    finding.limit("a guest whose power was cut while it was frozen needed no thaw")
}

/// The thaw must come before its timer's own.
fn timely(case: &Case<'_>, freeze: &Freeze<'_>) -> Finding {
    let asked = freeze.asked.seq;
    let Some((thaw, (end, outcome))) = freeze.thaw_asked.zip(freeze.thawed) else {
        let said = format!("the freeze of event {asked} was never thawed");
        // What a trial that was cut short did not get to do is nobody's fault.
        return match case.trial.outcome {
            Some(Outcome::Ok | Outcome::Failed(_)) => Finding::fail(said),
            _ => Finding::unsure(said),
        };
    };
    match outcome {
        Outcome::Ok => {}
        Outcome::Failed(why) => {
            return Finding::fail(format!("the thaw failed: {why}"))
                .witness(format!("event {}", end.seq));
        }
        Outcome::Unknown(why) | Outcome::Skipped(why) => {
            return Finding::unsure(format!("the guest may not have been thawed: {why}"));
        }
    }
    // The timer starts when the file systems are frozen, between the asking and the answer.
    let since = freeze.frozen.map_or(end.at_ns, |frozen| frozen.at_ns);
    let low = thaw.at_ns.saturating_sub(since);
    let high = end.at_ns.saturating_sub(freeze.asked.at_ns);
    let timeout = freeze.timeout_ms.saturating_mul(MS);
    let said = format!(
        "thawed after {:.3} s to {:.3} s, its timer's own thaw after {:.1} s",
        seconds(low),
        seconds(high),
        float(freeze.timeout_ms) / 1e3
    );
    if timeout == 0 {
        return Finding::pass(format!(
            "thawed after {:.3} s to {:.3} s",
            seconds(low),
            seconds(high)
        ))
        .limit("it would never have been thawed by a timer");
    }
    if low > timeout {
        return Finding::fail(format!("{said}: the guest had thawed by itself"))
            .witness(format!("event {asked} to event {}", end.seq));
    }
    if high > timeout {
        return Finding::unsure(format!("{said}: either may have come first"));
    }
    Finding::pass(said)
}

/// A guest that nobody thaws must thaw by itself, when its timer runs out.
fn by_itself(case: &Case<'_>, freeze: &Freeze<'_>) -> Finding {
    let Some(frozen) = freeze.frozen else {
        return Finding::unsure("the guest was not said to be frozen");
    };
    if freeze.timeout_ms == 0 {
        return Finding::fail("nobody was to thaw the guest, and it had no timer")
            .witness(format!("event {}", freeze.asked.seq));
    }
    let Some(load) = case.load_at(freeze.asked.at_ns) else {
        return Finding::unsure("no load ran when the guest was frozen");
    };
    let timeout = freeze.timeout_ms.saturating_mul(MS);
    let latest = frozen.at_ns.saturating_add(timeout + LATE);
    let timer = float(freeze.timeout_ms) / 1e3;
    let files = frames_of(load, &Writers::of(case, load).file);
    let brackets = files.iter().filter_map(|frame| load.acks.bracket(*frame));
    let resumed = brackets
        .filter(|bracket| bracket.low > frozen.at_ns)
        .min_by_key(|b| b.high);
    let Some(resumed) = resumed.filter(|b| freeze.thaw_asked.is_none_or(|t| b.high < t.at_ns))
    else {
        let asked = freeze.thaw_asked.map(|thaw| thaw.at_ns);
        let still = still(case, load, &files).max(asked.unwrap_or(0).saturating_sub(frozen.at_ns));
        let said = format!(
            "nobody thawed the guest, its timer was {timer:.1} s, and its file systems stood still for {:.3} s",
            seconds(still)
        );
        return if still > timeout + LATE {
            Finding::fail(said).witness(format!("frozen by event {}", freeze.asked.seq))
        } else {
            Finding::unsure(format!("{said}: it was not looked at for long enough"))
        };
    };
    let low = resumed.low.saturating_sub(frozen.at_ns);
    let high = resumed.high.saturating_sub(freeze.asked.at_ns);
    let said = format!(
        "nobody thawed the guest, and it wrote to its file systems again after {:.3} s to {:.3} s, its timer was {timer:.1} s",
        seconds(low),
        seconds(high)
    );
    let finding = if resumed.low > latest {
        Finding::fail(format!("{said}: far too late"))
            .witness(format!("frozen by event {}", freeze.asked.seq))
    } else if resumed.high > latest {
        Finding::unsure(format!("{said}: that may be too late"))
    } else {
        Finding::pass(said)
    };
    finding
        .measure(time("freeze-stall", low, high, None))
        .limit("the objective for stalls is not asked of a freeze that nobody ends")
}

/// For how long raw volumes are known to have gone on after the last write to a file system.
fn still(case: &Case<'_>, load: &Incarnation, files: &[usize]) -> u64 {
    let raw = frames_of(load, &Writers::of(case, load).raw);
    let bracket = |frames: &[usize]| load.acks.bracket(*frames.last()?);
    match (bracket(files), bracket(&raw)) {
        (Some(file), Some(raw)) => raw.low.saturating_sub(file.high),
        _ => 0,
    }
}

/// How long no write to a file system was acked.
fn stalled(case: &Case<'_>, freeze: &Freeze<'_>) -> Finding {
    let Some((from, to)) = freeze.window() else {
        return Finding::unsure("the guest was not said to be frozen");
    };
    let Some(load) = case.load_at(freeze.asked.at_ns) else {
        return Finding::unsure("no load ran when the guest was frozen");
    };
    let frames = frames_of(load, &Writers::of(case, load).file);
    let ended = freeze.thaw_asked.is_some() || freeze.cut.is_some();
    if ended && !wholly(load, &frames, (from, to)).is_empty() {
        return Finding::fail("file systems were written to before the thaw was asked for")
            .witness(format!("frozen by event {}", freeze.asked.seq));
    }
    if freeze.cut.is_some() {
        return Finding::pass("its file systems stood still until its power was cut");
    }
    let allowed = case.plan.objectives().freeze_stall;
    let Some(gap) = gap::longest(&load.acks, &frames, freeze.asked.at_ns, to) else {
        let still = still(case, load, &frames);
        if gap::against(still, u64::MAX, allowed) == Status::Fail {
            let still = seconds(still);
            return Finding::fail(format!(
                "file systems stood still for {still:.3} s at least and did not go on, while raw volumes did"
            ))
            .witness(format!("frozen by event {}", freeze.asked.seq));
        }
        return Finding::unsure("no write to a file system was acked after the thaw");
    };
    let target = allowed.map(|allowed| allowed.as_secs_f64());
    let said = format!(
        "file systems stood still for {:.3} s to {:.3} s",
        seconds(gap.low),
        seconds(gap.high)
    );
    let finding = match gap::against(gap.low, gap.high, allowed) {
        Status::Fail => Finding::fail(format!("{said}, longer than allowed")),
        Status::Inconclusive => {
            Finding::unsure(format!("{said}: the objective lies inside the bracket"))
        }
        Status::Pass => Finding::pass(said),
    };
    let finding = finding.measure(time("freeze-stall", gap.low, gap.high, target));
    if allowed.is_none() {
        return finding.limit("the plan sets no objective for the stall");
    }
    finding
}
