//! The lab's control socket: one JSON request per line, one JSON answer per line, on a Unix socket
//! that only its owner can open. `virtproof lab …` speaks it, and so do plans whose `powerOff`
//! command is `virtproof lab power primary off`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::history::event::Site;

/// What the lab can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// Say how the lab is.
    Status,
    /// Plant a fault by name, or heal it.
    Fault {
        /// Its name in the fault table.
        name: String,
        /// `false` heals it.
        active: bool,
    },
    /// Cut or restore the power of a whole site.
    Power {
        /// Which.
        site: Site,
        /// `true` restores it.
        on: bool,
    },
    /// Stop the lab.
    Down,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// Done.
    Done,
    /// How the lab is.
    Status(Status),
    /// It could not be done.
    Refused {
        /// Why, and what would work.
        why: String,
    },
}

/// How a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Process id of the lab.
    pub pid: u32,
    /// Kubeconfig of each site.
    pub kubeconfigs: Vec<PathBuf>,
    /// Faults planted.
    pub faults: Vec<String>,
    /// Sites without power.
    pub dark: Vec<Site>,
}

/// A lab could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing listens.
    #[error("no lab answers at {}: start one with `virtproof lab up --dir {}`", path.display(), folder(path).display())]
    NotUp {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        source: std::io::Error,
    },
    /// It hung up or talked nonsense.
    #[error("the lab at {} did not answer as expected", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        source: std::io::Error,
    },
}

/// The folder of a control socket.
fn folder(socket: &Path) -> &Path {
    socket.parent().unwrap_or(socket)
}

/// Longest request or answer.
const LIMIT: u64 = 64 * 1024;

/// The control socket of a lab folder.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Asks the lab of a folder.
pub async fn ask(dir: &Path, request: &Request) -> Result<Answer, ControlError> {
    let path = socket(dir);
    let stream = UnixStream::connect(&path)
        .await
        .map_err(|source| ControlError::NotUp {
            path: path.clone(),
            source,
        })?;
    talk(stream, request)
        .await
        .map_err(|source| ControlError::Broken { path, source })
}

async fn talk(stream: UnixStream, request: &Request) -> std::io::Result<Answer> {
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut answer = String::new();
    BufReader::new(read.take(LIMIT))
        .read_line(&mut answer)
        .await?;
    Ok(serde_json::from_str(&answer)?)
}

/// Serves requests until the listener fails or the task is dropped. `act` does the deed.
pub async fn serve<F>(listener: UnixListener, act: F) -> std::io::Result<()>
where
    F: Fn(Request) -> Answer,
{
    loop {
        let (stream, _) = listener.accept().await?;
        // One client at a time: requests are rare and must not overlap.
        if let Err(error) = answer(stream, &act).await {
            tracing::warn!(%error, "a control client went away");
        }
    }
}

async fn answer<F>(stream: UnixStream, act: &F) -> std::io::Result<()>
where
    F: Fn(Request) -> Answer,
{
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LIMIT))
        .read_line(&mut line)
        .await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => act(request),
        Err(error) => Answer::Refused {
            why: format!("not a request: {error}"),
        },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    write.write_all(&text).await
}
