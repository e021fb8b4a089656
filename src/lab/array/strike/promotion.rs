//! Faults that damage what a promotion brings up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{fills, halves, has_ledger, intact, is_load, is_raw, ledger, loaded};
use crate::lab::array::core::{Core, Key};
use crate::lab::array::image::Write;
use crate::lab::array::pages::{Page, Pages, page};
use crate::lab::faults::Fault;
use crate::lab::world::PAGE;
use crate::probe::cell::{SECTOR, SECTORS};
use crate::probe::layout::mix;

/// How many snapshots back the fault `older-point` goes, if there are as many.
const BACK: usize = 3;
/// Pages in a storage object, 4 MiB as on RBD.
const OBJECT: u64 = 1024;

impl Core {
    /// Damages the replica that is about to be promoted.
    pub(in crate::lab::array) fn strike_at_promotion(&mut self, key: &Key) {
        self.lose_page(key);
        let carriers = self.carriers(key);
        if !carriers.contains(&key.1) {
            return;
        }
        if self.board.armed(Fault::OlderPoint) {
            self.older_point(key);
        }
        if self.board.armed(Fault::ReplicaOfDiscarded) {
            self.promote_given_up(key);
        }
        if self.board.armed(Fault::MidDeltaPromote) {
            self.mid_delta(key);
        }
        if self.board.armed(Fault::SwapVolumes) {
            self.swap(key, &carriers);
        }
        for fault in [
            Fault::TornAckedWrite,
            Fault::BitFlipCold,
            Fault::StaleExtent,
            Fault::RecycledVolume,
        ] {
            self.strike_one(fault, key, &carriers);
        }
        // A guest cannot even mount an empty volume that held a file system: O1 says so, and no ledger is
        // read. What D7 is for shows where the ledger owns the device.
        let raw: Vec<String> = carriers
            .iter()
            .filter(|id| self.carries_raw(&(key.0, (*id).clone())))
            .cloned()
            .collect();
        self.strike_one(Fault::FreshEmptyDisk, key, &raw);
        self.strike_device(key, &carriers);
    }

    /// Strikes one of the carriers, if it is the one that is promoted.
    fn strike_one(&mut self, fault: Fault, key: &Key, carriers: &[String]) {
        if !carriers.is_empty() && self.board.armed(fault) {
            let victim = self.choose(fault, 2, carriers.len());
            if carriers[victim] == key.1 {
                self.damage(fault, key);
            }
        }
    }

    /// Whether the ledger owns the whole of an image, as the source has it.
    fn carries_raw(&self, key: &Key) -> bool {
        let mirror = self.images.get(key).and_then(|i| i.mirror.as_ref());
        let point = mirror.and_then(|m| m.point.as_ref());
        point.is_some_and(|p| is_raw(&p.truth))
    }

    /// The images of the same group on the same site that carry a ledger, in order.
    fn carriers(&self, key: &Key) -> Vec<String> {
        let group = self.group_of(key);
        let of = self.images.iter().filter(|((site, _), image)| {
            let mirror = image.mirror.as_ref();
            let point = mirror.and_then(|m| m.point.as_ref());
            *site == key.0
                && mirror.map(|m| &m.group) == group.as_ref()
                && point.is_some_and(|p| has_ledger(&p.truth))
        });
        of.map(|((_, id), _)| id.clone()).collect()
    }

    fn damage(&mut self, fault: Fault, key: &Key) {
        let Some(mirror) = self.images.get(key).and_then(|i| i.mirror.as_ref()) else {
            return;
        };
        let Some(point) = &mirror.point else {
            return;
        };
        let recent: Vec<&Write> = mirror.recent.iter().collect();
        let mut pages = point.pages.clone();
        let salt = point.cut;
        let hit = match fault {
            Fault::TornAckedWrite => tear(&mut pages, &recent),
            Fault::BitFlipCold => self.flip(&mut pages, salt),
            Fault::StaleExtent => age(&mut pages, &recent),
            Fault::RecycledVolume => recycle(&mut pages, self.config.seed),
            _ => {
                pages = Pages::default();
                Some((0, "a fresh empty volume"))
            }
        };
        let Some((index, detail)) = hit else {
            return;
        };
        self.replace(key, pages);
        self.struck(fault, key, index, detail);
    }

