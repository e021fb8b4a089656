//! A simulated guest: writers, flushes and the moments at which the array really had each write.
//!
//! The same rules as the probe's engine: one write in flight per writer; a strict write is durable
//! when it completes, a batched one when a flush that began after its completion is done.

use std::collections::BTreeMap;
use std::ops::Range;

use super::draw::Draw;
use super::shape::{Leg, MS, Move, Shape};
use crate::probe::layout::{Layout, WRITER_LOG, address};

/// Stands for a moment that never came.
pub(super) const NEVER: u64 = u64::MAX;
/// Between two tokens of the host, nanoseconds.
pub(super) const TOKEN_NS: u64 = 50 * MS;
/// How long a guest with a full outbox stands still before its site dies.
const DEAF_NS: u64 = 2_300 * MS;

/// A write as it happened. Moments are nanoseconds of the host's clock; no two are equal.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// Which load made it.
    pub(super) load: usize,
    pub(super) writer: u32,
    pub(super) wseq: u64,
    pub(super) volume: usize,
    pub(super) cell: u64,
    /// Ranks that were durable when it was issued.
    pub(super) dep: u64,
    pub(super) token: u32,
    pub(super) issued: u64,
    /// When it came back, [`NEVER`] if it did not.
    pub(super) done: u64,
    /// When the guest knew it to be durable.
    pub(super) durable: u64,
    /// The rank of that moment, 0 for none.
    pub(super) rank: u64,
    /// When the array had it.
    pub(super) applied: u64,
    /// It came back with an error.
    pub(super) unknown: bool,
    /// When the host heard that it was durable.
    pub(super) heard: u64,
}

/// A moment at which writes became durable.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    pub(super) at: u64,
    pub(super) marks: Vec<(u32, u64)>,
    /// The last token that the guest had before.
    pub(super) token: u32,
}

/// One load from its start to its end.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Its writes within all writes of the history.
    pub(super) writes: Range<usize>,
    pub(super) start: u64,
    /// The fault or the order to move.
    pub(super) fault: u64,
    /// The guest wrote until then.
    pub(super) end: u64,
    pub(super) ranks: Vec<Durable>,
    /// Writes with an unknown outcome and when the guest knew.
    pub(super) unknown: Vec<(u64, u32, u64)>,
    /// Issued writes by writer, if the writers were stopped in order.
    pub(super) account: Option<Vec<(u32, u64)>>,
}

/// What a load starts from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) shape: &'a Shape,
    pub(super) layouts: &'a [Layout],
    /// The seed of the address stream.
    pub(super) seed: u64,
    pub(super) number: usize,
    pub(super) at: u64,
    /// How long the guest goes on after the fault.
    pub(super) beyond: u64,
}

struct Lane {
    writer: u32,
    wseq: u64,
    flying: Option<usize>,
}

struct Flush {
    covered: Vec<usize>,
    ends: u64,
    token: u32,
}

struct Guest<'a> {
    start: Start<'a>,
    draw: Draw,
    now: u64,
    token_delay: u64,
    lanes: Vec<Lane>,
    waiting: Vec<usize>,
    flush: Option<Flush>,
    load: Load,
}

/// Runs the load of `leg`, adding its writes to `writes`.
pub(super) fn run(start: Start<'_>, leg: &Leg, writes: &mut Vec<Write>) -> Load {
    let mut draw = Draw::new(start.shape.seed, 100 + start.number as u64);
    let hot: u32 = start.layouts.iter().map(|layout| layout.hot_writers).sum();
    let lanes = (WRITER_LOG..=hot).map(|writer| Lane {
        writer,
        wseq: 0,
        flying: None,
    });
    let mut guest = Guest {
        start,
        token_delay: draw.between(MS, 20 * MS),
        draw,
        now: start.at,
        lanes: lanes.collect(),
        waiting: Vec::new(),
        flush: None,
        load: Load {
            writes: writes.len()..writes.len(),
            start: start.at,
            fault: NEVER,
            end: NEVER,
            ranks: Vec::new(),
            unknown: Vec::new(),
            account: None,
        },
    };
    guest.write(leg, writes);
    guest.load.writes.end = writes.len();
    guest.load
}

