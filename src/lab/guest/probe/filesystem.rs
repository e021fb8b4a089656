//! The least file system that can hold a ledger file on a simulated disk: a superblock with the
//! place of one preallocated file. It stands in for ext4, which a simulated guest has no kernel for.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::journal::{self, Journal};
use crate::probe::disk::{Disk, Grants};
use crate::probe::layout::CELL;
use crate::probe::platform::OpenError;

const MAGIC: &[u8; 8] = b"vp-fs-01";
/// Cells before the ledger file: the superblock and room for what a file system keeps there.
const FIRST: u64 = 16;
const _: () = assert!(journal::RING <= FIRST, "the journal lies before the ledger");
/// The largest ledger file that is made unless the config pins its cells, as in a real guest.
const MOST_CELLS: u64 = (256 << 20) / CELL as u64;
/// How much of a disk must be zero for it to count as blank.
const LOOK: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Superblock {
    first: u64,
    cells: u64,
}

/// The ledger file on a disk; on a blank one it is made, with its file system, if `may_make`. A new
/// image reads as zeros, so preallocation writes the superblock only.
pub(super) fn ledger(
    disk: Arc<dyn Disk>,
    device: &str,
    cells: Option<u64>,
    may_make: bool,
) -> Result<Extent, OpenError> {
    let read = |error| OpenError::io(format!("reading {device}"), error);
    let mut head = vec![0; LOOK * CELL];
    disk.read_at(0, &mut head).map_err(read)?;
    let superblock = match decode(&head) {
        Some(superblock) => superblock,
        None if !may_make => {
            return Err(OpenError::new(format!("{device} carries no file system")));
        }
        None if head.iter().any(|byte| *byte != 0) => {
            let what = format!("{device} is not blank and carries no known file system");
            return Err(OpenError::new(what));
        }
        None => make(disk.as_ref(), device, cells)?,
    };
    let end = superblock.first.saturating_add(superblock.cells);
    if end > disk.size() / CELL as u64 {
        let what = format!("the file system on {device} is larger than the disk");
        return Err(OpenError::new(what));
    }
    Ok(Extent {
        disk,
        superblock,
        journal: None,
    })
}

fn make(disk: &dyn Disk, device: &str, cells: Option<u64>) -> Result<Superblock, OpenError> {
    let all = disk.size() / CELL as u64;
    let cells = cells.unwrap_or_else(|| (all / 2).min(MOST_CELLS));
    if FIRST + cells > all {
        let what = format!("a ledger of {cells} cells does not fit on {device}");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        return Err(OpenError::io(what, full));
    }
    let superblock = Superblock {
        first: FIRST,
        cells,
    };
    let written = encode(superblock)
        .and_then(|block| disk.write_at(0, &block))
        .and_then(|()| disk.flush());
    written.map_err(|error| OpenError::io(format!("making a file system on {device}"), error))?;
    Ok(superblock)
}

fn encode(superblock: Superblock) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(&superblock).map_err(io::Error::other)?;
    let mut block = vec![0; CELL];
    block[..8].copy_from_slice(MAGIC);
    block[8..24].copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
    block[24] = u8::try_from(body.len()).map_err(io::Error::other)?;
    block[25..25 + body.len()].copy_from_slice(&body);
    Ok(block)
}

fn decode(block: &[u8]) -> Option<Superblock> {
    let body = block.get(25..25 + usize::from(*block.get(24)?))?;
    let whole = block[..8] == *MAGIC && block[8..24] == blake3::hash(body).as_bytes()[..16];
    whole.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// A preallocated file: a run of cells of a disk.
pub(super) struct Extent {
    disk: Arc<dyn Disk>,
    superblock: Superblock,
    journal: Option<Journal>,
}

impl Extent {
    /// The same file on a file system that journals data, if it is to.
    pub(super) fn journalled(self, journals: bool) -> Self {
        Self {
            journal: journals.then(Journal::default),
            ..self
        }
    }

    fn at(&self, offset: u64, length: usize) -> io::Result<u64> {
        if offset + length as u64 > self.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.superblock.first * CELL as u64 + offset)
    }
}

impl Disk for Extent {
    fn size(&self) -> u64 {
        self.superblock.cells * CELL as u64
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(self.at(offset, buf.len())?, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let at = self.at(offset, buf.len())?;
        match &self.journal {
            Some(journal) => journal.write(self.disk.as_ref(), at, buf),
            None => self.disk.write_at(at, buf),
        }
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_lazily_at(self.at(offset, buf.len())?, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    fn open(disk: &Arc<MemoryDisk>, may_make: bool) -> Result<Extent, String> {
        let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
        ledger(disk, "/dev/vdb", None, may_make).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ledger_is_made_once_and_found_again() {
        let disk = Arc::new(MemoryDisk::new(128));
        assert!(open(&disk, false).is_err());
        let made = open(&disk, true).unwrap();
        assert_eq!(made.size(), 64 * CELL as u64);
        made.write_at(4096, &[5; CELL]).unwrap();
        assert!(made.write_at(64 * 4096, &[5; CELL]).is_err());
        let found = open(&disk, false).unwrap();
        let mut cell = vec![0; CELL];
        found.read_at(4096, &mut cell).unwrap();
        assert_eq!(cell, [5; CELL]);
    }

    #[test]
    fn a_disk_with_something_on_it_is_left_alone() {
        let disk = Arc::new(MemoryDisk::new(128));
        disk.write_at(8192, &[1; CELL]).unwrap();
        assert!(open(&disk, true).err().unwrap().contains("not blank"));
    }
}
