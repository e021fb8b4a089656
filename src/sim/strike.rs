//! Plants a fault: in how a cut comes about, or in what it left.

use super::array::{self, Bend, Disks, Snapshot};
use super::cells::{Base, What};
use super::draw::{Draw, small};
use super::family::Family;
use super::guest::{Load, NEVER, Write};
use super::passage::From;
use super::shape::{Leg, MS};

/// What a fault has to strike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strike<'a> {
    pub(super) from: From<'a>,
    pub(super) leg: &'a Leg,
    pub(super) load: &'a Load,
    pub(super) writes: &'a [Write],
    pub(super) snapshots: &'a [Snapshot],
    /// The snapshot that the peer had whole.
    pub(super) synced: usize,
}

type Bent = Option<(Bend, String)>;

impl Strike<'_> {
    fn own(&self) -> impl Iterator<Item = (usize, &Write)> {
        let own = self.load.writes.clone();
        own.map(|index| (index, &self.writes[index]))
    }

    fn all(&self, wanted: impl Fn(&Write) -> bool) -> Vec<usize> {
        let own = self.own().filter(|(_, write)| wanted(write));
        own.map(|(index, _)| index).collect()
    }

    fn say(&self, index: usize) -> String {
        let write = &self.writes[index];
        format!(
            "writer {} write {} on volume {} cell {}",
            write.writer, write.wseq, write.volume, write.cell
        )
    }
}

/// Faults in how the cut comes about: they change the cuts, the claims, or which writes are in it.
pub(super) fn bend(
    strike: &Strike<'_>,
    family: Family,
    draw: &mut Draw,
    cuts: &mut [u64],
    claims: &mut Vec<(u64, u64)>,
) -> Bent {
    match family {
        Family::DropAckedWrite => dropped(strike, draw, cuts),
        Family::ReorderAcrossBarrier => early(strike, draw, cuts),
        Family::GroupSkew => {
            let volume = draw.index(cuts.len());
            let by = draw.between(1, 60 * MS);
            cuts[volume] = (cuts[volume] + by).min(strike.load.end);
            let text = format!("volume {volume} was cut {} us later", by / 1000);
            Some((Bend::default(), text))
        }
        Family::MisdirectedWrite => astray(strike, draw, cuts),
        Family::LyingFlush => lying(strike, draw),
        Family::OlderPoint => {
            let older = draw.index(strike.synced);
            (strike.synced > 0).then(|| recut(strike, older, cuts))
        }
        Family::SyncStalled => {
            // The claims stay those of the stall.
            let at = draw.index(strike.snapshots.len().min(3));
            claims.retain(|(point, _)| *point <= strike.snapshots[at].cut);
            Some(recut(strike, at, cuts))
        }
        Family::LostFinalSync => Some(recut(strike, strike.synced, cuts)),
        Family::SyncTimeLies => {
            let fault = strike.load.fault;
            let point = fault.saturating_sub(draw.below(strike.leg.interval_ns));
            claims.push((point, fault - 1));
            Some((Bend::default(), "a later sync time was claimed".into()))
        }
        Family::TwoWriters => Some((
            Bend::default(),
            "the fence was said to hold and did not".into(),
        )),
        _ => None,
    }
}

fn recut(strike: &Strike<'_>, at: usize, cuts: &mut [u64]) -> (Bend, String) {
    let to = strike.snapshots[at].cut;
    cuts.fill(to);
    let text = format!("snapshot {at} came up in place of {}", strike.synced);
    (Bend::default(), text)
}

fn dropped(strike: &Strike<'_>, draw: &mut Draw, cuts: &[u64]) -> Bent {
    let index = draw.pick(&strike.all(|w| w.durable != NEVER && w.applied <= cuts[w.volume]))?;
    let bend = Bend {
        without: vec![index],
        ..Bend::default()
    };
    Some((bend, format!("{} was dropped", strike.say(index))))
}

fn early(strike: &Strike<'_>, draw: &mut Draw, cuts: &[u64]) -> Bent {
    let index = draw.pick(&strike.all(|w| w.applied != NEVER && w.applied > cuts[w.volume]))?;
    let bend = Bend {
        with: vec![index],
        ..Bend::default()
    };
    let text = format!("{} came before its turn", strike.say(index));
    Some((bend, text))
}

fn astray(strike: &Strike<'_>, draw: &mut Draw, cuts: &[u64]) -> Bent {
    let index = draw.pick(&strike.all(|w| w.applied <= cuts[w.volume]))?;
    let write = &strike.writes[index];
    let volumes = strike.from.layouts.len();
    let (volume, cell) = if volumes > 1 && draw.one_in(4) {
        ((write.volume + 1) % volumes, write.cell)
    } else if draw.one_in(2) {
        (write.volume, write.cell + 8)
    } else {
        (
            write.volume,
            draw.below(strike.from.layouts[write.volume].cells),
        )
    };
    if (volume, cell) == (write.volume, write.cell) {
        return None;
    }
    let bend = Bend {
        astray: Some((index, volume, cell)),
        ..Bend::default()
    };
    let text = format!(
        "{} landed on volume {volume} cell {cell}",
        strike.say(index)
    );
    Some((bend, text))
}

