//! The QEMU Machine Protocol: commands to and events of one QEMU over one Unix socket.
//!
//! Our own two hundred lines: the crate `qapi` generates over a thousand types from the schema of
//! one QEMU release, while this driver needs two dozen commands that mean the same from 7.2 on.
//!
//! Commands may overlap; each waiter gets the answer that carries its id. The end of the connection,
//! for whatever reason, ends every waiter and every subscription with that reason.

mod event;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::task::AbortOnDropHandle;

pub use event::{BlockIoError, Event, EventKind, Events, EventsError, MigrationStatus};
use wire::Message;
pub(super) use wire::Refusal;
pub use wire::Version;

/// The longest line taken from QEMU. The longest known answer, `query-qmp-schema`, is below 1 MiB.
pub const MAX_LINE: usize = 8 << 20;

/// How long a command may stay unanswered. QEMU answers within milliseconds, unless its main loop
/// waits for storage or for a share of an overloaded host.
pub const ANSWER: Duration = Duration::from_secs(60);

/// Events kept for a subscriber that is behind. A dead disk under error policy `report` sends one
/// per failed request.
const BACKLOG: usize = 4096;

/// Why the connection to QEMU ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// End of file: QEMU is gone, or going.
    #[error("QEMU closed its control socket")]
    Closed,
    /// The socket failed.
    #[error("QEMU's control socket failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// A line longer than [`MAX_LINE`].
    #[error("QEMU sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// Not QMP, or an answer that nobody asked for.
    #[error("QEMU sent something that is no QMP message: {0}")]
    Garbage(String),
}

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QmpError {
    /// QEMU answered with an error.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class, mostly `GenericError`.
        class: String,
        /// QEMU's own words.
        desc: String,
    },
    /// The connection ended before the answer came; whether the command was carried out is unknown.
    #[error("{command} got no answer: {why}")]
    Lost {
        /// The command.
        command: String,
        /// Why the connection ended.
        #[source]
        why: LinkError,
    },
    /// No answer in time; the command may still be carried out.
    #[error("{command} got no answer from QEMU within {} s", waited.as_secs())]
    Silent {
        /// The command.
        command: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The answer has another shape than the schema says.
    #[error("the answer to {command} is not as QEMU documents it: {why}")]
    Shape {
        /// The command.
        command: String,
        /// What does not fit.
        why: String,
    },
}

type Answer = Result<Value, Refusal>;

/// What the readers and the askers share.
struct State {
    next: u64,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
    /// Gone once the connection ended, so that subscriptions end too.
    events: Option<broadcast::Sender<Event>>,
    ended: Option<LinkError>,
}

type Shared = Arc<Mutex<State>>;

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the connection for all; the first reason stands.
fn end(shared: &Shared, why: LinkError) {
    let mut state = lock(shared);
    state.ended.get_or_insert(why);
    state.events = None;
    // Waiters learn the reason from `ended`.
    state.pending.clear();
}

struct Inner {
    version: Version,
    shared: Shared,
    lines: mpsc::UnboundedSender<String>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// A connection to one QEMU, past its handshake. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub struct Qmp {
    inner: Arc<Inner>,
}