impl Guest<'_> {
    fn write(&mut self, leg: &Leg, writes: &mut Vec<Write>) {
        let first = writes.len();
        while ((writes.len() - first) as u64) < leg.writes {
            self.step(leg, writes, true);
        }
        if leg.hearing == super::shape::Hearing::Deaf {
            self.now += DEAF_NS;
        }
        match leg.how {
            Move::Quiesced => {
                self.drain(leg, writes);
                self.load.fault = self.now + MS;
            }
            Move::Stopped | Move::NodeDown | Move::Restart => self.load.fault = self.now + 1,
            Move::PrimaryUp => {
                self.load.fault = self.now + 1;
                let end = self.load.fault + self.start.beyond;
                while self.now < end {
                    self.step(leg, writes, true);
                }
            }
        }
        self.load.end = self.now + 2;
        self.lose(writes);
    }

    /// One thing happens.
    fn step(&mut self, leg: &Leg, writes: &mut Vec<Write>, more: bool) {
        self.now += 1 + self.draw.below(leg.pace_ns);
        if self
            .flush
            .as_ref()
            .is_some_and(|flush| flush.ends <= self.now)
        {
            self.flushed(writes);
            return;
        }
        let at = self.draw.index(self.lanes.len());
        if let Some(index) = self.lanes[at].flying.take() {
            self.done(index, leg, writes);
        } else if more && self.has_room() {
            self.issue(at, writes);
        }
    }

    /// While a flush is under way, writers run ahead by one batch at most.
    fn has_room(&self) -> bool {
        let batch = self.start.shape.batch;
        batch == 0 || self.flush.is_none() || (self.waiting.len() as u64) < batch
    }

    fn token(&self) -> u32 {
        let reached = self.now.saturating_sub(self.token_delay) / TOKEN_NS;
        u32::try_from(reached).unwrap_or(u32::MAX)
    }

    fn issue(&mut self, at: usize, writes: &mut Vec<Write>) {
        let token = self.token();
        let lane = &mut self.lanes[at];
        let Some(place) = address(
            self.start.layouts,
            self.start.seed,
            lane.writer,
            lane.wseq + 1,
        ) else {
            return;
        };
        lane.wseq += 1;
        lane.flying = Some(writes.len());
        writes.push(Write {
            load: self.start.number,
            writer: lane.writer,
            wseq: lane.wseq,
            volume: usize::from(place.volume),
            cell: place.cell,
            dep: self.load.ranks.len() as u64,
            token,
            issued: self.now,
            done: NEVER,
            durable: NEVER,
            rank: 0,
            applied: NEVER,
            unknown: false,
            heard: NEVER,
        });
    }

    fn done(&mut self, index: usize, leg: &Leg, writes: &mut [Write]) {
        let eio = self.start.shape.eio;
        let write = &mut writes[index];
        write.done = self.now;
        if eio > 0 && self.draw.one_in(eio) {
            write.unknown = true;
            if self.draw.one_in(2) {
                write.applied = self.draw.between(write.issued + 1, self.now);
            }
            self.load.unknown.push((self.now, write.writer, write.wseq));
        } else if self.start.shape.batch == 0 {
            write.applied = self.draw.between(write.issued + 1, self.now);
            let (mark, token) = ((write.writer, write.wseq), write.token);
            self.durable(vec![mark], token, &[index], writes);
        } else {
            self.waiting.push(index);
            let full = self.waiting.len() as u64 >= self.start.shape.batch;
            if full && self.flush.is_none() {
                self.begin_flush(leg);
            }
        }
    }

    fn begin_flush(&mut self, leg: &Leg) {
        self.flush = Some(Flush {
            covered: std::mem::take(&mut self.waiting),
            ends: self.now + self.draw.between(1, 3 * leg.pace_ns),
            token: self.token(),
        });
    }

    fn flushed(&mut self, writes: &mut [Write]) {
        let Some(flush) = self.flush.take() else {
            return;
        };
        let mut marks: BTreeMap<u32, u64> = BTreeMap::new();
        for index in &flush.covered {
            let write = &mut writes[*index];
            marks.insert(write.writer, write.wseq);
            // The cache may have written it back at any time before.
            write.applied = self.draw.between(write.issued + 1, self.now);
        }
        self.durable(
            marks.into_iter().collect(),
            flush.token,
            &flush.covered,
            writes,
        );
    }

    fn durable(
        &mut self,
        marks: Vec<(u32, u64)>,
        token: u32,
        covered: &[usize],
        writes: &mut [Write],
    ) {
        self.load.ranks.push(Durable {
            at: self.now,
            marks,
            token,
        });
        for index in covered {
            writes[*index].durable = self.now;
            writes[*index].rank = self.load.ranks.len() as u64;
        }
    }

    /// The writers stop: what is in flight comes back and is made durable.
    fn drain(&mut self, leg: &Leg, writes: &mut Vec<Write>) {
        while self.lanes.iter().any(|lane| lane.flying.is_some()) {
            self.step(leg, writes, false);
        }
        while self.flush.is_some() || !self.waiting.is_empty() {
            if self.flush.is_none() {
                self.begin_flush(leg);
            }
            self.step(leg, writes, false);
        }
        let issued = self.lanes.iter().map(|lane| (lane.writer, lane.wseq));
        self.load.account = Some(issued.collect());
    }

    /// What was not durable at the end may have reached the array nevertheless.
    fn lose(&mut self, writes: &mut [Write]) {
        let first = self.load.writes.start;
        let end = self.load.end;
        for write in &mut writes[first..] {
            if write.durable == NEVER && !write.unknown && self.draw.one_in(2) {
                write.applied = self.draw.between(write.issued + 1, end);
            }
        }
    }
}
