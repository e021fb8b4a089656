//! What can go wrong between the host and a probe.

use crate::guest::{FactsError, GuestError};
use crate::history::RecordError;
use crate::probe::wire::FrameError;

/// Why a probe cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The guest could not be reached or did not do as told.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The guest is not what the probe needs: another machine, a disk missing, read-only.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The history could not be kept. Nothing heard after this counts as heard.
    #[error(transparent)]
    Journal(#[from] RecordError),
    /// The probe binary could not be read.
    #[error("probe binary {path}: {why}")]
    Binary {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The probe binary cannot be executed where it was put.
    #[error(
        "the guest refuses to execute the probe from {dir}: {why} (its file system may be mounted \
         noexec, or a security policy forbids it)"
    )]
    NotExecutable {
        /// The directory in the guest.
        dir: String,
        /// What the guest said.
        why: String,
    },
    /// The probe refused to start; the text is its own: a ledger of another run on a disk, a disk
    /// that is gone or read-only, a volume too small.
    #[error("the probe did not start: {said}")]
    Refused {
        /// What it said.
        said: String,
    },
    /// The probe said that it cannot go on.
    #[error("the probe gave up: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
    /// The guest answers, but the probe is no longer in it: the guest was restarted, or the process
    /// was killed.
    #[error("the probe is gone from the guest: {why}")]
    Gone {
        /// What was seen.
        why: String,
    },
    /// A write that must succeed failed in the guest.
    #[error(
        "a write in the guest failed: {}",
        std::io::Error::from_raw_os_error(*errno)
    )]
    WriteFailed {
        /// The guest's error number; Linux numbers are the same on every machine type that matters.
        errno: i32,
    },
    /// Another probe answers than the one that was started.
    #[error("probe run {seen} answers where {expected} was started")]
    OtherProbe {
        /// What was started: incarnation and boot id.
        expected: String,
        /// What answers.
        seen: String,
    },
    /// The stream carries what no probe says.
    #[error("what came from the probe cannot be read: {0}")]
    Garbled(#[from] FrameError),
    /// A whole frame that this version does not understand; it would only come again.
    #[error("frame {seq} of the probe is not understood: {error}")]
    Unreadable {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        error: FrameError,
    },
    /// Frames were skipped: the probe forgot what was never heard.
    #[error(
        "the probe went on with frame {seen} where {expected} was due; the ones between are lost"
    )]
    Gap {
        /// The next frame due.
        expected: u64,
        /// The frame that came.
        seen: u64,
    },
    /// Listening was ended from this side.
    #[error("the probe is no longer listened to: {why}")]
    Closed {
        /// Who ended it and why.
        why: String,
    },
    /// A scan ended without everything that belongs to it.
    #[error("the scan is incomplete: {what}")]
    Scan {
        /// What is missing or out of place.
        what: String,
    },
}

impl ProbeError {
    /// Whether only the stream broke, so that attaching again goes on where it was.
    pub const fn is_break(&self) -> bool {
        match self {
            Self::Guest(error) => !matches!(
                error,
                GuestError::HostKeyChanged { .. }
                    | GuestError::Pins(_)
                    | GuestError::Cancelled { .. }
            ),
            Self::Garbled(_) | Self::Gone { .. } => true,
            _ => false,
        }
    }
}
