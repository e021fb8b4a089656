//! A1: did the guest itself stop writing to its file systems, and only to them?

use super::{Freeze, Writers, frames_of, freezes, wholly};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::check::rpo::between;
use crate::history::event::{CaptureFact, Event, Fact, FileSystemFact};

/// A1: each freeze, and each point that claims one.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let freezes = freezes(case);
    let bare = unfrozen(case, &freezes).map(|(event, capture)| {
        Finding::fail(format!(
            "a point was taken by {} as quiesced and no freeze holds around it",
            capture.means
        ))
        .witness(format!("event {}", event.seq))
    });
    let words = freezes.iter().map(|freeze| judge(case, freeze));
    words.chain(bare).reduce(Finding::worst).unwrap_or_else(|| {
        Finding::unsure("no freeze was asked for and no point claims one in this trial")
    })
}

/// The first fact of a point that claims to be quiesced and lies in no freeze.
fn unfrozen<'a>(case: &Case<'a>, freezes: &[Freeze<'a>]) -> Option<(&'a Event, &'a CaptureFact)> {
    let mut claims = case.events().filter_map(|event| match &event.fact {
        Fact::Capture { capture, .. } if capture.quiesced => Some((event, capture)),
        _ => None,
    });
    claims.find(|(event, _)| {
        !freezes.iter().any(|freeze| {
            freeze.frozen.is_some_and(|frozen| frozen.seq < event.seq)
                && freeze.thaw_asked.is_none_or(|thaw| thaw.seq > event.seq)
        })
    })
}

/// For so long nothing is written after a freeze that holds at all, nanoseconds: many times what
/// passes between two writes of a load that anything is judged by.
const HOLDS: u64 = 500_000_000;

/// Whether a freeze stopped nobody from the start, which is this check's to report.
pub(super) fn never_held(case: &Case<'_>, freeze: &Freeze<'_>) -> bool {
    let (Some(window), None) = (freeze.window(), freeze.refused) else {
        return true;
    };
    let Some(load) = case.load_at(freeze.asked.at_ns) else {
        return false;
    };
    let file = frames_of(load, &Writers::of(case, load).file);
    let inside = wholly(load, &file, window);
    let first = inside.first().and_then(|frame| load.acks.bracket(*frame));
    first.is_some_and(|first| first.low < window.0.saturating_add(HOLDS))
}

fn judge(case: &Case<'_>, freeze: &Freeze<'_>) -> Finding {
    if let Some((event, why)) = freeze.refused {
        return Finding::fail(format!("the freeze failed: {why}"))
            .witness(format!("event {}", event.seq));
    }
    let Some(window) = freeze.window() else {
        return Finding::unsure(format!(
            "nothing answered the freeze of event {}",
            freeze.asked.seq
        ));
    };
    let Some(load) = case.load_at(freeze.asked.at_ns) else {
        return Finding::unsure("no load ran when the guest was frozen");
    };
    let writers = Writers::of(case, load);
    let file = frames_of(load, &writers.file);
    let inside = wholly(load, &file, window);
    if let Some(at) = inside.first().and_then(|frame| load.acks.bracket(*frame)) {
        return Finding::fail("a file system said to be frozen took writes").witness(format!(
            "{} ack frames hold writes to file volumes made durable meanwhile, the first {}",
            inside.len(),
            between(at.low, at.high)
        ));
    }
    let live = live(case, freeze, window);
    if let Some(event) = live.iter().find(|(_, frozen)| !frozen).map(|(seq, _)| seq) {
        return Finding::fail("the guest's file system was not frozen meanwhile")
            .witness(format!("event {event}"));
    }
    let raw = wholly(load, &frames_of(load, &writers.raw), window);
    let before = load.acks.batches();
    let before = file
        .iter()
        .any(|frame| before.get(*frame).is_some_and(|b| b.at_ns <= window.0));
    // A guest whose power was cut while it was frozen cannot show that it would have gone on; that
    // none of its writers met an error says that none has died.
    let cut = freeze.cut.is_some();
    let after = cut && !load.acks.met_errors()
        || file
            .iter()
            .filter_map(|frame| load.acks.bracket(*frame))
            .any(|bracket| bracket.high >= window.1);
    let why = if writers.file_volumes.is_empty() {
        "the subject has no volume with a file system"
    } else if !before {
        "nothing was written to a file system before"
    } else if raw.is_empty() {
        "no raw volume was written meanwhile, so the guest may have stood still as a whole"
    } else if !after {
        "nothing was written to a file system afterwards, so its writer may have died"
    } else {
        ""
    };
    let finding = if why.is_empty() {
        Finding::pass(format!(
            "the file systems took no write while frozen and {} ack frames came from raw volumes",
            raw.len()
        ))
    } else {
        Finding::unsure(format!("no write to a file system was seen, but {why}"))
    };
    let finding = if cut {
        finding.limit("its power was cut while it was frozen, so nobody saw its writers go on")
    } else {
        finding
    };
    if live.is_empty() {
        return finding.limit("nobody asked the guest for the state of its file systems");
    }
    finding
}

/// What the guest said of its file systems while it was frozen: event and word.
fn live(case: &Case<'_>, freeze: &Freeze<'_>, (from, to): (u64, u64)) -> Vec<(u64, bool)> {
    let seen = case
        .events()
        .filter(|event| from < event.at_ns && event.at_ns < to);
    seen.filter_map(|event| match &event.fact {
        Fact::FileSystem {
            site,
            state: FileSystemFact::Live { frozen },
            ..
        } if *site == freeze.site => Some((event.seq, *frozen)),
        _ => None,
    })
    .collect()
}
