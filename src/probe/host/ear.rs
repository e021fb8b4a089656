//! What is heard and what is to be said, apart from any stream: the rules that make a broken stream
//! harmless stand here, synchronous and testable byte by byte.

use std::collections::VecDeque;

use crate::history::RecordError;
use crate::history::event::Fact;
use crate::history::recorder::{Recorder, Scope};
use crate::history::segment::{Record, SegmentWriter};
use crate::probe::frame::{FromGuest, Identity, Lease, ToGuest};
use crate::probe::wire::Raw;

use super::error::ProbeError;
use super::progress::Progress;

/// What the probe can be told. Each stays due until its effect is heard, so that a broken stream
/// loses none; all but [`Order::Canary`] mean the same said twice, and one canary more is never
/// judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Fill the cold region of every volume.
    Fill,
    /// Start the load.
    Start {
        /// Writes per second over all writers; 0 is as fast as it goes.
        rate: u32,
        /// Writes between flushes; 0 is strict.
        batch: u32,
    },
    /// Stop the writers and account for everything.
    Stop,
    /// Write one canary on each volume; due until the outcome of canary number `until` is known.
    Canary {
        /// The canary that must have been tried.
        until: u64,
    },
    /// End the process. Due until the stream ends.
    Quit,
}

impl Order {
    const fn frame(self) -> ToGuest {
        match self {
            Self::Fill => ToGuest::Fill,
            Self::Start { rate, batch } => ToGuest::Start { rate, batch },
            Self::Stop => ToGuest::Stop,
            Self::Canary { .. } => ToGuest::Canary,
            Self::Quit => ToGuest::Quit,
        }
    }

    fn is_done(self, volumes: usize, seen: &Progress) -> bool {
        match self {
            Self::Fill => seen.filled.len() >= volumes,
            Self::Start { .. } => seen.loaded,
            Self::Stop => seen.stopped.is_some(),
            Self::Canary { until } => seen.canary_settled() >= until,
            Self::Quit => false,
        }
    }
}

/// An order that is due.
#[derive(Debug)]
struct Due {
    order: Order,
    /// Said on the present stream.
    said: bool,
}

/// The ear and mouth of the host towards one incarnation.
pub(super) struct Ear {
    recorder: Recorder,
    /// What the facts belong to that frames become.
    scope: Scope,
    segment: SegmentWriter,
    incarnation: u64,
    volumes: usize,
    boot_id: Option<String>,
    /// The last token sent.
    token: u32,
    /// The `Heard` last said on the present stream.
    said_heard: u64,
    due: VecDeque<Due>,
    progress: Progress,
}

impl Ear {
    pub(super) fn new(
        recorder: Recorder,
        scope: Scope,
        segment: SegmentWriter,
        incarnation: u64,
        volumes: usize,
    ) -> Self {
        Self {
            recorder,
            scope,
            segment,
            incarnation,
            volumes,
            boot_id: None,
            token: 0,
            said_heard: 0,
            due: VecDeque::new(),
            progress: Progress::default(),
        }
    }

    pub(super) const fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Notes that the stream came up or broke.
    pub(super) fn link(&mut self, up: bool) -> Result<(), RecordError> {
        let at_ns = self.recorder.now_ns();
        self.segment.append(&Record::Link { at_ns, up })
    }

    /// What opens a stream: everything due is said anew after it.
    pub(super) fn hello(&mut self) -> Vec<u8> {
        let heard = self.progress.last_seq;
        self.said_heard = heard;
        for due in &mut self.due {
            due.said = false;
        }
        ToGuest::Hello { heard }.encode()
    }

