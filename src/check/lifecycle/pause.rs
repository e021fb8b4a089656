//! L1: did the guest stand still for as long as it was paused, and no longer?
//!
//! It must not have written between the answer to the pause and the asking for its end. That it did
//! not is shown by its own clock: either it ran on and shows a gap as long, or it stood still itself.
//! The host's brackets alone do not show it, for tokens wait in the stream until the guest reads them.

use super::{Order, orders, worst};
use crate::check::case::Case;
use crate::check::finding::{Finding, seconds, time};
use crate::check::gap;
use crate::check::verdict::Status;
use crate::history::acks::AckLog;
use crate::history::event::Deed;

/// How much shorter than the pause the proof of it may be, nanoseconds: the clocks are compared by
/// tokens, of which there are twenty a second.
const STEP_NS: u64 = 500_000_000;

/// L1.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let orders = orders(case);
    let pauses = orders.iter().filter(|order| order.deed == Deed::Pause);
    let words = pauses.map(|pause| {
        let later =
            |order: &&Order<'_>| order.deed == Deed::Unpause && order.asked.seq > pause.asked.seq;
        judge(case, pause, orders.iter().find(later))
    });
    worst(words, "the VM was not paused in this trial")
}

fn judge(case: &Case<'_>, pause: &Order<'_>, unpause: Option<&Order<'_>>) -> Finding {
    let Some(since) = pause.taken() else {
        return Finding::unsure("it is not known that the pause was taken");
    };
    let Some((unpause, over)) = unpause.and_then(|order| Some((order, order.taken()?))) else {
        return Finding::unsure("it is not known that the end of the pause was taken");
    };
    let (asked, until) = (pause.asked.at_ns, unpause.asked.at_ns);
    let Some(load) = case.load_at(asked) else {
        return Finding::unsure("no load ran when the VM was paused");
    };
    let acks = &load.acks;
    // Paused for as long as this at least, and for as long as that at most.
    let (least, most) = (until.saturating_sub(since), over.saturating_sub(asked));
    let within = within(acks, since, until);
    if !within.is_empty() {
        return Finding::fail(format!(
            "the guest went on writing while it was paused for {:.3} s",
            seconds(least)
        ))
        .witnesses(&within);
    }
    let allowed = case.plan.objectives().migration_blackout;
    let Some(gap::Still { low, high, clock }) = gap::still(acks, (asked, over)) else {
        return gap::unended(acks, over, allowed, "the pause");
    };
    let proof = low.max(clock);
    let said = format!(
        "paused for {:.3} s to {:.3} s, it wrote nothing for {:.3} s to {:.3} s",
        seconds(least),
        seconds(most),
        seconds(low),
        seconds(high)
    );
    let late = (low.saturating_sub(most), high.saturating_sub(least));
    let finding = if high < least {
        Finding::fail(format!("the guest did not stand still: {said}"))
    } else if gap::against(late.0, late.1, allowed) == Status::Fail {
        Finding::fail(format!("the guest went on late: {said}"))
    } else if proof.saturating_add(STEP_NS) < least {
        Finding::unsure(format!("nothing shows that the guest stood still: {said}"))
    } else if gap::against(late.0, late.1, allowed) == Status::Inconclusive {
        Finding::unsure(format!("the objective lies inside the bracket: {said}"))
    } else {
        Finding::pass(said)
    };
    let target = allowed.map(|allowed| allowed.as_secs_f64());
    let finding = if allowed.is_none() {
        finding.limit(
            "the plan sets no objective for how late a guest may go on (`migrationBlackout`)",
        )
    } else {
        finding
    };
    finding
        .measure(time("paused", least, most, None))
        .measure(time("stood-still", low, high, None))
        .measure(time("went-on-late", late.0, late.1, target))
}

/// The acks of writes that became durable between two moments for certain.
fn within(acks: &AckLog, since: u64, until: u64) -> Vec<String> {
    let frames = (0..acks.batches().len()).filter_map(|at| acks.bracket(at));
    let sure = frames.filter(|at| since < at.low && at.high < until);
    let told = sure.map(|at| {
        format!(
            "a write became durable between {:.3} s and {:.3} s, the VM was paused from {:.3} s to {:.3} s",
            seconds(at.low),
            seconds(at.high),
            seconds(since),
            seconds(until)
        )
    });
    told.collect()
}
