//! A read-back laid against the stream of acks: for each log and hot cell, which version is there.
//! Two arrays of eight bytes per cell at most; writes are never held one by one.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::case::Created;
use super::finding::moment;
use super::order::Rule;
use crate::history::acks::Acked;
use crate::history::event::{Purpose, ReadVia, VolumeFact};
use crate::history::read::{History, Incarnation, Scan};
use crate::history::scanfile::VolumeScan;
use crate::probe::frame::{CellState, Seen};
use crate::probe::layout::{Layout, address};

/// Stands for a cell that cannot say which version it holds.
pub(super) const DAMAGED: u64 = u64::MAX;

/// One volume of an [`Image`].
#[derive(Debug)]
pub(super) struct Volume<'a> {
    pub(super) fact: &'a VolumeFact,
    pub(super) layout: &'a Layout,
    pub(super) scan: &'a VolumeScan,
    /// By slot (cell minus the start of the log region): the wseq of the judged load's write that is
    /// there, 0 for what was there before it, [`DAMAGED`].
    pub(super) present: Vec<u64>,
    /// The cells of the log and hot regions, by slot.
    pub(super) cells: &'a [Seen],
}

impl Volume<'_> {
    pub(super) const fn cell(&self, slot: usize) -> u64 {
        self.layout.log.start + slot as u64
    }
}

/// A write in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) volume: usize,
    pub(super) slot: usize,
    pub(super) writer: u32,
    pub(super) wseq: u64,
    /// The rank at which it was durable (missing writes) or the ranks durable before it was issued
    /// (present ones).
    pub(super) rank: u64,
    /// The ack frame, for missing writes.
    pub(super) batch: usize,
}

/// What is gone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Losses {
    /// Acked writes that were looked for.
    pub(super) looked: u64,
    /// Acked writes that are not there.
    pub(super) writes: u64,
    /// Cells on which any is not there.
    pub(super) cells: u64,
    /// The one acked first.
    pub(super) first: Option<Write>,
    /// The one acked last.
    pub(super) last: Option<Write>,
    /// The first few, in words.
    pub(super) samples: Vec<String>,
}

/// One read-back and the load that it judges.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) scan: &'a Scan,
    /// The newest load whose writes may be on the volumes.
    pub(super) load: &'a Incarnation,
    /// Those before it.
    pub(super) older: Vec<&'a Incarnation>,
    pub(super) seed: u64,
    pub(super) volumes: Vec<Volume<'a>>,
    /// Torn cells of the log and hot regions: the newest write found in them.
    pub(super) torn: BTreeMap<(usize, usize), (u32, u64)>,
    /// Cells that held data before the load began, as the read-back before it shows, and hold
    /// neither that nor anything newer.
    pub(super) reverted: Vec<(usize, usize)>,
    /// Cells that hold a write of an older load which is newer than what the read-back before the
    /// newest load found there: data of a line that had been given up.
    pub(super) resurrected: Vec<(usize, usize)>,
    /// Whether a read-back before the newest load was there to compare with.
    pub(super) based: bool,
    /// See [`super::order::rule`].
    pub(super) rule: OnceCell<Rule>,
}

impl<'a> Image<'a> {
    /// Lays `scan` against the stream of the load that it judges, or says why that cannot be done.
    pub(super) fn new(
        history: &'a History,
        created: Option<Created<'a>>,
        scan: &'a Scan,
    ) -> Result<Self, String> {
        let created = created.ok_or("the history does not say how the subject was made")?;
        let judged = |name: &String| {
            history
                .incarnation(name)
                .filter(|known| known.purpose == Purpose::Load)
                .ok_or_else(|| format!("the history knows no load {name}, which the scan judges"))
        };
        let mut older: Vec<_> = scan.judges.iter().map(judged).collect::<Result<_, _>>()?;
        let load = older.pop().ok_or("the scan judges no load")?;
        if let Some(torn) = &load.torn {
            return Err(format!("the load's ack segment is cut short: {torn}"));
        }
        if let Some(hole) = load.acks.hole() {
            return Err(format!("the load's ack stream has a hole: {hole}"));
        }
        if created.volumes.is_empty() {
            return Err("the subject has no data volume".into());
        }
        let mut image = Self {
            scan,
            load,
            older,
            seed: created.seed,
            volumes: Vec::new(),
            torn: BTreeMap::new(),
            reverted: Vec::new(),
            resurrected: Vec::new(),
            based: false,
            rule: OnceCell::new(),
        };
        if load.layouts.len() != created.volumes.len() {
            return Err("the load's ledger has another number of volumes than the subject".into());
        }
        for (index, layout) in load.layouts.iter().enumerate() {
            let volume = image.volume(created.volumes, index, layout)?;
            image.volumes.push(volume);
        }
        image.revert(history);
        Ok(image)
    }

