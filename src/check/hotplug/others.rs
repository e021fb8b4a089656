//! H2: did the writers of the other volumes go on while a disk came or went?

use super::{Change, changes};
use crate::check::case::Case;
use crate::check::finding::{Finding, seconds, time};
use crate::check::gap;
use crate::check::verdict::Status;

/// H2: the worst of the changes.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let words = changes(case);
    let words = words.iter().map(|change| judge(case, change));
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no disk was to come or to go in this trial"))
}

fn judge(case: &Case<'_>, change: &Change<'_>) -> Finding {
    let what = if change.adding { "came" } else { "went" };
    let Some((seen, _)) = change.seen else {
        return Finding::unsure(format!("nobody saw when the disk {what}"));
    };
    let (from, to) = (change.asked.at_ns, seen.at_ns);
    let Some(load) = case.load_at(from) else {
        return Finding::unsure(format!("no load ran when the disk {what}"));
    };
    let acks = &load.acks;
    let allowed = case.plan.objectives().migration_blackout;
    let Some(gap::Still { low, high, .. }) = gap::still(acks, (from, to)) else {
        return gap::unended(acks, from, allowed, "the order");
    };
    let said = format!(
        "while a disk {what} the others were written to, with {:.3} s to {:.3} s at most between two writes",
        seconds(low),
        seconds(high)
    );
    let finding = match gap::against(low, high, allowed) {
        Status::Fail => Finding::fail(format!("the others stood still for too long: {said}")),
        Status::Inconclusive => {
            Finding::unsure(format!("the objective lies inside the bracket: {said}"))
        }
        Status::Pass => Finding::pass(said),
    };
    let target = allowed.map(|allowed| allowed.as_secs_f64());
    let finding = finding.measure(time(&format!("stall.{what}"), low, high, target));
    if allowed.is_none() {
        return finding.limit("the plan sets no objective (`migrationBlackout`)");
    }
    finding
}
