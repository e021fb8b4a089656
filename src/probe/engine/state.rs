//! The engine's bookkeeping: ranks, watermarks, acks in the making. Pure transitions, all made under
//! one lock, so that the order in which things are counted is the order in which they are told.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::super::frame::{Ack, FromGuest, Rank};
use super::super::outbox::Outbox;
use super::pace::Pace;

/// The most ranks in one ack frame.
const RANKS_PER_FRAME: usize = 64;
/// The longest that a rank waits for company in its frame.
pub(super) const FRAME_AGE: Duration = Duration::from_millis(5);
/// How long a writer leaves a volume alone that has just refused a write.
const BACK_OFF: Duration = Duration::from_millis(20);

/// What the writers are told to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// Write nothing.
    Hold,
    /// Write; 0 writes between flushes is strict.
    Run { batch: u32, pace: Pace },
}

/// Work beside the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    Fill,
    Canary,
    Start { rate: u32, batch: u32 },
    Stop,
}

/// A write that completed but is not durable yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unflushed {
    pub(super) writer: u32,
    pub(super) wseq: u64,
    pub(super) volume: usize,
    pub(super) epoch: u64,
}

/// One writer's count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) writer: u32,
    pub(super) wseq: u64,
    /// Not before this, after an error.
    pub(super) not_before: Option<Instant>,
}

/// What a cell is stamped with when its write is issued.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issue {
    pub(super) writer: u32,
    pub(super) wseq: u64,
    pub(super) gseq: u64,
    pub(super) dep: u64,
    pub(super) token: u32,
}

/// Guest time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) mono_ns: u64,
    pub(super) real_ns: u64,
}

struct Draft {
    ack: Ack,
    since: Instant,
    /// Whether the framer was woken for it.
    announced: bool,
}

impl Draft {
    fn new(first_rank: u64, token: u32) -> Self {
        Self {
            ack: Ack {
                first_rank,
                ranks: Vec::with_capacity(RANKS_PER_FRAME),
                mono_ns: 0,
                real_ns: 0,
                token,
                max_gap_ns: 0,
            },
            since: Instant::now(),
            announced: false,
        }
    }

    /// Takes in a rank. Whoever read the clock before another may be counted after it, so the ack's token is
    /// the oldest and its time the newest of its ranks': all of them lie between the two.
    fn add(&mut self, marks: Vec<(u32, u64)>, token: u32, now: Now, gap: u64) {
        self.ack.ranks.push(Rank { marks });
        self.ack.token = self.ack.token.min(token);
        if self.ack.mono_ns <= now.mono_ns {
            self.ack.mono_ns = now.mono_ns;
            self.ack.real_ns = now.real_ns;
        }
        self.ack.max_gap_ns = self.ack.max_gap_ns.max(gap);
    }
}

pub(super) struct State {
    pub(super) load: Load,
    /// Nobody may begin anything any more.
    pub(super) ended: bool,
    pub(super) token: u32,
    pub(super) lanes: Vec<Lane>,
    /// Load writes handed to a disk and not back yet.
    pub(super) in_flight: usize,
    pub(super) unflushed: Vec<Unflushed>,
    pub(super) flushing: bool,
    pub(super) chores: VecDeque<Chore>,
    /// Cells filled on each volume, once that is done.
    pub(super) filled: Option<Vec<u64>>,
    pub(super) outbox: Outbox,
    rank: u64,
    gseq: u64,
    draft: Option<Draft>,
    last_durable_ns: Option<u64>,
    /// The newest frame that the session was woken for.
    announced: u64,
}

/// Who has to be woken after a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    /// An ack was begun: the framer has something to wait for.
    pub(super) draft: bool,
    /// There are frames that the session was not woken for.
    pub(super) frames: bool,
}

impl State {
    pub(super) fn new(lanes: Vec<Lane>, outbox: Outbox) -> Self {
        Self {
            load: Load::Hold,
            ended: false,
            token: 0,
            lanes,
            in_flight: 0,
            unflushed: Vec::new(),
            flushing: false,
            chores: VecDeque::new(),
            filled: None,
            outbox,
            rank: 0,
            gseq: 0,
            draft: None,
            last_durable_ns: None,
            announced: 0,
        }
    }

    /// The next write of lane `index`, in flight from now on.
    pub(super) fn issue(&mut self, index: usize) -> Issue {
        let lane = &mut self.lanes[index];
        lane.wseq += 1;
        lane.not_before = None;
        self.gseq += 1;
        self.in_flight += 1;
        Issue {
            writer: lane.writer,
            wseq: lane.wseq,
            gseq: self.gseq,
            dep: self.rank,
            token: self.token,
        }
    }

