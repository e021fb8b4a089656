//! A disk in memory, for the unit tests of the guests.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::probe::disk::{Disk, Grants};
use crate::probe::layout::CELL;

/// A disk of so many cells, zeroed, whose writes are durable at once.
pub(crate) struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    /// A disk of `cells` cells.
    pub(crate) fn new(cells: usize) -> Self {
        Self(Mutex::new(vec![0; cells * CELL]))
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, cells: usize) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(cells * CELL, 0);
    }

    fn with<T>(
        &self,
        offset: u64,
        length: usize,
        work: impl FnOnce(&mut [u8]) -> T,
    ) -> io::Result<T> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let span = bytes
            .get_mut(start..start + length)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(work(span))
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn grants(&self) -> Grants {
        Grants {
            direct: true,
            dsync: true,
            write_back: false,
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(offset, buf.len(), |span| buf.copy_from_slice(span))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.with(offset, buf.len(), |span| span.copy_from_slice(buf))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