impl Qmp {
    /// Takes the greeting and enters command mode.
    pub async fn connect(stream: UnixStream) -> Result<Self, QmpError> {
        let (read, write) = stream.into_split();
        let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE));
        let greeting = timeout(ANSWER, next_line(&mut lines)).await;
        let lost = |why| QmpError::Lost {
            command: "the greeting".into(),
            why,
        };
        let version = match greeting.map_err(|elapsed| {
            tracing::debug!(%elapsed, "no greeting");
            QmpError::Silent {
                command: "the greeting".into(),
                waited: ANSWER,
            }
        })? {
            Ok(Message::Greeting(version)) => version,
            Ok(other) => return Err(lost(LinkError::Garbage(format!("{other:?}")))),
            Err(why) => return Err(lost(why)),
        };
        let shared = Arc::new(Mutex::new(State {
            next: 0,
            pending: HashMap::new(),
            events: Some(broadcast::Sender::new(BACKLOG)),
            ended: None,
        }));
        let (asks, to_write) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read_all(lines, Arc::clone(&shared)));
        let writer = tokio::spawn(write_all(write, to_write, Arc::clone(&shared)));
        let qmp = Self {
            inner: Arc::new(Inner {
                version,
                shared,
                lines: asks,
                _tasks: [reader, writer].map(AbortOnDropHandle::new),
            }),
        };
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// The release of the QEMU on the other side.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// Runs a command and waits for its answer, at most [`ANSWER`]. `arguments` is an object, or
    /// `Null` for none. A caller that stops waiting does not stop the command.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let answer = self.ask(command, arguments)?;
        let lost = || {
            let ended = lock(&self.inner.shared).ended.clone();
            QmpError::Lost {
                command: command.into(),
                why: ended.unwrap_or(LinkError::Closed),
            }
        };
        match timeout(ANSWER, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(refusal))) => Err(QmpError::Refused {
                command: command.into(),
                class: refusal.class,
                desc: refusal.desc,
            }),
            Ok(Err(_dropped)) => Err(lost()),
            Err(_elapsed) => Err(QmpError::Silent {
                command: command.into(),
                waited: ANSWER,
            }),
        }
    }

    /// As [`Self::execute`], with the answer decoded.
    pub async fn query<T: serde::de::DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T, QmpError> {
        let value = self.execute(command, arguments).await?;
        serde_json::from_value(value).map_err(|error| QmpError::Shape {
            command: command.into(),
            why: error.to_string(),
        })
    }

    /// Events from now on, until the connection ends.
    pub fn events(&self) -> Events {
        let state = lock(&self.inner.shared);
        // Of a connection that ended, a subscription that ends at once.
        let receiver = state
            .events
            .as_ref()
            .map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe);
        drop(state);
        Events::new(receiver, Arc::clone(&self.inner.shared))
    }

    fn ask(&self, command: &str, arguments: Value) -> Result<oneshot::Receiver<Answer>, QmpError> {
        let mut state = lock(&self.inner.shared);
        if let Some(why) = state.ended.clone() {
            return Err(QmpError::Lost {
                command: command.into(),
                why,
            });
        }
        let id = state.next;
        state.next += 1;
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let (reply, answer) = oneshot::channel();
        state.pending.insert(id, reply);
        // Sent under the lock, so that commands leave in the order of their ids. A writer that ended
        // says why in `ended`, and has cleared or will clear what is pending.
        if self.inner.lines.send(format!("{message}\n")).is_err() {
            state.pending.remove(&id);
        }
        Ok(answer)
    }
}

type Lines = FramedRead<OwnedReadHalf, LinesCodec>;

async fn next_line(lines: &mut Lines) -> Result<Message, LinkError> {
    match lines.next().await {
        Some(Ok(line)) => wire::parse(&line).map_err(LinkError::Garbage),
        Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Err(LinkError::TooLong),
        Some(Err(LinesCodecError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
            Err(LinkError::Garbage(error.to_string()))
        }
        Some(Err(LinesCodecError::Io(error))) => Err(LinkError::Io(Arc::new(error))),
        None => Err(LinkError::Closed),
    }
}

async fn read_all(mut lines: Lines, shared: Shared) {
    let why = loop {
        match next_line(&mut lines).await {
            Ok(message) => {
                if let Err(why) = dispatch(&shared, message) {
                    break why;
                }
            }
            Err(why) => break why,
        }
    };
    tracing::debug!(%why, "the connection to QEMU ended");
    end(&shared, why);
}

fn dispatch(shared: &Shared, message: Message) -> Result<(), LinkError> {
    let mut state = lock(shared);
    match message {
        Message::Greeting(_) => Err(LinkError::Garbage("a second greeting".into())),
        Message::Event(event) => {
            // Nobody listening is no error.
            if let Some(events) = &state.events {
                events.send(event).ok();
            }
            Ok(())
        }
        Message::Answer { id, answer } => {
            let waiter = id.and_then(|id| state.pending.remove(&id));
            let Some(waiter) = waiter else {
                return Err(LinkError::Garbage(format!(
                    "an answer to no command of ours, id {id:?}: {answer:?}"
                )));
            };
            // The asker may have stopped waiting.
            waiter.send(answer).ok();
            Ok(())
        }
    }
}

async fn write_all(
    mut to: OwnedWriteHalf,
    mut lines: mpsc::UnboundedReceiver<String>,
    shared: Shared,
) {
    while let Some(line) = lines.recv().await {
        if let Err(error) = to.write_all(line.as_bytes()).await {
            end(&shared, LinkError::Io(Arc::new(error)));
            return;
        }
    }
}
