//! Faults of images that grow and of volumes that join a group later than the others.

use super::{has_ledger, is_load};
use crate::lab::array::core::{Core, Key};
use crate::lab::array::pages::Page;
use crate::lab::faults::Fault;
use crate::lab::world::PAGE;

impl Core {
    /// What an image has grown by is given blocks that hold something already: those that the image
    /// had, as a thin pool that maps a block twice would (fault `grown-recycled`).
    pub(in crate::lab::array) fn strike_at_growth(&mut self, key: &Key, was: u64) {
        let fault = Fault::GrownRecycled;
        if !self.board.armed(fault) {
            return;
        }
        let Some(image) = self.images.get_mut(key) else {
            return;
        };
        if !has_ledger(&image.pages) {
            return;
        }
        let (first, end) = (was / PAGE as u64, image.size / PAGE as u64);
        let old: Vec<(u64, Page)> = (image.pages.iter())
            .map(|(index, page)| (first + index, Some(std::sync::Arc::clone(page))))
            .filter(|(index, _)| *index < end)
            .collect();
        for (index, page) in old {
            image.write("", index, page, true);
        }
        self.struck(fault, key, first, "grew by blocks that were in use");
    }

    /// Whether a replica takes the data of a snapshot that is larger than itself and stays as it is
    /// (fault `replica-keeps-size`).
    pub(in crate::lab::array) fn keeps_size(&mut self, key: &Key, bytes: u64) -> bool {
        let fault = Fault::ReplicaKeepsSize;
        let Some(image) = self.images.get_mut(key).filter(|i| i.size < bytes) else {
            return false;
        };
        if !self.board.armed(fault) {
            return false;
        }
        let end = image.size / PAGE as u64;
        let detail = format!("stays at {} of {bytes} bytes", image.size);
        image.cut_off(end);
        self.struck(fault, key, end, &detail);
        true
    }

    /// Leaves a volume that joins a group under load out of its mirror snapshots: its replication
    /// looks healthy and never reports a sync (fault `joiner-left-out`).
    pub(in crate::lab::array) fn leave_out_joiner(&mut self, key: &Key, group: &str) {
        let fault = Fault::JoinerLeftOut;
        if !self.board.armed(fault) {
            return;
        }
        let loaded = self.members(key.0, group).into_iter().any(|id| {
            let other = self
                .images
                .get(&(key.0, id.clone()))
                .filter(|_| id != key.1);
            other.is_some_and(|image| {
                let mut pages = image.pages.iter();
                pages.any(|(_, page)| is_load(&Some(std::sync::Arc::clone(page))))
            })
        });
        let mirror = self.images.get_mut(key).and_then(|i| i.mirror.as_mut());
        if let Some(mirror) = mirror.filter(|_| loaded) {
            mirror.unprotected = true;
            self.struck(fault, key, 0, "no part of its group's snapshots");
        }
    }
}
