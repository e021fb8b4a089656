//! What can go wrong between us and an API server, in variants that callers branch on. Every text
//! says what was tried and what was seen; what to do follows where there is something to do.

use std::fmt;
use std::time::Duration;

use crate::history::event::Site;

/// A call that was made: where and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The site that was asked.
    pub site: Site,
    /// Verb and object, `GET VirtualMachine demo/vm-0`.
    pub what: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on the {} site", self.what, self.site)
    }
}

/// A wait that ran out of time: what was awaited and the last that was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "gave up after {waited:?} waiting for {waiting_for}; last seen: {last_seen}{}",
    last_error.as_deref().map(|e| format!("; last error: {e}")).unwrap_or_default()
)]
pub struct Timeout {
    /// What was awaited.
    pub waiting_for: String,
    /// The last state seen, in words.
    pub last_seen: String,
    /// The last error of the watch or call behind the wait, if it was failing at the end.
    pub last_error: Option<String>,
    /// How long the wait lasted.
    pub waited: Duration,
}

/// Any failure of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use {file} for the {site} site: {why}. {hint}")]
    Kubeconfig {
        /// The site it is for.
        site: Site,
        /// The file or files, as named by the plan or `$KUBECONFIG`.
        file: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        hint: String,
    },
    /// Nobody answered.
    #[error(
        "{tried}: no answer from {url}: {seen}. Check that the API server runs and that this host reaches it"
    )]
    Unreachable {
        /// The call.
        tried: Tried,
        /// The server's address.
        url: String,
        /// The error chain in words.
        seen: String,
    },
    /// 401.
    #[error(
        "{tried}: the API server does not accept our credentials: {message}. Log in again or correct the kubeconfig user"
    )]
    Unauthorized {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// 403.
    #[error("{tried}: forbidden: {message}. Grant that to our user, or use another one")]
    Forbidden {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// 404 for the object.
    #[error("{tried}: not found: {message}")]
    NotFound {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// 409 with reason AlreadyExists.
    #[error("{tried}: it already exists and this run did not make it: {message}")]
    AlreadyExists {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// Other 409: a stale resourceVersion, a failed precondition, or a state that forbids the call.
    #[error("{tried}: conflict: {message}")]
    Conflict {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// 400 or 422: the object or the request is wrong.
    #[error("{tried}: refused as invalid: {message}")]
    Invalid {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// The API group, version or kind is not served.
    #[error(
        "{tried}: the {site} site does not serve {kind}. Install what provides it, or choose a scenario or driver that does without", site = tried.site
    )]
    MissingKind {
        /// The call.
        tried: Tried,
        /// `group/version kind`.
        kind: String,
    },
    /// The object carries no label of this run and the plan does not adopt it.
    #[error("{tried}: {object} exists, but this run did not create it, so it is left alone")]
    NotOwned {
        /// The call.
        tried: Tried,
        /// The object.
        object: String,
    },
    /// A tunnel's far end did not take the connection: nobody listens there (yet).
    #[error("{tried}: the guest did not answer: {message}")]
    DialRefused {
        /// The call.
        tried: Tried,
        /// The server's words.
        message: String,
    },
    /// A command could not be run in a container: there is no such pod, container or program, or
    /// the container does not run.
    #[error("{tried}: it could not be run: {message}")]
    NotRun {
        /// The call.
        tried: Tried,
        /// The server's or the node's words.
        message: String,
    },
    /// Any other HTTP error.
    #[error("{tried}: HTTP {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Http {
        /// The call.
        tried: Tried,
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The answer cannot be understood, or exceeds the size limit.
    #[error("{tried}: the answer cannot be used: {why}")]
    Answer {
        /// The call.
        tried: Tried,
        /// What is wrong with it.
        why: String,
    },
    /// A wait ran out of time.
    #[error(transparent)]
    Timeout(Box<Timeout>),
    /// A wait or call was cancelled from outside.
    #[error("cancelled while waiting for {waiting_for}; last seen: {last_seen}")]
    Cancelled {
        /// What was awaited.
        waiting_for: String,
        /// The last state seen.
        last_seen: String,
    },
    /// The undo log could not be written, so the call was not made.
    #[error(transparent)]
    Undo(#[from] super::undo::UndoError),
}

impl Error {
    /// Whether the object does not exist.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether another writer came first or a precondition failed.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists { .. })
    }

    /// Whether the site did not answer at all, so that the call may or may not have happened.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether trying again later may help without anyone changing anything: outages, overload and
    /// conflicts, but not refusals.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Conflict { .. } | Self::DialRefused { .. } => true,
            Self::Http { code, .. } => *code == 429 || *code >= 500,
            _ => false,
        }
    }

    /// Whether it only says that the API did not serve us: no answer, overload, a failure of its own,
    /// or a wait that ended while looking failed. It then says nothing of what was asked about.
    pub fn is_blind(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Http { code, .. } => *code == 429 || *code >= 500,
            Self::Timeout(timeout) => timeout.last_error.is_some(),
            _ => false,
        }
    }

    /// Whether the caller was told to stop.
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

impl From<Timeout> for Error {
    fn from(timeout: Timeout) -> Self {
        Self::Timeout(Box::new(timeout))
    }
}

/// An error and its causes on one line, without the repetitions that wrappers like to make.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}
