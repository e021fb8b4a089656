//! One volume of the ledger and the rule for when a flush proves a write durable.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::disk::Disk;
use super::super::layout::{CELL, Layout};

/// A volume under the engine.
///
/// A failed flush may have thrown away what it covered (Linux marks the pages clean), and the error
/// is reported to only one of several flushes. So flushes of one volume run one at a time and each
/// failure starts a new epoch: a flush proves only the writes issued in the epoch that it ends in.
pub(super) struct Volume {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) vol_id: [u8; 16],
    pub(super) path: String,
    epoch: AtomicU64,
    flushing: Mutex<()>,
}

impl Volume {
    pub(super) fn new(disk: Arc<dyn Disk>, layout: Layout, vol_id: [u8; 16], path: String) -> Self {
        Self {
            disk,
            layout,
            vol_id,
            path,
            epoch: AtomicU64::new(0),
            flushing: Mutex::new(()),
        }
    }

    /// The epoch that a write issued now belongs to.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Flushes, and says which epoch's writes it has proved durable.
    pub(super) fn flush(&self) -> io::Result<u64> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.disk.flush() {
            Ok(()) => Ok(self.epoch()),
            Err(error) => {
                self.epoch.fetch_add(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Writes one cell and returns when it is durable.
    pub(super) fn write_durably(&self, cell: u64, bytes: &[u8]) -> io::Result<()> {
        let epoch = self.epoch();
        self.disk.write_at(cell * CELL as u64, bytes)?;
        if self.disk.grants().dsync || self.flush()? == epoch {
            return Ok(());
        }
        Err(io::Error::other("a flush before this one failed"))
    }

    /// Writes one cell; the flush that proves it durable ends in the epoch returned.
    pub(super) fn write_lazily(&self, cell: u64, bytes: &[u8]) -> io::Result<u64> {
        let epoch = self.epoch();
        self.disk.write_lazily_at(cell * CELL as u64, bytes)?;
        Ok(epoch)
    }
}
