//! Faults of what is made from snapshots, and of replicas that outlive what they replicated.

use super::{has_ledger, is_load, ledger, loaded};
use crate::lab::array::core::{Core, Key};
use crate::lab::array::pages::{Page, Pages};
use crate::lab::faults::Fault;
use crate::probe::cell::Header;

/// Whose ledger an image carries: run and volume.
fn identity(pages: &Pages) -> Option<([u8; 16], [u8; 16])> {
    let mut cells = pages.iter();
    let header: Header = cells.find_map(|(_, page)| ledger(&Some(std::sync::Arc::clone(page))))?;
    Some((header.run_id, header.vol_id))
}

impl Core {
    /// Damages what is about to become the image `to`, made from a snapshot of the image `source`.
    pub(in crate::lab::array) fn strike_at_restore(
        &mut self,
        to: &Key,
        source: &str,
        pages: &mut Pages,
    ) {
        if !has_ledger(pages) {
            return;
        }
        if self.board.armed(Fault::CloneSharesBlocks) {
            self.shared.insert(to.clone(), (to.0, source.to_owned()));
        }
        if self.board.armed(Fault::RestoreLosesWrite) {
            let written: Vec<u64> = (pages.iter())
                .filter(|(_, page)| is_load(&Some(std::sync::Arc::clone(page))))
                .map(|(index, _)| index)
                .collect();
            let victim = self.choose(Fault::RestoreLosesWrite, 3, written.len());
            if let Some(index) = written.get(victim) {
                pages.set(*index, None);
                let detail = "a write that the snapshot holds";
                self.struck(Fault::RestoreLosesWrite, to, *index, detail);
            }
        }
    }

    /// Writes of a load to an image that shares its blocks land on the other one too.
    pub(in crate::lab::array) fn write_through(&mut self, key: &Key, at: u64, pages: &[Page]) {
        let Some(other) = self.shared.get(key).cloned() else {
            return;
        };
        let mut first = None;
        for (index, page) in (at..).zip(pages) {
            if loaded(page).is_some()
                && let Some(image) = self.images.get_mut(&other)
            {
                image.write("shared", index, page.clone(), true);
                first.get_or_insert(index);
            }
        }
        if let Some(index) = first {
            let detail = "a write to the image that was made from its snapshot";
            self.struck(Fault::CloneSharesBlocks, &other, index, detail);
        }
    }

    /// Keeps what a replica held that is given up, for the fault that brings it back.
    pub(in crate::lab::array) fn keep_given_up(&mut self, key: &Key) {
        if !self.board.armed(Fault::ReplicaOfDiscarded) {
            return;
        }
        let mirror = self.images.get(key).and_then(|image| image.mirror.as_ref());
        let point = mirror.and_then(|mirror| mirror.point.as_ref());
        if let Some(pages) = point.map(|point| point.pages.clone()).filter(has_ledger) {
            self.given_up.push(pages);
        }
    }

    /// What is promoted is the replica that was given up before the volume was restored.
    pub(super) fn promote_given_up(&mut self, key: &Key) {
        let mirror = self.images.get(key).and_then(|image| image.mirror.as_ref());
        let point = mirror.and_then(|mirror| mirror.point.as_ref());
        let Some(whose) = point.and_then(|point| identity(&point.pages)) else {
            return;
        };
        let old = self
            .given_up
            .iter()
            .rfind(|old| identity(old) == Some(whose));
        if let Some(pages) = old.cloned() {
            self.replace(key, pages);
            let detail = "the replica of before the restore";
            self.struck(Fault::ReplicaOfDiscarded, key, 0, detail);
        }
    }
}
