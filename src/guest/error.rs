//! What can go wrong between this host and a shell in the guest, typed by what the caller may do
//! about it: try again, wait longer, or stop.

use super::hostkey::PinError;
use super::shell::Exit;

/// Why the guest could not be reached or a command in it did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No byte stream: nothing listens yet, the network is down, the VMI is not running.
    #[error("cannot open {route}: {why}")]
    Dial {
        /// The route in words.
        route: String,
        /// What was seen.
        why: String,
        /// Trying again cannot help: access denied, name not valid.
        permanent: bool,
    },
    /// The stream opened, but no SSH server introduced itself on it.
    #[error("{route} opened, but no SSH banner came: {why}")]
    Banner {
        /// The route in words.
        route: String,
        /// What came instead.
        why: String,
        /// Something answered that is not SSH, so that waiting cannot help.
        permanent: bool,
    },
    /// The server and this client share no algorithm, or the key exchange was forged or damaged.
    #[error("SSH key exchange with {route} failed: {why}")]
    Handshake {
        /// The route in words.
        route: String,
        /// What was seen.
        why: String,
    },
    /// Another host key than the one pinned for this volume lineage: another guest, or a disk that
    /// is not the replica. Never retried.
    #[error(
        "the guest behind {lineage} has SSH host key {seen}, but {pinned} was pinned at first \
         contact: this is another guest, or its root disk is not the one that was replicated"
    )]
    HostKeyChanged {
        /// The volume lineage.
        lineage: String,
        /// Fingerprint pinned at first contact.
        pinned: String,
        /// Fingerprint seen now.
        seen: String,
    },
    /// The pins could not be read or written.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The server refused the key. While a guest boots, its keys may not be installed yet.
    #[error(
        "{route} refused the run's SSH key for user {user} (it would accept: {methods}); check \
         that the template passes the key to this user"
    )]
    AuthRefused {
        /// The route in words.
        route: String,
        /// The login name.
        user: String,
        /// The methods that the server says can continue, comma-separated.
        methods: String,
    },
    /// The command ran and did not succeed.
    #[error("`{command}` in the guest ended with {exit}: {stderr}")]
    ExecFailed {
        /// The command.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The end of what it wrote to stderr, printable.
        stderr: String,
    },
    /// The server would not run the command at all.
    #[error("the SSH server refused to run `{command}`")]
    ExecRefused {
        /// The command.
        command: String,
    },
    /// The command wrote more than it may.
    #[error("`{command}` wrote more than {limit} bytes to {stream}")]
    TooMuchOutput {
        /// The command.
        command: String,
        /// Which stream.
        stream: &'static str,
        /// The limit, bytes.
        limit: usize,
    },
    /// An established connection broke. Whatever was under way may or may not have happened.
    #[error("the connection to the guest broke while {doing}: {why}")]
    Broken {
        /// What was under way.
        doing: String,
        /// What was seen.
        why: String,
    },
    /// The caller's deadline passed.
    #[error("gave up waiting for {waiting_for}; last seen: {last_seen}")]
    Timeout {
        /// What was awaited.
        waiting_for: String,
        /// The last state seen.
        last_seen: String,
    },
    /// The run was cancelled while waiting.
    #[error("interrupted while waiting for {waiting_for}")]
    Cancelled {
        /// What was awaited.
        waiting_for: String,
    },
}

/// What may be done after a failure to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Connect again: the cause is of the kind that passes.
    Again,
    /// Connect again only while the guest may still be installing its keys.
    WhileBooting,
    /// Stop: trying again cannot help, or is not ours to decide.
    Stop,
}

impl GuestError {
    /// What may be done about it. Concerns the connection only: nothing here says that a command
    /// may be run twice.
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Dial { permanent, .. } | Self::Banner { permanent, .. } if *permanent => {
                Remedy::Stop
            }
            Self::Dial { .. } | Self::Banner { .. } | Self::Broken { .. } => Remedy::Again,
            Self::AuthRefused { .. } => Remedy::WhileBooting,
            _ => Remedy::Stop,
        }
    }
}

/// Text from the guest as it may stand in a message: printable, one line, at most `limit` bytes of
/// its end.
pub fn printable_tail(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]);
    text.trim()
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{FFFD}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_one_printable_line() {
        assert_eq!(printable_tail(b"a\nb\x1b[31m\n", 100), "a b\u{FFFD}[31m");
        assert_eq!(printable_tail(b"0123456789", 4), "6789");
        assert_eq!(printable_tail("aé".as_bytes(), 1), "\u{FFFD}");
    }

    #[test]
    fn only_passing_causes_are_worth_another_try() {
        let dial = |permanent| GuestError::Dial {
            route: "r".into(),
            why: "w".into(),
            permanent,
        };
        assert_eq!(dial(false).remedy(), Remedy::Again);
        assert_eq!(dial(true).remedy(), Remedy::Stop);
        let changed = GuestError::HostKeyChanged {
            lineage: "l".into(),
            pinned: "a".into(),
            seen: "b".into(),
        };
        assert_eq!(changed.remedy(), Remedy::Stop);
        let failed = GuestError::ExecFailed {
            command: "c".into(),
            exit: Exit::Status(1),
            stderr: String::new(),
        };
        assert_eq!(failed.remedy(), Remedy::Stop);
    }
}