    pub(super) fn replace(&mut self, key: &Key, pages: Pages) {
        let mirror = self.images.get_mut(key).and_then(|i| i.mirror.as_mut());
        if let Some(point) = mirror.and_then(|m| m.point.as_mut()) {
            point.pages = pages;
        }
    }

    fn older_point(&mut self, key: &Key) {
        let Some(mirror) = self.images.get(key).and_then(|i| i.mirror.as_ref()) else {
            return;
        };
        let Some(now) = &mirror.point else {
            return;
        };
        let differs = |pages: &Pages| {
            let lost = pages.delta(&now.pages);
            has_ledger(pages) && lost.iter().any(|(_, p)| loaded(p).is_some())
        };
        let upto = mirror.older.len().saturating_sub(BACK - 1).max(1);
        let far = mirror.older.iter().take(upto).rev();
        let near = mirror.older.iter().skip(upto);
        let Some(older) = far.chain(near).find(|p| differs(&p.pages)) else {
            return;
        };
        let pages = older.pages.clone();
        self.replace(key, pages);
        self.struck(Fault::OlderPoint, key, 0, "an older snapshot than claimed");
    }

    /// Leaves on the replica a part of the delta that was crossing when the primary went dark, in the
    /// order of addresses, as a copy straight into the volume does (replication.md F26). A planned
    /// promotion has nothing crossing.
    fn mid_delta(&mut self, key: &Key) {
        let fault = Fault::MidDeltaPromote;
        let percent = self.board.param(fault, "percent").unwrap_or(0);
        let source = self.images.get(&(key.0.peer(), key.1.clone()));
        let point = self
            .images
            .get(key)
            .and_then(|i| i.mirror.as_ref()?.point.as_ref());
        let (Some(source), Some(point)) = (source.filter(|s| s.writable()), point) else {
            return;
        };
        let mut delta = point.truth.delta(&source.pages);
        let share = usize::try_from(percent.clamp(0, 100)).unwrap_or(0);
        delta.truncate(delta.len() * share / 100);
        let Some((first, _)) = delta.iter().find(|(_, page)| is_load(page)) else {
            return;
        };
        let (first, mut pages) = (*first, point.pages.clone());
        for (index, page) in delta {
            pages.set(index, page);
        }
        self.replace(key, pages);
        self.struck(fault, key, first, "a part of the newest delta applied");
    }

    /// Exchanges the replica being promoted with another that waits for its promotion: of equal size
    /// and with its ledger laid the same way, or neither guest could open what it gets. One of the
    /// same VM if there is one, else another VM's.
    fn swap(&mut self, key: &Key, carriers: &[String]) {
        let done = |id: &String| {
            let mut strikes = self.strikes.iter();
            strikes.any(|s| s.fault == Fault::SwapVolumes && s.image == *id)
        };
        let waiting = |id: &String| {
            let image = self.images.get(&(key.0, id.clone()))?;
            let mirror = image.mirror.as_ref().filter(|mirror| !mirror.primary)?;
            let pages = &mirror.point.as_ref()?.pages;
            (has_ledger(pages) && !done(id)).then(|| (image.size, is_raw(pages), pages.clone()))
        };
        let Some((size, raw, own)) = waiting(&key.1) else {
            return;
        };
        let fits = |id: &String| {
            let (other_size, other_raw, pages) = waiting(id).filter(|_| *id != key.1)?;
            ((other_size, other_raw) == (size, raw)).then(|| (id.clone(), pages))
        };
        let elsewhere = self
            .images
            .keys()
            .filter(|(site, _)| *site == key.0)
            .map(|(_, id)| id);
        let Some((other, pages)) = carriers.iter().chain(elsewhere).find_map(fits) else {
            return;
        };
        self.replace(key, pages);
        self.replace(&(key.0, other.clone()), own);
        let detail = format!("exchanged with {other}");
        self.struck(Fault::SwapVolumes, key, 0, &detail);
        let detail = format!("exchanged with {}", key.1);
        self.struck(Fault::SwapVolumes, &(key.0, other), 0, &detail);
    }

