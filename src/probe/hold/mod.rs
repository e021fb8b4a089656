//! Freezing the file systems of file volumes from inside the guest, with a timer that thaws them.
//!
//! Contract: whoever asked may be gone at any moment. The timer runs before the first file system is
//! frozen and belongs to whoever holds, a process of the guest on its own; nothing here touches a
//! file system but through [`Freezes`]. All are frozen or none. The end of a hold waits for a freeze
//! that is under way, which would stand for ever if it came after its thaw.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::config::{Config, FileTarget};
use super::filesystem::{Told, files};
use super::platform::Freezes;

#[derive(Default)]
struct State {
    /// How many of the targets are frozen, from the first on.
    frozen: usize,
    over: bool,
}

/// The file systems of a config's file volumes, held until somebody thaws them or the timer does.
pub struct Hold {
    guest: Arc<dyn Freezes>,
    targets: Vec<(u8, FileTarget)>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Hold {
    /// Nothing is frozen yet.
    pub fn new(config: &Config, guest: Arc<dyn Freezes>) -> Self {
        Self {
            guest,
            targets: files(config).map(|(at, t)| (at, t.clone())).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is over or the timer runs out, and thaws then. Whether it was the timer. The timer
    /// runs while a freeze is waited for, so it is a moment and no length.
    pub fn guard(&self, until: Instant) -> bool {
        let state = self.state();
        let left = until.saturating_duration_since(Instant::now());
        let (state, waited) = self
            .changed
            .wait_timeout_while(state, left, |state| !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        waited.timed_out() && self.end().is_some()
    }

    /// Freezes one after the other. If one cannot be, the others are thawed.
    pub fn freeze(&self) -> Result<Vec<Told>, String> {
        if self.targets.is_empty() {
            return Err("there is no volume with a file system to freeze".into());
        }
        for (_, target) in &self.targets {
            let mut state = self.state();
            if state.over {
                return Err("the timer ran out before all were frozen".into());
            }
            match self.guest.freeze(target) {
                Ok(()) => state.frozen += 1,
                Err(error) => {
                    drop(state);
                    self.end();
                    return Err(format!("freezing {}: {error}", target.mount));
                }
            }
        }
        Ok(self.each(|_| (Some(true), "frozen".into())))
    }

    /// Thaws what is frozen; `None` if it was over already.
    pub fn end(&self) -> Option<Vec<Told>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.over, true) {
            return None;
        }
        let told = thaw(&self.targets[..state.frozen], &*self.guest);
        drop(state);
        self.changed.notify_all();
        Some(told)
    }

    /// It is over and there is nothing left to thaw: the guest has no power any more.
    pub fn abandon(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.state().over
    }

    /// Whether the kernel says that they are frozen. The only question that it answers is another
    /// freeze: one that succeeds says that nothing was frozen, and is taken back at once.
    pub fn ask(&self) -> Vec<Told> {
        let state = self.state();
        if state.over {
            return self.each(|_| (Some(false), "nothing holds them any more".into()));
        }
        self.each(|target| match self.guest.freeze(target) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                (Some(true), "a second freeze is refused as busy".into())
            }
            Err(error) => (None, error.to_string()),
            Ok(()) => match self.guest.thaw(target) {
                Ok(()) => (Some(false), "a second freeze succeeded".into()),
                Err(error) => (None, format!("a second freeze was not taken back: {error}")),
            },
        })
    }

    fn each(&self, say: impl Fn(&FileTarget) -> (Option<bool>, String)) -> Vec<Told> {
        told(&self.targets, say)
    }
}

/// Thaws the file systems of a config that nobody holds: whoever held them may have been killed.
pub fn thaw_bare(config: &Config, guest: &dyn Freezes) -> Vec<Told> {
    let targets: Vec<(u8, FileTarget)> = files(config).map(|(at, t)| (at, t.clone())).collect();
    thaw(&targets, guest)
}

/// What is told of a config's file systems that nobody holds.
pub fn unheld(config: &Config) -> Vec<Told> {
    let targets: Vec<(u8, FileTarget)> = files(config).map(|(at, t)| (at, t.clone())).collect();
    told(&targets, |_| (Some(false), "nothing holds them".into()))
}

fn thaw(targets: &[(u8, FileTarget)], guest: &dyn Freezes) -> Vec<Told> {
    told(targets, |target| said(guest.thaw(target)))
}

/// That something was not frozen is an answer, not a failure.
fn said(thawed: io::Result<()>) -> (Option<bool>, String) {
    match thawed {
        Ok(()) => (Some(true), "thawed".into()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => (Some(false), error.to_string()),
        Err(error) => (None, error.to_string()),
    }
}

fn told(
    targets: &[(u8, FileTarget)],
    say: impl Fn(&FileTarget) -> (Option<bool>, String),
) -> Vec<Told> {
    let one = |(volume, target): &(u8, FileTarget)| {
        let (well, said) = say(target);
        Told {
            volume: *volume,
            kind: target.kind.to_string(),
            well,
            said,
        }
    };
    targets.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
