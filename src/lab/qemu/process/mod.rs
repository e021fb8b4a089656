//! One QEMU process: started, watched, controlled, ended.
//!
//! QEMU connects to sockets that we listen on before it is started, so that starting needs no polling,
//! and a machine that is to run begins paused until everything listens: no event and no byte of the
//! console is missed. Dropping a [`Process`] kills its QEMU; so does our own end, by `setpriv`
//! (see `spawn.rs`); [`orphans`] finds what both missed.

mod arguments;
mod console;
mod drives;
mod launch;
mod life;
mod orphans;
pub(super) mod spawn;
mod start;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::agent::{Agent, Port};
use super::qmp::{Events, Qmp, QmpError};
use arguments::AGENT;
pub(super) use arguments::socket;
pub use arguments::{BadLaunch, SOCKET_BYTES};
pub use console::{Console, ConsoleError};
pub use drives::DriveError;
pub use launch::{Begin, Drive, Kernel, Launch, MAX_PORTS, NAME_BYTES, Nic, OnError, SERIAL_BYTES};
pub use life::{Exit, Shutdown};
use life::{Released, set_port};
pub use orphans::{Orphan, orphans};

/// Name of the console's transcript in a QEMU's folder.
pub const CONSOLE_FILE: &str = "console.log";
pub use start::StartError;

/// How many lines of QEMU's log go into an error.
const LOG_LINES: usize = 5;

/// The run state of a machine, by `query-status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Whether the CPUs run.
    pub running: bool,
    /// QEMU's `RunState`, such as `running`, `paused`, `io-error`, `inmigrate`, `postmigrate`.
    pub status: String,
}

/// A QEMU that runs, or ran.
pub struct Process {
    launch: Launch,
    dir: PathBuf,
    pid: u32,
    tied: bool,
    qmp: Qmp,
    agent: Option<Agent>,
    port: watch::Sender<Port>,
    released: watch::Sender<Released>,
    console: Console,
    exit: watch::Receiver<Option<Exit>>,
    kill: Arc<Notify>,
    /// Serialises changes of the drives; holds what is plugged.
    plugged: tokio::sync::Mutex<()>,
    drives: Mutex<Vec<drives::Plugged>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.launch.name)
            .field("pid", &self.pid)
            .field("exit", &*self.exit.borrow())
            .finish_non_exhaustive()
    }
}

impl Process {
    /// What it was started with. Its drives are those of the start; see [`Self::drives`].
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// What the other end of a migration is to be started with.
    pub fn twin(&self) -> Launch {
        Launch {
            begin: Begin::Incoming,
            drives: self.drives(),
            ..self.launch.clone()
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id, for humans: after the end it may belong to another.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the kernel kills it when we end. If not (no `setpriv`), [`orphans`] has to.
    pub fn is_tied(&self) -> bool {
        self.tied
    }

    /// Its control connection.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Its events from now on.
    pub fn events(&self) -> Events {
        self.qmp.events()
    }

    /// Its guest agent, if the machine has a port for one.
    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Its serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Presses the power button. A guest without an operating system ignores it.
    pub async fn powerdown(&self) -> Result<(), QmpError> {
        self.command("system_powerdown").await
    }

    /// Stops the virtual CPUs. Returns when they stand still and all I/O under way is done.
    pub async fn pause(&self) -> Result<(), QmpError> {
        self.command("stop").await
    }

    /// Lets the virtual CPUs run. After an I/O error the failed requests are tried again; if they fail
    /// again, the machine stops again.
    pub async fn resume(&self) -> Result<(), QmpError> {
        self.command("cont").await
    }

    /// Presses the reset button.
    pub async fn reset(&self) -> Result<(), QmpError> {
        self.command("system_reset").await
    }

    /// Has QEMU end in good order: requests are flushed, the guest is not asked.
    pub async fn quit(&self) -> Result<(), QmpError> {
        self.command("quit").await
    }

    /// The run state.
    pub async fn status(&self) -> Result<Status, QmpError> {
        self.qmp.query("query-status", Value::Null).await
    }

    /// Kills it, as a crash of the host would, and waits until it is reaped. Killing a dead one just
    /// tells how it ended.
    pub async fn kill(&self) -> Exit {
        self.kill.notify_one();
        self.exited().await
    }

    /// The same without waiting for the end.
    pub fn kill_soon(&self) {
        self.kill.notify_one();
    }

    /// Waits for its end. Many may wait.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone())
        {
            Ok(Some(exit)) => exit,
            // Its supervisor ends without a word only with the runtime, and so do we.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// The end of QEMU's own log.
    pub fn last_words(&self) -> String {
        tail(&self.dir.join("qemu.log"), LOG_LINES)
    }

    /// Learns from QEMU whether the agent's port is open, as after a migration, whose target may not
    /// have seen it open.
    pub(super) async fn refresh_agent(&self) -> Result<(), QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Chardev {
            label: String,
            frontend_open: bool,
        }
        let chardevs: Vec<Chardev> = self.qmp.query("query-chardev", Value::Null).await?;
        if let Some(agent) = chardevs.iter().find(|chardev| chardev.label == AGENT) {
            set_port(&self.port, Port::from(agent.frontend_open));
        }
        Ok(())
    }

    async fn command(&self, command: &str) -> Result<(), QmpError> {
        self.qmp.execute(command, Value::Null).await.map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

/// The last lines of a log, in one line.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("(its log cannot be read: {error})"),
    };
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if all.is_empty() {
        return "(none)".into();
    }
    all[all.len().saturating_sub(lines)..].join("; ")
}
