//! A QEMU's life as its events and its parent see it, to the end.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::arguments::AGENT_PORT;
use crate::lab::qemu::agent::Port;
use crate::lab::qemu::qmp::{EventKind, Events, EventsError};

/// How long the rest of a dead QEMU's events may take to be read.
pub(super) const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Ids of devices that were unplugged and are gone.
pub(super) type Released = BTreeSet<String>;

/// The end of a QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// As waitpid(2) tells it.
    pub status: ExitStatus,
    /// The last `SHUTDOWN` before it. `None` if it was killed or crashed.
    pub shutdown: Option<Shutdown>,
}

/// Why the machine shut down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// The guest wanted it.
    pub guest: bool,
    /// QEMU's `ShutdownCause`.
    pub reason: String,
}

/// Follows the events to their end: whether the agent's port is open, which devices the guest let go of,
/// and the last shutdown.
pub(super) async fn follow(
    mut events: Events,
    port: watch::Sender<Port>,
    released: watch::Sender<Released>,
) -> Option<Shutdown> {
    let mut last = None;
    loop {
        let event = match events.next().await {
            Ok(event) => event,
            Err(EventsError::Missed(count)) => {
                tracing::warn!(count, "events of QEMU were missed");
                continue;
            }
            Err(EventsError::Lost(_)) => {
                set_port(&port, Port::Closed);
                return last;
            }
        };
        match event.kind {
            EventKind::VserportChange { id, open } if id == AGENT_PORT => {
                set_port(&port, Port::from(open));
            }
            EventKind::DeviceDeleted { device: Some(id) } => {
                released.send_if_modified(|released| released.insert(id));
            }
            EventKind::Shutdown { guest, reason } => last = Some(Shutdown { guest, reason }),
            _ => {}
        }
    }
}

/// A port told to be as it is has not changed hands.
pub(super) fn set_port(port: &watch::Sender<Port>, now: Port) {
    port.send_if_modified(|before| std::mem::replace(before, now) != now);
}

/// Holds the child until its end, and tells of it.
pub(super) async fn supervise(
    mut child: Child,
    kill: Arc<Notify>,
    pid_file: PathBuf,
    shutdown: tokio::task::JoinHandle<Option<Shutdown>>,
    ended: watch::Sender<Option<Exit>>,
) {
    let status = loop {
        let waited = tokio::select! {
            waited = child.wait() => waited,
            () = kill.notified() => {
                if let Err(error) = child.start_kill() {
                    tracing::error!(%error, "a QEMU could not be killed");
                }
                child.wait().await
            }
        };
        match waited {
            Ok(status) => break status,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "a QEMU cannot be waited for");
                return;
            }
        }
    };
    // QEMU removes it when it ends by itself, and cannot when it is killed.
    fs::remove_file(pid_file).ok();
    // Its socket is closed: what is left to read is finite.
    let shutdown = timeout(LAST_EVENTS, shutdown).await;
    let shutdown = shutdown.ok().and_then(Result::ok).flatten();
    ended.send_replace(Some(Exit { status, shutdown }));
}
