//! What a cell read back is: whole, torn, damaged, in the wrong place or of another run.
//!
//! Contract: total over all bytes. Whether a whole cell is the version that it should be is not
//! said here: that takes the history, and the checks have it.

use super::cell::{Bytes, Header, SECTOR, SECTORS, Stamp, low32, payload_crc_holds, sector_stamps};
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
    if bytes.iter().all(|&byte| byte == 0) {
        return CellState::Zeroed;
    }
    let stamps = sector_stamps(bytes);
    match Header::decode(bytes) {
        Some(header) if stamps.iter().all(|stamp| *stamp == Some(header.stamp())) => {
            whole(bytes, &header, expect)
        }
        _ => torn(bytes, &stamps, expect),
    }
}

/// All sectors carry the header's stamp: decide whose cell it is, and compare the payload.
fn whole(bytes: &Bytes, header: &Header, expect: &Expect) -> CellState {
    if header.run_id != expect.run_id {
        if !payload_crc_holds(bytes) {
            return CellState::Corrupt;
        }
        return CellState::Foreign {
            run: first8(&header.run_id),
        };
    }
    let matching = header.matching_sectors(expect.seed, bytes);
    if matching == 0 && header.vol_id != expect.vol_id && payload_crc_holds(bytes) {
        // Another VM of this run has its own seed, which is not known here: as with another run,
        // the payload's CRC must do.
        return CellState::Misdirected {
            same_volume: false,
            cell: header.cell,
            vol: first8(&header.vol_id),
        };
    }
    if matching != u8::MAX {
        // The sectors are whole by their CRCs and carry equal stamps, yet some are of another
        // write: the same wseq in another incarnation. Without a single match the header lies.
        return if matching == 0 {
            CellState::Corrupt
        } else {
            CellState::Torn {
                sectors: matching,
                wseq: header.wseq,
                writer: header.writer,
            }
        };
    }
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
            None if sector.iter().all(|&byte| byte == 0) => mixed = true,
            _ => return CellState::Corrupt,
        }
    }
    match newest {
        Some(newest) if mixed => CellState::Torn {
            sectors: (0..SECTORS)
                .filter(|&index| stamps[index] == Some(newest))
                .fold(0, |mask, index| mask | 1 << index),
            wseq: u64::from(newest.wseq),
            writer: u32::from(newest.writer),
        },
        _ => CellState::Corrupt,
    }
}

/// The first eight bytes of an id, big-endian, so that printing it in hex gives the id's start.
pub fn first8(id: &[u8; 16]) -> u64 {
    id[..8]
        .iter()
        .fold(0, |acc, &byte| acc << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests;
