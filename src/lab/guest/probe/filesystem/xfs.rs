//! What XFS keeps where Linux keeps it (XFS Algorithms & Data Structures): enough of the superblock to
//! be told by, and a log of one record.

use std::io;

use super::{JOURNAL, State};
use crate::probe::disk::Disk;
use crate::probe::layout::CELL;

/// A basic block.
const BLOCK: usize = 512;

/// Makes the superblock of a file system of so many blocks in the first one: one allocation group,
/// whose log is one block long.
pub(super) fn format(cell: &mut [u8], blocks: u64) {
    let mut put = |at: usize, bytes: &[u8]| {
        cell[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let group = u32::try_from(blocks).unwrap_or(u32::MAX);
    put(0, b"XFSB");
    put(4, &4096_u32.to_be_bytes());
    put(8, &blocks.to_be_bytes());
    put(48, &JOURNAL.to_be_bytes());
    put(84, &group.to_be_bytes());
    put(88, &1_u32.to_be_bytes());
    put(96, &1_u32.to_be_bytes());
    put(100, &0xB4A5_u16.to_be_bytes()); // version 5
    put(102, &512_u16.to_be_bytes());
    put(120, &[12, 9]); // logarithms of block and sector
    put(
        124,
        &[u8::try_from(group.next_power_of_two().ilog2()).unwrap_or(32)],
    );
}

/// Leaves the record at the head of the log that this state leaves there. A freeze leaves one that
/// asks for recovery, as Linux does on purpose.
pub(super) fn mark(disk: &dyn Disk, state: State) -> io::Result<()> {
    let (operations, flags) = match state {
        State::Clean => (1, 0x20), // an unmount
        State::Frozen => (2, 0x01),
        State::Mounted | State::Active => (3, 0x01),
    };
    disk.write_at(JOURNAL * CELL as u64, &log(operations, flags))
}

/// A log in its first turn with one record of one block.
fn log(operations: u32, flags: u8) -> Vec<u8> {
    let mut log = vec![0; CELL];
    for (at, word) in [
        (0x00, 0xFEED_BABE),
        (0x04, 1),   // turn
        (0x08, 2),   // version
        (0x0C, 512), // bytes after the header
        (0x10, 1),   // number of this record: turn and block
        (0x18, 1),   // and of the oldest one that counts
        (0x28, operations),
        (0x140, 32 * 1024), // size of a log buffer
    ] {
        log[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
    }
    // The first word of every other block is its turn.
    log[BLOCK..BLOCK + 4].copy_from_slice(&1_u32.to_be_bytes());
    log[BLOCK + 8] = 0xAA; // logged by XFS itself
    log[BLOCK + 9] = flags;
    log
}
