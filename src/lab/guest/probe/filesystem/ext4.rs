//! What ext4 keeps where Linux keeps it (`filesystems/ext4/super.rst` and `journal.rst`): enough of the
//! superblock to be told by, and the superblock of its journal.

use std::io;

use super::{JOURNAL, State};
use crate::probe::disk::Disk;
use crate::probe::layout::CELL;

const SUPERBLOCK: usize = 1024;
/// `s_feature_incompat`: file types in directories, extents; and that recovery is needed.
const FEATURES: u32 = 0x2 | 0x40;
const RECOVER: u32 = 0x4;
/// Where that field is.
const INCOMPAT: usize = SUPERBLOCK + 0x60;

/// Makes the superblock of a file system of so many blocks in the first one.
pub(super) fn format(cell: &mut [u8], blocks: u64) {
    let mut put = |at: usize, bytes: &[u8]| {
        cell[SUPERBLOCK + at..SUPERBLOCK + at + bytes.len()].copy_from_slice(bytes);
    };
    let low = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX).to_le_bytes();
    put(0x00, &16_u32.to_le_bytes()); // inodes
    put(0x04, &low(blocks));
    put(0x18, &2_u32.to_le_bytes()); // 1024 << 2 bytes a block
    put(0x38, &0xEF53_u16.to_le_bytes());
    put(0x3A, &1_u16.to_le_bytes()); // unmounted in order
    put(0x4C, &1_u32.to_le_bytes()); // dynamic revision
    put(0x5C, &4_u32.to_le_bytes()); // has a journal
    put(0x60, &FEATURES.to_le_bytes());
    put(0xE0, &8_u32.to_le_bytes()); // its inode
    put(0xFD, &[1]); // of which there is a copy here: a leaf with one extent of one block
    put(0x10C, &0xF30A_u16.to_le_bytes());
    put(0x10C + 2, &1_u16.to_le_bytes());
    put(0x10C + 4, &4_u16.to_le_bytes());
    put(0x10C + 12 + 4, &1_u16.to_le_bytes());
    put(0x10C + 12 + 8, &low(JOURNAL));
}

/// Says in both superblocks what state the file system is in.
pub(super) fn mark(disk: &dyn Disk, state: State) -> io::Result<()> {
    let (recover, start) = match state {
        State::Clean | State::Frozen => (0, 0),
        State::Mounted => (RECOVER, 0),
        State::Active => (RECOVER, 1),
    };
    let journal = || disk.write_at(JOURNAL * CELL as u64, &journal(start));
    // The journal is emptied before the superblock says that nothing is left in it.
    if recover == 0 {
        journal()?;
    }
    let mut cell = vec![0; CELL];
    disk.read_at(0, &mut cell)?;
    cell[INCOMPAT..INCOMPAT + 4].copy_from_slice(&(FEATURES | recover).to_le_bytes());
    disk.write_at(0, &cell)?;
    if recover != 0 {
        journal()?;
    }
    Ok(())
}

/// A journal's superblock, version 2, of which every number is big-endian; `start` is where its log
/// begins.
fn journal(start: u32) -> Vec<u8> {
    let mut block = vec![0; CELL];
    for (at, word) in [
        (0x00, 0xC03B_3998),
        (0x04, 4),
        (0x0C, 4096),
        (0x10, 1),
        (0x14, 1),
        (0x18, 1),
        (0x1C, start),
    ] {
        block[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
    }
    block
}
