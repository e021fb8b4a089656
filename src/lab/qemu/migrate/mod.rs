//! Live migration between two QEMUs of this host, over a Unix socket.
//!
//! The disks are NBD servers that both ends are connected to; QEMU hands them over by itself: the source
//! flushes and lets go of its block nodes at the switchover, the target takes them up before its CPUs
//! run. Exactly one end can run at any time, and after every failure this module leaves it so: it kills
//! the target before it lets the source run again, and never lets it once the target's CPUs may have run.
//!
//! Progress is QEMU's own: the `MIGRATION` events of both ends (capability `events`). Of the other
//! capabilities, `return-path` has the source wait until the target has taken up the whole state before
//! it gives up its own, and `validate-uuid` has the target refuse the memory of another guest. Post-copy
//! is not offered: a failure of it loses the guest.

mod control;
mod course;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::process::{BadLaunch, Process};
use super::qmp::QmpError;
pub use control::{Progress, set_bandwidth};

/// How a guest is to be migrated.
#[derive(Debug)]
pub struct Options {
    /// Bytes per second at most; 0 is no limit. See [`set_bandwidth`].
    pub max_bandwidth: u64,
    /// How long the guest may stand still for the switchover, by QEMU's estimate; QEMU goes on copying
    /// until it believes that this will do. Between 1 ms and 2000 s.
    pub downtime_limit: Duration,
    /// How long all of it may take. It is cancelled then.
    pub limit: Duration,
    /// Cancels it. A cancel that comes too late changes nothing: the guest is on the target.
    pub abort: CancellationToken,
    /// Where to tell how far it is, some four times a second.
    pub progress: Option<watch::Sender<Progress>>,
}

impl Default for Options {
    /// QEMU's downtime limit (300 ms), no bandwidth limit, and ten minutes.
    fn default() -> Self {
        Self {
            max_bandwidth: 0,
            downtime_limit: Duration::from_millis(300),
            limit: Duration::from_secs(600),
            abort: CancellationToken::new(),
            progress: None,
        }
    }
}

/// A migration that took place.
#[derive(Debug, Clone, PartialEq)]
pub struct Migrated {
    /// All of it, by QEMU.
    pub total: Duration,
    /// How long the guest stood still, by the source's measure.
    pub downtime: Duration,
    /// Setting up the connection, by QEMU.
    pub setup: Duration,
    /// Bytes of memory sent.
    pub transferred: u64,
    /// Passes over the guest's dirty memory.
    pub iterations: u64,
    /// The switchover as we saw it. `None` if the guest was paused all along.
    pub switchover: Option<Switchover>,
}

/// When the guest ran nowhere, by the host's monotonic clock. Each instant is when we read the event, a
/// little after it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switchover {
    /// `STOP` of the source.
    pub stopped: Instant,
    /// `RESUME` of the target.
    pub resumed: Instant,
}

/// A migration that did not take place. The target is dead.
#[derive(Debug, thiserror::Error)]
#[error("guest {guest} was not migrated: {why}; {after}")]
pub struct MigrateError {
    /// The guest.
    pub guest: String,
    /// What happened.
    #[source]
    pub why: Why,
    /// What became of the source.
    pub after: After,
}

/// Why a migration did not take place.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The caller's token.
    #[error("it was cancelled on demand")]
    Aborted,
    /// [`Options::limit`] passed.
    #[error("it was cancelled after {} s; the last known state: {last}", waited.as_secs_f32())]
    TimedOut {
        /// The limit.
        waited: Duration,
        /// The last progress.
        last: Progress,
    },
    /// QEMU gave up.
    #[error("QEMU gave up: {0}")]
    Failed(String),
    /// The target's process ended.
    #[error("the target ended; its last words: {0}")]
    TargetDied(String),
    /// The source's process ended, and the guest with it.
    #[error("the source ended; its last words: {0}")]
    SourceDied(String),
    /// One end refused to be set up, or could not be asked.
    #[error("the {end} could not be told: {source}")]
    Control {
        /// `source` or `target`.
        end: &'static str,
        /// What QEMU said.
        #[source]
        source: QmpError,
    },
    /// The target's folder.
    #[error(transparent)]
    Socket(BadLaunch),
    /// The target did not say that it runs.
    #[error("the target had everything, but did not begin to run within {} s", .0.as_secs())]
    NotTakenUp(Duration),
}

/// What became of the source of a failed migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It runs.
    Runs,
    /// It stands still, in this run state, as it did before or because its disk failed meanwhile.
    Stands(String),
    /// It stands still and must not be resumed: the target's CPUs may have run, so its memory is older
    /// than its disks.
    Outdated,
    /// It is gone.
    Gone,
    /// It could not be brought to run again.
    Stuck(String),
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("it runs on at the source"),
            Self::Stands(state) => write!(f, "the source stands still ({state})"),
            Self::Outdated => f.write_str("the source must not run again: the target ran already"),
            Self::Gone => f.write_str("the source is gone"),
            Self::Stuck(why) => write!(f, "the source could not be resumed: {why}"),
        }
    }
}

/// Migrates a guest to `target`, which was started from [`Process::twin`] of the source and nothing done
/// to since. Afterwards the source stands still in state `postmigrate`, for the caller to end. A caller
/// that stops waiting leaves the migration to QEMU; to end it, use [`Options::abort`].
pub async fn migrate(
    source: &Process,
    target: &Process,
    options: Options,
) -> Result<Migrated, MigrateError> {
    let mut course = course::Course::new(source, target);
    match course.run(&options).await {
        Ok(migrated) => Ok(migrated),
        Err(why) => {
            let after = course.settle(&why).await;
            Err(MigrateError {
                guest: source.launch().name.clone(),
                why,
                after,
            })
        }
    }
}
