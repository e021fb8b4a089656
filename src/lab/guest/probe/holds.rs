//! What the processes of a guest hold for themselves alone, as its kernel keeps it: a device that was
//! opened with `O_EXCL`, a locked file. A hold ends with its process, however that ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Linux `EBUSY`, which a second exclusive open of a block device gets.
const EBUSY: i32 = 16;

#[derive(Default)]
struct Held {
    /// Processes that open their volumes and are no daemon yet.
    starting: BTreeSet<u32>,
    by: BTreeMap<String, u32>,
}

/// Who holds what in one boot of a guest.
#[derive(Default)]
pub(super) struct Holds(Arc<Mutex<Held>>);

/// A process counts as running while this lives.
pub(super) struct Starting {
    held: Arc<Mutex<Held>>,
    pid: u32,
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holds {
    /// A process begins to open its volumes.
    pub(super) fn start(&self, pid: u32) -> Starting {
        lock(&self.0).starting.insert(pid);
        Starting {
            held: Arc::clone(&self.0),
            pid,
        }
    }

    /// Takes `what` for a process, unless one that has it still runs; `runs` knows of the daemons.
    /// Even the process itself cannot take it twice.
    pub(super) fn take(&self, what: &str, pid: u32, runs: impl Fn(u32) -> bool) -> io::Result<()> {
        let mut held = lock(&self.0);
        if let Some(by) = held.by.get(what)
            && (held.starting.contains(by) || runs(*by))
        {
            return Err(busy());
        }
        held.by.insert(what.to_owned(), pid);
        Ok(())
    }

    /// Whether a running process has `what`.
    pub(super) fn is_taken(&self, what: &str, runs: impl Fn(u32) -> bool) -> bool {
        let held = lock(&self.0);
        let by = held.by.get(what);
        by.is_some_and(|by| held.starting.contains(by) || runs(*by))
    }
}

/// What the kernel says of a device that is taken.
pub(super) fn busy() -> io::Error {
    io::Error::from_raw_os_error(EBUSY)
}

impl Drop for Starting {
    fn drop(&mut self) {
        lock(&self.held).starting.remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_process_has_nobody_else_gets() {
        let holds = Holds::default();
        let daemons = |pid| pid == 2;
        let first = holds.start(1);
        holds.take("/dev/vdb", 1, daemons).unwrap();
        let refused = holds.take("/dev/vdb", 3, daemons).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(EBUSY));
        assert!(holds.take("/dev/vdb", 1, daemons).is_err());
        holds.take("/dev/vdc", 2, daemons).unwrap();
        drop(first);
        assert!(!holds.is_taken("/dev/vdb", daemons));
        holds.take("/dev/vdb", 3, daemons).unwrap();
        assert!(holds.is_taken("/dev/vdc", daemons), "its daemon runs");
        assert!(holds.take("/dev/vdc", 3, daemons).is_err());
        holds.take("/dev/vdc", 3, |_| false).unwrap();
    }
}
