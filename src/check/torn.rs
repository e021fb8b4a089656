//! Which torn cells are legal: those of a write that may have been under way at the cut.
//!
//! A write was under way at a cut if its issue lies before and its ack after. Three things speak
//! against it: it was never issued; it was owed whole, because nothing may be lost or because
//! something present was issued after it was durable; or it was issued only after a write was
//! durable that is missing. For the last, a cell that is torn no longer says how much was durable
//! when its write was issued, but its writer has one write in flight: in strict mode it was issued
//! after the writer's last ack before. With batches there is no such bound, and then nothing is said.

use std::collections::BTreeMap;

use super::case::Case;
use super::image::Image;
use super::order::rule;
use crate::history::event::Fact;
use crate::probe::layout::WRITER_FILL;

/// What a torn cell of the log or hot region is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Torn {
    /// Its newest write may have been under way.
    UnderWay,
    /// It cannot have been: why.
    Broken(String),
    /// It may be of this load or of one before, which the cell does not say.
    Doubtful,
}

/// Judges the torn cells of an image, by volume and slot.
pub(super) fn judge(case: &Case<'_>, image: &Image<'_>) -> BTreeMap<(usize, usize), Torn> {
    let strict = case.owes_all(image.scan);
    let rule = rule(image);
    let reached = image
        .newest()
        .iter()
        .flatten()
        .map(|write| write.rank)
        .max();
    let missing = rule.first_missing(|_| true);
    let ranks = ranks(image);
    let covering = covering(image);
    let one_by_one = one_by_one(case, image);
    let judged = image.torn.iter().map(|(place, (writer, wseq))| {
        let word = |why: Option<String>| why.map_or(Torn::UnderWay, Torn::Broken);
        let found = ranks.get(place).copied().unwrap_or_default();
        let torn = if let Some(why) = stranger(image, *place, *writer, *wseq) {
            Torn::Broken(why)
        } else if !image.older.is_empty() {
            // The number in its sectors may be of a load before. If this load made a write of that
            // number or a later one durable there, the cell lacks it whosever the number is.
            let owed = covering.get(place);
            owed.filter(|rank| strict || reached.is_some_and(|reached| **rank <= reached))
                .map_or(Torn::Doubtful, |rank| {
                    Torn::Broken(format!("a write on it was durable at rank {rank}"))
                })
        } else if let Some(rank) = found
            .own
            .filter(|rank| strict || reached.is_some_and(|reached| *rank <= reached))
        {
            Torn::Broken(format!("its write was durable at rank {rank}"))
        } else {
            let late = missing.filter(|first| one_by_one && first.rank <= found.before);
            word(late.map(|first| {
                format!(
                    "its write was issued after rank {} was durable, and rank {} is missing",
                    found.before, first.rank
                )
            }))
        };
        (*place, torn)
    });
    judged.collect()
}

/// What is known of the newest write of a torn cell.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The rank at which it was durable, if that was heard.
    own: Option<u64>,
    /// The rank of its writer's last acked write before it, 0 for none.
    before: u64,
}

/// One pass over the acks for all torn cells.
fn ranks(image: &Image<'_>) -> BTreeMap<(usize, usize), Known> {
    let mut wanted: BTreeMap<u32, BTreeMap<u64, (usize, usize)>> = BTreeMap::new();
    for (place, (writer, wseq)) in &image.torn {
        wanted.entry(*writer).or_default().insert(*wseq, *place);
    }
    let mut ranks = BTreeMap::new();
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    if wanted.is_empty() {
        return ranks;
    }
    for acked in image.load.acks.acked() {
        let Some(queue) = wanted.get_mut(&acked.writer) else {
            continue;
        };
        let before = last.insert(acked.writer, acked.rank).unwrap_or(0);
        // The acks of a writer come in its order, so what they have passed is settled.
        while let Some(entry) = queue.first_entry().filter(|at| *at.key() <= acked.wseq) {
            let own = (*entry.key() == acked.wseq).then_some(acked.rank);
            ranks.insert(entry.remove(), Known { own, before });
        }
    }
    for (writer, queue) in wanted {
        let before = last.get(&writer).copied().unwrap_or(0);
        ranks.extend(
            queue
                .into_values()
                .map(|place| (place, Known { own: None, before })),
        );
    }
    ranks
}

/// Why no write of the subject can have hit this cell with that number, if none can.
fn stranger(image: &Image<'_>, place: (usize, usize), writer: u32, wseq: u64) -> Option<String> {
    // Every load of a subject writes the same addresses, so this holds for all of them.
    if writer == WRITER_FILL || image.place(writer, wseq) != Some(place) {
        return Some("no write of the ledger has that number and that place".into());
    }
    if !image.older.is_empty() {
        return None;
    }
    let issued = image.load.acks.stopped()?.issued.get(&writer).copied();
    let issued = issued.unwrap_or(0);
    (wseq > issued).then(|| format!("its writer issued only {issued} writes"))
}

/// For torn cells: the rank of the first acked write of the judged load on them that is not older
/// than the newest number that they show.
fn covering(image: &Image<'_>) -> BTreeMap<(usize, usize), u64> {
    let mut covering = BTreeMap::new();
    if image.torn.is_empty() || image.older.is_empty() {
        return covering;
    }
    image.walk(|acked, place, _| {
        let shown = image.torn.get(&place);
        if shown.is_some_and(|(writer, wseq)| *writer == acked.writer && *wseq <= acked.wseq) {
            covering.entry(place).or_insert(acked.rank);
        }
    });
    covering
}

/// Whether every write of the load was made durable by itself.
fn one_by_one(case: &Case<'_>, image: &Image<'_>) -> bool {
    let mut batches = case
        .history
        .events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::LoadStarted {
                incarnation, batch, ..
            } if *incarnation == image.load.name => Some(*batch),
            _ => None,
        })
        .peekable();
    batches.peek().is_some() && batches.all(|batch| batch == 0)
}
