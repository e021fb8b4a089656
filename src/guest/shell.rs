//! An authenticated SSH connection over any stream: runs commands and opens streams, and says in
//! types what went wrong.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::PrivateKeyWithHashAlg;
use russh::{Channel, ChannelOpenFailure, Disconnect, Error as SshError};

use super::client::{Client, Inner, Trace, is_cut};
use super::error::GuestError;
use super::hostkey::{HostKeyRule, HostSeen, Pins};
use super::keys::LoginKey;
use super::limit::within;
use super::route::{BoxStream, HostPort, Route};
use super::tap::{Head, Tap};
use crate::cluster::Deadline;

pub use super::exec::{Ended, Exit, Finished, Job, Output, Streams};

/// A silent server is asked for a sign of life this often …
const KEEPALIVE: Duration = Duration::from_secs(5);
/// … and given up after this many unanswered.
const KEEPALIVE_MAX: usize = 3;
/// How long a goodbye may take on a connection that may be stuck.
const GOODBYE: Duration = Duration::from_secs(1);

/// Who logs in, and what is asked of the host key.
#[derive(Debug, Clone)]
pub struct Login {
    /// Login name.
    pub user: String,
    /// The key.
    pub key: LoginKey,
    /// Where host keys are pinned.
    pub pins: Arc<Pins>,
    /// What is asked of the host key.
    pub host_key: HostKeyRule,
}

/// A step on the way to a shell, told at the moment it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// The route opened.
    Dialed,
    /// The server's banner was read: a kernel and a network are up.
    Banner,
    /// Logged in.
    Authenticated,
}

/// Told of each milestone, from any task, without blocking.
pub type OnMilestone = Arc<dyn Fn(Milestone) + Send + Sync>;

/// An authenticated connection. Commands run side by side on it; it closes when it is dropped.
pub struct Shell {
    handle: Handle<Client>,
    trace: Arc<Trace>,
    route: String,
    user: String,
    host: HostSeen,
}

impl Shell {
    /// Opens the route and logs in: one attempt, see [`super::connect`] for more.
    pub async fn connect(
        route: &Route,
        login: &Login,
        deadline: &Deadline,
        on: Option<OnMilestone>,
    ) -> Result<Self, GuestError> {
        let stream = route.open(deadline).await?;
        Self::over(stream, &route.to_string(), login, deadline, on).await
    }

    /// Logs in over a stream that is already open; `route` names it in messages.
    pub async fn over(
        stream: BoxStream,
        route: &str,
        login: &Login,
        deadline: &Deadline,
        on: Option<OnMilestone>,
    ) -> Result<Self, GuestError> {
        let tell = on.unwrap_or_else(|| Arc::new(|_| ()));
        tell(Milestone::Dialed);
        let head = Arc::new(Head::default());
        let on_banner = Arc::clone(&tell);
        let stream = Tap::new(stream, Arc::clone(&head), move || {
            on_banner(Milestone::Banner);
        });
        let trace = Arc::new(Trace::default());
        let client = Client {
            pins: Arc::clone(&login.pins),
            rule: login.host_key.clone(),
            trace: Arc::clone(&trace),
        };
        let mut handle = {
            let handshake = async {
                client::connect_stream(config(), stream, client)
                    .await
                    .map_err(|e| handshake_error(route, e, &head))
            };
            let last_seen = || match (head.banner(), head.first_line()) {
                (true, _) => "the banner, but no end of the key exchange".into(),
                (false, line) if line.is_empty() => "an open stream without a byte on it".into(),
                (false, line) => format!("`{line}` instead of a banner"),
            };
            let what = format!("an SSH server on {route}");
            within(deadline, what, last_seen, Box::pin(handshake)).await?
        };
        authenticate(&mut handle, &trace, route, login, deadline).await?;
        tell(Milestone::Authenticated);
        let host = trace
            .host
            .get()
            .cloned()
            .ok_or_else(|| GuestError::Handshake {
                route: route.to_owned(),
                why: "the server proved no host key".into(),
            })?;
        Ok(Self {
            handle,
            trace,
            route: route.to_owned(),
            user: login.user.clone(),
            host,
        })
    }

    /// The server's host key and how it compares with the pin.
    pub const fn host(&self) -> &HostSeen {
        &self.host
    }

    /// The login name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the connection is known to have ended.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Runs a command with nothing on its stdin and requires that it succeeds.
    pub async fn exec(&self, command: &str, deadline: &Deadline) -> Result<Output, GuestError> {
        self.run(&Job::new(command), deadline).await?.check()
    }

    /// Runs a command once, whatever its exit status. After [`GuestError::Broken`] or
    /// [`GuestError::Timeout`] it may or may not have run.
    pub async fn run(&self, job: &Job<'_>, deadline: &Deadline) -> Result<Output, GuestError> {
        let channel = self.session(job.command, deadline).await?;
        super::exec::collect(self, channel, job, deadline).await
    }

    /// Runs a command as a pair of streams, until both are dropped or it ends.
    pub async fn stream(&self, command: &str, deadline: &Deadline) -> Result<Streams, GuestError> {
        let channel = self.session(command, deadline).await?;
        super::exec::streams(self, channel, command, deadline).await
    }