    /// Takes in one whole frame whose last byte was just read. Numbered frames are journaled before
    /// anything else becomes of them.
    pub(super) fn hear(&mut self, raw: Raw) -> Result<(), ProbeError> {
        let due = self.progress.last_seq + 1;
        if raw.seq != 0 && raw.seq < due {
            return Ok(()); // Delivered again, and journaled before.
        }
        let frame = FromGuest::decode(&raw).map_err(|error| ProbeError::Unreadable {
            seq: raw.seq,
            error,
        })?;
        if let FromGuest::Opened(identity) = &frame {
            self.same_probe(identity)?;
        }
        if raw.seq == 0 {
            return match frame {
                // It answers a stream that it will not serve, and would do so again.
                FromGuest::Failed(said) => Err(ProbeError::Failed { said }),
                _ => Ok(()),
            };
        }
        if raw.seq > due {
            return Err(ProbeError::Gap {
                expected: due,
                seen: raw.seq,
            });
        }
        let at_ns = self.recorder.now_ns();
        let seq = raw.seq;
        self.segment.append(&Record::Frame {
            at_ns,
            seq,
            bytes: raw.bytes,
        })?;
        if let FromGuest::Lease(lease) = &frame {
            let Lease {
                volume,
                reads,
                longest_ns,
                foreign,
            } = lease.clone();
            let incarnation = format!("{:016x}", self.incarnation);
            let fact = Fact::Lease {
                incarnation,
                volume,
                reads,
                longest_ns,
                foreign,
            };
            self.recorder.post(&self.scope, fact)?;
        }
        self.progress.take(seq, at_ns, frame);
        let (volumes, progress) = (self.volumes, &self.progress);
        self.due.retain(|due| !due.order.is_done(volumes, progress));
        Ok(())
    }

    /// The probe that answers must be the one that was started, on the boot where it was started.
    fn same_probe(&mut self, seen: &Identity) -> Result<(), ProbeError> {
        let boot_id = self.boot_id.get_or_insert_with(|| seen.boot_id.clone());
        if seen.incarnation == self.incarnation && seen.boot_id == *boot_id {
            return Ok(());
        }
        let words = |incarnation, boot: &str| format!("{incarnation:016x} on boot {boot}");
        Err(ProbeError::OtherProbe {
            expected: words(self.incarnation, boot_id),
            seen: words(seen.incarnation, &seen.boot_id),
        })
    }

    /// Adds an order; one of the same kind that is still due is replaced.
    pub(super) fn order(&mut self, order: Order) {
        let kind = std::mem::discriminant(&order);
        self.due
            .retain(|due| std::mem::discriminant(&due.order) != kind);
        match order {
            // The account that is awaited next is a new one.
            Order::Start { .. } => {
                self.progress.stopped = None;
                self.progress.loaded = false;
                self.due.retain(|due| due.order != Order::Stop);
            }
            Order::Stop => self
                .due
                .retain(|due| !matches!(due.order, Order::Start { .. })),
            _ => {}
        }
        if !order.is_done(self.volumes, &self.progress) {
            self.due.push_back(Due { order, said: false });
        }
    }

    /// Orders one more canary on each volume: the number of the last one before them, and theirs.
    pub(super) fn canary(&mut self) -> (u64, u64) {
        let volumes = u64::try_from(self.volumes).unwrap_or(u64::MAX);
        let before = self.progress.canary_settled();
        let until = before.saturating_add(volumes);
        self.order(Order::Canary { until });
        (before, until)
    }

    /// The bytes that are to be said now: what was newly heard, and orders not yet said.
    pub(super) fn speak(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let heard = self.progress.last_seq;
        if heard > self.said_heard {
            out.extend(ToGuest::Heard(heard).encode());
            self.said_heard = heard;
        }
        for due in self.due.iter_mut().filter(|due| !due.said) {
            out.extend(due.order.frame().encode());
            due.said = true;
        }
        out
    }

    /// The next time token, in the segment before its bytes are handed out.
    pub(super) fn token(&mut self) -> Result<Vec<u8>, RecordError> {
        let at_ns = self.recorder.now_ns();
        let n = self.token + 1;
        self.segment.append(&Record::Token { at_ns, n })?;
        self.token = n;
        Ok(ToGuest::Token(n).encode())
    }

    /// The last token handed out.
    pub(super) const fn last_token(&self) -> u32 {
        self.token
    }

    /// Whether the probe was told to end.
    pub(super) fn quitting(&self) -> bool {
        self.due
            .iter()
            .any(|due| due.order == Order::Quit && due.said)
    }

    /// The segment, when nothing more will be heard.
    pub(super) fn into_segment(self) -> SegmentWriter {
        self.segment
    }
}
