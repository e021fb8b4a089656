//! M1: for how long did the guest get no write done while it was migrated?
//!
//! Three looks. *Heard*: between the arrivals of two acks; a broken stream stretches it. *Guest*: the
//! longest gap that the guest's clock shows; that clock may stand still with the guest or jump when
//! it is set on the target. *Echo*: what somebody outside saw of its network. The host's brackets
//! hold in any case. The guest's gap narrows them by as much as its clock kept step with the host's
//! over the whole window.

use super::Move;
use crate::check::case::Case;
use crate::check::finding::{Finding, seconds, time};
use crate::check::gap::{self, Gap};
use crate::check::verdict::Status;
use crate::history::acks::AckLog;
use crate::history::event::Fact;

/// M1.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    super::each(case, |moved| judge(case, moved))
}

fn judge(case: &Case<'_>, moved: &Move<'_>) -> Finding {
    let (from, to) = match moved.window() {
        Ok(window) => window,
        Err(why) => return Finding::unsure(why),
    };
    let Some(load) = case.load_at(from) else {
        return Finding::unsure("no load ran when the VM was migrated");
    };
    let allowed = case.plan.objectives().migration_blackout;
    let target = allowed.map(|allowed| allowed.as_secs_f64());
    let Some((gap, guest, (low, high))) = measured(case, &load.acks, (from, to)) else {
        return gap::unended(&load.acks, from, allowed, "the migration");
    };
    let said = format!(
        "no write became durable for {:.3} s to {:.3} s",
        seconds(low),
        seconds(high)
    );
    let mut finding = match gap::against(low, high, allowed) {
        Status::Fail => Finding::fail(format!("{said}, longer than allowed"))
            .witness(format!("{} in the guest's own clock", span(guest)))
            .witness(format!("{} between two acks as heard", span(gap.heard))),
        Status::Inconclusive => {
            Finding::unsure(format!("{said}: the objective lies inside the bracket"))
        }
        Status::Pass => Finding::pass(said),
    };
    finding = finding.worst(echo(case, moved, (from, to)));
    if allowed.is_none() {
        finding = finding.limit("the plan sets no objective for the blackout");
    }
    finding
        .measure(time("blackout", low, high, target))
        .measure(time("blackout.guest", guest, guest, None))
        .measure(time("blackout.heard", gap.heard, gap.heard, None))
        .limit(
            "the guest's clock counts only as far as it kept step with the host's over the window",
        )
}

/// The blackout of a migration: not shorter and not longer. `None` if the writes never came back, or
/// it has no end.
pub(super) fn bracket(case: &Case<'_>, moved: &Move<'_>) -> Option<(u64, u64)> {
    let (from, to) = moved.window().ok()?;
    let load = case.load_at(from)?;
    measured(case, &load.acks, (from, to)).map(|(_, _, bracket)| bracket)
}

/// The longest gap on the host's clock, on the guest's, and both laid over each other.
fn measured(
    case: &Case<'_>,
    acks: &AckLog,
    (from, to): (u64, u64),
) -> Option<(Gap, u64, (u64, u64))> {
    let frames: Vec<usize> = (0..acks.batches().len()).collect();
    let gap = gap::longest(acks, &frames, from, to)?;
    let guest = gap::in_guest(acks, from, to);
    let bracket = gap::narrowed(acks, gap, guest, (from, to), between(case, (from, to)));
    Some((gap, guest, bracket))
}

fn span(ns: u64) -> String {
    format!("{:.3} s", seconds(ns))
}

/// The time around a window in which acks compare the clocks: a guest's clock stands still at each
/// switchover, so it begins at the end of the migration before and ends where the next is asked for.
fn between(case: &Case<'_>, (from, to): (u64, u64)) -> (u64, u64) {
    let moves = super::moves(case);
    let ends = moves.iter().filter_map(|moved| Some(moved.end?.0.at_ns));
    let open = ends.filter(|end| *end <= from).max();
    let asks = moves.iter().map(|moved| moved.asked.at_ns);
    let shut = asks.filter(|asked| *asked >= to).min();
    (
        open.unwrap_or(0).max(from.saturating_sub(gap::NEAR_NS)),
        shut.unwrap_or(u64::MAX)
            .min(to.saturating_add(gap::NEAR_NS)),
    )
}

/// What was seen of the guest's network from outside. Its absence takes nothing from the rest, and
/// only a silence that ended on the stream on which it began speaks against the guest: where the way
/// to it broke, as a tunnel to the pod that it left does, a new one had to be made first.
fn echo(case: &Case<'_>, moved: &Move<'_>, (from, to): (u64, u64)) -> Finding {
    let seen = case.events().filter_map(|event| match &event.fact {
        Fact::Echo {
            site,
            from_ns,
            interval_ns,
            sent,
            answered,
            longest_ns,
            unbroken_ns,
            ..
        } if *site == moved.site && *from_ns <= from && event.at_ns >= to && *sent > 0 => {
            let said = format!("{answered} of {sent} echoes came back, event {}", event.seq);
            Some((said, *interval_ns, *longest_ns, *unbroken_ns))
        }
        _ => None,
    });
    let Some((said, interval, longest, unbroken)) = seen.last() else {
        return Finding::pass("no echo was asked for")
            .limit("nobody outside the guest watched its network meanwhile");
    };
    let certain = unbroken.unwrap_or(longest).min(longest);
    let low = certain.saturating_sub(interval);
    let measure = time("blackout.echo", low, longest, None);
    let said = if certain < longest {
        format!(
            "{said}, none for {} while the way to the guest broke and was made anew, and for {} on one stream",
            span(longest),
            span(certain)
        )
    } else {
        format!("{said}, none for {}", span(longest))
    };
    let word = match gap::against(low, certain, case.plan.objectives().migration_blackout) {
        Status::Fail => Finding::fail("the guest's network was gone for longer than allowed"),
        Status::Inconclusive => Finding::unsure("the objective lies within one echo interval"),
        Status::Pass => return Finding::pass(said.clone()).limit(said).measure(measure),
    };
    word.witness(said).measure(measure)
}