    /// A stream that the server opens to `target`.
    pub(super) async fn forward(
        &self,
        target: &HostPort,
        deadline: &Deadline,
    ) -> Result<BoxStream, GuestError> {
        let route = format!("{target} from {}", self.route);
        let open = async {
            let port = u32::from(target.port);
            let opened = self
                .handle
                .channel_open_direct_tcpip(target.host.as_str(), port, "127.0.0.1", 0)
                .await;
            match opened {
                Ok(channel) => Ok(Box::new(channel.into_stream()) as BoxStream),
                Err(SshError::ChannelOpenFailure(reason)) => Err(GuestError::Dial {
                    route: route.clone(),
                    why: format!("the jump host refused: {reason:?}"),
                    permanent: !matches!(
                        reason,
                        ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage
                    ),
                }),
                Err(error) => Err(self.broken(&format!("opening {route}"), &error)),
            }
        };
        within(
            deadline,
            &route,
            || "no answer from the jump host".into(),
            open,
        )
        .await
    }

    /// Says goodbye if that takes no more than a moment; the server then closes. Dropping the shell
    /// closes too, without the goodbye.
    pub async fn close(self) {
        let bye = self
            .handle
            .disconnect(Disconnect::ByApplication, "done", "en");
        match tokio::time::timeout(GOODBYE, bye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(route = %self.route, %error, "the connection was gone already");
            }
            Err(_elapsed) => {
                tracing::debug!(route = %self.route, "the connection takes no goodbye");
            }
        }
    }

    /// A new session channel.
    async fn session(
        &self,
        command: &str,
        deadline: &Deadline,
    ) -> Result<Channel<Msg>, GuestError> {
        let open = async {
            self.handle
                .channel_open_session()
                .await
                .map_err(|e| self.broken(&format!("opening a channel for `{command}`"), &e))
        };
        let what = format!("a channel for `{command}`");
        within(deadline, what, || "no answer yet".into(), open).await
    }

    /// The error for a connection found broken, with the first cause that is known.
    pub(super) fn broken(&self, doing: &str, error: &SshError) -> GuestError {
        GuestError::Broken {
            doing: doing.to_owned(),
            why: if is_cut(error) {
                self.trace.ended()
            } else {
                error.to_string()
            },
        }
    }

    /// What the connection leaves behind.
    pub(super) fn trace(&self) -> Arc<Trace> {
        Arc::clone(&self.trace)
    }

    /// Why the connection ended, for a channel that closed without saying so itself.
    pub(super) fn ended(&self) -> String {
        self.trace.ended()
    }
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shell({}@{})", self.user, self.route)
    }
}

fn config() -> Arc<client::Config> {
    Arc::new(client::Config {
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
        ..client::Config::default()
    })
}

fn handshake_error(route: &str, error: Inner, head: &Head) -> GuestError {
    let error = match error {
        Inner::Ours(error) => return error,
        Inner::Ssh(error) => error,
    };
    let route = route.to_owned();
    if !head.banner() {
        let line = head.first_line();
        let permanent = line.starts_with("HTTP/") || matches!(error, SshError::Version);
        let why = if line.is_empty() {
            error.to_string()
        } else {
            format!("`{line}` instead ({error})")
        };
        return GuestError::Banner {
            route,
            why,
            permanent,
        };
    }
    if is_cut(&error) {
        GuestError::Broken {
            doing: format!("exchanging keys with {route}"),
            why: error.to_string(),
        }
    } else {
        GuestError::Handshake {
            route,
            why: error.to_string(),
        }
    }
}

async fn authenticate(
    handle: &mut Handle<Client>,
    trace: &Trace,
    route: &str,
    login: &Login,
    deadline: &Deadline,
) -> Result<(), GuestError> {
    let broken = |why: String| GuestError::Broken {
        doing: format!("logging in to {route}"),
        why,
    };
    let attempt = async {
        // The hash is only asked for with RSA keys, which this build does not carry.
        let key = PrivateKeyWithHashAlg::new(login.key.secret(), None);
        let answer = handle
            .authenticate_publickey(&login.user, key)
            .await
            .map_err(|_gone| broken(trace.ended()))?;
        match answer {
            AuthResult::Success => Ok(()),
            // russh reports a connection that ended as a refusal that leaves no method.
            AuthResult::Failure { .. } if handle.is_closed() => Err(broken(trace.ended())),
            AuthResult::Failure {
                remaining_methods, ..
            } => Err(GuestError::AuthRefused {
                route: route.to_owned(),
                user: login.user.clone(),
                methods: methods(&remaining_methods),
            }),
        }
    };
    let what = format!("a login as {} on {route}", login.user);
    within(
        deadline,
        what,
        || "the key exchange is over".into(),
        attempt,
    )
    .await
}

fn methods(set: &russh::MethodSet) -> String {
    let names: Vec<&str> = set.iter().map(<&str>::from).collect();
    if names.is_empty() {
        "nothing else".into()
    } else {
        names.join(", ")
    }
}
