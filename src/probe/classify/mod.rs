//! What a cell read back is: whole, torn, damaged, in the wrong place or of another run.
//!
//! Contract: total over all bytes. Whether a whole cell is the version that it should be is not
//! said here: that takes the history, and the checks have it.

use super::cell::{Bytes, Header, SECTOR, SECTORS, Stamp, low32, sector_stamps};
use super::frame::CellState;

/// What should be at the place that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// The run's payload seed.
    pub seed: u64,
    /// The run.
    pub run_id: [u8; 16],
    /// The volume.
    pub vol_id: [u8; 16],
    /// The cell index.
    pub cell: u64,
}

/// Says what `bytes` are at the place that `expect` names.
pub fn classify(bytes: &Bytes, expect: &Expect) -> CellState {
    let header = Header::decode(bytes);
    if let Some(header) = &header
        && header.run_id == expect.run_id
        && header.is_carried_by(expect.seed, bytes)
    {
        return proved(header, expect);
    }
    if is_zero(bytes) {
        return CellState::Zeroed;
    }
    let stamps = sector_stamps(bytes);
    match header {
        Some(header) if stamps.iter().flatten().filter(|s| header.bears(s)).count() == SECTORS => {
            unlike(&header, &stamps, expect)
        }
        _ => torn(bytes, &stamps, expect),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// All sectors are whole and bear the header's numbers, but they are not all what the header asks for
/// under this run's seed: decide whose they are.
fn unlike(header: &Header, stamps: &[Option<Stamp>; SECTORS], expect: &Expect) -> CellState {
    let of_one_write = stamps.iter().all(|stamp| *stamp == stamps[0]);
    if header.run_id != expect.run_id {
        if !of_one_write {
            return CellState::Corrupt;
        }
        return CellState::Foreign {
            run: first8(&header.run_id),
        };
    }
    let own = Some(header.stamp(expect.seed));
    let matching = mask(stamps, |stamp| stamp == own);
    if matching == 0 && header.vol_id != expect.vol_id && of_one_write {
        // Another VM of this run has its own seed, which is not known here: as with another run, it
        // must do that the cell is whole by itself.
        return CellState::Misdirected {
            same_volume: false,
            cell: header.cell,
            vol: first8(&header.vol_id),
        };
    }
    // The sectors are whole and bear equal numbers, yet some are of another write: the same wseq in
    // another incarnation. Without a single match the header lies.
    if matching == 0 {
        CellState::Corrupt
    } else {
        CellState::Torn {
            sectors: matching,
            wseq: header.wseq,
            writer: header.writer,
        }
    }
}

/// Every byte is what the header asks for: decide whether it should be here.
fn proved(header: &Header, expect: &Expect) -> CellState {
    if header.vol_id != expect.vol_id || header.cell != expect.cell {
        return CellState::Misdirected {
            same_volume: header.vol_id == expect.vol_id,
            cell: header.cell,
            vol: first8(&header.vol_id),
        };
    }
    CellState::Ok {
        kind: header.kind,
        incarnation: header.incarnation,
        writer: header.writer,
        wseq: header.wseq,
        dep: header.dep,
        token: header.token,
    }
}

/// Torn means that every sector is either whole and meant for this cell, or still zero as before
/// the first write, and that they are not all of one write. Anything else is damage.
fn torn(bytes: &Bytes, stamps: &[Option<Stamp>; SECTORS], expect: &Expect) -> CellState {
    let here = low32(expect.cell);
    let mut newest: Option<Stamp> = None;
    let mut mixed = false;
    for (stamp, sector) in stamps.iter().zip(bytes.as_chunks::<SECTOR>().0) {
        match stamp {
            Some(stamp) if stamp.cell == here => {
                mixed |= newest.is_some_and(|newest| newest != *stamp);
                if newest.is_none_or(|newest| stamp.wseq > newest.wseq) {
                    newest = Some(*stamp);
                }
            }
            None if is_zero(sector) => mixed = true,
            _ => return CellState::Corrupt,
        }
    }
    match newest {
        Some(newest) if mixed => CellState::Torn {
            sectors: mask(stamps, |stamp| stamp == Some(newest)),
            wseq: u64::from(newest.wseq),
            writer: u32::from(newest.writer),
        },
        _ => CellState::Corrupt,
    }
}

/// Which sectors the stamps of which are as asked: bit `i` for sector `i`.
fn mask(stamps: &[Option<Stamp>; SECTORS], wanted: impl Fn(Option<Stamp>) -> bool) -> u8 {
    let stamps = stamps.iter().enumerate();
    stamps.fold(0, |mask, (index, stamp)| {
        mask | u8::from(wanted(*stamp)) << index
    })
}

/// The first eight bytes of an id, big-endian, so that printing it in hex gives the id's start.
pub fn first8(id: &[u8; 16]) -> u64 {
    id[..8]
        .iter()
        .fold(0, |acc, &byte| acc << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests;
