//! Where planted faults strike. Victims are chosen by seed among ledger cells, so that a fault
//! always hits something that a check is about, and the same seed hits the same.
//!
//! A fault of the replication phase damages the delta in transit ([`transit`]) and strikes once
//! per consistency group: it strikes again only when later data has healed the damage. A fault of
//! the promotion phase damages what is promoted ([`promotion`]) or the device that it is
//! ([`device`]). Faults of the write-back cache, legal ones too, are in [`cache`]; those of what the
//! sides know of each other in [`peer`]; those of a live migration in [`moved`];
//! those of what is made from snapshots in [`restore`], of group snapshots in [`late`]; those of what
//! grows or joins in [`growth`].

mod cache;
mod database;
mod device;
mod growth;
mod late;
mod moved;
mod peer;
mod promotion;
mod restore;
mod transit;

#[cfg(test)]
mod tests;

pub(super) use late::Late;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::core::{Core, Key};
use super::mirror::Cut;
use super::pages::{Page, Pages, page, same};
use crate::history::event::Site;
use crate::lab::faults::{Board, Fault, Moment};
use crate::lab::world::PAGE;
use crate::probe::cell::{Header, Kind, SECTOR, SECTORS};
use crate::probe::layout::mix;

/// How many durability ranks after the next write of its writer a write is certainly acknowledged. A
/// writer has one write in flight, so the earlier one had returned when the next was issued. With a
/// flush for each write it was durable then. With a flush for many, one may have been under way that
/// does not cover it; the one after that does. How long a guest takes to say so does not matter.
const CERTAIN: u64 = 2;

/// A fault that did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// Which.
    pub fault: Fault,
    /// The site whose storage it hit.
    pub site: Site,
    /// The image, or what else it hit.
    pub image: String,
    /// The first page that it hit.
    pub page: u64,
    /// What it did.
    pub detail: String,
}

/// A member of a group whose snapshot is held back until it holds writes that were issued after
/// writes which the others' snapshots lack (fault `group-skew`).
#[derive(Debug, Clone)]
pub(super) struct Skew {
    pub(super) image: String,
    /// The first write of each writer that the others' snapshots lack: its sequence number.
    missing: BTreeMap<u32, u64>,
    /// A rank by which one of them was certainly acknowledged.
    acked: Option<u64>,
    /// Writes on the held-back member that were issued after it.
    dependent: u32,
}

impl Skew {
    fn new(image: String) -> Self {
        Self {
            image,
            missing: BTreeMap::new(),
            acked: None,
            dependent: 0,
        }
    }

    /// Counts a write that has become durable on `image`.
    fn count(&mut self, image: &str, header: &Header) {
        let first = match self.missing.entry(header.writer) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(entry) if image != self.image => Some(*entry.insert(header.wseq)),
            Entry::Vacant(_) => None,
        };
        if first.is_some_and(|first| header.wseq > first) {
            let acked = header.dep + CERTAIN;
            self.acked = Some(self.acked.map_or(acked, |known| known.min(acked)));
        }
        let depends = self.acked.is_some_and(|acked| header.dep >= acked);
        self.dependent += u32::from(depends && image == self.image);
    }
}

/// The header of a ledger cell that a check may miss: fill, hot or log.
fn ledger(page: &Page) -> Option<Header> {
    let header = Header::decode(page.as_deref()?)?;
    (header.kind != Kind::Canary).then_some(header)
}

/// The header of a ledger cell written under load.
fn loaded(page: &Page) -> Option<Header> {
    ledger(page).filter(|h| h.kind != Kind::Fill)
}

/// Whether a page is a ledger cell written under load.
pub(super) fn is_load(page: &Page) -> bool {
    loaded(page).is_some()
}

/// Whether a mirror snapshot brings anything written under load.
pub(super) fn carries_load(cut: &Cut) -> bool {
    let mut writes = cut.members.values().flat_map(|member| &member.log);
    writes.any(|write| is_load(&write.new))
}

