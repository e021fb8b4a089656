//! What the host hears of a load: tokens out, frames in, with delays, breaks and holes.

use super::draw::Draw;
use super::guest::{Load, NEVER, TOKEN_NS, Write};
use super::shape::{Hearing, Leg, MS, Shape};
use crate::history::segment::Record;
use crate::probe::frame::{Ack, FromGuest, Identity, Rank};
use crate::probe::layout::{Layout, WRITER_CANARY};

/// The most ranks in one frame of the simulation.
const RANKS: u64 = 12;
/// How long a rank waits for company.
const AGE_NS: u64 = 5 * MS;

/// A frame as the guest sealed it, and when the host has it.
struct Sealed {
    at: u64,
    arrives: u64,
    frame: FromGuest,
    /// Its ranks, if it is an ack.
    ranks: Option<(usize, usize)>,
}

/// What one incarnation's segment holds, and the acks that were heard of it.
pub(super) struct Heard {
    pub(super) records: Vec<Record>,
    /// When the frame of each rank was heard, by rank minus 1.
    pub(super) ranks: Vec<u64>,
}

/// Lets the host hear `load`. Until `alive` the guest says that it is there.
pub(super) fn load(
    shape: &Shape,
    leg: &Leg,
    load: &Load,
    layouts: &[Layout],
    identity: Identity,
    alive: Option<u64>,
) -> Heard {
    let mut draw = Draw::new(shape.seed, 200 + load.start);
    let mut list = vec![sealed(load.start - 60 * MS, FromGuest::Opened(identity))];
    if load.writes.start == 0 {
        for (volume, layout) in (0u8..).zip(layouts) {
            let cells = layout.cold_cells().count() as u64;
            list.push(sealed(
                load.start - 40 * MS,
                FromGuest::Filled { volume, cells },
            ));
        }
    }
    list.extend(acks(&mut draw, load));
    let unknown = load.unknown.iter().map(|(at, writer, wseq)| {
        let frame = FromGuest::Unknown {
            writer: *writer,
            wseq: *wseq,
            errno: 5,
        };
        sealed(*at, frame)
    });
    list.extend(unknown);
    list.sort_by_key(|frame| frame.at);
    if let Some(issued) = &load.account {
        let frame = FromGuest::Stopped {
            issued: issued.clone(),
            last_rank: load.ranks.len() as u64,
        };
        list.push(sealed(load.end, frame));
    }
    arrive(&mut draw, leg, load, &mut list);
    let end = list.last().map_or(load.start, |frame| frame.arrives);
    let heard = deliver(&mut draw, leg, &list, load.ranks.len());
    let mut records = heard.records;
    let until = alive.unwrap_or(load.end).max(end);
    if let Some(alive) = alive {
        let mut at = end + 500 * MS;
        while at < alive + 600 * MS {
            let frame = FromGuest::Alive {
                mono_ns: at,
                token: 0,
            };
            records.push(Record::Frame {
                at_ns: at,
                seq: 0,
                bytes: frame.encode(0),
            });
            at += 500 * MS;
        }
    }
    records.extend(tokens(load.start - 200 * MS, until));
    records.sort_by_key(Record::at_ns);
    Heard {
        records,
        ranks: heard.ranks,
    }
}

const fn sealed(at: u64, frame: FromGuest) -> Sealed {
    Sealed {
        at,
        arrives: NEVER,
        frame,
        ranks: None,
    }
}

/// The ack frames of a load, sealed when full or old or when something else was to be said.
fn acks(draw: &mut Draw, load: &Load) -> Vec<Sealed> {
    let mut list = Vec::new();
    let mut from = 0;
    let mut said = load.unknown.iter().map(|(at, ..)| *at).peekable();
    while from < load.ranks.len() {
        let most = draw.between(1, RANKS);
        let first = &load.ranks[from];
        while said.next_if(|at| *at < first.at).is_some() {}
        let cutoff = said.peek().copied().unwrap_or(NEVER);
        let mut to = from + 1;
        while to < load.ranks.len()
            && ((to - from) as u64) < most
            && load.ranks[to].at < (first.at + AGE_NS).min(cutoff)
        {
            to += 1;
        }
        let ranks = &load.ranks[from..to];
        let at = ranks.last().map_or(first.at, |last| last.at);
        let ack = Ack {
            first_rank: from as u64 + 1,
            ranks: ranks
                .iter()
                .map(|rank| Rank {
                    marks: rank.marks.clone(),
                })
                .collect(),
            mono_ns: at,
            real_ns: at,
            token: first.token,
            max_gap_ns: MS,
        };
        list.push(Sealed {
            at,
            arrives: NEVER,
            frame: FromGuest::Ack(ack),
            ranks: Some((from, to)),
        });
        from = to;
    }
    list
}

