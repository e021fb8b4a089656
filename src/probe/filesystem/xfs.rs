//! XFS past any mount: the superblock and the head of the log.
//!
//! A log is clean if the record at its head is the one that an unmount writes. A freeze leaves
//! another record there on purpose, so that recovery runs after a crash (Linux `fs/xfs/xfs_log.c`,
//! `xfs_log_quiesce`): there a dirty log is no finding. Layout as in the XFS Algorithms & Data
//! Structures manual, "Journaling Log": every block of 512 bytes begins with the number of the turn
//! in which it was written, a record's header with a magic number before it.

use std::io;

use super::super::disk::Disk;
use super::{Seen, bytes, read};

const MAGIC: &[u8; 4] = b"XFSB";
/// A record header, `h_magicno`.
const RECORD: u32 = 0xFEED_BABE;
/// A basic block.
const BLOCK: u64 = 512;
/// One header block for so many bytes of log buffer (`XLOG_HEADER_CYCLE_SIZE`).
const PER_HEADER: u32 = 32 * 1024;
/// The longest record: the largest log buffer and its headers, in blocks.
const LONGEST: u64 = (256 * 1024) / BLOCK + 8;
/// `oh_flags` of the operation that an unmount logs.
const UNMOUNT: u8 = 0x20;

/// Whether the head of a device is that of an XFS.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Whether the log ends with an unmount.
pub(super) fn look(disk: &dyn Disk) -> io::Result<Seen> {
    let superblock = read(disk, 0, 512)?;
    let Some(log) = Log::of(disk, &superblock) else {
        return Ok(Seen::unknown(
            "its log is not on this device, or its superblock is not sound",
        ));
    };
    let head = log.head()?;
    if head == 0 && log.turn(0)? == 0 {
        return Ok(Seen::unknown("its log was never written"));
    }
    let Some((record, at)) = log.record_before(head)? else {
        return Ok(Seen::new(
            false,
            format!("no whole log record ends at block {head}, the head of the log"),
        ));
    };
    let be32 = |at| u32::from_be_bytes(bytes(&record, at));
    let (operations, headers) = (be32(0x28), headers(&record));
    let operation = log.block((at + headers) % log.blocks)?;
    let clean = operations == 1 && operation[9] & UNMOUNT != 0;
    let what = if clean {
        "an unmount"
    } else {
        "no unmount: recovery would run"
    };
    Ok(Seen::new(
        clean,
        format!(
            "the log's head is block {head} in turn {}, behind {what}",
            be32(4)
        ),
    ))
}

/// How many blocks the header of a record takes.
fn headers(record: &[u8]) -> u64 {
    let be32 = |at| u32::from_be_bytes(bytes(record, at));
    // Version 2 logs, `h_version`, have larger buffers, `h_size`.
    if be32(8) & 2 == 0 {
        return 1;
    }
    u64::from(be32(0x140).div_ceil(PER_HEADER).max(1))
}

/// The log of a file system.
struct Log<'a> {
    disk: &'a dyn Disk,
    /// Its first byte on the device.
    start: u64,
    /// Its length in basic blocks.
    blocks: u64,
}

impl<'a> Log<'a> {
    fn of(disk: &'a dyn Disk, superblock: &[u8]) -> Option<Self> {
        let be32 = |at| u32::from_be_bytes(bytes(superblock, at));
        let be64 = |at| u64::from_be_bytes(bytes(superblock, at));
        let (block_size, log_start) = (u64::from(be32(4)), be64(48));
        let (group_blocks, log_blocks) = (u64::from(be32(84)), u64::from(be32(96)));
        let group_log = u32::from(*superblock.get(124)?);
        // 0 says that it lies on a device of its own.
        if log_start == 0 || log_blocks == 0 || block_size < BLOCK || group_log >= 64 {
            return None;
        }
        let (group, within) = (log_start >> group_log, log_start & ((1 << group_log) - 1));
        let first = group.checked_mul(group_blocks)?.checked_add(within)?;
        let start = first.checked_mul(block_size)?;
        let length = log_blocks.checked_mul(block_size)?;
        let end = start.checked_add(length)?;
        (end <= disk.size()).then_some(Self {
            disk,
            start,
            blocks: length / BLOCK,
        })
    }

    fn block(&self, at: u64) -> io::Result<Vec<u8>> {
        let size = usize::try_from(BLOCK).map_err(io::Error::other)?;
        read(self.disk, self.start + at * BLOCK, size)
    }

    /// The turn in which a block was written last, 0 for never.
    fn turn(&self, at: u64) -> io::Result<u32> {
        let block = self.block(at)?;
        let word = |at| u32::from_be_bytes(bytes(&block, at));
        Ok(if word(0) == RECORD { word(4) } else { word(0) })
    }

    /// The first block of the turn before, where the next record goes: turns only fall once.
    fn head(&self) -> io::Result<u64> {
        let first = self.turn(0)?;
        let (mut same, mut other) = (0, self.blocks);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if self.turn(middle)? == first {
                same = middle;
            } else {
                other = middle;
            }
        }
        Ok(other % self.blocks)
    }

    /// The header of the record that ends where the head is, and its block.
    fn record_before(&self, head: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        for back in 1..=LONGEST.min(self.blocks) {
            let at = (head + self.blocks - back) % self.blocks;
            let block = self.block(at)?;
            let be32 = |at| u32::from_be_bytes(bytes(&block, at));
            if be32(0) == RECORD {
                let length = headers(&block) + u64::from(be32(0x0C)).div_ceil(BLOCK);
                return Ok((length == back).then_some((block, at)));
            }
        }
        Ok(None)
    }
}
