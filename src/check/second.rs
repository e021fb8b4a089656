//! D8: do the guest and the storage itself say the same of every cell?
//!
//! The guest reads through whatever caches lie under it; a clone of a snapshot, read by another
//! guest, is what the storage holds. A cell whose two versions differ was served from somewhere
//! else. Cells that may have been written between the two looks are left aside.

use std::collections::BTreeMap;

use super::case::Case;
use super::finding::{Finding, moment};
use super::image::state;
use crate::history::event::Site;
use crate::history::read::{Incarnation, Scan};
use crate::history::scanfile::VolumeScan;
use crate::probe::frame::{CellState, Seen};
use crate::probe::layout::Layout;

/// D8: each read-back through a clone against the newest by the guest itself on that site.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let words = [Site::Primary, Site::Secondary]
        .into_iter()
        .filter_map(|site| {
            let clone = case.clones().filter(|scan| scan.site == site).last()?;
            Some(match case.scans().filter(|scan| scan.site == site).last() {
                Some(guest) => judge(case, guest, clone),
                None => {
                    Finding::unsure(format!("the guest itself was not read back on the {site}"))
                }
            })
        });
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no snapshot was cloned and read by another guest"))
}

/// What comparing two looks came to.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    between: u64,
    bad: Vec<String>,
    unseen: Vec<String>,
}

fn judge(case: &Case<'_>, guest: &Scan, clone: &Scan) -> Finding {
    let Some(reader) = case.history.incarnation(&guest.reader) else {
        return Finding::unsure(format!("event {} names a reader that never ran", guest.seq));
    };
    // When a clone's snapshot was taken is not known but that it was before its reading.
    let since = if clone.seq > guest.seq {
        reader.at_ns
    } else {
        0
    };
    let fresh = Fresh::new(case, reader, since);
    let mut tally = Tally::default();
    for (index, layout) in (0u8..).zip(&reader.layouts) {
        match (volume_of(guest, index), volume_of(clone, index)) {
            (Some(ours), Some(theirs)) => compare(layout, ours, theirs, &fresh, &mut tally),
            _ => tally
                .unseen
                .push(format!("volume {index} was not read by both")),
        }
    }
    let finding = if !tally.bad.is_empty() {
        Finding::fail(format!(
            "the guest and the storage differ on {} cells",
            tally.bad.len()
        ))
        .witnesses(&tally.bad)
    } else if !tally.unseen.is_empty() {
        Finding::unsure("the two read-backs do not cover the same cells").witnesses(&tally.unseen)
    } else if tally.same == 0 {
        Finding::unsure("no cell was read by both")
    } else {
        Finding::pass(format!(
            "{} cells are the same to the guest and on the storage",
            tally.same
        ))
    };
    finding
        .limit(format!(
            "event {} by the guest at {}, event {} through a clone; canaries and {} cells that may have been written in between are left aside",
            guest.seq,
            moment(guest.at_ns),
            clone.seq,
            tally.between
        ))
        .count("compared-cells", "cells", tally.same)
}

fn volume_of(scan: &Scan, index: u8) -> Option<&VolumeScan> {
    scan.volumes.iter().find(|volume| volume.volume == index)
}

/// Lays two lists of cells side by side. Cold cells that are as they should be are not listed.
fn compare(
    layout: &Layout,
    ours: &VolumeScan,
    theirs: &VolumeScan,
    fresh: &Fresh,
    tally: &mut Tally,
) {
    let mut cells: BTreeMap<u64, (Option<&CellState>, Option<&CellState>)> = BTreeMap::new();
    let looked = |seen: &&Seen| !layout.canary.contains(&seen.cell);
    for seen in ours.cells.iter().filter(looked) {
        cells.entry(seen.cell).or_default().0 = Some(&seen.state);
    }
    for seen in theirs.cells.iter().filter(looked) {
        cells.entry(seen.cell).or_default().1 = Some(&seen.state);
    }
    let volume = ours.volume;
    if ours.cold_ok == 0 || theirs.cold_ok == 0 {
        tally.unseen.push(format!(
            "volume {volume}: no cold cell is as it should be to both"
        ));
    }
    tally.same += ours.cold_ok.min(theirs.cold_ok);
    let said = |state: Option<&CellState>| {
        state.map_or_else(|| "the cold cell that belongs there".into(), self::state)
    };
    for (cell, (ours, theirs)) in cells {
        let written = layout.log.start <= cell && cell < layout.hot.end;
        if ours == theirs {
            tally.same += 1;
        } else if written && (ours.is_none() || theirs.is_none()) {
            tally
                .unseen
                .push(format!("volume {volume} cell {cell} was not read by both"));
        } else if [ours, theirs].into_iter().flatten().any(|s| fresh.holds(s)) {
            tally.between += 1;
        } else {
            tally.bad.push(format!(
                "volume {volume} cell {cell}: to the guest {}, on the storage {}",
                said(ours),
                said(theirs)
            ));
        }
    }
}

/// The writes that may have been made since a moment: for each probe run that may have lived on, by
/// writer the last write that was surely durable before.
#[derive(Debug, Default)]
struct Fresh {
    settled: BTreeMap<u64, BTreeMap<u32, u64>>,
}

impl Fresh {
    fn new(case: &Case<'_>, reader: &Incarnation, since: u64) -> Self {
        let mut fresh = Self::default();
        let near = case.incarnations().filter(|life| life.site == reader.site);
        for life in near {
            let same_boot = life.identity.boot_id == reader.identity.boot_id;
            let spoke = life.acks.batches().last().is_some_and(|b| b.at_ns >= since);
            let stopped = life.acks.stopped().is_some_and(|s| s.at_ns <= since);
            if stopped || !(same_boot || spoke) {
                continue;
            }
            let mut settled = BTreeMap::new();
            let batches = life.acks.batches();
            let before = |batch: usize| batches.get(batch).is_some_and(|b| b.at_ns <= since);
            for acked in life.acks.acked().filter(|acked| before(acked.batch)) {
                settled.insert(acked.writer, acked.wseq);
            }
            fresh.settled.insert(life.number, settled);
        }
        fresh
    }

    /// Whether a cell holds, or half holds, such a write.
    fn holds(&self, state: &CellState) -> bool {
        let after = |settled: &BTreeMap<u32, u64>, writer: u32, wseq: u64| {
            wseq > settled.get(&writer).copied().unwrap_or(0)
        };
        match *state {
            CellState::Ok {
                incarnation,
                writer,
                wseq,
                ..
            } => self
                .settled
                .get(&incarnation)
                .is_some_and(|settled| after(settled, writer, wseq)),
            CellState::Torn { writer, wseq, .. } => self
                .settled
                .values()
                .any(|settled| after(settled, writer, wseq)),
            _ => false,
        }
    }
}
