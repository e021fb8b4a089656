//! What holds freezes from inside a guest: a process each in a real one, a thread for its timer here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{config, in_thread};
use crate::lab::guest::machine::Machine;
use crate::lab::guest::shell::Stdio;
use crate::probe::filesystem::{Told, lines};
use crate::probe::hold::{Hold, thaw_bare, unheld};

/// The holds of a guest, by the socket that they listen on.
#[derive(Default)]
pub(super) struct Freezes(Mutex<BTreeMap<String, Arc<Hold>>>);

impl Freezes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever listens on a socket.
    fn at(&self, socket: &str) -> Option<Arc<Hold>> {
        let hold = self.lock().get(socket).cloned();
        hold.filter(|hold| !hold.is_over())
    }

    /// Their processes are gone, and what they held with the power.
    pub(super) fn stop(&self) {
        for hold in std::mem::take(&mut *self.lock()).into_values() {
            hold.abandon();
        }
    }
}

/// Freezes the file systems of the file volumes; what holds them stays.
pub(super) async fn freeze(
    machine: &Arc<Machine>,
    socket: &str,
    timer: &str,
    stdio: &mut Stdio,
) -> Result<(), String> {
    let config = config(stdio).await?;
    let timer = timer.parse().map(Duration::from_millis);
    let timer = timer.map_err(|error| format!("the timer: {error}"))?;
    let process = machine.probes.process(machine);
    let hold = Arc::new(Hold::new(&config, Arc::new(process)));
    {
        let mut all = machine.probes.freezes.lock();
        if all.get(socket).is_some_and(|other| !other.is_over()) {
            return Err(format!("a probe is listening on {socket} already"));
        }
        all.insert(socket.to_owned(), Arc::clone(&hold));
    }
    if machine.planted.kills_holder() {
        machine.probes.freezes.lock().remove(socket);
    } else {
        let (guarded, until) = (Arc::clone(&hold), Instant::now() + timer);
        in_thread("freeze timer", move |_| {
            guarded.guard(until);
        })
        .map_err(|error| format!("starting the timer: {error}"))?;
    }
    let frozen = tokio::task::spawn_blocking(move || hold.freeze());
    let frozen = frozen.await.map_err(|error| error.to_string())??;
    stdio.out.put(lines(&frozen).as_bytes()).await;
    Ok(())
}

/// Says whether they are held frozen.
pub(super) async fn frozen(
    machine: &Arc<Machine>,
    socket: &str,
    stdio: &mut Stdio,
) -> Result<(), String> {
    let config = config(stdio).await?;
    let hold = machine.probes.freezes.at(socket);
    tell(stdio, move || {
        hold.map_or_else(|| unheld(&config), |hold| hold.ask())
    })
    .await
}

/// Has the hold thaw, or thaws where what held was killed.
pub(super) async fn thaw(
    machine: &Arc<Machine>,
    socket: &str,
    stdio: &mut Stdio,
) -> Result<(), String> {
    let config = config(stdio).await?;
    let hold = machine.probes.freezes.at(socket);
    if machine.planted.loses_thaw() {
        let mut told = unheld(&config);
        for one in &mut told {
            (one.well, one.said) = (Some(true), "thawed".into());
        }
        stdio.out.put(lines(&told).as_bytes()).await;
        return Ok(());
    }
    let process = machine.probes.process(machine);
    tell(stdio, move || {
        let thawed = hold.and_then(|hold| hold.end());
        thawed.unwrap_or_else(|| thaw_bare(&config, &process))
    })
    .await
}

async fn tell(
    stdio: &mut Stdio,
    ask: impl FnOnce() -> Vec<Told> + Send + 'static,
) -> Result<(), String> {
    let told = tokio::task::spawn_blocking(ask).await;
    let told = told.map_err(|error| error.to_string())?;
    stdio.out.put(lines(&told).as_bytes()).await;
    Ok(())
}