    fn flip(&self, pages: &mut Pages, salt: u64) -> Option<(u64, &'static str)> {
        let cold = fills(pages);
        let index = *cold.get(self.choose(Fault::BitFlipCold, salt, cold.len()))?;
        let mut bytes = *pages.get(index)?;
        let sector = 1 + self.choose(Fault::BitFlipCold, salt + 1, SECTORS - 1);
        bytes[sector * SECTOR + self.choose(Fault::BitFlipCold, salt + 2, SECTOR / 2)] ^= 1;
        pages.set(index, page(&bytes));
        Some((index, "one bit flipped"))
    }
}

/// Leaves the second half of the newest overwritten cell as it was before.
fn tear(pages: &mut Pages, recent: &[&Write]) -> Option<(u64, &'static str)> {
    let present = |w: &&&Write| loaded(&w.new).is_some() && intact(&pages.get(w.index), &w.new);
    let newest = recent.iter().rev();
    let over = newest
        .clone()
        .find(|w| present(w) && loaded(&w.old).is_some());
    let write = over.or_else(|| newest.clone().find(present))?;
    pages.set(write.index, halves(write.new.as_deref()?, &write.old));
    Some((
        write.index,
        "second half of the sectors from the write before",
    ))
}

/// Puts back, in the storage object where that changes most, what its cells held at an earlier
/// instant of the recent writes. At least half of the cells that changed since stay as they are,
/// so that the volume as a whole is seen to be newer.
fn age(pages: &mut Pages, recent: &[&Write]) -> Option<(u64, &'static str)> {
    let stale = |old: &Page| loaded(old).is_some();
    let extents = (0..4).filter_map(|quarter| {
        let since = recent.len() * quarter / 4;
        let mut before: BTreeMap<u64, &Page> = BTreeMap::new();
        for write in &recent[since..] {
            before.entry(write.index).or_insert(&write.old);
        }
        let mut objects: BTreeMap<u64, usize> = BTreeMap::new();
        for (index, old) in &before {
            *objects.entry(index / OBJECT).or_default() += usize::from(stale(old));
        }
        let (object, _) = objects.into_iter().max_by_key(|(_, n)| *n)?;
        let half = before.len() / 2;
        let of = before
            .into_iter()
            .filter(|(index, _)| index / OBJECT == object);
        Some(of.take(half).collect::<BTreeMap<_, _>>())
    });
    let extent = extents.max_by_key(|e| e.values().filter(|old| stale(old)).count())?;
    let first = *extent.iter().find(|(_, old)| stale(old))?.0;
    for (index, old) in extent {
        pages.set(index, old.clone());
    }
    Some((first, "an extent from before the recent writes"))
}

/// Makes every ledger cell one of another run on another volume, whole and valid.
fn recycle(pages: &mut Pages, seed: u64) -> Option<(u64, &'static str)> {
    let cells: Vec<(u64, Page)> = pages
        .iter()
        .map(|(index, page)| (index, Some(Arc::clone(page))))
        .collect();
    let mut first = None;
    for (index, old) in cells {
        let Some(mut header) = ledger(&old) else {
            continue;
        };
        for id in [&mut header.run_id, &mut header.vol_id] {
            for (n, byte) in (0_u64..).zip(id.iter_mut()) {
                *byte ^= 0x80 | (mix(seed ^ n) & 0x7F) as u8;
            }
        }
        let mut bytes = [0; PAGE];
        header.encode(mix(seed), &mut bytes);
        pages.set(index, page(&bytes));
        first.get_or_insert(index);
    }
    first.map(|index| (index, "another run's ledger"))
}
