//! The QEMU guest agent, from the host: one command at a time, typed answers, and never an answer
//! taken for another's.
//!
//! The agent's channel has no ids. Whoever stops waiting leaves an answer in it that comes some day, so
//! a channel in doubt is resynchronised first (`guest-sync-delimited`). Commands are carried out by a
//! task of their own: a caller who stops waiting changes nothing for the command, and can keep the
//! [`Answer`] to wait on later. A freeze under way *will* freeze.

mod session;
mod types;

#[cfg(test)]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use session::Ask;
pub use session::MAX_LINE;
pub use types::{
    Address, Command, Disk, FileSystem, FreezeStatus, HostName, Info, Interface, OsInfo, TimeZone,
    User,
};

/// Ample for any command but a freeze, on an overloaded host.
pub const QUICK: Duration = Duration::from_secs(30);

/// The guest's end of the agent's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// No program in the guest has it open.
    Closed,
    /// The agent, presumably, has it open.
    Open,
}

impl From<bool> for Port {
    fn from(open: bool) -> Self {
        if open { Self::Open } else { Self::Closed }
    }
}

/// What was awaited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The end of an earlier command.
    Turn,
    /// The agent's answer to `guest-sync-delimited`: it is stuck or still busy.
    Sync,
    /// The answer itself.
    Answer,
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Turn => "an earlier command was still under way",
            Self::Sync => "it did not even answer guest-sync-delimited",
            Self::Answer => "it was in step before",
        })
    }
}

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    /// No agent runs in the guest.
    #[error("{command} was not sent: no agent has the guest's port open")]
    NotConnected {
        /// The command.
        command: &'static str,
    },
    /// No answer in time. The command may be carried out all the same, even later.
    #[error("the guest agent did not answer {command} within {} s: {awaited}", waited.as_secs_f32())]
    NoAnswer {
        /// The command.
        command: &'static str,
        /// The deadline given.
        waited: Duration,
        /// What was missing.
        awaited: Awaited,
    },
    /// The agent closed its port before it answered.
    #[error("the guest agent went away during {command}")]
    Died {
        /// The command.
        command: &'static str,
    },
    /// The agent said no.
    #[error("the guest agent refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: &'static str,
        /// Error class.
        class: String,
        /// The agent's own words.
        desc: String,
    },
    /// The answer is not JSON, too long, or has another shape than documented.
    #[error("the guest agent's answer to {command} is not understood: {why}")]
    Garbage {
        /// The command.
        command: &'static str,
        /// What does not fit.
        why: String,
    },
    /// The machine ended.
    #[error("{command} has no answer: the machine ended")]
    Gone {
        /// The command.
        command: &'static str,
    },
    /// The host's end of the channel failed.
    #[error("{command} has no answer: the agent's channel failed: {source}")]
    Io {
        /// The command.
        command: &'static str,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
}

/// An answer to come. Waiting may be given up and taken up again; dropping it gives up the answer, not
/// the command.
#[must_use = "the command runs, but nobody learns how it ends"]
pub struct Answer<T> {
    command: &'static str,
    reply: oneshot::Receiver<Result<Value, AgentError>>,
    decoded: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for Answer<T> {
    type Output = Result<T, AgentError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let command = self.command;
        Pin::new(&mut self.reply).poll(context).map(|reply| {
            let value = reply.map_err(|_dropped| AgentError::Gone { command })??;
            serde_json::from_value(value).map_err(|error| AgentError::Garbage {
                command,
                why: error.to_string(),
            })
        })
    }
}

/// A nothing that the agent says as `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Done {}

/// The agent of one guest.
pub struct Agent {
    asks: mpsc::UnboundedSender<Ask>,
    port: watch::Receiver<Port>,
    _task: AbortOnDropHandle<()>,
}

impl Agent {
    /// Talks over the character device's socket; `port` follows the guest's end of it.
    pub fn new(stream: UnixStream, port: watch::Receiver<Port>) -> Self {
        let (asks, queue) = mpsc::unbounded_channel();
        let session = session::run(stream, port.clone(), queue);
        Self {
            asks,
            port,
            _task: AbortOnDropHandle::new(tokio::spawn(session)),
        }
    }

