//! L3: did a guest that was killed stay dead?
//!
//! A pod that is deleted by force is gone from the API at once, whether or not its node ended it. The
//! VM comes back all the same, and two guests then write to the same volumes. So the killed guest's
//! stream is listened to until the new one has been read back: no write of it may have become durable
//! after the new one's first.

use super::{orders, worst};
use crate::check::case::Case;
use crate::check::finding::{Finding, moment};
use crate::check::split::listened;
use crate::history::event::Deed;

/// L3.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let orders = orders(case);
    let kills = orders.iter().filter(|order| order.deed == Deed::Kill);
    let words = kills.map(|kill| judge(case, kill.asked.at_ns));
    worst(words, "the VM was not killed in this trial")
}

fn judge(case: &Case<'_>, at_ns: u64) -> Finding {
    let Some(old) = case.load_at(at_ns) else {
        return Finding::unsure("no load ran when the VM was killed");
    };
    let later = case.incarnations().find(|life| life.at_ns > at_ns);
    let Some((new, first)) = later.and_then(|new| Some((new, new.acks.batches().first()?))) else {
        return Finding::unsure("no guest wrote after the VM was killed");
    };
    let since = first.at_ns;
    let brackets = (0..old.acks.batches().len()).filter_map(|at| old.acks.bracket(at));
    let mut after = brackets.filter(|bracket| bracket.low > since);
    if let Some(write) = after.next() {
        let more = after.count();
        return Finding::fail("the guest that was killed wrote beside the one that took its place")
            .witness(format!(
                "{} acked its first write by {}",
                new.name,
                moment(since)
            ))
            .witness(format!(
                "{} made a write durable between {} and {}, and {more} more frames after it",
                old.name,
                moment(write.low),
                moment(write.high)
            ));
    }
    let said = format!(
        "no write of {} became durable after {} began",
        old.name, new.name
    );
    let how = listened(old, since, new.acks.last_ns());
    Finding::pass(said).limit(how.unwrap_or_else(|| {
        "the killed guest was not heard any more, which a broken stream would explain too".into()
    }))
}