/// From some moment on nothing that was flushed is safe, and part of it is lost with the power.
fn lying(strike: &Strike<'_>, draw: &mut Draw) -> Bent {
    let span = strike.load.end - strike.load.start;
    let from = strike.load.start + draw.below(span);
    let open = strike.all(|w| w.durable != NEVER && w.durable >= from);
    let one = draw.pick(&open)?;
    let mut without: Vec<usize> = open.into_iter().filter(|_| draw.one_in(2)).collect();
    without.push(one);
    let text = format!("{} writes were flushed and lost", without.len());
    let bend = Bend {
        without,
        ..Bend::default()
    };
    Some((bend, text))
}

/// Where a fault struck what the cut left.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage {
    pub(super) text: String,
    /// The cells that it was aimed at, if it was aimed at cells whatever they hold.
    pub(super) cells: Vec<(usize, u64)>,
}

impl Damage {
    const fn text(text: String) -> Self {
        Self {
            text,
            cells: Vec::new(),
        }
    }
}

/// Faults in what the cut left. Gives where it struck.
pub(super) fn damage(
    strike: &Strike<'_>,
    family: Family,
    draw: &mut Draw,
    disks: &mut Disks,
    sizes: &mut [u64],
    cuts: &[u64],
) -> Option<Damage> {
    let volume = draw.index(disks.len());
    match family {
        Family::TornAckedWrite => torn(strike, draw, disks, cuts).map(Damage::text),
        Family::GhostWrite => ghost(strike, draw, disks, cuts).map(Damage::text),
        Family::BitFlip => {
            let cell = draw.index(disks[volume].len());
            let held = &mut disks[volume][cell];
            if let What::Whole(base) = held.what {
                let bit = draw.index(crate::probe::layout::CELL * 8);
                held.what = What::Flipped { base, bit };
            }
            Some(Damage {
                text: format!("a bit of volume {volume} cell {cell} flipped"),
                cells: vec![(volume, cell as u64)],
            })
        }
        Family::SwapVolumes => {
            let other = (volume + 1 + draw.index(disks.len() - 1)) % disks.len();
            disks.swap(volume, other);
            let text = format!("volumes {volume} and {other} were exchanged");
            Some(Damage::text(text))
        }
        Family::StaleExtent => {
            let older = match strike.synced {
                n if strike.leg.how.zero_loss() => draw.index(n + 1),
                n => draw.index(n),
            };
            let point = vec![strike.snapshots[older].cut; disks.len()];
            let old = array::cut(
                strike.from.base,
                strike.load,
                strike.writes,
                &point,
                &Bend::default(),
            );
            let (from, to) = extent(strike, draw, volume);
            disks[volume][from..to].copy_from_slice(&old[volume][from..to]);
            let text = format!("volume {volume} cells {from}..{to} are of snapshot {older}");
            Some(Damage::text(text))
        }
        Family::SkippedExtent => Some(spread(strike, draw, disks, volume, What::Whole(Base::Zero))),
        Family::RecycledVolume => Some(spread(strike, draw, disks, volume, What::Foreign)),
        Family::UnreadableExtent => Some(spread(strike, draw, disks, volume, What::Unreadable)),
        Family::FreshVolume => {
            let cells = disks[volume].len();
            fill(disks, volume, 0, cells, What::Whole(Base::Zero));
            Some(Damage::text(format!("volume {volume} is blank")))
        }
        Family::ResizedDevice => {
            let by = draw.between(1, 8);
            let size = &mut sizes[volume];
            *size = if draw.one_in(2) {
                *size + by
            } else {
                *size - by
            };
            let text = format!("volume {volume} came back with {size} cells");
            Some(Damage::text(text))
        }
        Family::ResurrectedWrite => resurrected(strike, draw, disks).map(Damage::text),
        Family::MidDelta => mid_delta(strike, draw, disks, cuts).map(Damage::text),
        _ => None,
    }
}

/// A run of cells: mostly where writes go, sometimes anywhere.
fn extent(strike: &Strike<'_>, draw: &mut Draw, volume: usize) -> (usize, usize) {
    let layout = &strike.from.layouts[volume];
    let range = if draw.one_in(3) {
        0..layout.cells
    } else {
        layout.log.start..layout.hot.end
    };
    let from = range.start + draw.below(range.end - range.start);
    let to = (from + draw.between(1, 12)).min(layout.cells);
    (small(from), small(to))
}

