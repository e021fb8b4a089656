//! One command on one channel: its streams kept apart and limited, its end typed.

use std::fmt;
use std::io;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{GuestError, printable_tail};
use super::limit::within;
use super::shell::Shell;
use crate::cluster::Deadline;

/// The most of stdout that is collected unless a job says otherwise, bytes.
const STDOUT_LIMIT: usize = 1 << 20;
/// The most of stderr that is kept, bytes; of more, the end.
const STDERR_KEPT: usize = 16 * 1024;
/// How much of stderr a message shows, bytes.
const STDERR_SHOWN: usize = 600;
/// What a stream buffers before the guest has to wait, bytes.
const PIPE: usize = 256 * 1024;
/// SSH_EXTENDED_DATA_STDERR, RFC 4254 §5.2.
const STDERR: u32 = 1;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(u32),
    /// A signal ended it.
    Signal(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// A command to run: fixed words, never text from outside (see `probe::remote`).
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What the login shell is given.
    pub command: &'a str,
    /// What the command reads.
    pub stdin: &'a [u8],
    /// More stdout than this, in bytes, is an error.
    pub stdout_limit: usize,
}

impl<'a> Job<'a> {
    /// A command with an empty stdin and the usual limit.
    pub const fn new(command: &'a str) -> Self {
        Self {
            command,
            stdin: &[],
            stdout_limit: STDOUT_LIMIT,
        }
    }

    /// With these bytes on its stdin.
    #[must_use]
    pub const fn stdin(mut self, bytes: &'a [u8]) -> Self {
        self.stdin = bytes;
        self
    }

    /// With another limit on stdout.
    #[must_use]
    pub const fn stdout_limit(mut self, bytes: usize) -> Self {
        self.stdout_limit = bytes;
        self
    }
}

/// What a command that ran to its end left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command.
    pub command: String,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// The end of its stderr.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit: Exit,
}

impl Output {
    /// Requires success.
    pub fn check(self) -> Result<Self, GuestError> {
        if self.exit == Exit::Status(0) {
            return Ok(self);
        }
        Err(failed(&self.command, self.exit, &self.stderr))
    }

    /// Its stdout as text; bytes that are not UTF-8 become replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// How a streamed command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The command.
    pub command: String,
    /// The end of its stderr.
    pub stderr: Vec<u8>,
    /// How it ended; `None` if the connection broke first.
    pub exit: Option<Exit>,
    /// Why there is no exit.
    pub broken: String,
}

impl Finished {
    /// Requires that the command ended by itself and successfully.
    pub fn check(self) -> Result<(), GuestError> {
        match self.exit {
            Some(Exit::Status(0)) => Ok(()),
            Some(exit) => Err(failed(&self.command, exit, &self.stderr)),
            None => Err(GuestError::Broken {
                doing: format!("running `{}`", self.command),
                why: self.broken,
            }),
        }
    }
}

/// The end of a streamed command, awaited after its stdout is read to the end.
#[derive(Debug)]
pub struct Ended {
    command: String,
    receiver: oneshot::Receiver<Finished>,
}

impl Ended {
    /// How it ended. Waits for ever if nobody reads the command's stdout.
    pub async fn wait(self) -> Finished {
        self.receiver.await.unwrap_or_else(|_pump_gone| Finished {
            command: self.command,
            stderr: Vec::new(),
            exit: None,
            broken: "the stream was dropped".into(),
        })
    }
}

/// A running command as streams. When all of this is dropped its channel is closed.
pub struct Streams {
    /// What the command reads; shut it down for end-of-file.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What the command writes; ends when the command or the connection does.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// How it ends.
    pub ended: Ended,
    /// Closes the channel when dropped.
    pub guard: DropGuard,
}

fn failed(command: &str, exit: Exit, stderr: &[u8]) -> GuestError {
    GuestError::ExecFailed {
        command: command.to_owned(),
        exit,
        stderr: match printable_tail(stderr, STDERR_SHOWN) {
            text if text.is_empty() => "(nothing on stderr)".into(),
            text => text,
        },
    }
}

/// What came on a channel besides stdout.
#[derive(Default)]
struct Rest {
    stderr: Vec<u8>,
    exit: Option<Exit>,
}

impl Rest {
    /// Takes in a message that is not stdout data.
    fn take(&mut self, message: ChannelMsg) {
        match message {
            ChannelMsg::ExtendedData { data, ext: STDERR } => {
                self.stderr.extend_from_slice(&data);
                // Cut in large steps: a flood of stderr costs no more than its reading.
                if self.stderr.len() > 2 * STDERR_KEPT {
                    self.stderr.drain(..self.stderr.len() - STDERR_KEPT);
                }
            }
            ChannelMsg::ExitStatus { exit_status } => self.exit = Some(Exit::Status(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                let name = printable_tail(format!("{signal_name:?}").as_bytes(), 40);
                self.exit = Some(Exit::Signal(name));
            }
            _ => {}
        }
    }
}

/// Asks for the command and waits until the server says that it runs.
async fn begin(shell: &Shell, channel: &mut Channel<Msg>, command: &str) -> Result<(), GuestError> {
    let doing = || format!("starting `{command}`");
    channel
        .exec(true, command)
        .await
        .map_err(|e| shell.broken(&doing(), &e))?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure) => {
                return Err(GuestError::ExecRefused {
                    command: command.to_owned(),
                });
            }
            Some(_) => {}
            None => {
                return Err(GuestError::Broken {
                    doing: doing(),
                    why: shell.ended(),
                });
            }
        }
    }
}

