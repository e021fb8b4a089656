//! What the checks must say, from the truth and by definition: naive, from moments instead of ranks,
//! and without a line of the code that it is held against.

use std::collections::BTreeSet;

use super::cells::{Base, What};
use super::draw::small;
use super::guest::{NEVER, Write};
use super::passage::Passage;
use super::world::World;

/// What a check must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    /// Fail: the definition is broken and the evidence shows it.
    Fail,
    /// Anything but fail; pass unless it is named why it cannot tell.
    NotFail(Option<&'static str>),
    /// The definition does not say.
    Either,
}

/// What a cell of the log or hot region holds, as far as it concerns one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// That write of the load.
    Write(usize),
    /// What was there before the load.
    Before,
    /// Sectors of that write.
    Torn(usize),
    Damaged,
}

/// One image and the load that it is evidence of.
pub(super) struct View<'a> {
    pub(super) world: &'a World,
    pub(super) leg: usize,
    pub(super) passage: &'a Passage,
}

impl<'a> View<'a> {
    pub(super) fn all(world: &'a World) -> Vec<Self> {
        let legs = world.passages.iter().enumerate();
        legs.map(|(leg, passage)| View {
            world,
            leg,
            passage,
        })
        .collect()
    }

    /// The acked writes of the load that the host heard of.
    pub(super) fn heard(&self) -> impl Iterator<Item = (usize, &'a Write)> + use<'a> {
        let writes = &self.world.writes;
        let own = self.passage.load.writes.clone();
        own.map(|index| (index, &writes[index]))
            .filter(|(_, write)| write.heard != NEVER && !write.unknown)
    }

    pub(super) fn held(&self, volume: usize, cell: u64) -> Held {
        let held = &self.passage.disks[volume][small(cell)];
        if held.is_astray(volume, cell) {
            return Held::Damaged;
        }
        let own = &self.passage.load.writes;
        match held.what {
            What::Whole(Base::Write(index)) if own.contains(&index) => Held::Write(index),
            What::Whole(_) => Held::Before,
            What::Torn { new, .. } if own.contains(&new) => Held::Torn(new),
            _ => Held::Damaged,
        }
    }

    fn written(&self, volume: usize) -> std::ops::Range<u64> {
        let layout = &self.world.layouts[volume];
        layout.log.start..layout.hot.end
    }

    /// Whole writes of the load that are there.
    pub(super) fn present(&self, on: impl Fn(usize) -> bool) -> Vec<usize> {
        let volumes = (0..self.world.layouts.len()).filter(|volume| on(*volume));
        let cells = volumes.flat_map(|v| self.written(v).map(move |cell| (v, cell)));
        let held = cells.filter_map(|(v, cell)| match self.held(v, cell) {
            Held::Write(index) => Some(index),
            _ => None,
        });
        held.collect()
    }

    /// Whether an acked write is gone: neither it nor a later one is in its place.
    pub(super) fn is_lost(&self, index: usize) -> bool {
        let write = &self.world.writes[index];
        match self.held(write.volume, write.cell) {
            Held::Write(there) => there < index,
            Held::Torn(there) => there <= index,
            Held::Before | Held::Damaged => true,
        }
    }

    /// Whether it is gone and its cell is whole.
    pub(super) fn is_missing(&self, index: usize) -> bool {
        let write = &self.world.writes[index];
        match self.held(write.volume, write.cell) {
            Held::Write(there) => there < index,
            Held::Before => true,
            Held::Torn(_) | Held::Damaged => false,
        }
    }

    /// Torn cells whose sectors do not say of which load they are.
    pub(super) fn torn_between_loads(&self) -> bool {
        let cells = self.passage.disks.iter().flatten();
        self.leg > 0
            && cells
                .into_iter()
                .any(|held| matches!(held.what, What::Torn { .. }))
    }

    /// The image is legal if some set of writes that is closed under "was durable before the other
    /// was issued" leaves exactly it. The smallest candidate is the closure of what is there: this
    /// builds it write by write and looks whether it holds anything that is missing.
    pub(super) fn is_illegal(&self, on: impl Fn(usize) -> bool) -> bool {
        self.is_illegal_among(self.heard().map(|(index, _)| index), on)
    }

    /// The same with other writes known to have been durable than those that the host heard of.
    pub(super) fn is_illegal_among(
        &self,
        known: impl Iterator<Item = usize>,
        on: impl Fn(usize) -> bool,
    ) -> bool {
        let writes = &self.world.writes;
        let candidates: Vec<usize> = known.filter(|index| on(writes[*index].volume)).collect();
        let mut open = self.present(&on);
        if !open.is_empty() && self.reverted().iter().any(|(volume, _)| on(*volume)) {
            return true;
        }
        let mut closed: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(later) = open.pop() {
            for index in &candidates {
                let needed = writes[*index].durable < writes[later].issued;
                if needed && closed.insert(*index) {
                    if self.is_missing(*index) {
                        return true;
                    }
                    open.push(*index);
                }
            }
        }
        false
    }

    /// Cells that hold less than the read-back before the load showed there.
    pub(super) fn reverted(&self) -> Vec<(usize, u64)> {
        self.moved(|was, is| is < was)
    }

    /// Cells that hold more of an earlier load than that read-back showed.
    fn resurrected(&self) -> Vec<(usize, u64)> {
        let first = self.passage.load.writes.start;
        self.moved(|was, is| was < is && is <= first)
    }

    /// Cells whose age changed so since the read-back before the load: 0 for zeros, else one more
    /// than the index of the write.
    fn moved(&self, so: impl Fn(usize, usize) -> bool) -> Vec<(usize, u64)> {
        let Some(before) = self.leg.checked_sub(1) else {
            return Vec::new();
        };
        let base = &self.world.passages[before].disks;
        let age = |disks: &super::array::Disks, volume: usize, cell: u64| {
            let held = &disks[volume][small(cell)];
            match held.what {
                What::Whole(Base::Zero) => Some(0),
                What::Whole(Base::Write(index)) if !held.is_astray(volume, cell) => Some(index + 1),
                _ => None,
            }
        };
        let mut list = Vec::new();
        for volume in 0..self.world.layouts.len() {
            for cell in self.written(volume) {
                let was = age(base, volume, cell);
                let is = age(&self.passage.disks, volume, cell);
                if let (Some(was), Some(is)) = (was, is)
                    && so(was, is)
                {
                    list.push((volume, cell));
                }
            }
        }
        list
    }

    /// Cells of a volume that lack a write that was durable before something on the same volume was
    /// issued: the cell, when the first such write was durable, whether the cell is zero.
    fn lagging(&self, volume: usize) -> Vec<(u64, u64, bool)> {
        let writes = &self.world.writes;
        let present = self.present(|v| v == volume);
        let reached = present.iter().map(|index| writes[*index].issued).max();
        let cells = self.written(volume).filter_map(|cell| {
            let missing = self.heard().find(|(index, write)| {
                (write.volume, write.cell) == (volume, cell)
                    && self.is_missing(*index)
                    && reached.is_some_and(|reached| write.durable < reached)
            });
            let zero = self.passage.disks[volume][small(cell)].what == What::Whole(Base::Zero);
            missing.map(|(_, write)| (cell, write.durable, zero))
        });
        cells.collect()
    }

    /// Whether two lagging cells are one extent: nothing between them is newer than what they lack.
    fn joined(&self, volume: usize, (a, lacks_a): (u64, u64), (b, lacks_b): (u64, u64)) -> bool {
        (a + 1..b).all(|cell| match self.held(volume, cell) {
            Held::Write(index) => self.world.writes[index].issued < lacks_a.max(lacks_b),
            _ => true,
        })
    }

    /// What stale extents require of D6 and D7.
    pub(super) fn extents(&self) -> (Must, Must) {
        let (mut stale, mut zeroed) = (Must::NotFail(None), Must::NotFail(None));
        for volume in 0..self.world.layouts.len() {
            let lagging = self.lagging(volume);
            if lagging.len() < 2 {
                continue;
            }
            let whole = lagging.iter().any(|(.., zero)| !zero);
            stale = worse(stale, Must::Either);
            zeroed = worse(zeroed, Must::Either);
            for pair in lagging.windows(2) {
                let [(a, lacks_a, zero_a), (b, lacks_b, zero_b)] = pair else {
                    continue;
                };
                if !self.joined(volume, (*a, *lacks_a), (*b, *lacks_b)) {
                    continue;
                }
                if !zero_a || !zero_b {
                    stale = Must::Fail;
                } else if !whole {
                    zeroed = Must::Fail;
                }
            }
        }
        (stale, zeroed)
    }
}

/// The stronger of two demands.
pub(super) const fn worse(a: Must, b: Must) -> Must {
    match (a, b) {
        (Must::Fail, _) | (_, Must::Fail) => Must::Fail,
        (Must::Either, _) | (_, Must::Either) => Must::Either,
        (Must::NotFail(None), other) => other,
        (known, _) => known,
    }
}

fn fail_if(bad: bool) -> Must {
    if bad { Must::Fail } else { Must::NotFail(None) }
}

fn unsure_if(why: &'static str, may: bool) -> Must {
    Must::NotFail(may.then_some(why))
}

/// What `check` must say of a history.
pub(super) fn demand(world: &World, check: &str) -> Must {
    let poor = unsure_if("hearing was poor on purpose", world.shape.poor());
    let views = View::all(world);
    let of =
        |judge: &dyn Fn(&View<'_>) -> Must| views.iter().map(judge).fold(poor, |a, b| worse(b, a));
    match check {
        "D1" => of(&|view| {
            if world.shape.legs[view.leg].how.zero_loss() {
                durable(view)
            } else {
                Must::NotFail(None)
            }
        }),
        "D2" => of(&|view| {
            let volumes = 0..world.layouts.len();
            let bad = volumes
                .into_iter()
                .any(|v| view.is_illegal(|other| other == v));
            worse(fail_if(bad), silent(view))
        }),
        "D3" => of(&|view| worse(fail_if(view.is_illegal(|_| true)), silent(view))),
        "D4" => of(&damaged),
        "D5" => of(&astray),
        "D6" => of(&foreign),
        "D7" => of(&gone),
        "R1" => worse(super::times::rpo(&views[0]), poor),
        "R2" => worse(super::times::honest(&views[0]), poor),
        "S1" => worse(super::times::split(world), poor),
        "T1" | "T2" => worse(super::times::outage(&views[0]), poor),
        "S3" => of(&discarded),
        // A blank or recycled disk may be another guest's.
        "G1" if world.shape.family.is_some() => Must::Either,
        _ => poor,
    }
}

/// D2 and D3 cannot tell of volumes on which the load left nothing.
fn silent(view: &View<'_>) -> Must {
    let volumes = 0..view.world.layouts.len();
    let silent = volumes
        .into_iter()
        .any(|v| view.present(|o| o == v).is_empty());
    if view.heard().next().is_none() {
        return unsure_if("no ack of the load was heard", true);
    }
    unsure_if("no write of the load came back on a volume", silent)
}

fn durable(view: &View<'_>) -> Must {
    let lost = view.heard().any(|(index, _)| view.is_lost(index));
    if lost && view.torn_between_loads() {
        return Must::Either;
    }
    let volumes = 0..view.world.layouts.len();
    let idle = volumes
        .into_iter()
        .any(|v| view.heard().all(|(_, write)| write.volume != v));
    worse(
        fail_if(lost),
        unsure_if("nothing was heard to be acked on a volume", idle),
    )
}

/// Whether a torn write of the judged load had to be whole.
pub(super) fn owed_whole(view: &View<'_>, index: usize) -> bool {
    let writes = &view.world.writes;
    let write = &writes[index];
    let heard = write.heard != NEVER && !write.unknown;
    let strict = view.world.shape.legs[view.leg].how.zero_loss();
    let mut present = view.present(|_| true).into_iter();
    heard && (strict || present.any(|later| write.durable < writes[later].issued))
}

fn damaged(view: &View<'_>) -> Must {
    let mut must = Must::NotFail(None);
    for (volume, disk) in view.passage.disks.iter().enumerate() {
        let canary = &view.world.layouts[volume].canary;
        for (cell, held) in (0u64..).zip(disk) {
            if canary.contains(&cell) {
                continue;
            }
            let said = match held.what {
                What::Flipped { .. } => Must::Fail,
                What::Torn { .. } if held.is_astray(volume, cell) => Must::Either,
                What::Torn { .. } if view.leg > 0 => between_loads(view, volume, cell),
                What::Torn { new, .. } => fail_if(owed_whole(view, new)),
                _ => Must::NotFail(None),
            };
            must = worse(must, said);
        }
    }
    must
}

/// A torn cell after an earlier load: its highest number decides what can be said of it.
fn between_loads(view: &View<'_>, volume: usize, cell: u64) -> Must {
    let unsure = unsure_if("a torn cell may be of an earlier load", true);
    let writes = &view.world.writes;
    match (
        view.passage.disks[volume][small(cell)].what,
        view.held(volume, cell),
    ) {
        (What::Torn { new, old, .. }, Held::Torn(_)) if owed_whole(view, new) => match old {
            Base::Write(old) if writes[old].wseq > writes[new].wseq => Must::Either,
            _ => Must::Fail,
        },
        // What else was planted made a later write on it owed.
        (_, Held::Torn(_)) if view.owes(volume, cell) => Must::Either,
        // An earlier load's write of a number that this load acked too: then it is overwritten.
        (_, Held::Torn(_)) => unsure,
        (What::Torn { .. }, _) if view.is_cell_owed(volume, cell) => Must::Either,
        _ => unsure,
    }
}

impl View<'_> {
    /// Whether a write of the judged load must be on a cell.
    fn owes(&self, volume: usize, cell: u64) -> bool {
        let mut own = self
            .heard()
            .filter(|(_, write)| (write.volume, write.cell) == (volume, cell));
        own.any(|(index, _)| owed_whole(self, index))
    }

    /// Whether the judged load acked anything on a cell.
    fn is_cell_owed(&self, volume: usize, cell: u64) -> bool {
        self.heard()
            .any(|(_, write)| (write.volume, write.cell) == (volume, cell))
    }
}

fn astray(view: &View<'_>) -> Must {
    let mut must = Must::NotFail(None);
    for (volume, disk) in view.passage.disks.iter().enumerate() {
        let canary = &view.world.layouts[volume].canary;
        for (cell, held) in (0u64..).zip(disk) {
            if held.is_astray(volume, cell) && !canary.contains(&cell) {
                let said = match held.what {
                    What::Whole(_) => Must::Fail,
                    _ => Must::Either,
                };
                must = worse(must, said);
            }
        }
    }
    must
}

/// S3: nothing of the line that was given up is there, and nothing of the other is lost.
fn discarded(view: &View<'_>) -> Must {
    if view.leg == 0 {
        return Must::NotFail(None);
    }
    let owed = view.world.shape.legs[view.leg].how.zero_loss();
    let lost = owed && view.heard().any(|(index, _)| view.is_lost(index));
    if lost && view.torn_between_loads() {
        return Must::Either;
    }
    let idle = view.heard().next().is_none();
    worse(
        fail_if(lost || !view.resurrected().is_empty()),
        unsure_if("the surviving line acked nothing", idle),
    )
}

fn foreign(view: &View<'_>) -> Must {
    let strange = view
        .passage
        .disks
        .iter()
        .flatten()
        .any(|held| held.what == What::Foreign);
    let reverted = view
        .reverted()
        .iter()
        .any(|(volume, _)| !view.present(|v| v == *volume).is_empty());
    worse(fail_if(strange || reverted), view.extents().0)
}

fn gone(view: &View<'_>) -> Must {
    let mut bad = false;
    for (volume, layout) in view.world.layouts.iter().enumerate() {
        bad |= view.passage.sizes[volume] != layout.cells;
        for (cell, held) in (0u64..).zip(&view.passage.disks[volume]) {
            let cold = cell < layout.canary.start || cell >= layout.hot.end;
            bad |= held.what == What::Unreadable;
            bad |= cold && held.what == What::Whole(Base::Zero);
        }
    }
    worse(fail_if(bad), view.extents().1)
}
