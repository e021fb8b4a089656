//! The undo log as a file: appended and synced before the call that it undoes, locked while its run
//! lives, and readable after a crash.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Entry, Undo};

/// Largest log that is read back. A thousand VMs need a few megabytes.
const MAX_LOG: u64 = 256 << 20;

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// First line: whose log this is.
    Run {
        /// Run id.
        id: String,
    },
    /// Something to undo.
    Record(Box<Entry>),
    /// The UID behind an entry.
    Learned {
        /// Entry.
        id: u64,
        /// UID.
        uid: String,
    },
    /// An entry that needs no more undoing.
    Done {
        /// Entry.
        id: u64,
    },
}

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// It cannot be read or written.
    #[error("undo log {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds it: the run is still going on.
    #[error("undo log {path} is in use: the run that writes it is still going on")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line in it makes no sense.
    #[error("undo log {path}, line {line}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The thread that writes was lost.
    #[error("undo log {path}: the writer ended before it answered")]
    Lost {
        /// The file.
        path: PathBuf,
    },
}

impl UndoError {
    fn at(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The log of one run; clones share it. The file is locked while any clone lives.
#[derive(Debug, Clone)]
pub struct UndoLog {
    path: PathBuf,
    run: String,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    next: u64,
    open: BTreeMap<u64, Entry>,
}

impl UndoLog {
    /// Starts the log of a run. A log that is already there is an error.
    pub fn create(path: &Path, run: &str) -> Result<Self, UndoError> {
        let failed = UndoError::at(path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(&failed)?;
        lock(&file, path)?;
        append(&mut file, &Line::Run { id: run.to_owned() }).map_err(&failed)?;
        // The name must survive a crash too.
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            File::open(dir)
                .and_then(|d| d.sync_all())
                .map_err(&failed)?;
        }
        Ok(Self::new(path, run.to_owned(), file, 0, BTreeMap::new()))
    }

    /// Opens the log of an earlier run and reads what is left to undo. A last line that was cut off
    /// by a crash belongs to a call that was never made, and is dropped.
    pub fn open(path: &Path) -> Result<Self, UndoError> {
        let failed = UndoError::at(path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .map_err(&failed)?;
        lock(&file, path)?;
        let length = file.metadata().map_err(&failed)?.len();
        if length > MAX_LOG {
            return Err(UndoError::Broken {
                path: path.to_owned(),
                line: 0,
                why: format!("it has {length} bytes, more than any run writes ({MAX_LOG})"),
            });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(&failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(&failed)?;
        file.seek(SeekFrom::End(0)).map_err(&failed)?;
        let mut run = None;
        let mut open = BTreeMap::new();
        let mut next = 0;
        for (index, line) in text[..whole].lines().enumerate() {
            let broken = |why: String| UndoError::Broken {
                path: path.to_owned(),
                line: index + 1,
                why,
            };
            match serde_json::from_str(line).map_err(|e| broken(e.to_string()))? {
                Line::Run { id } => run = Some(id),
                Line::Record(entry) => {
                    next = next.max(entry.id + 1);
                    open.insert(entry.id, *entry);
                }
                Line::Learned { id, uid } => learn(&mut open, id, &uid),
                Line::Done { id } => {
                    open.remove(&id);
                }
            }
        }
        let run = run.ok_or_else(|| UndoError::Broken {
            path: path.to_owned(),
            line: 1,
            why: "it does not say which run it belongs to".into(),
        })?;
        Ok(Self::new(path, run, file, next, open))
    }

    fn new(path: &Path, run: String, file: File, next: u64, open: BTreeMap<u64, Entry>) -> Self {
        Self {
            path: path.to_owned(),
            run,
            inner: Arc::new(Mutex::new(Inner { file, next, open })),
        }
    }

    /// The run whose log this is.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What is still to be undone, oldest first.
    pub fn pending(&self) -> Vec<Entry> {
        self.lock().open.values().cloned().collect()
    }

    /// Writes down what to undo, and returns once it is on disk.
    pub async fn record(&self, lane: Option<&str>, undo: Undo) -> Result<u64, UndoError> {
        let lane = lane.map(ToOwned::to_owned);
        self.write(move |inner| {
            let id = inner.next;
            inner.next += 1;
            let entry = Entry { id, lane, undo };
            append(&mut inner.file, &Line::Record(Box::new(entry.clone())))?;
            inner.open.insert(id, entry);
            Ok(id)
        })
        .await
    }

    /// Notes the UID of the object behind an entry.
    pub async fn learned(&self, id: u64, uid: &str) -> Result<(), UndoError> {
        let uid = uid.to_owned();
        self.write(move |inner| {
            learn(&mut inner.open, id, &uid);
            append(&mut inner.file, &Line::Learned { id, uid })
        })
        .await
    }

    /// Notes that an entry needs no more undoing.
    pub async fn done(&self, id: u64) -> Result<(), UndoError> {
        self.write(move |inner| {
            append(&mut inner.file, &Line::Done { id })?;
            inner.open.remove(&id);
            Ok(())
        })
        .await
    }

    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> std::io::Result<R> + Send + 'static,
    ) -> Result<R, UndoError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(source)) => Err(UndoError::at(&self.path)(source)),
            Err(_lost) => Err(UndoError::Lost {
                path: self.path.clone(),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(file: &File, path: &Path) -> Result<(), UndoError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(UndoError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(UndoError::at(path)(source)),
    }
}

fn append(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_data()
}

fn learn(open: &mut BTreeMap<u64, Entry>, id: u64, learned: &str) {
    if let Some(Entry {
        undo: Undo::Delete { uid, .. },
        ..
    }) = open.get_mut(&id)
    {
        *uid = Some(learned.to_owned());
    }
}