/// Runs a job and collects what it writes.
pub(super) async fn collect(
    shell: &Shell,
    mut channel: Channel<Msg>,
    job: &Job<'_>,
    deadline: &Deadline,
) -> Result<Output, GuestError> {
    let mut stdout = Vec::new();
    let mut rest = Rest::default();
    let seen = std::cell::Cell::new(0_usize);
    let work = async {
        begin(shell, &mut channel, job.command).await?;
        let (mut reader, writer) = channel.split();
        let feed = feed(&writer, job.stdin);
        let read = async {
            while let Some(message) = reader.wait().await {
                match message {
                    ChannelMsg::Data { data } => {
                        if stdout.len() + data.len() > job.stdout_limit {
                            return Err(GuestError::TooMuchOutput {
                                command: job.command.to_owned(),
                                stream: "stdout",
                                limit: job.stdout_limit,
                            });
                        }
                        stdout.extend_from_slice(&data);
                        seen.set(stdout.len());
                    }
                    other => rest.take(other),
                }
            }
            Ok(())
        };
        // The command's end decides: it may end without reading all of its stdin, and a connection
        // that broke is seen by the reader.
        let ended = drive(read, feed).await;
        // Unread messages would hold up the whole connection, and the close with it.
        drop(reader);
        if let Err(error) = writer.close().await {
            tracing::trace!(%error, "the channel is closed already");
        }
        ended
    };
    let what = format!("`{}` to end", job.command);
    within(
        deadline,
        what,
        || format!("{} bytes of output", seen.get()),
        work,
    )
    .await?;
    match rest.exit {
        Some(exit) => Ok(Output {
            command: job.command.to_owned(),
            stdout,
            stderr: rest.stderr,
            exit,
        }),
        None => Err(GuestError::Broken {
            doing: format!("running `{}`", job.command),
            why: shell.ended(),
        }),
    }
}

/// Runs `main` to its end with `side` beside it for as long as that takes.
async fn drive<T>(main: impl Future<Output = T>, side: impl Future<Output = ()>) -> T {
    let (main, side) = (std::pin::pin!(main), std::pin::pin!(side));
    match futures::future::select(main, side).await {
        futures::future::Either::Left((done, _side)) => done,
        futures::future::Either::Right(((), main)) => main.await,
    }
}

/// Writes all of `stdin` and its end.
async fn feed(writer: &ChannelWriteHalf<Msg>, stdin: &[u8]) {
    let mut to = writer.make_writer();
    let written: io::Result<()> = async {
        if !stdin.is_empty() {
            to.write_all(stdin).await?;
        }
        to.shutdown().await
    }
    .await;
    if let Err(error) = written {
        // Not lost: the command then fails or the reader finds the connection broken.
        tracing::debug!(%error, "the command took not all of its stdin");
    }
}

/// Starts a command and hands out its streams.
pub(super) async fn streams(
    shell: &Shell,
    mut channel: Channel<Msg>,
    command: &str,
    deadline: &Deadline,
) -> Result<Streams, GuestError> {
    let what = format!("`{command}` to start");
    let start = begin(shell, &mut channel, command);
    within(deadline, what, || "no answer yet".into(), start).await?;
    let (reader, writer) = channel.split();
    let stdin = Box::new(writer.make_writer());
    let (stdout, pipe) = tokio::io::duplex(PIPE);
    let (sender, receiver) = oneshot::channel();
    let closed = CancellationToken::new();
    let pump = Pump {
        reader,
        writer,
        pipe,
        closed: closed.clone(),
        trace: shell.trace(),
        command: command.to_owned(),
    };
    tokio::spawn(pump.run(sender));
    Ok(Streams {
        stdin,
        stdout: Box::new(stdout),
        ended: Ended {
            command: command.to_owned(),
            receiver,
        },
        guard: closed.drop_guard(),
    })
}

/// Carries a channel's messages to where they are read.
struct Pump {
    reader: ChannelReadHalf,
    writer: ChannelWriteHalf<Msg>,
    pipe: DuplexStream,
    closed: CancellationToken,
    trace: std::sync::Arc<super::client::Trace>,
    command: String,
}

impl Pump {
    async fn run(mut self, sender: oneshot::Sender<Finished>) {
        let mut rest = Rest::default();
        let closed = self.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.carry(&mut rest) => {}
        }
        // Unread messages would hold up the whole connection, and the close with it.
        drop(self.reader);
        if let Err(error) = self.writer.close().await {
            tracing::trace!(%error, "the channel is closed already");
        }
        // End of stdout before the verdict, so that a reader of both never waits on itself.
        drop(self.pipe);
        let unheard = sender.send(Finished {
            command: self.command,
            stderr: rest.stderr,
            exit: rest.exit,
            broken: self.trace.ended(),
        });
        if unheard.is_err() {
            tracing::trace!("nobody waits for the end of the command");
        }
    }

    async fn carry(&mut self, rest: &mut Rest) {
        while let Some(message) = self.reader.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    if self.pipe.write_all(&data).await.is_err() {
                        return; // The reader is gone.
                    }
                }
                other => rest.take(other),
            }
        }
    }
}