/// Gives each frame its arrival, in order, and cuts off what never arrives.
fn arrive(draw: &mut Draw, leg: &Leg, load: &Load, list: &mut Vec<Sealed>) {
    let slow = match leg.hearing {
        Hearing::Slow => 120 * MS,
        _ => 4 * MS,
    };
    let mut before = 0;
    for frame in list.iter_mut() {
        let late = MS / 5 + draw.below(slow);
        before = (frame.at + late).max(before + 1);
        frame.arrives = before;
    }
    if load.account.is_none() {
        let cut = load.end.saturating_sub(leg.unheard_ns);
        list.retain(|frame| frame.at <= cut || frame.at < load.start);
    }
    if leg.hearing == Hearing::Deaf {
        let keep = list.len().saturating_sub(draw.index(4) + 1).max(1);
        list.truncate(keep);
    }
}

fn deliver(draw: &mut Draw, leg: &Leg, list: &[Sealed], ranks: usize) -> Heard {
    let mut heard = Heard {
        records: Vec::with_capacity(list.len() + 8),
        ranks: vec![NEVER; ranks],
    };
    let hole = match leg.hearing {
        Hearing::Hole => Some(draw.index(list.len().saturating_sub(2)) + 1),
        _ => None,
    };
    let again = match leg.hearing {
        Hearing::Redelivered => Some(draw.index(list.len())),
        _ => None,
    };
    for (at, frame) in list.iter().enumerate() {
        if Some(at) == hole && at + 1 < list.len() {
            continue;
        }
        push(&mut heard, at, frame, frame.arrives);
        if Some(at) == again {
            heard.records.push(Record::Link {
                at_ns: frame.arrives,
                up: false,
            });
            for (back, frame) in list
                .iter()
                .enumerate()
                .take(at + 1)
                .skip(at.saturating_sub(2))
            {
                push(&mut heard, back, frame, list[at].arrives);
            }
        }
    }
    heard
}

fn push(heard: &mut Heard, index: usize, frame: &Sealed, at_ns: u64) {
    let seq = index as u64 + 1;
    heard.records.push(Record::Frame {
        at_ns,
        seq,
        bytes: frame.frame.encode(seq),
    });
    if let Some((from, to)) = frame.ranks {
        for at in &mut heard.ranks[from..to] {
            *at = (*at).min(at_ns);
        }
    }
}

/// Writes down in each write when the host heard of it.
pub(super) fn mark(load: &Load, heard: &Heard, writes: &mut [Write]) {
    for write in &mut writes[load.writes.clone()] {
        if let Some(at) = write.rank.checked_sub(1) {
            write.heard = heard.ranks[super::draw::small(at)];
        }
    }
}

/// The tokens that the host sends between two moments.
pub(super) fn tokens(from: u64, to: u64) -> Vec<Record> {
    (from.div_ceil(TOKEN_NS)..=to / TOKEN_NS)
        .map(|n| Record::Token {
            at_ns: n * TOKEN_NS,
            n: u32::try_from(n).unwrap_or(u32::MAX),
        })
        .collect()
}

/// What a read-back says before it reads: one canary per volume, the first heard a millisecond after
/// `at`.
pub(super) fn canaries(identity: Identity, at: u64, volumes: usize) -> Vec<Record> {
    let mut list = vec![(at - 30 * MS, FromGuest::Opened(identity))];
    for n in 1..=volumes as u64 {
        let ack = Ack {
            first_rank: n,
            ranks: vec![Rank {
                marks: vec![(WRITER_CANARY, n)],
            }],
            mono_ns: at,
            real_ns: at,
            token: u32::try_from((at - 5 * MS) / TOKEN_NS).unwrap_or(u32::MAX),
            max_gap_ns: 0,
        };
        list.push((at + n * MS, FromGuest::Ack(ack)));
    }
    let mut records: Vec<Record> = (1u64..)
        .zip(list)
        .map(|(seq, (at_ns, frame))| Record::Frame {
            at_ns,
            seq,
            bytes: frame.encode(seq),
        })
        .collect();
    records.extend(tokens(at - 100 * MS, at + 100 * MS));
    records.sort_by_key(Record::at_ns);
    records
}