    /// A rank is durable: everything that `marks` say. `token` is one that the probe had before.
    pub(super) fn durable(&mut self, marks: Vec<(u32, u64)>, token: u32, now: Now) {
        self.rank += 1;
        let last = self.last_durable_ns;
        let gap = last.map_or(0, |last| now.mono_ns.saturating_sub(last));
        self.last_durable_ns = last.max(Some(now.mono_ns));
        let first_rank = self.rank;
        let draft = self
            .draft
            .get_or_insert_with(|| Draft::new(first_rank, token));
        draft.add(marks, token, now, gap);
        if draft.ack.ranks.len() >= RANKS_PER_FRAME || draft.since.elapsed() >= FRAME_AGE {
            self.seal();
        }
    }

    /// A write failed; its writer pauses and goes on with the next one.
    pub(super) fn unknown(&mut self, writer: u32, wseq: u64, error: &io::Error) {
        let lane = self.lanes.iter_mut().find(|lane| lane.writer == writer);
        if let Some(lane) = lane {
            lane.not_before = Some(Instant::now() + BACK_OFF);
        }
        self.push(&FromGuest::Unknown {
            writer,
            wseq,
            errno: errno(error),
        });
    }

    /// Numbers a frame after everything that happened before it.
    pub(super) fn push(&mut self, frame: &FromGuest) {
        self.seal();
        self.outbox.push(frame);
    }

    /// Closes the ack in the making, if there is one.
    pub(super) fn seal(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.outbox.push(&FromGuest::Ack(draft.ack));
        }
    }

    /// Who has to be woken since this was last asked.
    pub(super) fn news(&mut self) -> News {
        let newest = self.outbox.newest();
        let before = std::mem::replace(&mut self.announced, newest);
        let draft = self.draft.as_mut();
        News {
            draft: draft.is_some_and(|draft| !std::mem::replace(&mut draft.announced, true)),
            frames: newest > before,
        }
    }

    /// When the ack in the making is due.
    pub(super) fn frame_due(&self) -> Option<Instant> {
        self.draft.as_ref().map(|draft| draft.since + FRAME_AGE)
    }

    /// Whether the load is running and waits for nobody but the disks.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.load, Load::Run { .. })
    }

    /// Begins a load, or changes the rate of one. The pause before a load is no gap; a host that
    /// repeats itself after an outage does not hide one.
    pub(super) fn run(&mut self, rate: u32, batch: u32) {
        if !self.is_running() {
            self.last_durable_ns = None;
        }
        self.load = Load::Run {
            batch,
            pace: Pace::new(rate, Instant::now()),
        };
    }

    /// The account that closes a load.
    pub(super) fn account(&self) -> FromGuest {
        FromGuest::Stopped {
            issued: self
                .lanes
                .iter()
                .map(|lane| (lane.writer, lane.wseq))
                .collect(),
            last_rank: self.rank,
        }
    }
}

/// The error number to report; EIO stands for errors that the system gave no number.
pub(in super::super) fn errno(error: &io::Error) -> i32 {
    const EIO: i32 = 5;
    error.raw_os_error().unwrap_or(EIO)
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::Raw;
    use super::*;

    const fn at(mono_ns: u64) -> Now {
        Now {
            mono_ns,
            real_ns: 1_000 + mono_ns,
        }
    }

    /// The second of these read the clock before the first, and before there was a token 2.
    #[test]
    fn a_writer_that_is_counted_late_lies_within_its_ack() {
        let mut draft = Draft::new(7, 2);
        draft.add(vec![(1, 1)], 2, at(60), 50);
        draft.add(vec![(0, 2)], 1, at(20), 0);
        let ack = &draft.ack;
        assert_eq!((ack.mono_ns, ack.real_ns, ack.token), (60, 1_060, 1));
        assert_eq!((ack.ranks.len(), ack.max_gap_ns), (2, 50));
    }

    #[test]
    fn a_gap_ends_with_the_newest_write_that_was_counted() {
        let mut state = State::new(Vec::new(), Outbox::new(1 << 20));
        for mono_ns in [10, 60, 20, 62] {
            state.durable(vec![(0, 1)], 1, at(mono_ns));
            state.seal();
        }
        let frames = (1..=state.outbox.newest()).map(|seq| state.outbox.get(seq).unwrap());
        let gaps = frames.map(|frame| {
            let raw = Raw::parse(frame).unwrap();
            match FromGuest::decode(&raw).unwrap() {
                FromGuest::Ack(ack) => ack.max_gap_ns,
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(gaps.collect::<Vec<_>>(), [0, 50, 0, 2]);
    }
}
