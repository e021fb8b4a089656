//! A data journal, as ext4 keeps with `data=journal`: each cell goes to a ring of slots before it
//! goes to its place, and mounting writes what the ring holds to its place again.
//!
//! Replay is legal for a crash-consistent copy: the newest copy of each cell in the ring was issued
//! after everything durable by then, and older copies leave the ring first.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::probe::disk::Disk;
use crate::probe::layout::CELL;

const MAGIC: &[u8; 8] = b"vp-jn-01";
/// The first cell of the ring.
const FIRST: u64 = 1;
/// Slots of the ring, each a descriptor and a copy.
const SLOTS: u64 = 7;
/// Cells that the ring takes.
pub(super) const RING: u64 = FIRST + SLOTS * 2;

/// The ring of one mounted file system.
#[derive(Debug, Default)]
pub(super) struct Journal {
    next: Mutex<u64>,
}

impl Journal {
    /// Writes cells, one after the other: first the copy, then the cell itself.
    pub(super) fn write(&self, disk: &dyn Disk, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, cell) in bytes.chunks(CELL).enumerate() {
            let at = at + (index * CELL) as u64;
            if cell.len() == CELL && at.is_multiple_of(CELL as u64) {
                let slot = FIRST + *next % SLOTS * 2;
                disk.write_at(slot * CELL as u64, &entry(*next, at, cell))?;
                *next += 1;
            }
            disk.write_at(at, cell)?;
        }
        Ok(())
    }
}

fn entry(number: u64, at: u64, cell: &[u8]) -> Vec<u8> {
    let mut block = vec![0; CELL];
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&number.to_le_bytes());
    block[16..24].copy_from_slice(&at.to_le_bytes());
    block[24..56].copy_from_slice(blake3::hash(cell).as_bytes());
    block.extend_from_slice(cell);
    block
}

fn whole(block: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let number = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
    let cell = block.get(CELL..)?;
    let ours = block[..8] == *MAGIC && blake3::hash(cell).as_bytes()[..] == block[24..56];
    ours.then(|| Some((number(8)?, number(16)?, cell.to_vec())))
        .flatten()
}

/// Mounts: writes every whole copy of the ring to its place, oldest first, and empties the ring.
/// How many cells were rewritten.
pub(super) fn replay(disk: &dyn Disk) -> io::Result<usize> {
    let mut found = Vec::new();
    for slot in 0..SLOTS {
        let mut block = vec![0; 2 * CELL];
        disk.read_at((FIRST + slot * 2) * CELL as u64, &mut block)?;
        found.extend(whole(&block));
    }
    if found.is_empty() {
        return Ok(0);
    }
    found.sort();
    for (_, at, cell) in &found {
        disk.write_at(*at, cell)?;
    }
    disk.flush()?;
    wipe(disk)?;
    Ok(found.len())
}

/// Empties the ring: everything in it is in its place.
pub(super) fn wipe(disk: &dyn Disk) -> io::Result<()> {
    for slot in 0..SLOTS {
        disk.write_at((FIRST + slot * 2) * CELL as u64, &vec![0; CELL])?;
    }
    disk.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    fn cell(disk: &MemoryDisk, at: u64) -> u8 {
        let mut cell = vec![0; CELL];
        disk.read_at(at * CELL as u64, &mut cell).unwrap();
        cell[0]
    }

    #[test]
    fn replay_brings_the_newest_copy_of_each_cell_once() {
        let disk = MemoryDisk::new(64);
        let journal = Journal::default();
        let at = |cell: u64| cell * CELL as u64;
        for (place, value) in [(40, 1), (41, 2), (40, 3)] {
            let bytes = vec![value; CELL];
            journal.write(&disk, at(place), &bytes).unwrap();
        }
        // The last write in place was lost with the power; its copy was not.
        disk.write_at(at(40), &[1; CELL]).unwrap();
        assert_eq!(replay(&disk).unwrap(), 3);
        assert_eq!((cell(&disk, 40), cell(&disk, 41)), (3, 2));
        assert_eq!(replay(&disk).unwrap(), 0);
    }

    #[test]
    fn a_torn_copy_is_left_alone_and_the_ring_forgets_the_oldest_first() {
        let disk = MemoryDisk::new(64);
        let journal = Journal::default();
        for value in 0..9 {
            let bytes = vec![value + 1; CELL];
            let place = 40 + u64::from(value);
            journal.write(&disk, place * CELL as u64, &bytes).unwrap();
        }
        // The third write's copy is torn.
        disk.write_at((FIRST + 2 * 2 + 1) * CELL as u64, &[7; CELL])
            .unwrap();
        for place in 40..49 {
            disk.write_at(place * CELL as u64, &[0; CELL]).unwrap();
        }
        assert_eq!(replay(&disk).unwrap(), 6);
        let back: Vec<u8> = (40..49).map(|place| cell(&disk, place)).collect();
        assert_eq!(back, [0, 0, 0, 4, 5, 6, 7, 8, 9]);
    }
}
