//! Did storage keep the order in which writes completed, even where no flush lay between them?
//!
//! A writer has one write in flight: it issues the next when the one before has completed. So a
//! present write whose writer's earlier one is missing was persisted out of completion order. Across
//! writers only durability ranks tell what came first, and a chain over ranks and writers says
//! no more than the ranks do: a completed write is durable no later than its writer's next one.

use std::collections::BTreeMap;

use crate::check::image::{DAMAGED, Image, Write};
use crate::probe::frame::CellState;

/// How far beyond the last heard write of a writer its unheard ones are looked for.
const TAIL: u64 = 1 << 20;

/// Writes that were left behind by later ones of their writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skipped {
    /// How many.
    pub(super) writes: u64,
    /// What was seen, for the reader.
    pub(super) in_words: String,
}

/// The writes on these volumes that are missing although a later one of their writer is there.
pub(super) fn skipped(image: &Image<'_>, volumes: impl Fn(usize) -> bool) -> Option<Skipped> {
    let mut writes = 0;
    let mut first: Option<(Write, Write)> = None;
    for (writer, last) in lasts(image, &volumes) {
        let acks = &image.load.acks;
        let until = last.wseq.min(acks.watermark(writer).saturating_add(TAIL));
        for wseq in 1..until {
            let Some((volume, slot)) = image.place(writer, wseq) else {
                continue;
            };
            let present = image
                .volumes
                .get(volume)
                .filter(|_| volumes(volume))
                .and_then(|known| known.present.get(slot))
                .copied();
            // The outcome of a failed write is open, and a damaged cell says nothing.
            if present.is_none_or(|at| at == DAMAGED || at >= wseq) || acks.is_unknown(writer, wseq)
            {
                continue;
            }
            writes += 1;
            let missing = Write {
                volume,
                slot,
                writer,
                wseq,
                rank: 0,
                batch: usize::MAX,
            };
            first.get_or_insert((missing, last));
        }
    }
    let (missing, last) = first?;
    Some(Skipped {
        writes,
        in_words: format!(
            "{writes} writes completed before another of their writer was issued and are missing while that one is there, and no flush between them was heard: {} lacks writer {} write {}, {} holds write {}",
            image.spot(missing.volume, missing.slot),
            missing.writer,
            missing.wseq,
            image.spot(last.volume, last.slot),
            last.wseq
        ),
    })
}

/// The last present write of the load by each writer.
fn lasts(image: &Image<'_>, volumes: impl Fn(usize) -> bool) -> BTreeMap<u32, Write> {
    let mut lasts: BTreeMap<u32, Write> = BTreeMap::new();
    for (index, volume) in image
        .volumes
        .iter()
        .enumerate()
        .filter(|(v, _)| volumes(*v))
    {
        for (slot, seen) in volume.cells.iter().enumerate() {
            let CellState::Ok {
                incarnation,
                writer,
                wseq,
                dep,
                ..
            } = seen.state
            else {
                continue;
            };
            // What no writer can have put here is D6's.
            if incarnation != image.load.number || image.place(writer, wseq) != Some((index, slot))
            {
                continue;
            }
            let write = Write {
                volume: index,
                slot,
                writer,
                wseq,
                rank: dep,
                batch: usize::MAX,
            };
            let last = lasts.entry(writer).or_insert(write);
            if last.wseq < wseq {
                *last = write;
            }
        }
    }
    lasts
}
