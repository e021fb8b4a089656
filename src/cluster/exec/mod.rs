//! A command in a container, through `pods/exec` over WebSocket.
//!
//! Each frame begins with the number of its channel; the last one that says anything is channel 3, a
//! `Status` that tells how the command ended. Two ways lead to a refusal: with `v5` the API server
//! upgrades before it asks the node, so that what the node refuses comes as a `Status` on channel 3;
//! with `v4` it passes the request on, and the node answers as HTTP, in plain text. Both are
//! [`Error::NotRun`].
//!
//! Giving up does not end the command: nothing kills a process whose stream is gone.

mod status;
#[cfg(test)]
mod tests;

use futures::StreamExt as _;
use http::StatusCode;
use tokio_tungstenite::tungstenite::Message;

use super::answer::Refusal;
use super::client::Cluster;
use super::crd::core::Pod;
use super::deadline::Deadline;
use super::error::{Error, Tried};
use super::kind::ObjRef;
use super::socket::{Socket, Upgrade};
use super::view::escape;
use status::Ended;

/// The subprotocols, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// As much of each stream as is kept.
const KEPT: usize = 64 << 10;
/// The longest `Status`.
const MAX_STATUS: usize = 64 << 10;

/// A command and where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container; a pod with several has no default here.
    pub container: Option<&'a str>,
    /// Program and arguments; no shell is involved.
    pub argv: &'a [String],
}

/// What a command wrote to a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The beginning, at most 64 KiB; what is not UTF-8 is replaced.
    pub text: String,
    /// Whether there was more.
    pub truncated: bool,
}

/// A command that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
}

impl Cluster {
    /// Runs a command in a container and waits for its end, whatever its exit code.
    ///
    /// [`Error::NotRun`] if it could not be started, [`Error::Timeout`] if it did not end in time,
    /// [`Error::Unreachable`] if the stream broke: it may have run then.
    pub async fn exec(&self, command: &Command<'_>, deadline: &Deadline) -> Result<Ran, Error> {
        let object = ObjRef::of::<Pod>(command.namespace, command.pod);
        let tried = self.tried(format!("running {:?} in {object}", command.argv));
        super::answer::sound(&tried, &object)?;
        let path = path(&object, command);
        let last_seen = || ("it had not ended".to_owned(), None);
        deadline
            .bound(&tried.what, last_seen, self.attach(&tried, &path))
            .await?
    }

    async fn attach(&self, tried: &Tried, path: &str) -> Result<Ran, Error> {
        match self.upgrade(tried, path, &PROTOCOLS).await? {
            Upgrade::Switched(mut socket, protocol) => {
                if protocol.is_none() {
                    return Err(Error::Answer {
                        tried: tried.clone(),
                        why: "the server speaks none of the subprotocols that say how a command ended"
                            .into(),
                    });
                }
                self.listen(tried, &mut socket).await
            }
            Upgrade::Refused(status, body) => Err(refused(tried, status, &body)),
        }
    }

    async fn listen(&self, tried: &Tried, socket: &mut Socket) -> Result<Ran, Error> {
        let broke = |seen: String| Error::Unreachable {
            tried: tried.clone(),
            url: self.url().to_owned(),
            seen,
        };
        let mut heard = Heard::default();
        let why = loop {
            match socket.next().await {
                Some(Ok(Message::Binary(frame))) => heard.take(&frame),
                // A server that knows no binary frames is none; pings are answered by the library.
                Some(Ok(Message::Close(_))) | None => break "the stream ended".to_owned(),
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.to_string(),
            }
        };
        if heard.status.is_empty() {
            let why = format!("{why} without a word on how the command ended");
            return Err(broke(why));
        }
        match status::read(&heard.status) {
            Ended::Code(code) => Ok(Ran {
                code,
                stdout: heard.stdout.into(),
                stderr: heard.stderr.into(),
            }),
            Ended::NotRun(message) => Err(Error::NotRun {
                tried: tried.clone(),
                message,
            }),
            Ended::Unknown(why) => Err(Error::Answer {
                tried: tried.clone(),
                why,
            }),
        }
    }
}

fn path(pod: &ObjRef, command: &Command<'_>) -> String {
    let mut path = format!("{}/exec?stdout=true&stderr=true", pod.path());
    let arguments = command.argv.iter().map(|word| ("command", word.as_str()));
    for (name, value) in arguments.chain(command.container.map(|name| ("container", name))) {
        path.extend(["&", name, "=", &escape(value)]);
    }
    path
}

/// An answer as HTTP: of the API server about us or about the pod, or of the node.
fn refused(tried: &Tried, status: StatusCode, body: &[u8]) -> Error {
    let refusal = Refusal::read(body);
    let tried = tried.clone();
    match status.as_u16() {
        // The node's own words are plain text.
        400 | 500 => Error::NotRun {
            tried,
            message: refusal.message,
        },
        _ if status.is_success() => Error::Answer {
            tried,
            why: format!("HTTP {status} instead of an upgrade"),
        },
        _ => refusal.into_error(tried, status),
    }
}

/// What came so far.
#[derive(Debug, Default)]
struct Heard {
    stdout: Kept,
    stderr: Kept,
    status: Vec<u8>,
}

impl Heard {
    /// Takes a frame in: a channel and bytes. Channels that are not ours are passed over.
    fn take(&mut self, frame: &[u8]) {
        let Some((channel, bytes)) = frame.split_first() else {
            return;
        };
        match channel {
            1 => self.stdout.take(bytes),
            2 => self.stderr.take(bytes),
            3 => {
                let room = MAX_STATUS.saturating_sub(self.status.len());
                self.status.extend(bytes.iter().take(room));
            }
            _ => {}
        }
    }
}

/// The beginning of a stream.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.bytes.len());
        self.truncated |= bytes.len() > room;
        self.bytes.extend(bytes.iter().take(room));
    }
}

impl From<Kept> for Output {
    fn from(kept: Kept) -> Self {
        Self {
            text: String::from_utf8_lossy(&kept.bytes).into_owned(),
            truncated: kept.truncated,
        }
    }
}
