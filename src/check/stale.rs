//! D6: cells of another run, of a life that is over, or of an older point than their surroundings.
//!
//! - **Foreign**: a whole cell of another run.
//! - **Phantom**: a whole cell of this run that nothing in the history can have written there: by an
//!   incarnation that the read-back does not judge, at a cell that its write does not address, or
//!   with a number that was never issued.
//! - **Resurrected**: a cell that held newer data at the read-back on which the load was built, while
//!   data of the load is present on the same volume.
//! - **Stale extent**: a volume is proven to have reached a point (the largest rank on which a present
//!   write depends). A cell *lags* if it lacks a write that was durable by then. Two or more lagging
//!   cells, not all zero, with no cell between them that holds anything newer than what they lack,
//!   are an extent kept from an older point. A single lagging cell is D1's and D2's; lagging
//!   cells that are all zero are D7's.

use std::collections::BTreeMap;

use super::case::Case;
use super::damage::{coverage, line, listed};
use super::finding::Finding;
use super::image::{DAMAGED, Image};
use super::order::{Rule, rule};
use crate::probe::frame::{CellState, Seen};

/// A run of lagging cells of one volume.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extent {
    pub(super) volume: usize,
    /// First and last lagging cell.
    pub(super) cells: (u64, u64),
    pub(super) lagging: u64,
    /// All of them are zero.
    pub(super) zero: bool,
    /// Largest first-missing rank in it.
    missing: u64,
}

/// The extents of an image that lag behind the point that their volume reached.
pub(super) fn extents(image: &Image<'_>, rule: &Rule) -> Vec<Extent> {
    let mut lag: Vec<BTreeMap<usize, u64>> = vec![BTreeMap::new(); image.volumes.len()];
    image.walk(|acked, (volume, slot), present| {
        let reached = rule.reached(volume);
        if present != DAMAGED
            && present < acked.wseq
            && reached.is_some_and(|reached| acked.rank <= reached)
            && let Some(lag) = lag.get_mut(volume)
        {
            lag.entry(slot).or_insert(acked.rank);
        }
    });
    let mut extents = Vec::new();
    for (index, lag) in lag.iter().enumerate() {
        let Some(volume) = image.volumes.get(index) else {
            continue;
        };
        let mut open: Option<Extent> = None;
        let mut last = 0;
        for (slot, missing) in lag {
            let zero = volume
                .cells
                .get(*slot)
                .is_some_and(|seen| seen.state == CellState::Zeroed);
            let joined = open.as_ref().is_some_and(|extent| {
                let oldest = extent.missing.max(*missing);
                let between = volume.cells.get(last + 1..*slot).unwrap_or(&[]);
                !between.iter().any(|seen| is_newer(image, seen, oldest))
            });
            last = *slot;
            if let (true, Some(extent)) = (joined, open.as_mut()) {
                extent.cells.1 = volume.cell(*slot);
                extent.lagging += 1;
                extent.zero &= zero;
                extent.missing = extent.missing.max(*missing);
                continue;
            }
            extents.extend(open.take());
            open = Some(Extent {
                volume: index,
                cells: (volume.cell(*slot), volume.cell(*slot)),
                lagging: 1,
                zero,
                missing: *missing,
            });
        }
        extents.extend(open);
    }
    extents.retain(|extent| extent.lagging > 1);
    extents
}

/// Whether a cell holds a write of the load that was issued after `rank` was durable.
fn is_newer(image: &Image<'_>, seen: &Seen, rank: u64) -> bool {
    matches!(seen.state, CellState::Ok { incarnation, dep, .. }
        if incarnation == image.load.number && dep >= rank)
}

/// D6.
pub(super) fn check(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let mut bad = Vec::new();
        let mut own = 0_u64;
        for (volume, seen) in listed(image) {
            match seen.state {
                CellState::Foreign { .. } => bad.push(line(image, volume, seen)),
                CellState::Ok { .. } => match phantom(image, volume, seen) {
                    Some(why) => bad.push(format!("{}: {why}", line(image, volume, seen))),
                    None => own += 1,
                },
                _ => {}
            }
        }
        // Canaries of earlier recoveries are legal, other runs' cells are not.
        for (index, volume) in image.volumes.iter().enumerate() {
            let canary = volume.scan.cells.iter().filter(|seen| {
                volume.layout.canary.contains(&seen.cell)
                    && matches!(seen.state, CellState::Foreign { .. })
            });
            bad.extend(canary.map(|seen| line(image, index, seen)));
        }
        let strangers = bad.len();
        let rule = rule(image);
        let reverted = image
            .reverted
            .iter()
            .filter(|place| rule.reached(place.0).is_some());
        bad.extend(reverted.map(|(volume, slot)| {
            format!(
                "{} went back to before the load began",
                image.spot(*volume, *slot)
            )
        }));
        let extents = extents(image, rule);
        bad.extend(extents.iter().filter(|extent| !extent.zero).map(|extent| {
            format!(
                "volume {} cells {} to {}: {} cells are older than the point that the volume reached",
                extent.volume, extent.cells.0, extent.cells.1, extent.lagging
            )
        }));
        if !bad.is_empty() {
            let stale = bad.len() - strangers;
            return Finding::fail(format!(
                "{strangers} cells belong to another run or life, {stale} places are older than their surroundings"
            ))
            .witnesses(&bad)
            .limit(coverage(image));
        }
        let cold: u64 = image.volumes.iter().map(|volume| volume.scan.cold_ok).sum();
        if own + cold == 0 {
            return Finding::unsure("no whole cell was found, so none says whose it is");
        }
        Finding::pass(format!(
            "{} whole cells are this run's and of one age",
            own + cold
        ))
        .limit(coverage(image))
        .limit("one cell alone that is too old is found by D1 and D2, not here")
    })
}

/// Why nothing in the history can have written this whole cell here.
fn phantom(image: &Image<'_>, volume: usize, seen: &Seen) -> Option<String> {
    let CellState::Ok {
        incarnation,
        writer,
        wseq,
        ..
    } = seen.state
    else {
        return None;
    };
    let mut lives = image.older.iter().copied().chain([image.load]);
    let Some(life) = lives.find(|life| life.number == incarnation) else {
        return Some("its incarnation is not one whose data this volume may hold".into());
    };
    let layout = image.volumes.get(volume)?.layout;
    let slot = seen
        .cell
        .checked_sub(layout.log.start)
        .and_then(|slot| usize::try_from(slot).ok());
    let written = layout.log.start <= seen.cell && seen.cell < layout.hot.end;
    if written && slot.is_none_or(|slot| image.place(writer, wseq) != Some((volume, slot))) {
        return Some("that write does not address this cell".into());
    }
    if !written {
        return Some("it is whole but not the cold cell that belongs here".into());
    }
    let issued = life
        .acks
        .stopped()?
        .issued
        .get(&writer)
        .copied()
        .unwrap_or(0);
    (wseq > issued).then(|| format!("the writer issued only {issued} writes"))
}
