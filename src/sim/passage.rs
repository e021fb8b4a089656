//! One leg of a history: a load, its transition, and what comes back: with the leg's fault and, for
//! comparison, without.

use super::array::{self, Bend, Disks, Snapshot};
use super::cells::{Base, Cell, What};
use super::draw::{Draw, small};
use super::guest::{self, Load, Start, Write};
use super::shape::{Leg, MS, Move, Shape};
use super::strike::{self, Strike};
use crate::probe::layout::{Layout, WRITER_CANARY, address};

/// When the parts of a transition were over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) fenced: u64,
    pub(super) promoted: u64,
    /// The first canary was written.
    pub(super) back: u64,
    pub(super) scanned: u64,
}

/// A leg as it went.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    pub(super) load: Load,
    pub(super) times: Times,
    pub(super) snapshots: Vec<Snapshot>,
    /// The cut of each volume.
    pub(super) cuts: Vec<u64>,
    /// What a scan finds.
    pub(super) disks: Disks,
    /// What it would have found without the fault.
    pub(super) clean: Disks,
    /// Cells that each device has.
    pub(super) sizes: Vec<u64>,
    /// The points that replication claimed, and when each claim was seen.
    pub(super) claims: Vec<(u64, u64)>,
    /// Where the fault struck, in words; `None` if it found nothing.
    pub(super) struck: Option<String>,
    /// The cells that it was aimed at, for faults that are aimed at cells.
    pub(super) aimed: Vec<(usize, u64)>,
    /// A legal torn write.
    pub(super) tear: Option<usize>,
}

/// What a leg starts from.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) shape: &'a Shape,
    pub(super) layouts: &'a [Layout],
    pub(super) seed: u64,
    pub(super) number: usize,
    pub(super) at: u64,
    pub(super) base: &'a Disks,
}

/// Runs one leg.
pub(super) fn run(from: From<'_>, writes: &mut Vec<Write>) -> Passage {
    let leg = &from.shape.legs[from.number];
    let draw = &mut Draw::new(from.shape.seed, 300 + from.number as u64);
    let last = from.number + 1 == from.shape.legs.len();
    let family = from.shape.family.filter(|_| last);
    let recovery = draw.between(320 * MS, 900 * MS);
    let fence = draw.between(5 * MS, 80 * MS);
    let late = draw.below(300 * MS);
    let beyond = if family == Some(super::family::Family::TwoWriters) {
        recovery + late
    } else {
        fence
    };
    let start = Start {
        shape: from.shape,
        layouts: from.layouts,
        seed: from.seed,
        number: from.number,
        at: from.at,
        beyond,
    };
    let load = guest::run(start, leg, writes);
    let times = times(&load, leg, fence, recovery);
    let reach = match leg.how {
        Move::NodeDown => load.fault,
        _ => times.fenced,
    };
    let snapshots = array::snapshots(draw, leg, &load, reach);
    let synced = snapshots
        .iter()
        .rposition(|snapshot| snapshot.complete <= reach)
        .unwrap_or(0);
    let cuts = cuts(draw, leg, &load, writes, &snapshots[synced], from.layouts);
    let mut passage = Passage {
        load,
        times,
        cuts,
        clean: Vec::new(),
        disks: Vec::new(),
        sizes: from.layouts.iter().map(|layout| layout.cells).collect(),
        claims: claims(draw, &snapshots[..=synced], reach),
        snapshots,
        struck: None,
        aimed: Vec::new(),
        tear: None,
    };
    images(draw, from, leg, writes, &mut passage, synced, family);
    passage
}

fn times(load: &Load, leg: &Leg, fence: u64, recovery: u64) -> Times {
    let fenced = match leg.how {
        Move::PrimaryUp => load.fault + fence + MS,
        _ => load.fault + 2 * MS,
    };
    Times {
        fenced,
        promoted: load.fault + recovery.max(100 * MS) * 3 / 4,
        back: load.fault + recovery,
        scanned: load.fault.max(load.end) + recovery + 200 * MS,
    }
}

