//! The writer of `events.jsonl`: one thread gives each event its place, its times and its link in
//! the hash chain, and appends it before whoever records it goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use tokio::sync::{broadcast, oneshot, watch};

use super::chain::{self, Link};
use super::event::{Event, Fact, VERSION};
use super::segment::SegmentWriter;
use super::sync::{GROUP, Health, RecordError, Syncer, sync_dir};

/// Name of the event file in a run directory.
pub const EVENTS: &str = "events.jsonl";

/// The longest line of `events.jsonl`, bytes.
pub const MAX_LINE: usize = 4 << 20;

/// Events that a slow subscriber may lag behind before it misses some.
const LIVE: usize = 4096;

/// What an event belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The trial.
    pub trial: Option<String>,
    /// The subject.
    pub subject: Option<String>,
}

impl Scope {
    /// The run as a whole.
    pub fn run() -> Self {
        Self::default()
    }

    /// A trial as a whole.
    pub fn trial(trial: impl Into<String>) -> Self {
        Self {
            trial: Some(trial.into()),
            subject: None,
        }
    }

    /// One subject of this trial (or of the run).
    #[must_use]
    pub fn subject(&self, subject: impl Into<String>) -> Self {
        Self {
            trial: self.trial.clone(),
            subject: Some(subject.into()),
        }
    }
}

/// The run's monotonic clock: nanoseconds since the run started, going on after a resume.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: Instant,
    offset_ns: u64,
}

impl Clock {
    fn now_ns(&self) -> u64 {
        let run = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.offset_ns.saturating_add(run)
    }
}

struct Command {
    scope: Scope,
    fact: Fact,
    reply: oneshot::Sender<Result<u64, RecordError>>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    clock: Clock,
    commands: mpsc::Sender<Command>,
    live: broadcast::Sender<Arc<Event>>,
    health: Arc<Health>,
    syncer: Arc<Syncer>,
}

/// A handle on the run's history. Clones are cheap and write to the same history.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

/// Where a history goes on.
struct Position {
    seq: u64,
    link: Link,
    last_ns: u64,
}

/// What the event file must be able to do; tests put a failing disk in its place.
trait Sink: Write + Send {
    fn sync(&self) -> io::Result<()>;
}

impl Sink for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Recorder {
    /// Begins a history in `dir`, which is made if it does not exist and must hold no history yet.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self, RecordError> {
        let dir = dir.into();
        for sub in ["acks", "scans"] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path)
                .map_err(|e| RecordError::new(&path, "create the directory", &e))?;
        }
        let path = dir.join(EVENTS);
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| RecordError::new(&path, "create the file", &e))?;
        sync_dir(&dir)?;
        let start = Position {
            seq: 0,
            link: chain::GENESIS,
            last_ns: 0,
        };
        Self::over(dir, Box::new(file), start, 0)
    }

    /// Goes on with the history in `dir` after verifying it. An unfinished last line, left by a
    /// process that died while writing it, is cut off and noted.
    pub fn resume(dir: impl Into<PathBuf>) -> Result<Self, super::read::HistoryError> {
        let dir = dir.into();
        let path = dir.join(EVENTS);
        let told = super::read::events(&path)?;
        let failed = |doing: &str, e: &io::Error| RecordError::new(&path, doing, e);
        let file = File::options()
            .append(true)
            .open(&path)
            .map_err(|e| failed("open the file", &e))?;
        file.set_len(told.whole)
            .and_then(|()| file.sync_all())
            .map_err(|e| failed("cut off the unfinished line", &e))?;
        let (last_ns, offset_ns) = told.events.last().map_or((0, 0), |last| {
            // The wall clock bridges the time in which no process ran; it never goes backwards here.
            let away = jiff::Timestamp::now().as_nanosecond() - last.wall.as_nanosecond();
            let away = u64::try_from(away.max(1_000_000)).unwrap_or(u64::MAX / 2);
            (last.at_ns, last.at_ns.saturating_add(away))
        });
        let position = Position {
            seq: u64::try_from(told.events.len()).unwrap_or(u64::MAX),
            link: told.link,
            last_ns,
        };
        let recorder = Self::over(dir, Box::new(file), position, offset_ns)?;
        if told.torn > 0 {
            let text = format!("{} bytes of an unfinished event were cut off", told.torn);
            recorder.send(Scope::run(), Fact::Note { text })?;
        }
        Ok(recorder)
    }

    fn over(
        dir: PathBuf,
        sink: Box<dyn Sink>,
        position: Position,
        offset_ns: u64,
    ) -> Result<Self, RecordError> {
        let health = Arc::new(Health::new());
        let (commands, inbox) = mpsc::channel();
        let (live, _) = broadcast::channel(LIVE);
        let clock = Clock {
            origin: Instant::now(),
            offset_ns,
        };
        let writer = Writer {
            path: dir.join(EVENTS),
            sink,
            position,
            clock,
            live: live.clone(),
            health: Arc::clone(&health),
            dirty: None,
        };
        let spawn = std::thread::Builder::new()
            .name("history-events".into())
            .spawn(move || writer.run(&inbox));
        let syncer = spawn
            .and_then(|_| Syncer::start(Arc::clone(&health)))
            .map_err(|e| RecordError::new(&dir, "start the history's threads", &e))?;
        Ok(Self(Arc::new(Inner {
            dir,
            clock,
            commands,
            live,
            health,
            syncer: Arc::new(syncer),
        })))
    }

    /// Appends what happened and gives its place in the history. When this returns, the event was
    /// handed to the operating system; facts on which the run acts ([`Fact::is_phase`]) are on the
    /// disk. Once begun it happens even if the returned future is dropped. Errors are final
    /// ([`RecordError`]) and must end the run.
    pub async fn record(&self, scope: &Scope, fact: Fact) -> Result<u64, RecordError> {
        let answer = self.send(scope.clone(), fact)?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// As [`Self::record`] for whoever cannot wait: the event takes its place after those recorded
    /// before and ahead of those after. That it could not be kept shows in [`Self::failure`] and to
    /// whoever records next.
    pub fn post(&self, scope: &Scope, fact: Fact) -> Result<(), RecordError> {
        self.send(scope.clone(), fact).map(drop)
    }

    fn send(
        &self,
        scope: Scope,
        fact: Fact,
    ) -> Result<oneshot::Receiver<Result<u64, RecordError>>, RecordError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { scope, fact, reply };
        match self.0.commands.send(command) {
            Ok(()) => Ok(answer),
            Err(_) => Err(self.gone()),
        }
    }

    fn gone(&self) -> RecordError {
        let error = io::Error::other("the history's writer has ended");
        self.0
            .health
            .fail(RecordError::new(&self.0.dir, "append an event", &error))
    }

    /// Begins the ack segment of an incarnation, `acks/NAME.seg`.
    pub fn segment(&self, name: &str) -> Result<SegmentWriter, RecordError> {
        SegmentWriter::create(&self.0.dir, name, &self.0.syncer)
    }

    /// The run's monotonic clock, nanoseconds since the run started: the one clock of events, ack
    /// records and tokens.
    pub fn now_ns(&self) -> u64 {
        self.0.clock.now_ns()
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Every event from now on, for showing progress. A subscriber that lags misses events; the
    /// history does not.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.live.subscribe()
    }

    /// Becomes `Some` when the history can no longer be kept; the run must then stop.
    pub fn failure(&self) -> watch::Receiver<Option<RecordError>> {
        self.0.health.watch()
    }
}

