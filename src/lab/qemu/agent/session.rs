//! The one task that speaks with a guest agent.
//!
//! A channel is *in step* when everything ever asked has been answered or given up before the last
//! resynchronisation. It falls out of step when an answer is given up, cannot be understood, or the
//! port in the guest closes or opens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};

use super::{AgentError, Awaited, Port};
use crate::lab::qemu::qmp::Refusal;

/// The longest line taken from an agent.
pub const MAX_LINE: usize = 4 << 20;

/// Never a byte of UTF-8, hence of JSON: sent, it makes the agent forget a half command; received, all
/// before it is of the past.
const SENTINEL: u8 = 0xff;

/// A command to carry out.
pub(super) struct Ask {
    pub(super) command: &'static str,
    pub(super) arguments: Value,
    pub(super) limit: Duration,
    pub(super) deadline: Instant,
    /// Only refusals are answered; silence is success.
    pub(super) silent: bool,
    pub(super) reply: oneshot::Sender<Result<Value, AgentError>>,
}

impl Ask {
    /// The asker may have stopped waiting.
    fn tell(self, result: Result<Value, AgentError>) {
        self.reply.send(result).ok();
    }

    fn late(&self, awaited: Awaited) -> AgentError {
        AgentError::NoAnswer {
            command: self.command,
            waited: self.limit,
            awaited,
        }
    }
}

/// Why a line did not come.
enum Stop {
    Late,
    Closed,
    Gone,
    Garbage(String),
    Io(io::Error),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Return {
        #[serde(rename = "return")]
        value: Value,
    },
    Error {
        error: Refusal,
    },
}

struct Session {
    from: FramedRead<OwnedReadHalf, AnyDelimiterCodec>,
    to: OwnedWriteHalf,
    port: watch::Receiver<Port>,
    in_step: bool,
}

/// Numbers of resynchronisations differ between all sessions of this process. Those of an earlier
/// process may recur, but their channel is gone with it.
static SYNC: AtomicU32 = AtomicU32::new(1);

/// Carries out commands until the machine or the last asker is gone.
pub(super) async fn run(
    stream: UnixStream,
    port: watch::Receiver<Port>,
    queue: mpsc::UnboundedReceiver<Ask>,
) {
    let (read, to) = stream.into_split();
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), b"\n".to_vec(), MAX_LINE);
    let mut session = Session {
        from: FramedRead::new(read, codec),
        to,
        port,
        in_step: false,
    };
    let mut line = Line {
        queue,
        held: VecDeque::new(),
    };
    while let Some(ask) = line.next().await {
        let result = tokio::select! {
            result = session.carry_out(&ask) => result,
            never = line.turn_away() => match never {},
        };
        // Answered or refused in step, the channel stays in step; the rest is in doubt.
        session.in_step &= matches!(result, Ok(_) | Err(AgentError::Refused { .. })) && !ask.silent;
        ask.tell(result);
    }
}

/// Commands that wait for their turn.
struct Line {
    queue: mpsc::UnboundedReceiver<Ask>,
    held: VecDeque<Ask>,
}

impl Line {
    /// The next command; `None` when there will be none.
    async fn next(&mut self) -> Option<Ask> {
        match self.held.pop_front() {
            Some(ask) => Some(ask),
            None => self.queue.recv().await,
        }
    }

    /// While another command is under way: tells those whose time is up.
    async fn turn_away(&mut self) -> Infallible {
        loop {
            let soonest = self.held.iter().map(|ask| ask.deadline).min();
            let arrived = match soonest {
                Some(deadline) => timeout_at(deadline, self.queue.recv()).await,
                None => Ok(self.queue.recv().await),
            };
            match arrived {
                Ok(Some(ask)) => self.held.push_back(ask),
                // Nobody can ask any more; what is held keeps its turn.
                Ok(None) => return std::future::pending().await,
                Err(_elapsed) => self.drop_late(),
            }
        }
    }