    /// Follows whether an agent has the port open.
    pub fn port(&self) -> watch::Receiver<Port> {
        self.port.clone()
    }

    /// Queues a command. `limit` counts from now, and includes the wait for commands before it.
    fn ask<T>(&self, command: &'static str, arguments: Value, limit: Duration) -> Answer<T> {
        self.queue(command, arguments, limit, false)
    }

    fn queue<T>(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
        silent: bool,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            command,
            arguments,
            limit,
            deadline: Instant::now() + limit,
            silent,
            reply,
        };
        // A session that ended drops the reply, which the answer tells as `Gone`.
        self.asks.send(ask).ok();
        Answer {
            command,
            reply: answer,
            decoded: PhantomData,
        }
    }

    /// `guest-ping`: whether it answers.
    pub fn ping(&self, limit: Duration) -> Answer<Done> {
        self.ask("guest-ping", Value::Null, limit)
    }

    /// `guest-info`: version and commands.
    pub fn info(&self, limit: Duration) -> Answer<Info> {
        self.ask("guest-info", Value::Null, limit)
    }

    /// `guest-get-osinfo`: the operating system.
    pub fn os_info(&self, limit: Duration) -> Answer<OsInfo> {
        self.ask("guest-get-osinfo", Value::Null, limit)
    }

    /// `guest-get-fsinfo`: mounted file systems and the disks under them.
    pub fn file_systems(&self, limit: Duration) -> Answer<Vec<FileSystem>> {
        self.ask("guest-get-fsinfo", Value::Null, limit)
    }

    /// `guest-get-host-name`.
    pub fn host_name(&self, limit: Duration) -> Answer<HostName> {
        self.ask("guest-get-host-name", Value::Null, limit)
    }

    /// `guest-get-timezone`.
    pub fn time_zone(&self, limit: Duration) -> Answer<TimeZone> {
        self.ask("guest-get-timezone", Value::Null, limit)
    }

    /// `guest-get-users`: who is logged in.
    pub fn users(&self, limit: Duration) -> Answer<Vec<User>> {
        self.ask("guest-get-users", Value::Null, limit)
    }

    /// `guest-network-get-interfaces`.
    pub fn interfaces(&self, limit: Duration) -> Answer<Vec<Interface>> {
        self.ask("guest-network-get-interfaces", Value::Null, limit)
    }

    /// `guest-fsfreeze-status`. Answered by a frozen guest too.
    pub fn freeze_status(&self, limit: Duration) -> Answer<FreezeStatus> {
        self.ask("guest-fsfreeze-status", Value::Null, limit)
    }

    /// `guest-fsfreeze-freeze`: freezes all file systems that can be; the answer is their number. The
    /// agent writes back dirty data first, and answers nothing else meanwhile. After
    /// [`AgentError::NoAnswer`] the guest may be frozen, or become so: thaw it.
    pub fn freeze(&self, limit: Duration) -> Answer<u32> {
        self.ask("guest-fsfreeze-freeze", Value::Null, limit)
    }

    /// `guest-fsfreeze-freeze-list`: as [`Self::freeze`], of the file systems at these mount points.
    pub fn freeze_list(&self, mountpoints: &[&str], limit: Duration) -> Answer<u32> {
        let arguments = json!({ "mountpoints": mountpoints });
        self.ask("guest-fsfreeze-freeze-list", arguments, limit)
    }

    /// `guest-fsfreeze-thaw`: thaws all; the answer is the number of file systems that were thawed, 0
    /// if none was frozen.
    pub fn thaw(&self, limit: Duration) -> Answer<u32> {
        self.ask("guest-fsfreeze-thaw", Value::Null, limit)
    }

    /// `guest-shutdown`. The agent answers only to refuse; so this answers when `limit` has passed in
    /// silence, or the agent or the machine has gone.
    pub fn shutdown(&self, mode: Mode, limit: Duration) -> Answer<Done> {
        let mode = match mode {
            Mode::PowerDown => "powerdown",
            Mode::Reboot => "reboot",
            Mode::Halt => "halt",
        };
        self.queue("guest-shutdown", json!({ "mode": mode }), limit, true)
    }
}

/// What `guest-shutdown` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Off.
    PowerDown,
    /// Off and on.
    Reboot,
    /// Stops without power off.
    Halt,
}
