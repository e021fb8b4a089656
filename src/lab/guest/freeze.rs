//! fsfreeze as qemu-guest-agent does it: file systems stand still, raw devices do not.
//!
//! The safety thaw belongs to virt-launcher, not to the guest: a freeze of a frozen guest succeeds
//! and keeps the first deadline, and the timed thaw leaves no trace in any object.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Planted;
use crate::probe::disk::{Disk, Grants};

#[derive(Debug, Default)]
struct Hold {
    frozen: bool,
    /// The power is gone: nothing is held any more, and nothing can be.
    off: bool,
    /// Counts freezes, so that a timer knows whether the freeze that armed it still holds.
    generation: u64,
}

/// The frozen state of one guest's file systems.
#[derive(Debug, Default)]
pub struct Freezer {
    hold: Mutex<Hold>,
    thawed: Condvar,
}

impl Freezer {
    /// Whether file systems are frozen.
    pub fn frozen(&self) -> bool {
        self.hold
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .frozen
    }

    /// Freezes. The number to give to [`Self::expire`] when the safety timer runs out, or `None` if
    /// it was frozen already, in which case the first timer keeps running.
    pub fn freeze(&self) -> Option<u64> {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        if hold.frozen || hold.off {
            return None;
        }
        hold.frozen = true;
        hold.generation += 1;
        Some(hold.generation)
    }

    /// Thaws, and says whether there was something to thaw; if not, that is no error.
    pub fn thaw(&self) -> bool {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::take(&mut hold.frozen);
        drop(hold);
        self.thawed.notify_all();
        was
    }

    /// The power is gone: whoever waits for a thaw meets a dead disk instead.
    pub(super) fn power_off(&self) {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        hold.frozen = false;
        hold.off = true;
        drop(hold);
        self.thawed.notify_all();
    }

    /// The safety timer of freeze `generation` ran out; whether it still held.
    pub fn expire(&self, generation: u64) -> bool {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        if hold.generation != generation {
            return false;
        }
        let was = std::mem::take(&mut hold.frozen);
        drop(hold);
        self.thawed.notify_all();
        was
    }

    /// Waits until file systems are thawed.
    fn pass(&self) {
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.thawed
                .wait_while(hold, |hold| hold.frozen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// A disk whose writes go through a file system, and so wait while it is frozen.
pub(super) struct Frozen {
    freezer: Arc<Freezer>,
    disk: Arc<dyn Disk>,
    planted: Planted,
}

impl Frozen {
    /// A disk behind a file system of a guest.
    pub(super) const fn new(freezer: Arc<Freezer>, disk: Arc<dyn Disk>, planted: Planted) -> Self {
        Self {
            freezer,
            disk,
            planted,
        }
    }

    /// Waits until file systems are thawed, which nobody sees to after the fault `guest-frozen`.
    fn pass(&self) {
        if self.planted.freezes() {
            self.freezer.freeze();
        }
        self.freezer.pass();
    }
}

impl Disk for Frozen {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.pass();
        self.disk.write_at(offset, buf)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.freezer.pass();
        self.disk.write_lazily_at(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.pass();
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    #[test]
    fn a_second_freeze_keeps_the_first_timer_and_a_late_timer_does_nothing() {
        let freezer = Freezer::default();
        let first = freezer.freeze();
        assert_eq!(freezer.freeze(), None);
        freezer.thaw();
        freezer.thaw();
        let second = freezer.freeze();
        assert_ne!(first, second);
        freezer.expire(first.unwrap());
        assert!(freezer.frozen());
        freezer.expire(second.unwrap());
        assert!(!freezer.frozen());
    }

    #[test]
    fn a_freeze_that_nobody_thaws_ends_with_the_power() {
        let board = Arc::new(crate::lab::faults::Board::default());
        board.plant(crate::lab::faults::Fault::GuestFrozen);
        let planted = Planted::new(board, crate::history::event::Site::Primary, 0);
        let freezer = Arc::<Freezer>::default();
        let disk = Frozen::new(Arc::clone(&freezer), Arc::new(MemoryDisk::new(4)), planted);
        let writer = std::thread::spawn(move || disk.write_at(0, &[9; 4096]));
        while !freezer.frozen() {
            std::thread::yield_now();
        }
        freezer.power_off();
        writer.join().unwrap().unwrap();
        assert_eq!((freezer.freeze(), freezer.frozen()), (None, false));
    }

    #[test]
    fn a_write_waits_for_the_thaw() {
        let freezer = Arc::new(Freezer::default());
        let disk = Arc::new(Frozen::new(
            Arc::clone(&freezer),
            Arc::new(MemoryDisk::new(4)),
            Planted::default(),
        ));
        let generation = freezer.freeze().unwrap();
        let writer = {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || disk.write_at(0, &[9; 4096]))
        };
        let mut cell = [0; 4096];
        disk.read_at(0, &mut cell).unwrap();
        assert_eq!(cell[0], 0);
        freezer.expire(generation);
        writer.join().unwrap().unwrap();
        disk.read_at(0, &mut cell).unwrap();
        assert_eq!(cell[0], 9);
    }
}
