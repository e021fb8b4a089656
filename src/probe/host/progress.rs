//! How far a probe is, as far as the host has heard.

use std::collections::BTreeMap;
use std::fmt;

use crate::probe::frame::{FromGuest, Identity};
use crate::probe::layout::WRITER_CANARY;

/// Whether the probe can be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Not yet attached.
    New,
    /// Attached; frames come in.
    Up,
    /// The stream broke and is being made anew.
    Down {
        /// What was seen.
        why: String,
    },
    /// The guest answers but the probe is not in it any more; attaching is still tried.
    Gone {
        /// What was seen.
        why: String,
    },
    /// Nobody tries any more.
    Over {
        /// Why.
        why: String,
    },
}

/// The account that a probe gave of everything it issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// `(writer, last issued wseq)`.
    pub issued: Vec<(u32, u64)>,
    /// The last durability rank.
    pub last_rank: u64,
}

/// Everything heard so far, in sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Whether the probe can be heard.
    pub link: LinkState,
    /// How often a stream was attached.
    pub attaches: u64,
    /// Who speaks; `None` until the first `Opened`.
    pub identity: Option<Identity>,
    /// The last frame heard and journaled.
    pub last_seq: u64,
    /// The last durability rank heard.
    pub last_rank: u64,
    /// When the last ack was received, run-monotonic nanoseconds.
    pub last_ack_recv_ns: Option<u64>,
    /// The newest token that the probe had before a write became durable that it acked.
    pub acked_token: u32,
    /// Cells of the cold fill by volume ordinal, once durable.
    pub filled: BTreeMap<u8, u64>,
    /// Highest acked canary of this incarnation, 0 for none. Canary `n` lies on volume
    /// `(n - 1) % volumes`.
    pub canaries: u64,
    /// The last canary whose write failed and the error number.
    pub canary_failed: Option<(u64, i32)>,
    /// When the first canary's ack was received: the service could serve.
    pub first_canary_recv_ns: Option<u64>,
    /// Acks of the load's own writers were heard.
    pub loaded: bool,
    /// When the last ack of each of them was received, by writer.
    pub heard_of: BTreeMap<u32, u64>,
    /// How often each volume's lease, read again by its writer, was told of.
    pub leases: BTreeMap<u8, u64>,
    /// Writes whose effect is unknown because they failed, and the last error number.
    pub unknown: u64,
    /// The error number of the last of them.
    pub last_errno: Option<i32>,
    /// The account after `Stop`, if the writers have stood still since.
    pub stopped: Option<Stopped>,
    /// What the probe said when it gave up.
    pub failed: Option<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            link: LinkState::New,
            attaches: 0,
            identity: None,
            last_seq: 0,
            last_rank: 0,
            last_ack_recv_ns: None,
            acked_token: 0,
            filled: BTreeMap::new(),
            canaries: 0,
            canary_failed: None,
            first_canary_recv_ns: None,
            loaded: false,
            heard_of: BTreeMap::new(),
            leases: BTreeMap::new(),
            unknown: 0,
            last_errno: None,
            stopped: None,
            failed: None,
        }
    }
}

impl Progress {
    /// The last canary whose outcome is known.
    pub(super) fn canary_settled(&self) -> u64 {
        let failed = self.canary_failed.map_or(0, |(wseq, _)| wseq);
        self.canaries.max(failed)
    }

    /// Takes in a numbered frame that was journaled at `at_ns`.
    pub(super) fn take(&mut self, seq: u64, at_ns: u64, frame: FromGuest) {
        self.last_seq = seq;
        match frame {
            FromGuest::Opened(identity) => self.identity = Some(identity),
            FromGuest::Filled { volume, cells } => {
                self.filled.insert(volume, cells);
            }
            FromGuest::Ack(ack) => {
                let ranks = u64::try_from(ack.ranks.len()).unwrap_or(u64::MAX);
                let last = ack.first_rank.saturating_add(ranks).saturating_sub(1);
                self.last_rank = self.last_rank.max(last);
                self.last_ack_recv_ns = Some(at_ns);
                self.acked_token = self.acked_token.max(ack.token);
                for &(writer, wseq) in ack.ranks.iter().flat_map(|rank| &rank.marks) {
                    if writer == WRITER_CANARY {
                        self.canaries = self.canaries.max(wseq);
                        self.first_canary_recv_ns.get_or_insert(at_ns);
                    } else {
                        self.loaded = true;
                        self.heard_of.insert(writer, at_ns);
                    }
                }
            }
            FromGuest::Unknown {
                writer,
                wseq,
                errno,
            } => {
                self.unknown += 1;
                self.last_errno = Some(errno);
                if writer == WRITER_CANARY {
                    self.canary_failed = Some((wseq, errno));
                }
            }
            FromGuest::Stopped { issued, last_rank } => {
                self.last_rank = self.last_rank.max(last_rank);
                self.stopped = Some(Stopped { issued, last_rank });
            }
            FromGuest::Failed(said) => self.failed = Some(said),
            FromGuest::Lease(lease) if lease.reads > 0 => {
                *self.leases.entry(lease.volume).or_default() += 1;
            }
            // Signs of life carry no number, and scans travel on their own stream.
            FromGuest::Alive { .. }
            | FromGuest::Lease(_)
            | FromGuest::ScanBegin { .. }
            | FromGuest::Cells(_)
            | FromGuest::ScanEnd { .. } => {}
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.link {
            LinkState::New => write!(f, "the probe has not been heard yet")?,
            LinkState::Up => write!(f, "the probe is heard")?,
            LinkState::Down { why } => write!(f, "the stream is broken ({why})")?,
            LinkState::Gone { why } => write!(f, "the probe is gone ({why})")?,
            LinkState::Over { why } => write!(f, "no longer listening ({why})")?,
        }
        write!(f, ", {} frames, rank {}", self.last_seq, self.last_rank)?;
        if let Some(errno) = self.last_errno {
            write!(f, ", {} writes failed (last errno {errno})", self.unknown)?;
        }
        Ok(())
    }
}