/// Where each volume is cut. Cuts may differ by as much as no write was issued in.
fn cuts(
    draw: &mut Draw,
    leg: &Leg,
    load: &Load,
    writes: &[Write],
    synced: &Snapshot,
    layouts: &[Layout],
) -> Vec<u64> {
    let cut = if leg.how.zero_loss() {
        load.end
    } else {
        synced.cut
    };
    let mut own = writes[load.writes.clone()].iter();
    let quiet = own
        .find(|write| write.issued > cut)
        .map_or(0, |next| next.issued - cut - 1);
    let apart = draw.one_in(4);
    let each = layouts.iter().map(|_| {
        let off = draw.below(quiet + 1);
        if apart { cut + off } else { cut }
    });
    each.collect()
}

/// What replication said of itself: the newest point or the one before.
fn claims(draw: &mut Draw, synced: &[Snapshot], reach: u64) -> Vec<(u64, u64)> {
    let back = if draw.one_in(4) { 2 } else { 1 };
    let said = synced.len().saturating_sub(back);
    let point = synced.get(said).or_else(|| synced.last());
    let mut list = Vec::new();
    if let Some(point) = point {
        list.push((point.cut, point.complete.max(reach.saturating_sub(MS))));
    }
    if let Some(first) = synced.first() {
        list.push((first.cut, first.complete + 1));
    }
    list
}

/// Builds both images: with the fault and without.
fn images(
    draw: &mut Draw,
    from: From<'_>,
    leg: &Leg,
    writes: &[Write],
    passage: &mut Passage,
    synced: usize,
    family: Option<super::family::Family>,
) {
    let tear = Draw::new(from.shape.seed, 400 + from.number as u64);
    let torn = |disks: &mut Disks, cuts: &[u64]| {
        if from.shape.torn {
            array::tear_in_flight(&mut tear.clone(), disks, &passage.load, writes, cuts)
        } else {
            None
        }
    };
    let none = Bend::default();
    let mut clean = array::cut(from.base, &passage.load, writes, &passage.cuts, &none);
    let tear = torn(&mut clean, &passage.cuts);
    let mut disks = clean.clone();
    let mut sizes = passage.sizes.clone();
    let mut cuts = passage.cuts.clone();
    let mut claims = passage.claims.clone();
    let mut struck = None;
    if let Some(family) = family {
        let strike = Strike {
            from,
            leg,
            load: &passage.load,
            writes,
            snapshots: &passage.snapshots,
            synced,
        };
        let bent = strike::bend(&strike, family, draw, &mut cuts, &mut claims);
        if let Some((bend, text)) = bent {
            disks = array::cut(from.base, &passage.load, writes, &cuts, &bend);
            torn(&mut disks, &cuts);
            struck = Some(text);
        }
        let damaged = strike::damage(&strike, family, draw, &mut disks, &mut sizes, &cuts);
        if let Some(damaged) = damaged {
            struck = Some(damaged.text);
            passage.aimed = damaged.cells;
        }
    }
    for image in [&mut clean, &mut disks] {
        canaries(from, image);
    }
    for (volume, size) in sizes.iter().enumerate() {
        for gone in disks[volume].iter_mut().skip(small(*size)) {
            if gone.what != What::Unread {
                gone.what = What::Unreadable;
            }
        }
    }
    passage.clean = clean;
    passage.disks = disks;
    passage.sizes = sizes;
    passage.cuts = cuts;
    passage.claims = claims;
    passage.struck = struck;
    passage.tear = tear;
}

/// The recovered guest writes one canary per volume.
fn canaries(from: From<'_>, disks: &mut Disks) {
    for wseq in 1..=from.layouts.len() as u64 {
        let Some(at) = address(from.layouts, from.seed, WRITER_CANARY, wseq) else {
            continue;
        };
        let volume = usize::from(at.volume);
        let held = &mut disks[volume][small(at.cell)];
        if held.what != What::Unreadable {
            *held = Cell {
                what: What::Whole(Base::Canary {
                    leg: from.number,
                    wseq,
                }),
                volume,
                cell: at.cell,
            };
        }
    }
}
