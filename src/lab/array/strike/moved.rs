//! Faults of a live migration as the storage sees them: a host that was left goes on writing, or what
//! it held in its cache never arrives.

use super::{intact, is_load};
use crate::lab::array::core::{Core, Key};
use crate::lab::array::pages::{Page, page};
use crate::lab::faults::Fault;
use crate::probe::lease::{STAMP, Stamp};

/// How many of the latest writes a host had in its cache.
const DIRTY: usize = 8;

impl Core {
    /// The guest of an image went on at another host.
    pub(in crate::lab::array) fn left_behind(&mut self, key: &Key) {
        self.moved.insert(key.clone());
    }

    /// The guest of an image wrote pages from `at` on. If it was migrated before, that wakes what its
    /// old host has left to do: one lease renewed by a second launcher (faults `two-launchers` and
    /// `abort-leaves-two`), or the latest writes lost (fault `dirty-cache-lost`).
    pub(in crate::lab::array) fn strike_after_move(&mut self, key: &Key, at: u64, pages: &[Page]) {
        if !self.moved.contains(key) {
            return;
        }
        for fault in [Fault::TwoLaunchers, Fault::AbortLeavesTwo] {
            if self.board.armed(fault) {
                for (index, page) in (at..).zip(pages) {
                    self.second_launcher(fault, key, index, page);
                }
            }
        }
        if self.board.armed(Fault::DirtyCacheLost) {
            self.lose_dirty(key, at);
        }
    }

    /// Whether a write that must go to the copy of a disk as well does not (fault `copy-misses-writes`).
    pub(in crate::lab::array) fn misses_copy(&mut self, to: &Key, index: u64, page: &Page) -> bool {
        let fault = Fault::CopyMissesWrites;
        let misses = self.board.armed(fault) && is_load(page);
        if misses {
            self.struck(
                fault,
                to,
                index,
                "a write during the copy is not on the copy",
            );
        }
        misses
    }

    /// The guest's copy on the other host renews its lease too: the same memory, another nonce.
    fn second_launcher(&mut self, fault: Fault, key: &Key, index: u64, written: &Page) {
        let Some(bytes) = written.as_deref() else {
            return;
        };
        let Some(own) = Stamp::decode(bytes) else {
            return;
        };
        let mut nonce = own.nonce;
        for byte in &mut nonce {
            *byte = !*byte;
        }
        let mut twin = *bytes;
        twin[..STAMP].copy_from_slice(&Stamp { nonce, ..own }.encode());
        if let Some(image) = self.images.get_mut(key) {
            image.write("", index, page(&twin), true);
            let detail = "a second launcher renewed the lease";
            self.struck(fault, key, index, detail);
        }
    }

    /// Takes the latest writes of load back that nothing has overwritten since, all but the one under
    /// way. Waits until there are enough of them.
    fn lose_dirty(&mut self, key: &Key, at: u64) {
        let Some(image) = self.images.get_mut(key) else {
            return;
        };
        let mut dirty: Vec<(u64, Page)> = Vec::new();
        for write in image.log.iter().rev() {
            let latest = dirty.iter().all(|(index, _)| *index != write.index);
            if latest
                && write.index != at
                && is_load(&write.new)
                && intact(&image.pages.get(write.index), &write.new)
            {
                dirty.push((write.index, write.old.clone()));
            }
            if dirty.len() == DIRTY {
                break;
            }
        }
        let Some((first, _)) = dirty.get(DIRTY - 1) else {
            return;
        };
        let first = *first;
        for (index, old) in dirty {
            image.pages.set(index, old);
        }
        self.moved.remove(key);
        let detail = "the latest writes were lost with the cache of the old host";
        self.struck(Fault::DirtyCacheLost, key, first, detail);
    }
}
