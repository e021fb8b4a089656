//! What the cells of simulated volumes hold, and what a scan says of them. Damaged cells are written
//! out as the bytes that they would be and classified by the probe's own code.

use super::guest::Write;
use crate::probe::cell::{Bytes, Header, Kind, SECTOR, SECTORS};
use crate::probe::classify::{Expect, classify, first8};
use crate::probe::frame::CellState;
use crate::probe::layout::{CELL, WRITER_CANARY, WRITER_FILL, WRITER_LOG};

/// Linux's EIO.
const EIO: i32 = 5;

/// What a whole write left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Zero,
    /// The first load's fill.
    Fill,
    /// A write of a load, by its index in the history.
    Write(usize),
    /// A canary of the read-back after that leg.
    Canary {
        leg: usize,
        wseq: u64,
    },
}

/// What is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Whole(Base),
    /// Sectors of `mask` are of the new write, the others of what was there.
    Torn {
        new: usize,
        old: Base,
        mask: u8,
    },
    Flipped {
        base: Base,
        bit: usize,
    },
    /// Another run's cell.
    Foreign,
    Unreadable,
    /// A cold cell that no scan reads.
    Unread,
}

/// A cell and the place for which its contents were meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_field_names,
    reason = "a cell is the name of its number everywhere else"
)]
pub(super) struct Cell {
    pub(super) what: What,
    pub(super) volume: usize,
    pub(super) cell: u64,
}

impl Cell {
    /// Whether something whole or torn is not where it belongs. Zeros belong everywhere.
    pub(super) fn is_astray(&self, volume: usize, cell: u64) -> bool {
        let says = !matches!(
            self.what,
            What::Whole(Base::Zero)
                | What::Foreign
                | What::Unreadable
                | What::Unread
                | What::Flipped { .. }
        );
        says && (self.volume, self.cell) != (volume, cell)
    }
}

/// The ids that stand in cells.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub(super) seed: u64,
    pub(super) run: [u8; 16],
    pub(super) volumes: Vec<[u8; 16]>,
    /// Incarnations of the loads, by leg.
    pub(super) loads: Vec<u64>,
    /// Incarnations of the read-backs, by leg.
    pub(super) readers: Vec<u64>,
}

impl Ids {
    /// What a scan of `volume` says of `cell`; `exact` writes whole cells out too.
    pub(super) fn state(
        &self,
        writes: &[Write],
        volume: usize,
        cell: u64,
        held: &Cell,
        exact: bool,
    ) -> CellState {
        let quick = match held.what {
            What::Unreadable => return CellState::Unreadable { errno: EIO },
            What::Whole(Base::Zero) | What::Unread => Some(CellState::Zeroed),
            What::Whole(base) if (held.volume, held.cell) == (volume, cell) => {
                Some(self.whole(writes, cell, base))
            }
            What::Whole(_) => Some(CellState::Misdirected {
                same_volume: held.volume == volume,
                cell: held.cell,
                vol: first8(&self.volumes[held.volume]),
            }),
            What::Foreign => Some(CellState::Foreign {
                run: first8(&self.other_run()),
            }),
            What::Torn { .. } | What::Flipped { .. } => None,
        };
        if let Some(state) = quick.filter(|_| !exact) {
            return state;
        }
        let mut bytes = [0; CELL];
        self.write_out(writes, held, &mut bytes);
        let expect = Expect {
            seed: self.seed,
            run_id: self.run,
            vol_id: self.volumes[volume],
            cell,
        };
        classify(&bytes, &expect)
    }

    fn other_run(&self) -> [u8; 16] {
        self.run.map(|byte| !byte)
    }

    fn whole(&self, writes: &[Write], cell: u64, base: Base) -> CellState {
        let header = self.header(writes, 0, cell, base);
        header.map_or(CellState::Zeroed, |header| CellState::Ok {
            kind: header.kind,
            incarnation: header.incarnation,
            writer: header.writer,
            wseq: header.wseq,
            dep: header.dep,
            token: header.token,
        })
    }

    /// The header of what a whole write left, `None` for zeros.
    fn header(&self, writes: &[Write], volume: usize, cell: u64, base: Base) -> Option<Header> {
        let plain = Header {
            kind: Kind::Fill,
            run_id: self.run,
            vol_id: self.volumes[volume],
            incarnation: self.loads[0],
            writer: WRITER_FILL,
            op_index: 0,
            op_len: 1,
            wseq: cell + 1,
            gseq: 0,
            cell,
            prev_wseq: 0,
            dep: 0,
            chain: 0,
            mono_ns: 0,
            token: 0,
            real_s: 0,
        };
        match base {
            Base::Zero => None,
            Base::Fill => Some(plain),
            Base::Canary { leg, wseq } => Some(Header {
                kind: Kind::Canary,
                incarnation: self.readers[leg],
                writer: WRITER_CANARY,
                wseq,
                ..plain
            }),
            Base::Write(index) => {
                let write = &writes[index];
                let log = write.writer == WRITER_LOG;
                Some(Header {
                    kind: if log { Kind::Log } else { Kind::Hot },
                    incarnation: self.loads[write.load],
                    writer: write.writer,
                    wseq: write.wseq,
                    gseq: index as u64,
                    dep: write.dep,
                    mono_ns: write.issued,
                    token: write.token,
                    ..plain
                })
            }
        }
    }

    fn write_out(&self, writes: &[Write], held: &Cell, out: &mut Bytes) {
        let whole = |base, out: &mut Bytes| {
            if let Some(header) = self.header(writes, held.volume, held.cell, base) {
                header.encode(self.seed, out);
            }
        };
        match held.what {
            What::Unread | What::Unreadable => {}
            What::Whole(base) => whole(base, out),
            What::Flipped { base, bit } => {
                whole(base, out);
                out[bit / 8 % CELL] ^= 1 << (bit % 8);
            }
            What::Torn { new, old, mask } => {
                whole(old, out);
                let mut newer = [0; CELL];
                whole(Base::Write(new), &mut newer);
                for sector in (0..SECTORS).filter(|sector| mask >> sector & 1 == 1) {
                    let at = sector * SECTOR..(sector + 1) * SECTOR;
                    out[at.clone()].copy_from_slice(&newer[at]);
                }
            }
            What::Foreign => {
                let header = self.header(writes, held.volume, held.cell, Base::Fill);
                if let Some(mut header) = header {
                    header.run_id = self.other_run();
                    header.encode(!self.seed, out);
                }
            }
        }
    }
}
