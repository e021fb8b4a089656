//! An open image as a block device: what a guest, an importer or a block server reads and writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::core::{Core, Key};
use super::strike::slowdown;
use crate::lab::world::PAGE;
use crate::probe::disk::{Disk, Grants};

/// What one access takes on storage of ordinary speed, on the wall. Too little to be simulated, unless
/// the storage is slow.
const ACCESS: Duration = Duration::from_micros(100);

/// One open handle. It dies with its host's power and stays dead; dropping it closes it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) array: Arc<Shared>,
    pub(super) key: Key,
    pub(super) id: u64,
    pub(super) grants: Grants,
}

fn pages(offset: u64, len: usize) -> io::Result<(u64, u64)> {
    let page = PAGE as u64;
    if offset.is_multiple_of(page) && len.is_multiple_of(PAGE) {
        Ok((offset / page, (len / PAGE) as u64))
    } else {
        let text = format!("{len} bytes at {offset} are not whole pages of {PAGE}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

impl Disk for Port {
    /// As the storage has it now: whoever opened an image sees it grow. A handle on an image that is
    /// gone has nothing behind it.
    fn size(&self) -> u64 {
        let core = self.array.lock();
        core.image(&self.key).map_or(0, |image| image.size)
    }

    fn grants(&self) -> Grants {
        self.grants
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (at, n) = pages(offset, buf.len())?;
        self.take_time();
        let found = self.on(&mut self.array.lock(), |core, key, id| {
            core.read(key, id, at, n)
        })?;
        for (chunk, page) in buf.chunks_mut(PAGE).zip(found) {
            match page {
                Some(page) => chunk.copy_from_slice(&page[..]),
                None => chunk.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf, self.grants.dsync)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf, false)
    }

    fn flush(&self) -> io::Result<()> {
        self.take_time();
        self.on(&mut self.array.lock(), Core::flush)
    }
}

impl Port {
    fn write(&self, offset: u64, buf: &[u8], durable: bool) -> io::Result<()> {
        let (at, _) = pages(offset, buf.len())?;
        self.take_time();
        // Without a volatile cache there is nowhere to lose a write.
        let durable = durable || !self.grants.write_back;
        let now = self.array.now();
        self.on(&mut self.array.lock(), |core, key, id| {
            core.cut_within_write(key, id, at, buf, now)?;
            core.write(key, id, at, buf, durable)
        })
    }

    /// Does something where this handle leads, which a guest that went on upon a copy of its disk does
    /// not notice.
    fn on<T>(
        &self,
        core: &mut Core,
        f: impl FnOnce(&mut Core, &Key, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        match core.relocated(&self.key, self.id) {
            Some((key, id)) => f(core, &key, id),
            None => f(core, &self.key, self.id),
        }
    }

    /// Lets the time of one access pass, if the storage is slow (fault `slow-storage`). Whoever
    /// reads or writes waits, as a guest would.
    fn take_time(&self) {
        if let Some(times) = slowdown(&self.array.board) {
            self.array.clock.access(ACCESS * times);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mine = self.id;
        let mut core = self.array.lock();
        core.relocated.remove(&(self.key.clone(), mine));
        core.detach(&self.key, |id, _| id == mine);
    }
}
