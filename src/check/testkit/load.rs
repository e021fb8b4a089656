//! The simulated guest and what the host hears of it.

use std::collections::{BTreeMap, VecDeque};

use super::{Draw, FAULT, Kit, LOAD, MS, Made, START, VERIFY};
use crate::history::segment::Record;
use crate::probe::disk::Grants;
use crate::probe::frame::{Ack, FromGuest, Identity, Opened, Rank};
use crate::probe::layout::{Layout, LayoutSpec, WRITER_CANARY, address};

pub(super) fn layout() -> Layout {
    let spec = LayoutSpec {
        canary: 4,
        log: 16,
        hot: 48,
        cold_stride: 16,
        hot_writers: 1,
    };
    Layout::fit(256, &spec).expect("fits")
}

pub(super) fn identity(number: u64, boot: &str, sizes: &[u64]) -> Identity {
    Identity {
        incarnation: number,
        boot_id: boot.into(),
        machine_id: "machine".into(),
        pid: 7,
        volumes: (0u8..)
            .zip(sizes)
            .map(|(volume, size)| Opened {
                volume,
                path: format!("/dev/vd{volume}"),
                size: *size,
                grants: Grants {
                    direct: true,
                    dsync: true,
                    write_back: false,
                },
            })
            .collect(),
    }
}

fn token(at_ns: u64) -> u32 {
    u32::try_from(at_ns / (50 * MS)).expect("small")
}

fn tokens(from: u64, to: u64) -> Vec<Record> {
    (from.div_ceil(50 * MS)..=to / (50 * MS))
        .map(|n| Record::Token {
            at_ns: n * 50 * MS,
            n: u32::try_from(n).expect("small"),
        })
        .collect()
}

fn frames(list: Vec<(u64, FromGuest)>) -> Vec<Record> {
    (1u64..)
        .zip(list)
        .map(|(seq, (at_ns, frame))| Record::Frame {
            at_ns,
            seq,
            bytes: frame.encode(seq),
        })
        .collect()
}

/// Writers that get nothing done for a while.
#[derive(Debug, Clone)]
pub(in crate::check) struct Stall {
    pub(in crate::check) from: u64,
    pub(in crate::check) to: u64,
    pub(in crate::check) writers: Vec<u32>,
    /// By how much the guest's clock stands still meanwhile.
    pub(in crate::check) lag: u64,
}

impl Stall {
    fn holds(&self, writer: u32, now: u64) -> bool {
        self.from <= now && now < self.to && self.writers.contains(&writer)
    }
}

impl Kit {
    /// The guest's clock.
    fn mono(&self, at: u64) -> u64 {
        let stall = self.stall.as_ref().filter(|stall| at >= stall.to);
        at - stall.map_or(0, |stall| stall.lag)
    }

    /// Three writers, one write in flight each, five hundred writes per second. Gives the marks of
    /// each rank and when it was durable.
    pub(super) fn write(&mut self, batch: u64, draw: &mut Draw) -> Vec<(u64, Vec<(u32, u64)>)> {
        let mut ranks: Vec<(u64, Vec<(u32, u64)>)> = Vec::new();
        let mut flying: BTreeMap<u32, usize> = BTreeMap::new();
        let mut wseq: BTreeMap<u32, u64> = BTreeMap::new();
        let mut done: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = START;
        while now < FAULT - 5 * MS {
            now += MS;
            let writer = u32::try_from(draw.below(3)).expect("small");
            if self
                .stall
                .as_ref()
                .is_some_and(|stall| stall.holds(writer, now))
            {
                continue;
            }
            if let Some(index) = flying.remove(&writer) {
                let mark = self.writes[index].wseq;
                if batch == 0 {
                    ranks.push((now, vec![(writer, mark)]));
                } else {
                    done.insert(writer, mark);
                }
            } else {
                let next = wseq.entry(writer).or_insert(0);
                *next += 1;
                let at = address(&self.layouts, self.seed, writer, *next).expect("a writer");
                flying.insert(writer, self.writes.len());
                self.writes.push(Made {
                    writer,
                    wseq: *next,
                    volume: usize::from(at.volume),
                    cell: at.cell,
                    dep: ranks.len() as u64,
                    ack: u64::MAX,
                    heard: u64::MAX,
                });
            }
            if batch > 0 && (self.writes.len() as u64).is_multiple_of(batch) && !done.is_empty() {
                let marks = done.iter().map(|(writer, mark)| (*writer, *mark)).collect();
                ranks.push((now, marks));
            }
        }
        let mut waiting: BTreeMap<u32, VecDeque<usize>> = BTreeMap::new();
        for (index, write) in self.writes.iter().enumerate() {
            waiting.entry(write.writer).or_default().push_back(index);
        }
        for (rank, (_, marks)) in (1u64..).zip(&ranks) {
            for (writer, mark) in marks {
                let Some(queue) = waiting.get_mut(writer) else {
                    continue;
                };
                while let Some(index) = queue.front().copied()
                    && self.writes[index].wseq <= *mark
                {
                    queue.pop_front();
                    self.writes[index].ack = rank;
                }
            }
        }
        ranks
    }

