//! Making files durable in groups, and the one place where a failing disk becomes known.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The longest that an appended record stays without an fsync.
pub(super) const GROUP: Duration = Duration::from_millis(10);

/// The history cannot be kept. It is final: once a write or fsync failed, nothing later is recorded,
/// because nobody could tell what stands on the disk. The run must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot keep the history in {}: {what}{}", path.display(), advice(*kind))]
pub struct RecordError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried and what the system answered.
    pub what: String,
    /// The kind of failure, `StorageFull` for a full disk.
    pub kind: io::ErrorKind,
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there or choose another --out, then run again"
        }
        io::ErrorKind::AlreadyExists => "; choose another --out, or --resume to go on with it",
        _ => "",
    }
}

impl RecordError {
    pub(super) fn new(path: &Path, doing: &str, error: &io::Error) -> Self {
        Self {
            path: path.to_owned(),
            what: format!("{doing}: {error}"),
            kind: error.kind(),
        }
    }
}

/// Whether the history can still be kept, shared by all writers of a run.
#[derive(Debug)]
pub(super) struct Health(watch::Sender<Option<RecordError>>);

impl Health {
    pub(super) fn new() -> Self {
        Self(watch::channel(None).0)
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        self.0.borrow().clone().map_or(Ok(()), Err)
    }

    /// Notes the first failure and gives it back.
    pub(super) fn fail(&self, error: RecordError) -> RecordError {
        let mut first = error.clone();
        self.0.send_if_modified(|slot| {
            if let Some(earlier) = slot {
                first = earlier.clone();
                return false;
            }
            *slot = Some(error);
            true
        });
        first
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<RecordError>> {
        self.0.subscribe()
    }
}

/// A file that is appended to by its owner and fsynced by the [`Syncer`].
#[derive(Debug)]
pub(super) struct Synced {
    pub(super) path: PathBuf,
    pub(super) file: File,
    dirty: AtomicBool,
}

impl Synced {
    pub(super) const fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            dirty: AtomicBool::new(false),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    dirty: Vec<Arc<Synced>>,
    closed: bool,
}

/// One thread that fsyncs every file written to within [`GROUP`].
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    health: Arc<Health>,
}

impl Syncer {
    pub(super) fn start(health: Arc<Health>) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let (theirs, their_health) = (Arc::clone(&shared), Arc::clone(&health));
        std::thread::Builder::new()
            .name("history-sync".into())
            .spawn(move || run(&theirs, &their_health))?;
        Ok(Self { shared, health })
    }

    /// Opens a new file for appending; it must not exist yet.
    pub(super) fn create(&self, path: PathBuf) -> Result<Arc<Synced>, RecordError> {
        self.health.check()?;
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| {
                self.health
                    .fail(RecordError::new(&path, "create the file", &e))
            })?;
        Ok(Arc::new(Synced::new(path, file)))
    }

    /// Asks for an fsync of `file` within [`GROUP`].
    pub(super) fn mark(&self, file: &Arc<Synced>) {
        if !file.dirty.swap(true, Ordering::AcqRel) {
            let (queue, wake) = &*self.shared;
            lock(queue).dirty.push(Arc::clone(file));
            wake.notify_one();
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let (queue, wake) = &*self.shared;
        lock(queue).closed = true;
        wake.notify_one();
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run((queue, wake): &(Mutex<Queue>, Condvar), health: &Health) {
    let mut last = Instant::now();
    loop {
        let mut held = lock(queue);
        while held.dirty.is_empty() && !held.closed {
            held = wake.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        // Half the group time between rounds bounds both the fsync rate and the age of a record.
        let due = last + GROUP / 2;
        while !held.closed {
            let now = Instant::now();
            let Some(left) = due.checked_duration_since(now).filter(|d| !d.is_zero()) else {
                break;
            };
            held = wake
                .wait_timeout(held, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let (files, closed) = (std::mem::take(&mut held.dirty), held.closed);
        drop(held);
        for file in files {
            // Cleared first: a write that comes during the fsync asks for another one.
            file.dirty.store(false, Ordering::Release);
            if let Err(error) = file.file.sync_data() {
                health.fail(RecordError::new(&file.path, "fsync", &error));
            }
        }
        if closed {
            return;
        }
        last = Instant::now();
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), RecordError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| RecordError::new(dir, "fsync the directory", &e))
}
