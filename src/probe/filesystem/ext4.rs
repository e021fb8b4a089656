//! ext4 past any mount: the superblock and the superblock of its journal.
//!
//! The kernel sets `needs_recovery` when it mounts an ext4 for writing and clears it when that is
//! unmounted or frozen, after the journal was flushed (Linux `fs/ext4/super.c`, `ext4_freeze`).
//! Offsets as in the kernel's documentation, `filesystems/ext4/super.rst` and `journal.rst`.

use std::io;

use super::super::disk::Disk;
use super::{Seen, bytes, read};

const SUPERBLOCK: usize = 1024;
/// `s_magic`.
const MAGIC: u16 = 0xEF53;
/// `s_state`: unmounted cleanly; errors were seen.
const VALID: u16 = 1;
const ERROR: u16 = 2;
/// `s_feature_compat`: has a journal.
const HAS_JOURNAL: u32 = 4;
/// `s_feature_incompat`: needs recovery.
const RECOVER: u32 = 4;
/// Magic of a node of an extent tree, and of a journal's blocks.
const EXTENTS: u16 = 0xF30A;
const JBD2: u32 = 0xC03B_3998;

/// Whether the head of a device is that of an ext4 (or ext3, or ext2).
pub(super) fn is_one(head: &[u8]) -> bool {
    u16::from_le_bytes(bytes(head, SUPERBLOCK + 0x38)) == MAGIC
}

/// Whether anything is left to replay.
pub(super) fn look(disk: &dyn Disk) -> io::Result<Seen> {
    let superblock = read(disk, SUPERBLOCK as u64, 1024)?;
    let le16 = |at| u16::from_le_bytes(bytes(&superblock, at));
    let le32 = |at| u32::from_le_bytes(bytes(&superblock, at));
    let (state, recover) = (le16(0x3A), le32(0x60) & RECOVER != 0);
    let journaled = le32(0x5C) & HAS_JOURNAL != 0;
    let mut clean = !recover && state & ERROR == 0 && (journaled || state & VALID != 0);
    let mut said = format!(
        "needs_recovery {}, state {state:#x}",
        if recover { "set" } else { "clear" }
    );
    if !journaled {
        said.push_str(", no journal");
        return Ok(Seen::new(clean, said));
    }
    match journal_start(disk, &superblock)? {
        None => said.push_str(", journal not read"),
        Some(0) => said.push_str(", journal empty"),
        Some(start) => {
            clean = false;
            said = format!("{said}, journal starts at block {start}");
        }
    }
    Ok(Seen::new(clean, said))
}

/// `s_start` of the journal: the first block of the log that is to be replayed, 0 for an empty one.
/// `None` if the superblock does not say where the journal lies.
///
/// `s_jnl_blocks` is a copy of the `i_block` of the journal's inode, so that no inode table has to be
/// trusted for it; `s_jnl_backup_type` 1 says that it is filled in.
fn journal_start(disk: &dyn Disk, superblock: &[u8]) -> io::Result<Option<u32>> {
    const BLOCKS: usize = 0x10C;
    let le16 = |at| u16::from_le_bytes(bytes(superblock, at));
    let le32 = |at| u32::from_le_bytes(bytes(superblock, at));
    let shift = le32(0x18);
    if superblock.get(0xFD) != Some(&1) || shift > 6 {
        return Ok(None);
    }
    let extent = BLOCKS + 12;
    let first = if le16(BLOCKS) == EXTENTS {
        // A leaf whose first extent begins at the file's first block.
        if le16(BLOCKS + 2) == 0 || le16(BLOCKS + 6) != 0 || le32(extent) != 0 {
            return Ok(None);
        }
        u64::from(le16(extent + 6)) << 32 | u64::from(le32(extent + 8))
    } else {
        u64::from(le32(BLOCKS))
    };
    let at = first.checked_mul(1024 << shift);
    let Some(at) = at.filter(|at| *at >= 2048 && at.saturating_add(4096) <= disk.size()) else {
        return Ok(None);
    };
    let journal = read(disk, at, 1024)?;
    let be32 = |at| u32::from_be_bytes(bytes(&journal, at));
    // Block types 3 and 4: superblock, version 1 and 2.
    let is_superblock = be32(0) == JBD2 && matches!(be32(4), 3 | 4);
    Ok(is_superblock.then(|| be32(0x1C)))
}