/// How many times slower than ordinary the storage is (fault `slow-storage`).
pub(super) fn slowdown(board: &Board) -> Option<u32> {
    let times = board.param(Fault::SlowStorage, "times")?;
    u32::try_from(times).ok()
}

/// Whether a ledger owns the whole image: its first cell is a fill.
fn is_raw(pages: &Pages) -> bool {
    pages
        .get(0)
        .is_some_and(|page| Header::decode(&page).is_some())
}

/// A page in the middle of being overwritten: the first half of its sectors is new.
fn halves(new: &[u8; PAGE], old: &Page) -> Page {
    let mut bytes = *new;
    let before: &[u8; PAGE] = old.as_deref().unwrap_or(&[0; PAGE]);
    let half = SECTORS / 2 * SECTOR;
    bytes[half..].copy_from_slice(&before[half..]);
    page(&bytes)
}

/// One of two, by seed, the same for the same page and salt.
fn coin(seed: u64, index: u64, salt: u64) -> bool {
    mix(seed ^ mix(index ^ mix(salt))) & 1 == 0
}

/// Pages that carry a fill cell, neither the first nor the last cell of their volume if others
/// are there: those show a resized device.
fn fills(pages: &Pages) -> Vec<u64> {
    let is_fill = |page: &Page| ledger(page).is_some_and(|h| h.kind == Kind::Fill);
    let all: Vec<u64> = (pages.iter())
        .filter(|(_, page)| is_fill(&Some(std::sync::Arc::clone(page))))
        .map(|(index, _)| index)
        .collect();
    match all.as_slice() {
        [_, inner @ .., _] if !inner.is_empty() => inner.to_vec(),
        _ => all,
    }
}

/// Whether an image carries a ledger.
fn has_ledger(pages: &Pages) -> bool {
    let mut stored = pages.iter();
    stored.any(|(_, page)| Header::decode(page).is_some())
}

impl Core {
    /// Whether snapshots are put off because file systems of guests are frozen (fault
    /// `snapshot-outside-freeze`).
    pub(super) fn awaits_thaw(&self) -> bool {
        let board = &self.board;
        board.armed(Fault::SnapshotOutsideFreeze)
            && board.came(Moment::Freeze) > board.came(Moment::Thaw)
    }

    /// Records that a fault struck, once per victim.
    pub(super) fn struck(&mut self, fault: Fault, key: &Key, page: u64, detail: &str) {
        let strike = Strike {
            fault,
            site: key.0,
            image: key.1.clone(),
            page,
            detail: detail.to_owned(),
        };
        if !self.strikes.contains(&strike) {
            tracing::debug!(?strike, "a planted fault struck");
            self.strikes.push(strike);
        }
    }

    /// One of `n`, by seed, the same for the same `salt`; 0 when there is nothing to choose.
    fn choose(&self, fault: Fault, salt: u64, n: usize) -> usize {
        let draw = mix(self.config.seed ^ mix(salt ^ (fault as u64) << 48));
        usize::try_from(draw % (n.max(1) as u64)).unwrap_or(0)
    }

    /// Leaves the second image of each group that is enabled without snapshots: its
    /// VolumeReplication looks healthy and never reports a sync.
    pub(super) fn leave_unprotected(&mut self, key: &Key, group: &str) {
        let late = Fault::MovedDiskUnprotected;
        let copy = self.relocated.values().any(|(to, _)| to == key);
        if copy && self.board.armed(late) {
            if let Some(mirror) = self.images.get_mut(key).and_then(|i| i.mirror.as_mut()) {
                mirror.unprotected = true;
            }
            self.struck(late, key, 0, "no mirror snapshots of a disk that moved");
            return;
        }
        if !self.board.armed(Fault::UnprotectedVolume) || self.members(key.0, group).len() != 2 {
            return;
        }
        let mirror = self.images.get_mut(key).and_then(|i| i.mirror.as_mut());
        if let Some(mirror) = mirror {
            mirror.unprotected = true;
            self.struck(Fault::UnprotectedVolume, key, 0, "no mirror snapshots");
        }
    }

