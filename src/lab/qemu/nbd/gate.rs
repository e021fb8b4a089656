//! The gate between the connections and the Disk. Every access passes it, so one place decides that
//! the fabric stalls, that a host has lost its storage, or that the server closes.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::failure::{Errno, Failure};

/// What happens at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// Accesses pass.
    Open,
    /// They wait.
    Paused,
    /// They fail: the storage is gone for good.
    Cut,
    /// They fail: the server is closing.
    Closed,
}

#[derive(Debug)]
struct State {
    passage: Passage,
    /// Accesses inside the Disk now.
    under_way: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// An open gate.
    pub(super) fn new() -> Self {
        let state = State {
            passage: Passage::Open,
            under_way: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one access pass; waits while the gate is paused.
    pub(super) fn pass<T>(&self, access: impl FnOnce() -> io::Result<T>) -> Result<T, Failure> {
        let _under_way = self.enter()?;
        Ok(access()?)
    }

    fn enter(&self) -> Result<UnderWay<'_>, Failure> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.passage == Passage::Paused)
            .unwrap_or_else(PoisonError::into_inner);
        match state.passage {
            Passage::Open | Passage::Paused => {
                state.under_way += 1;
                Ok(UnderWay(self))
            }
            Passage::Cut => Err(Failure::new(Errno::Io, "this host has lost its storage")),
            Passage::Closed => Err(Failure::new(Errno::Shutdown, "the server is closing")),
        }
    }

    /// Lets accesses wait, or go on. Those under way end as ever. Nothing once the gate is shut.
    pub(super) fn pause(&self, paused: bool) {
        let mut state = self.lock();
        state.passage = match (state.passage, paused) {
            (Passage::Open, true) => Passage::Paused,
            (Passage::Paused, false) => Passage::Open,
            (passage, _) => passage,
        };
        self.changed.notify_all();
    }

    /// Shuts the gate as after the loss of the storage.
    pub(super) fn cut(&self) {
        self.shut(Passage::Cut);
    }

    /// Shuts the gate because the server closes.
    pub(super) fn close(&self) {
        self.shut(Passage::Closed);
    }

    /// Waiting accesses fail; when this returns, none is under way and none will begin.
    fn shut(&self, passage: Passage) {
        let mut state = self.lock();
        state.passage = passage;
        self.changed.notify_all();
        let ended = self
            .changed
            .wait_while(state, |state| state.under_way > 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(ended);
    }
}

/// An access inside the Disk.
struct UnderWay<'a>(&'a Gate);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        // Only somebody who shuts the gate waits for the last access.
        if state.under_way == 0 && matches!(state.passage, Passage::Cut | Passage::Closed) {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    fn refused(gate: &Gate) -> Errno {
        gate.pass(|| -> io::Result<()> { panic!("an access passed a shut gate") })
            .unwrap_err()
            .errno
    }

    #[test]
    fn a_cut_waits_for_the_access_under_way_and_lets_none_begin() {
        let gate = Gate::new();
        let (inside, ended) = (mpsc::channel(), AtomicBool::new(false));
        let (go_on, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (gate, ended) = (&gate, &ended);
            scope.spawn(move || {
                gate.pass(|| {
                    inside.0.send(()).unwrap();
                    wait.recv().unwrap();
                    ended.store(true, Ordering::SeqCst);
                    Ok(())
                })
            });
            inside.1.recv().unwrap();
            let cut = scope.spawn(move || {
                gate.cut();
                assert!(ended.load(Ordering::SeqCst), "the cut did not wait");
            });
            while gate.lock().passage == Passage::Open {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            cut.join().unwrap();
        });
        assert_eq!(refused(&gate), Errno::Io);
        gate.pause(true);
        gate.pause(false);
        assert_eq!(refused(&gate), Errno::Io, "a cut is for good");
        gate.close();
        assert_eq!(refused(&gate), Errno::Shutdown);
    }

    #[test]
    fn a_panic_inside_the_disk_does_not_hold_up_the_cut() {
        let gate = Gate::new();
        let panics = std::panic::AssertUnwindSafe(|| {
            gate.pass(|| -> io::Result<()> { panic!("planted") }).ok();
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        gate.cut();
    }

    #[test]
    fn a_paused_access_goes_on_when_resumed_and_fails_when_cut() {
        let gate = Gate::new();
        for resumed in [true, false] {
            gate.pause(true);
            thread::scope(|scope| {
                let waits = scope.spawn(|| gate.pass(|| Ok(())).map_err(|f| f.errno));
                if resumed {
                    gate.pause(false);
                } else {
                    gate.cut();
                }
                let wanted = if resumed { Ok(()) } else { Err(Errno::Io) };
                assert_eq!(waits.join().unwrap(), wanted);
            });
        }
    }
}
