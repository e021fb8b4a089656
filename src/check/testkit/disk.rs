//! What the volumes hold when they are read back.

use std::collections::BTreeMap;

use super::{Draw, Kit, LOAD, Made};
use crate::history::scanfile::VolumeScan;
use crate::probe::cell::Kind;
use crate::probe::frame::{CellState, Seen};
use crate::probe::layout::{Layout, WRITER_LOG};

impl Kit {
    /// What the volumes hold if everything up to `rank` reached them, and of the rest a random part
    /// of what can have been under way.
    pub(in crate::check) fn cut(&mut self, rank: u64, draw: &mut Draw) {
        self.cut_but(rank, draw, &[]);
    }

    /// The same, where nothing of some writers that is under way can have got there.
    pub(in crate::check) fn cut_but(&mut self, rank: u64, draw: &mut Draw, held: &[u32]) {
        self.disks = self.layouts.iter().map(blank).collect();
        let mut kept = self.writes.clone();
        let mut may = |w: &Made| w.dep <= rank && !held.contains(&w.writer) && draw.below(2) == 0;
        kept.retain(|w| w.ack <= rank || may(w));
        for write in &kept {
            self.put(write);
        }
    }

    /// Puts a write on its cell unless a later one is there.
    pub(in crate::check) fn put(&mut self, write: &Made) {
        let disk = &mut self.disks[write.volume];
        let newer =
            matches!(disk.get(&write.cell), Some(CellState::Ok { wseq, .. }) if *wseq > write.wseq);
        if !newer {
            disk.insert(write.cell, state(write));
        }
    }

    pub(super) fn scan(&self, volume: u8) -> VolumeScan {
        let index = usize::from(volume);
        let layout = &self.layouts[index];
        let mut cells: Vec<Seen> = layout
            .canary
            .clone()
            .map(|cell| Seen {
                cell,
                state: CellState::Zeroed,
            })
            .collect();
        let mut cold_ok = 0;
        for (cell, state) in &self.disks[index] {
            let filled =
                matches!(state, CellState::Ok { kind: Kind::Fill, wseq, .. } if *wseq == cell + 1);
            if filled {
                cold_ok += 1;
            } else {
                cells.push(Seen {
                    cell: *cell,
                    state: *state,
                });
            }
        }
        cells.sort_by_key(|seen| seen.cell);
        VolumeScan {
            volume,
            size: self.sizes[index],
            read: self.disks[index].len() as u64 + 4,
            cold_ok,
            cells,
        }
    }
}

pub(in crate::check) fn state(write: &Made) -> CellState {
    state_of(write, LOAD)
}

/// The same, written by some load.
pub(in crate::check) fn state_of(write: &Made, incarnation: u64) -> CellState {
    CellState::Ok {
        kind: if write.writer == WRITER_LOG {
            Kind::Log
        } else {
            Kind::Hot
        },
        incarnation,
        writer: write.writer,
        wseq: write.wseq,
        dep: write.dep,
        token: 0,
    }
}

/// A volume after its fill.
pub(super) fn blank(layout: &Layout) -> BTreeMap<u64, CellState> {
    let mut disk: BTreeMap<u64, CellState> = (layout.log.start..layout.hot.end)
        .map(|cell| (cell, CellState::Zeroed))
        .collect();
    disk.extend(layout.cold_cells().map(|cell| {
        let fill = CellState::Ok {
            kind: Kind::Fill,
            incarnation: LOAD,
            writer: crate::probe::layout::WRITER_FILL,
            wseq: cell + 1,
            dep: 0,
            token: 0,
        };
        (cell, fill)
    }));
    disk
}
