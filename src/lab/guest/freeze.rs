//! fsfreeze as qemu-guest-agent does it: file systems stand still, raw devices do not.
//!
//! Contract: as `freeze_super` in Linux, a freeze first keeps new writers out, waits for those that
//! are under way, and has each file system write everything to its place; only then does it return.
//! The safety thaw belongs to virt-launcher, not to the guest: a freeze of a frozen guest succeeds
//! and keeps the first deadline, and the timed thaw leaves no trace in any object.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A mounted file system.
pub(super) trait Mount: Send + Sync {
    /// Writes everything to its place; nobody writes meanwhile.
    fn quiesce(&self) -> io::Result<()>;
    /// Gets ready for writers again.
    fn resume(&self) -> io::Result<()>;
    /// The power is gone: nobody holds it any more.
    fn lose_power(&self);
}

#[derive(Debug, Default)]
struct Hold {
    frozen: bool,
    /// The power is gone: nothing is held any more, and nothing can be.
    off: bool,
    /// Writes that are under way.
    writers: usize,
    /// Counts freezes, so that a timer knows whether the freeze that armed it still holds.
    generation: u64,
}

/// The frozen state of one guest's file systems.
#[derive(Default)]
pub struct Freezer {
    hold: Mutex<Hold>,
    changed: Condvar,
    mounts: Mutex<Vec<Arc<dyn Mount>>>,
}

/// A write that is under way until this is dropped.
pub(super) struct UnderWay<'a>(&'a Freezer);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.hold().writers -= 1;
        self.0.changed.notify_all();
    }
}

impl Freezer {
    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounted(&self) -> Vec<Arc<dyn Mount>> {
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        mounts.clone()
    }

    /// A file system was mounted for writing.
    pub(super) fn mounts(&self, mount: Arc<dyn Mount>) {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        mounts.push(mount);
    }

    /// Whether file systems are frozen.
    pub fn frozen(&self) -> bool {
        self.hold().frozen
    }

    /// Freezes. The number to give to [`Self::expire`] when the safety timer runs out, or `None` if
    /// it was frozen already, in which case the first timer keeps running. Blocks for writes that are
    /// under way.
    ///
    /// # Errors
    /// When a file system could not write everything to its place; nothing is frozen then.
    pub fn freeze(&self) -> io::Result<Option<u64>> {
        let mut hold = self.hold();
        if hold.frozen || hold.off {
            return Ok(None);
        }
        hold.frozen = true;
        let idle = self
            .changed
            .wait_while(hold, |hold| hold.writers > 0 && !hold.off)
            .unwrap_or_else(PoisonError::into_inner);
        drop(idle);
        for mount in self.mounted() {
            if let Err(error) = mount.quiesce() {
                self.thaw();
                return Err(error);
            }
        }
        let mut hold = self.hold();
        hold.generation += 1;
        Ok(Some(hold.generation))
    }

    /// Thaws, and says whether there was something to thaw; if not, that is no error. Blocks.
    pub fn thaw(&self) -> bool {
        if !self.frozen() {
            return false;
        }
        for mount in self.mounted() {
            if let Err(error) = mount.resume() {
                tracing::debug!(%error, "a file system was thawed on a device that takes no writes");
            }
        }
        let was = std::mem::take(&mut self.hold().frozen);
        self.changed.notify_all();
        was
    }

    /// The power is gone: whoever waits for a thaw meets a dead disk instead.
    pub(super) fn power_off(&self) {
        let mut hold = self.hold();
        hold.frozen = false;
        hold.off = true;
        drop(hold);
        self.changed.notify_all();
        for mount in self.mounted() {
            mount.lose_power();
        }
    }

    /// The safety timer of freeze `generation` ran out; whether it still held. Blocks.
    pub fn expire(&self, generation: u64) -> bool {
        if self.hold().generation != generation {
            return false;
        }
        self.thaw()
    }

    /// Waits until file systems are thawed, then counts as a writer.
    pub(super) fn enter(&self) -> UnderWay<'_> {
        let hold = self.hold();
        let mut hold = self
            .changed
            .wait_while(hold, |hold| hold.frozen)
            .unwrap_or_else(PoisonError::into_inner);
        hold.writers += 1;
        UnderWay(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_freeze_keeps_the_first_timer_and_a_late_timer_does_nothing() {
        let freezer = Freezer::default();
        let first = freezer.freeze().unwrap().unwrap();
        assert_eq!(freezer.freeze().unwrap(), None);
        assert!(freezer.thaw());
        assert!(!freezer.thaw());
        let second = freezer.freeze().unwrap().unwrap();
        assert_ne!(first, second);
        assert!(!freezer.expire(first));
        assert!(freezer.frozen());
        assert!(freezer.expire(second));
        assert!(!freezer.frozen());
    }

    #[test]
    fn a_freeze_waits_for_what_is_under_way() {
        let freezer = Arc::<Freezer>::default();
        let under_way = freezer.enter();
        let freezing = {
            let freezer = Arc::clone(&freezer);
            std::thread::spawn(move || freezer.freeze())
        };
        while !freezer.frozen() {
            std::thread::yield_now();
        }
        assert!(!freezing.is_finished(), "a write is under way");
        drop(under_way);
        assert!(freezing.join().unwrap().unwrap().is_some());
    }

    /// A file system whose device is gone.
    struct Broken;

    impl Mount for Broken {
        fn quiesce(&self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn resume(&self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn lose_power(&self) {}
    }

    #[test]
    fn a_freeze_that_fails_leaves_nothing_frozen() {
        let freezer = Freezer::default();
        freezer.mounts(Arc::new(Broken));
        assert!(freezer.freeze().is_err());
        assert!(!freezer.frozen());
    }
}