    /// The host hears every eight ranks, a millisecond later.
    pub(super) fn hear(&mut self, ranks: &[(u64, Vec<(u32, u64)>)]) {
        let opened = identity(LOAD, "boot-a", &self.sizes);
        let mut list = vec![(START - 100 * MS, FromGuest::Opened(opened))];
        let cold = self.layouts[0].cold_cells().count() as u64;
        for volume in 0..2 {
            list.push((
                START - 50 * MS,
                FromGuest::Filled {
                    volume,
                    cells: cold,
                },
            ));
        }
        let mut first_rank = 1;
        let mut before = self.mono(ranks.first().map_or(0, |first| first.0));
        let close = |a: &(u64, _), b: &(u64, _)| b.0 - a.0 <= 50 * MS;
        for chunk in ranks.chunk_by(close).flat_map(|near| near.chunks(8)) {
            let (at, _) = chunk[chunk.len() - 1];
            for write in &mut self.writes {
                if (first_rank..first_rank + chunk.len() as u64).contains(&write.ack) {
                    write.heard = at + MS;
                }
            }
            let mut gap = 0;
            for (at, _) in chunk {
                gap = gap.max(self.mono(*at) - before);
                before = self.mono(*at);
            }
            let ack = Ack {
                first_rank,
                ranks: chunk
                    .iter()
                    .map(|(_, marks)| Rank {
                        marks: marks.clone(),
                    })
                    .collect(),
                mono_ns: self.mono(at),
                real_ns: at,
                token: token(chunk[0].0),
                max_gap_ns: gap,
            };
            list.push((at + MS, FromGuest::Ack(ack)));
            first_rank += chunk.len() as u64;
        }
        self.ranks = ranks.iter().map(|(at, _)| *at).collect();
        self.load = frames(list);
        self.load.extend(tokens(START - 200 * MS, FAULT));
        self.load.sort_by_key(Record::at_ns);
    }

    pub(super) fn recover(&mut self) {
        let at = FAULT + 3_000 * MS;
        let opened = identity(VERIFY, self.verify_boot, &self.sizes);
        let canary = |rank, wseq, at: u64| {
            FromGuest::Ack(Ack {
                first_rank: rank,
                ranks: vec![Rank {
                    marks: vec![(WRITER_CANARY, wseq)],
                }],
                mono_ns: at,
                real_ns: at,
                token: token(at - MS),
                max_gap_ns: 0,
            })
        };
        self.verify = frames(vec![
            (at - 100 * MS, FromGuest::Opened(opened)),
            (at, canary(1, 1, at)),
            (at + 2 * MS, canary(2, 2, at)),
        ]);
        self.verify.extend(tokens(at - 200 * MS, at + 500 * MS));
        self.verify.sort_by_key(Record::at_ns);
    }
}