    fn drop_late(&mut self) {
        let now = Instant::now();
        let (late, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<_>, _>(|ask| ask.deadline <= now);
        self.held = held;
        for ask in late {
            let error = ask.late(Awaited::Turn);
            ask.tell(Err(error));
        }
    }
}

impl Session {
    async fn carry_out(&mut self, ask: &Ask) -> Result<Value, AgentError> {
        let command = ask.command;
        if Instant::now() >= ask.deadline {
            return Err(ask.late(Awaited::Turn));
        }
        // An agent that came back knows nothing of what was asked of the last.
        if self.port.has_changed().unwrap_or(false) {
            self.in_step = false;
        }
        if *self.port.borrow_and_update() == Port::Closed {
            return Err(AgentError::NotConnected { command });
        }
        if !self.in_step {
            let synced = self.sync(ask.deadline).await;
            synced.map_err(|stop| failure(ask, stop, Awaited::Sync))?;
            self.in_step = true;
        }
        match self.exchange(ask).await {
            Ok(Reply::Return { value }) => Ok(value),
            Ok(Reply::Error { error }) => Err(AgentError::Refused {
                command,
                class: error.class,
                desc: error.desc,
            }),
            Err(Stop::Late | Stop::Closed | Stop::Gone) if ask.silent => Ok(json!({})),
            Err(stop) => Err(failure(ask, stop, Awaited::Answer)),
        }
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Reply, Stop> {
        let mut message = json!({ "execute": ask.command });
        if !ask.arguments.is_null() {
            message["arguments"] = ask.arguments.clone();
        }
        self.write(format!("{message}\n").as_bytes(), ask.deadline)
            .await?;
        let line = self.line(ask.deadline).await?;
        serde_json::from_slice(text(&line)).map_err(|error| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            Stop::Garbage(format!("{error}: {shown}"))
        })
    }

    /// Reads over everything that is still to come of the past.
    async fn sync(&mut self, deadline: Instant) -> Result<(), Stop> {
        let id = SYNC.fetch_add(1, Ordering::Relaxed);
        let message = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        let mut bytes = vec![SENTINEL];
        bytes.extend(format!("{message}\n").bytes());
        self.write(&bytes, deadline).await?;
        loop {
            let line = match self.line(deadline).await {
                // Of the past, like the rest.
                Err(Stop::Garbage(why)) => {
                    tracing::debug!(why, "passed over while resynchronising");
                    continue;
                }
                line => line?,
            };
            if !line.contains(&SENTINEL) {
                continue;
            }
            match serde_json::from_slice(text(&line)) {
                Ok(Reply::Return { value }) if value == id => return Ok(()),
                // The answer to a resynchronisation that was given up.
                _ => {}
            }
        }
    }

    async fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Stop> {
        match timeout_at(deadline, self.to.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::Gone),
            Ok(Err(error)) => Err(Stop::Io(error)),
            Err(_elapsed) => Err(Stop::Late),
        }
    }

    /// The next line, unless the deadline passes or the port changes hands first.
    async fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, Stop> {
        let port = &mut self.port;
        let line = timeout_at(deadline, async {
            tokio::select! {
                // What was said before the port closed still counts.
                biased;
                line = self.from.next() => Ok(line),
                _ = port.changed() => Err(Stop::Closed),
            }
        });
        match line.await.map_err(|_elapsed| Stop::Late)?? {
            Some(Ok(line)) => Ok(line.to_vec()),
            Some(Err(AnyDelimiterCodecError::MaxChunkLengthExceeded)) => {
                // A framed reader pauses after an error, by one end that is none.
                let pause = self.from.next().await;
                debug_assert!(pause.is_none(), "the reader did not pause");
                Err(Stop::Garbage(format!(
                    "a line of more than {MAX_LINE} bytes"
                )))
            }
            Some(Err(AnyDelimiterCodecError::Io(error))) => Err(Stop::Io(error)),
            None => Err(Stop::Gone),
        }
    }
}

/// What follows the last sentinel.
fn text(line: &[u8]) -> &[u8] {
    line.rsplit(|byte| *byte == SENTINEL).next().unwrap_or(line)
}

fn failure(ask: &Ask, stop: Stop, awaited: Awaited) -> AgentError {
    let command = ask.command;
    match stop {
        Stop::Late => ask.late(awaited),
        Stop::Closed => AgentError::Died { command },
        Stop::Gone => AgentError::Gone { command },
        Stop::Garbage(why) => AgentError::Garbage { command, why },
        Stop::Io(source) => AgentError::Io {
            command,
            source: Arc::new(source),
        },
    }
}