struct Writer {
    path: PathBuf,
    sink: Box<dyn Sink>,
    position: Position,
    clock: Clock,
    live: broadcast::Sender<Arc<Event>>,
    health: Arc<Health>,
    /// When the oldest event that is not on the disk yet was appended.
    dirty: Option<Instant>,
}

impl Writer {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        loop {
            let next = match self.dirty {
                None => inbox.recv().map_err(RecvTimeoutError::from),
                Some(since) => inbox.recv_timeout(GROUP.saturating_sub(since.elapsed())),
            };
            match next {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => self.sync_noting(),
                Err(RecvTimeoutError::Disconnected) => return self.sync_noting(),
            }
            if self.dirty.is_some_and(|since| since.elapsed() >= GROUP) {
                self.sync_noting();
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let urgent = command.fact.is_phase();
        let mut done = self.append(command.scope, command.fact);
        if urgent && done.is_ok() {
            done = self.sync().and(done);
        }
        if let Err(Err(error)) = command.reply.send(done) {
            // Nobody waits for the answer any more; `failure()` has told the run.
            tracing::error!(%error, "an event was not recorded");
        }
    }

    fn append(&mut self, scope: Scope, fact: Fact) -> Result<u64, RecordError> {
        self.health.check()?;
        let event = Event {
            v: VERSION,
            seq: self.position.seq,
            at_ns: self.clock.now_ns().max(self.position.last_ns),
            wall: jiff::Timestamp::now(),
            trial: scope.trial,
            subject: scope.subject,
            fact,
        };
        let refuse = |what: &str| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            let error = RecordError::new(&self.path, "append an event", &error);
            self.health.fail(error)
        };
        let object = serde_json::to_string(&event).map_err(|e| refuse(&e.to_string()))?;
        let (mut line, hash) = chain::seal(&object, &self.position.link)
            .ok_or_else(|| refuse("an event must serialise to a JSON object"))?;
        if line.len() >= MAX_LINE {
            return Err(refuse(&format!(
                "the event is longer than {MAX_LINE} bytes"
            )));
        }
        line.push('\n');
        self.sink.write_all(line.as_bytes()).map_err(|e| {
            self.health
                .fail(RecordError::new(&self.path, "append an event", &e))
        })?;
        self.position = Position {
            seq: event.seq + 1,
            link: hash,
            last_ns: event.at_ns,
        };
        self.dirty.get_or_insert_with(Instant::now);
        let seq = event.seq;
        if self.live.receiver_count() > 0 && self.live.send(Arc::new(event)).is_err() {
            tracing::debug!(seq, "the last subscriber left");
        }
        Ok(seq)
    }

    fn sync(&mut self) -> Result<(), RecordError> {
        self.dirty = None;
        self.sink
            .sync()
            .map_err(|e| self.health.fail(RecordError::new(&self.path, "fsync", &e)))
    }

    /// Without a caller to tell, a failure goes to `failure()` and to every later `record`.
    fn sync_noting(&mut self) {
        if self.dirty.is_some()
            && let Err(error) = self.sync()
        {
            tracing::error!(%error, "the history is no longer durable");
        }
    }
}

#[cfg(test)]
mod tests;