fn spread(
    strike: &Strike<'_>,
    draw: &mut Draw,
    disks: &mut Disks,
    volume: usize,
    what: What,
) -> Damage {
    let (from, to) = extent(strike, draw, volume);
    fill(disks, volume, from, to, what);
    Damage {
        text: format!("volume {volume} cells {from}..{to} are {what:?}"),
        cells: (from as u64..to as u64)
            .map(|cell| (volume, cell))
            .collect(),
    }
}

fn fill(disks: &mut Disks, volume: usize, from: usize, to: usize, what: What) {
    for (cell, held) in (from as u64..).zip(&mut disks[volume][from..to]) {
        if held.what != What::Unread {
            held.what = what;
            (held.volume, held.cell) = (volume, cell);
        }
    }
}

/// The content that an acked write of the load replaced.
fn before(strike: &Strike<'_>, index: usize, cuts: &[u64]) -> Base {
    let write = &strike.writes[index];
    let earlier = strike.own().take_while(|(at, _)| *at < index);
    let replaced = earlier.filter(|(_, other)| {
        (other.volume, other.cell) == (write.volume, write.cell)
            && other.applied <= cuts[other.volume]
    });
    let base = strike.from.base[write.volume][small(write.cell)].what;
    replaced.last().map_or(
        match base {
            What::Whole(base) => base,
            _ => Base::Zero,
        },
        |(at, _)| Base::Write(at),
    )
}

fn torn(strike: &Strike<'_>, draw: &mut Draw, disks: &mut Disks, cuts: &[u64]) -> Option<String> {
    let held = |write: &Write| disks[write.volume][small(write.cell)].what;
    let there: Vec<usize> = strike
        .own()
        .filter(|(index, w)| w.durable != NEVER && held(w) == What::Whole(Base::Write(*index)))
        .map(|(index, _)| index)
        .collect();
    let index = draw.pick(&there)?;
    let old = before(strike, index, cuts);
    let write = &strike.writes[index];
    disks[write.volume][small(write.cell)].what = array::torn(draw, index, old);
    Some(format!("{} was torn", strike.say(index)))
}

fn ghost(strike: &Strike<'_>, draw: &mut Draw, disks: &mut Disks, cuts: &[u64]) -> Option<String> {
    let held = |write: &Write| disks[write.volume][small(write.cell)].what;
    let over: Vec<usize> = strike
        .all(|w| w.applied <= cuts[w.volume] && matches!(held(w), What::Whole(Base::Write(_))));
    let over: Vec<usize> = over
        .into_iter()
        .filter(|index| held(&strike.writes[*index]) != What::Whole(Base::Write(*index)))
        .collect();
    let index = draw.pick(&over)?;
    let write = &strike.writes[index];
    disks[write.volume][small(write.cell)].what = What::Whole(Base::Write(index));
    Some(format!("{} landed once more", strike.say(index)))
}

/// A write of the first load that the failover had left behind is there after the return.
fn resurrected(strike: &Strike<'_>, draw: &mut Draw, disks: &mut Disks) -> Option<String> {
    let fork = |write: &Write| strike.from.base[write.volume][small(write.cell)].what;
    let given_up: Vec<usize> = (0..strike.load.writes.start)
        .filter(|index| {
            let write = &strike.writes[*index];
            let kept = match fork(write) {
                What::Whole(Base::Zero) => true,
                What::Whole(Base::Write(there)) => there < *index,
                _ => false,
            };
            write.applied != NEVER && kept
        })
        .collect();
    let index = draw.pick(&given_up)?;
    let write = &strike.writes[index];
    disks[write.volume][small(write.cell)] = super::cells::Cell {
        what: What::Whole(Base::Write(index)),
        volume: write.volume,
        cell: write.cell,
    };
    Some(format!("{} came back", strike.say(index)))
}

/// Part of the next snapshot is there, in the order of addresses or in none.
fn mid_delta(
    strike: &Strike<'_>,
    draw: &mut Draw,
    disks: &mut Disks,
    cuts: &[u64],
) -> Option<String> {
    let next = strike.snapshots.get(strike.synced + 1)?;
    let point: Vec<u64> = cuts.iter().map(|cut| next.cut.max(*cut)).collect();
    let newer = array::cut(
        strike.from.base,
        strike.load,
        strike.writes,
        &point,
        &Bend::default(),
    );
    let cells: usize = disks.iter().map(Vec::len).sum();
    let ordered = draw.one_in(2);
    let to = draw.index(cells);
    let mut at = 0;
    for (held, new) in disks.iter_mut().flatten().zip(newer.iter().flatten()) {
        at += 1;
        if if ordered { at <= to } else { draw.one_in(2) } {
            *held = *new;
        }
    }
    Some(format!(
        "part of snapshot {} was there, {}",
        strike.synced + 1,
        if ordered { "in order" } else { "in no order" }
    ))
}
