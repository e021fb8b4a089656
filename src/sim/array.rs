//! A simulated array: what its volumes hold at a cut, and when its mirror cut and transferred.

use super::cells::{Base, Cell, What};
use super::draw::Draw;
use super::guest::{Load, NEVER, Write};
use super::shape::Leg;
use crate::probe::layout::Layout;

/// All volumes of a VM, by volume and cell.
pub(super) type Disks = Vec<Vec<Cell>>;

/// The volumes after the fill.
pub(super) fn filled(layouts: &[Layout]) -> Disks {
    let volume = |(volume, layout): (usize, &Layout)| {
        let mut cells: Vec<Cell> = (0..layout.cells)
            .map(|cell| {
                let written = layout.canary.start <= cell && cell < layout.hot.end;
                let what = if written {
                    What::Whole(Base::Zero)
                } else {
                    What::Unread
                };
                Cell { what, volume, cell }
            })
            .collect();
        for cell in layout.cold_cells() {
            cells[super::draw::small(cell)].what = What::Whole(Base::Fill);
        }
        cells
    };
    layouts.iter().enumerate().map(volume).collect()
}

/// A mirror snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    /// Its point in time.
    pub(super) cut: u64,
    /// When the peer had all of it.
    pub(super) complete: u64,
}

/// The snapshots of a leg until `end`, the first of them from before the load.
pub(super) fn snapshots(draw: &mut Draw, leg: &Leg, load: &Load, end: u64) -> Vec<Snapshot> {
    let base = load.start - 5;
    let mut list = vec![Snapshot {
        cut: base,
        complete: base + 1,
    }];
    let mut cut = load.start + draw.below(leg.interval_ns);
    while cut < end {
        let complete = cut + draw.between(leg.interval_ns / 10, leg.interval_ns * 9 / 10);
        list.push(Snapshot { cut, complete });
        cut += leg.interval_ns;
    }
    list
}

/// How an image differs from what the array held at the cut.
#[derive(Debug, Clone, Default)]
pub(super) struct Bend {
    /// Writes that never got there.
    pub(super) without: Vec<usize>,
    /// Writes that got there although they came after the cut.
    pub(super) with: Vec<usize>,
    /// A write that landed elsewhere.
    pub(super) astray: Option<(usize, usize, u64)>,
}

/// What the volumes hold that were `base` when `load` began and are cut at `cuts`, one per volume.
pub(super) fn cut(base: &Disks, load: &Load, writes: &[Write], cuts: &[u64], bend: &Bend) -> Disks {
    let mut disks = base.clone();
    let has = |index: usize| {
        let write = &writes[index];
        let lost = bend.without.contains(&index)
            || bend.astray.is_some_and(|(astray, ..)| astray == index);
        let there = write.applied <= cuts[write.volume] || bend.with.contains(&index);
        there && !lost
    };
    for index in load.writes.clone().filter(|index| has(*index)) {
        let write = &writes[index];
        let at = super::draw::small(write.cell);
        disks[write.volume][at] = Cell {
            what: What::Whole(Base::Write(index)),
            volume: write.volume,
            cell: write.cell,
        };
    }
    if let Some((index, volume, cell)) = bend.astray {
        let write = &writes[index];
        let over = load.writes.clone().any(|later| {
            let other = &writes[later];
            (other.volume, other.cell) == (volume, cell)
                && has(later)
                && other.applied > write.applied
        });
        let there = write.applied <= cuts[write.volume];
        if let Some(held) = disks[volume].get_mut(super::draw::small(cell))
            && there
            && !over
            && held.what != What::Unread
        {
            *held = Cell {
                what: What::Whole(Base::Write(index)),
                volume: write.volume,
                cell: write.cell,
            };
        }
    }
    disks
}

/// Tears one write that was under way at the cut, if there is one. Gives its index.
pub(super) fn tear_in_flight(
    draw: &mut Draw,
    disks: &mut Disks,
    load: &Load,
    writes: &[Write],
    cuts: &[u64],
) -> Option<usize> {
    let flying: Vec<usize> = load
        .writes
        .clone()
        .filter(|index| {
            let write = &writes[*index];
            let cut = cuts[write.volume];
            write.issued < cut && (write.durable == NEVER || write.durable > cut)
        })
        .collect();
    let index = draw.pick(&flying)?;
    let write = &writes[index];
    let held = &mut disks[write.volume][super::draw::small(write.cell)];
    let What::Whole(old) = held.what else {
        return None;
    };
    // What is there must be older: of this load with a smaller index, or from before.
    if matches!(old, Base::Write(there) if there >= index) {
        return None;
    }
    held.what = torn(draw, index, old);
    Some(index)
}

/// A cell of which some sectors, not none and not all, are of `new`.
pub(super) fn torn(draw: &mut Draw, new: usize, old: Base) -> What {
    let mask = u8::try_from(draw.between(1, 254)).unwrap_or(1);
    What::Torn { new, old, mask }
}
