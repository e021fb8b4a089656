//! Faults of the device that a promoted image is: its size, its reads, its right to be written.

use std::collections::BTreeMap;

use super::{fills, has_ledger, intact, is_load, is_raw};
use crate::history::event::Site;
use crate::lab::array::core::{Core, Key};
use crate::lab::array::image::{Image, Write};
use crate::lab::array::pages::{Page, Pages};
use crate::lab::faults::Fault;
use crate::lab::world::PAGE;
use crate::probe::cell::{Header, Kind};

impl Core {
    /// Changes the device under the replica that is about to be promoted. `carriers` are the images
    /// of its group that carry a ledger.
    pub(super) fn strike_device(&mut self, key: &Key, carriers: &[String]) {
        for fault in [Fault::TruncatedDevice, Fault::EnlargedDevice] {
            if self.board.armed(fault) && self.first_raw(key.0, carriers) == Some(&key.1) {
                self.resize(fault, key);
            }
        }
        let fault = Fault::UnreadableExtent;
        let victim = self.choose(fault, 2, carriers.len());
        if self.board.armed(fault) && carriers[victim] == key.1 {
            self.unreadable(key);
        }
    }

    /// A guest opens an image to write it: one of its volumes is read through a stale cache, once
    /// there is anything to be stale.
    pub(in crate::lab::array) fn strike_at_open(&mut self, key: &Key) {
        let fault = Fault::StaleReadCache;
        let Some(group) = self.group_of(key).filter(|_| self.board.armed(fault)) else {
            return;
        };
        let mut carriers = self.members(key.0, &group);
        carriers.retain(|id| {
            let image = self.images.get(&(key.0, id.clone()));
            image.is_some_and(|image| has_ledger(&image.pages))
        });
        let victim = self.choose(fault, 2, carriers.len());
        let mut struck = self.strikes.iter();
        let once = !struck.any(|s| s.fault == fault && s.site == key.0 && s.image == key.1);
        if once && carriers.get(victim) == Some(&key.1) {
            self.stale_view(key);
        }
    }

    /// The first image that a ledger owns whole: a file system would refuse a device of another
    /// size, and nobody would get to see its cells.
    fn first_raw<'c>(&self, site: Site, carriers: &'c [String]) -> Option<&'c String> {
        carriers.iter().find(|id| {
            let image = self.images.get(&(site, (*id).clone()));
            let point = image.and_then(|i| i.mirror.as_ref()?.point.as_ref());
            point.is_some_and(|point| is_raw(&point.pages))
        })
    }

    fn resize(&mut self, fault: Fault, key: &Key) {
        let cells = self.board.param(fault, "cells").unwrap_or(0);
        let by = cells.unsigned_abs().saturating_mul(PAGE as u64);
        let Some(image) = self.images.get_mut(key) else {
            return;
        };
        let was = image.size;
        image.size = match fault {
            Fault::TruncatedDevice => was.saturating_sub(by).max(PAGE as u64),
            _ => was.saturating_add(by),
        };
        let end = image.size / PAGE as u64;
        if let Some(point) = image.mirror.as_mut().and_then(|m| m.point.as_mut()) {
            let stored: Vec<u64> = point.pages.iter().map(|(index, _)| index).collect();
            for index in stored.into_iter().filter(|index| *index >= end) {
                point.pages.set(index, None);
            }
        }
        let detail = format!("{was} bytes became {}", image.size);
        self.struck(fault, key, end, &detail);
    }

    fn unreadable(&mut self, key: &Key) {
        let fault = Fault::UnreadableExtent;
        let cells = self.board.param(fault, "cells").unwrap_or(0);
        let cold = promoted(self.images.get(key)).map_or_else(Vec::new, fills);
        let Some(first) = cold.get(self.choose(fault, 3, cold.len())).copied() else {
            return;
        };
        if let Some(image) = self.images.get_mut(key) {
            image.unreadable = first..first.saturating_add(cells.unsigned_abs());
            self.struck(fault, key, first, "reads of an extent fail with EIO");
        }
    }

    /// Makes readers with a cache see, in the cells that were overwritten last, what they held
    /// before. What is stored is right.
    fn stale_view(&mut self, key: &Key) {
        let fault = Fault::StaleReadCache;
        let cells = self.board.param(fault, "cells").unwrap_or(0);
        let Some(image) = self.images.get(key) else {
            return;
        };
        let peer = self.images.get(&(key.0.peer(), key.1.clone()));
        let arrived = [Some(image), peer].into_iter().flatten();
        let arrived = arrived.filter_map(|image| image.mirror.as_ref());
        let known: Vec<&Write> = arrived
            .flat_map(|mirror| &mirror.recent)
            .chain(&image.log)
            .collect();
        let mut view: BTreeMap<u64, Page> = BTreeMap::new();
        for write in known.into_iter().rev() {
            if view.len() as u64 >= cells.unsigned_abs() {
                break;
            }
            if is_load(&write.new) && intact(&image.pages.get(write.index), &write.new) {
                view.entry(write.index).or_insert_with(|| write.old.clone());
            }
        }
        let Some(first) = view.keys().next().copied() else {
            return;
        };
        if let Some(image) = self.images.get_mut(key) {
            image.stale = view;
            self.struck(
                fault,
                key,
                first,
                "reads answered from before the last writes",
            );
        }
    }

    /// Demotes an image behind the back of its VolumeReplication when the recovered guest first
    /// writes to it (fault `backend-demoted`).
    pub(in crate::lab::array) fn demote_behind(&mut self, key: &Key, pages: &[Page]) {
        let fault = Fault::BackendDemoted;
        let canary = |page: &Page| {
            let header = page.as_deref().and_then(Header::decode);
            header.is_some_and(|h| h.kind == Kind::Canary)
        };
        if !self.board.armed(fault) || key.0 != Site::Secondary || !pages.iter().any(canary) {
            return;
        }
        let mirror = self.images.get_mut(key).and_then(|i| i.mirror.as_mut());
        if let Some(mirror) = mirror.filter(|mirror| mirror.primary) {
            mirror.primary = false;
            self.struck(fault, key, 0, "demoted although its object says primary");
        }
    }
}

/// What an image that is about to be promoted will hold.
fn promoted(image: Option<&Image>) -> Option<&Pages> {
    Some(&image?.mirror.as_ref()?.point.as_ref()?.pages)
}