    fn volume(
        &mut self,
        facts: &'a [VolumeFact],
        index: usize,
        layout: &'a Layout,
    ) -> Result<Volume<'a>, String> {
        let fact = facts
            .iter()
            .find(|fact| usize::from(fact.ordinal) == index)
            .ok_or_else(|| format!("the subject has no volume {index}"))?;
        let scan = self
            .scan
            .volumes
            .iter()
            .find(|scan| usize::from(scan.volume) == index)
            .ok_or_else(|| format!("volume {index} was not read back"))?;
        let from = scan.cells.partition_point(|s| s.cell < layout.log.start);
        let to = scan.cells.partition_point(|s| s.cell < layout.hot.end);
        let cells = scan.cells.get(from..to).unwrap_or(&[]);
        let slots = layout.hot.end - layout.log.start;
        if u64::try_from(cells.len()) != Ok(slots) {
            return Err(format!(
                "{} of {slots} written cells of volume {index} were read back",
                cells.len()
            ));
        }
        let mut present = Vec::with_capacity(cells.len());
        for (slot, seen) in cells.iter().enumerate() {
            present.push(match seen.state {
                CellState::Ok {
                    incarnation, wseq, ..
                } if incarnation == self.load.number => wseq,
                CellState::Ok { .. } | CellState::Zeroed => 0,
                CellState::Torn { wseq, writer, .. } => {
                    self.torn.insert((index, slot), (writer, wseq));
                    DAMAGED
                }
                _ => DAMAGED,
            });
        }
        Ok(Volume {
            fact,
            layout,
            scan,
            present,
            cells,
        })
    }

    /// Finds the cells that went back to before the last read-back on which the load was built, and
    /// those that hold what came after it on a line that had been given up.
    fn revert(&mut self, history: &History) {
        // A clone goes on from what was read of it, everything else from the guest's own read-backs.
        let own = self.scan.via == ReadVia::Guest;
        let base = history.scans.iter().rfind(|base| {
            base.subject == self.scan.subject
                && base.via == self.scan.via
                && (own || base.cut == self.scan.cut)
                && base.seq < self.load.seq
                && !self.older.is_empty()
        });
        let Some(base) = base else { return };
        self.based = true;
        let age = |state: &CellState| match state {
            CellState::Ok {
                incarnation, wseq, ..
            } => self
                .scan
                .judges
                .iter()
                .position(|name| {
                    history.incarnation(name).map(|known| known.number) == Some(*incarnation)
                })
                .map(|age| (age + 1, *wseq)),
            CellState::Zeroed => Some((0, 0)),
            _ => None,
        };
        let newest = self.older.len() + 1;
        let (mut reverted, mut resurrected) = (Vec::new(), Vec::new());
        for (index, volume) in self.volumes.iter().enumerate() {
            let Some(before) = base.volumes.iter().find(|b| b.volume == volume.scan.volume) else {
                continue;
            };
            let mut now = volume.cells.iter().enumerate().peekable();
            for old in &before.cells {
                while now.next_if(|(_, seen)| seen.cell < old.cell).is_some() {}
                let Some((slot, seen)) = now.next_if(|(_, seen)| seen.cell == old.cell) else {
                    continue;
                };
                let (Some(was), Some(is)) = (age(&old.state), age(&seen.state)) else {
                    continue;
                };
                if is < was {
                    reverted.push((index, slot));
                } else if is > was && is.0 < newest {
                    resurrected.push((index, slot));
                }
            }
        }
        (self.reverted, self.resurrected) = (reverted, resurrected);
    }

    /// The place of a write in the log or hot region.
    pub(super) fn place(&self, writer: u32, wseq: u64) -> Option<(usize, usize)> {
        let at = address(&self.load.layouts, self.seed, writer, wseq)?;
        let volume = usize::from(at.volume);
        let slot = at
            .cell
            .checked_sub(self.volumes.get(volume)?.layout.log.start)?;
        Some((volume, usize::try_from(slot).ok()?))
    }

    /// Calls `found` with each acked write in rank order, its place, and what stands there.
    pub(super) fn walk(&self, mut found: impl FnMut(&Acked, (usize, usize), u64)) {
        for acked in self.load.acks.acked() {
            if let Some((volume, slot)) = self.place(acked.writer, acked.wseq)
                && let Some(present) = self
                    .volumes
                    .get(volume)
                    .and_then(|volume| volume.present.get(slot))
            {
                found(&acked, (volume, slot), *present);
            }
        }
    }

    /// The acked writes that are not there, of those that `owed` selects by ack frame and volume.
    /// What stands on a damaged cell counts as not there, unless the damage is a later write that
    /// was torn on its way.
    pub(super) fn losses(&self, owed: impl Fn(usize, usize) -> bool) -> Losses {
        let mut losses = Losses::default();
        let mut gone: Vec<Vec<bool>> = self
            .volumes
            .iter()
            .map(|volume| vec![false; volume.present.len()])
            .collect();
        self.walk(|acked, place, present| {
            if !owed(acked.batch, place.0) {
                return;
            }
            losses.looked += 1;
            let lost = if present == DAMAGED {
                let torn = self.torn.get(&place);
                torn.is_none_or(|(writer, wseq)| *writer != acked.writer || *wseq <= acked.wseq)
            } else {
                present < acked.wseq
            };
            if !lost {
                return;
            }
            let write = Write {
                volume: place.0,
                slot: place.1,
                writer: acked.writer,
                wseq: acked.wseq,
                rank: acked.rank,
                batch: acked.batch,
            };
            losses.writes += 1;
            losses.first.get_or_insert(write);
            losses.last = Some(write);
            if losses.samples.len() < super::finding::WITNESSES {
                losses.samples.push(self.missing(&write));
            }
            if let Some(gone) = gone.get_mut(place.0).and_then(|v| v.get_mut(place.1))
                && !std::mem::replace(gone, true)
            {
                losses.cells += 1;
            }
        });
        losses
    }

    /// For each volume, the present write of the load that was issued after the most was durable.
    pub(super) fn newest(&self) -> Vec<Option<Write>> {
        let volumes = self.volumes.iter().enumerate();
        volumes
            .map(|(index, volume)| {
                let own = volume.cells.iter().enumerate().filter_map(|(slot, seen)| {
                    let CellState::Ok {
                        incarnation,
                        writer,
                        wseq,
                        dep,
                        ..
                    } = seen.state
                    else {
                        return None;
                    };
                    (incarnation == self.load.number).then_some(Write {
                        volume: index,
                        slot,
                        writer,
                        wseq,
                        rank: dep,
                        batch: 0,
                    })
                });
                own.max_by_key(|write| write.rank)
            })
            .collect()
    }

    /// A moment after which the write of the load that a cell holds was issued: its writer had a token
    /// by then, and a number of ranks was durable.
    pub(super) fn since(&self, state: &CellState) -> Option<u64> {
        let CellState::Ok {
            incarnation,
            dep,
            token,
            ..
        } = *state
        else {
            return None;
        };
        if incarnation != self.load.number {
            return None;
        }
        let acks = &self.load.acks;
        let ranked = acks
            .batches()
            .partition_point(|batch| batch.first_rank <= dep)
            .checked_sub(1)
            .and_then(|at| acks.bracket(at))
            .map_or(0, |bracket| bracket.low);
        Some(acks.sent(token).max(ranked))
    }

    /// The slot of a cell of the log or hot region.
    pub(super) fn slot(&self, volume: usize, cell: u64) -> Option<usize> {
        let known = self.volumes.get(volume)?;
        let slot = usize::try_from(cell.checked_sub(known.layout.log.start)?).ok()?;
        (slot < known.cells.len()).then_some(slot)
    }

    /// Volume and cell in words.
    pub(super) fn spot(&self, volume: usize, slot: usize) -> String {
        self.volumes.get(volume).map_or_else(String::new, |known| {
            format!(
                "volume {volume} ({}) cell {}",
                known.fact.name,
                known.cell(slot)
            )
        })
    }

    /// A missing write in words.
    pub(super) fn missing(&self, write: &Write) -> String {
        let spot = self.spot(write.volume, write.slot);
        let heard = self.load.acks.bracket(write.batch).map_or_else(
            || "before the load began".into(),
            |at| {
                format!(
                    "acked at rank {} between {} and {}",
                    write.rank,
                    moment(at.low),
                    moment(at.high)
                )
            },
        );
        let found = self
            .volumes
            .get(write.volume)
            .and_then(|volume| volume.cells.get(write.slot))
            .map_or_else(String::new, |seen| state(&seen.state));
        format!(
            "missing: {spot}, writer {} write {}, {heard}; there is {found}",
            write.writer, write.wseq
        )
    }

    /// A present write in words.
    pub(super) fn present(&self, write: &Write) -> String {
        format!(
            "present: {}, writer {} write {}, issued when rank {} was durable",
            self.spot(write.volume, write.slot),
            write.writer,
            write.wseq,
            write.rank
        )
    }
}

/// A cell state in words.
pub(super) fn state(state: &CellState) -> String {
    match state {
        CellState::Ok {
            incarnation,
            writer,
            wseq,
            ..
        } => format!("writer {writer} write {wseq} of incarnation {incarnation:016x}"),
        CellState::Torn {
            sectors,
            wseq,
            writer,
        } => format!(
            "a torn cell, {} of 8 sectors from writer {writer} write {wseq}",
            sectors.count_ones()
        ),
        CellState::Corrupt => "a damaged cell".into(),
        CellState::Misdirected {
            same_volume: true,
            cell,
            ..
        } => format!("what belongs to cell {cell}"),
        CellState::Misdirected { cell, vol, .. } => {
            format!("what belongs to cell {cell} of volume id {vol:016x}…")
        }
        CellState::Foreign { run } => format!("a cell of another run, {run:016x}…"),
        CellState::Zeroed => "zeros".into(),
        CellState::Unreadable { errno } => format!("a read error, errno {errno}"),
    }
}
