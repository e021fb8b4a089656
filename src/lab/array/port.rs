//! An open image as a block device: what a guest, an importer or a block server reads and writes.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::core::Key;
use crate::lab::world::PAGE;
use crate::probe::disk::{Disk, Grants};

/// One open handle. It dies with its host's power and stays dead; dropping it closes it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) array: Arc<Shared>,
    pub(super) key: Key,
    pub(super) id: u64,
    pub(super) size: u64,
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
    fn size(&self) -> u64 {
        self.size
    }

    fn grants(&self) -> Grants {
        self.grants
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (at, n) = pages(offset, buf.len())?;
        let found = self.array.lock().read(&self.key, self.id, at, n)?;
        for (chunk, page) in buf.chunks_mut(PAGE).zip(found) {
            match page {
                Some(page) => chunk.copy_from_slice(&page[..]),
                None => chunk.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let (at, _) = pages(offset, buf.len())?;
        // Without a volatile cache there is nowhere to lose a write.
        let durable = self.grants.dsync || !self.grants.write_back;
        let mut core = self.array.lock();
        core.write(&self.key, self.id, at, buf, durable)
    }

    fn flush(&self) -> io::Result<()> {
        self.array.lock().flush(&self.key, self.id)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mine = self.id;
        self.array.lock().detach(&self.key, |id, _| id == mine);
    }
}