    /// The member of a group that is held back from the cut about to be taken, if any.
    pub(super) fn skew(&self, site: Site, members: &[String]) -> Option<Skew> {
        if !self.board.armed(Fault::GroupSkew) {
            return None;
        }
        let with_ledger = |id: &&String| {
            let image = self.images.get(&(site, (*id).clone()));
            image.is_some_and(|i| has_ledger(&i.pages))
        };
        let carriers: Vec<&String> = members.iter().filter(with_ledger).collect();
        match carriers.as_slice() {
            [_, .., last] => Some(Skew::new((*last).clone())),
            _ => None,
        }
    }

    /// Counts writes that have become durable towards the end of a skewed cut.
    pub(super) fn count_towards_skew(&mut self, key: &Key, pages: &[Page]) {
        if !self.board.armed(Fault::GroupSkew) {
            return;
        }
        for page in pages {
            self.count_one(key, page);
        }
    }

    fn count_one(&mut self, key: &Key, page: &Page) {
        let (Some(group), Some(header)) = (self.group_of(key), loaded(page)) else {
            return;
        };
        let queue = self.queues.get_mut(&(key.0, group.clone()));
        let Some(skew) = queue.and_then(|q| q.skew.as_mut()) else {
            return;
        };
        skew.count(&key.1, &header);
        if skew.dependent >= 2 {
            self.struck(Fault::GroupSkew, key, 0, "cut later than its group");
            self.close_skew(key.0, &group);
        }
    }

    /// Completes a skewed cut with the held-back member as it is now.
    pub(super) fn close_skew(&mut self, site: Site, group: &str) {
        let queue = self.queues.get_mut(&(site, group.to_owned()));
        let Some((skew, cut)) = queue.and_then(|q| {
            let cut = q.cuts.back()?.id;
            Some((q.skew.take()?, cut))
        }) else {
            return;
        };
        let member = self.snapshot(&(site, skew.image.clone()), cut, false);
        let queue = self.queues.get_mut(&(site, group.to_owned()));
        if let (Some(cut), Some(member)) = (queue.and_then(|q| q.cuts.back_mut()), member) {
            cut.members.insert(skew.image, member);
        }
    }

    /// The content that a demotion sends instead of the final one: the newest earlier state that
    /// lacks something (fault `relocate-without-final-sync`; on the way back
    /// `resync-to-last-snapshot`).
    pub(super) fn without_final_sync(&mut self, key: &Key) -> Option<Pages> {
        let back = Fault::ResyncToLastSnapshot;
        let fault = if key.0 == Site::Secondary && self.board.armed(back) {
            back
        } else if self.board.armed(Fault::RelocateWithoutFinalSync) {
            Fault::RelocateWithoutFinalSync
        } else {
            return None;
        };
        let image = self.images.get(key).filter(|i| has_ledger(&i.pages))?;
        let group = image.mirror.as_ref()?.group.clone();
        let waiting = self.queues.get(&(key.0, group)).into_iter();
        let waiting =
            waiting.flat_map(|q| q.cuts.iter().rev().filter_map(|c| c.members.get(&key.1)));
        let peer = self.images.get(&(key.0.peer(), key.1.clone()));
        let held = peer.and_then(|p| p.mirror.as_ref());
        let arrived = held
            .into_iter()
            .flat_map(|m| m.point.iter().chain(m.older.iter().rev()));
        let earlier = waiting
            .map(|m| &m.pages)
            .chain(arrived.map(|p| &p.truth))
            .find(|pages| {
                let lost = pages.delta(&image.pages);
                lost.iter().any(|(_, page)| loaded(page).is_some())
            })?
            .clone();
        self.struck(
            fault,
            key,
            0,
            "demoted with an earlier snapshot as the final one",
        );
        Some(earlier)
    }
}

/// Whether a page is what it should be.
fn intact(found: &Page, truth: &Page) -> bool {
    same(found, truth)
}
