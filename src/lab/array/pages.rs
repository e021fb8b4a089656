//! Sparse image content: 4 KiB pages shared between an image, its snapshots and its replicas.
//! A page of zeros is not stored, so "never written" and "zeroed" are the same, as on thin storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::lab::world::PAGE;

/// One page; `None` stands for zeros.
pub(super) type Page = Option<Arc<[u8; PAGE]>>;

/// Pages in a chunk: 4 MiB, so that copying a map copies few pointers.
const CHUNK: u64 = 1024;

type Chunk = Arc<BTreeMap<u64, Arc<[u8; PAGE]>>>;

/// The content of an image. Cloning shares all pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pages {
    chunks: BTreeMap<u64, Chunk>,
}

/// A page with the given bytes; short input is padded with zeros.
pub(super) fn page(bytes: &[u8]) -> Page {
    if bytes.iter().all(|b| *b == 0) {
        return None;
    }
    let mut whole = [0; PAGE];
    let len = bytes.len().min(PAGE);
    whole[..len].copy_from_slice(&bytes[..len]);
    Some(Arc::new(whole))
}

/// Whether two pages hold the same bytes.
pub(super) fn same(a: &Page, b: &Page) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    }
}

impl Pages {
    /// The page at `index`.
    pub(super) fn get(&self, index: u64) -> Page {
        self.chunks.get(&(index / CHUNK))?.get(&index).cloned()
    }

    /// Replaces the page at `index`.
    pub(super) fn set(&mut self, index: u64, page: Page) {
        match page {
            Some(page) => {
                let chunk = self.chunks.entry(index / CHUNK).or_default();
                Arc::make_mut(chunk).insert(index, page);
            }
            None => {
                if let Some(chunk) = self.chunks.get_mut(&(index / CHUNK)) {
                    Arc::make_mut(chunk).remove(&index);
                    if chunk.is_empty() {
                        self.chunks.remove(&(index / CHUNK));
                    }
                }
            }
        }
    }

    /// Pages that are stored, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<[u8; PAGE]>)> {
        self.chunks
            .values()
            .flat_map(|chunk| chunk.iter().map(|(index, page)| (*index, page)))
    }

    /// What must be written over `self` to get `newer`, in ascending order.
    pub(super) fn delta(&self, newer: &Self) -> Vec<(u64, Page)> {
        let empty = Chunk::default();
        let keys: BTreeSet<u64> = self
            .chunks
            .keys()
            .chain(newer.chunks.keys())
            .copied()
            .collect();
        let mut changed = Vec::new();
        for key in keys {
            let old = self.chunks.get(&key).unwrap_or(&empty);
            let new = newer.chunks.get(&key).unwrap_or(&empty);
            if Arc::ptr_eq(old, new) {
                continue;
            }
            let indices: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
            for index in indices {
                let (a, b) = (old.get(&index).cloned(), new.get(&index).cloned());
                if !same(&a, &b) {
                    changed.push((index, b));
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros_are_not_stored() {
        let mut pages = Pages::default();
        pages.set(5000, page(&[1; PAGE]));
        assert_eq!(pages.iter().count(), 1);
        pages.set(5000, page(&[0; PAGE]));
        assert_eq!(pages, Pages::default());
    }

    proptest! {
        #[test]
        fn a_delta_turns_the_old_content_into_the_new(
            old in prop::collection::vec((0_u64..5000, 0_u8..4), 0..40),
            new in prop::collection::vec((0_u64..5000, 0_u8..4), 0..40),
        ) {
            let fill = |base: &Pages, writes: &[(u64, u8)]| {
                let mut pages = base.clone();
                for (index, byte) in writes {
                    pages.set(*index, page(&[*byte; PAGE]));
                }
                pages
            };
            let before = fill(&Pages::default(), &old);
            let after = fill(&before, &new);
            let mut replayed = before.clone();
            let delta = before.delta(&after);
            for (index, page) in &delta {
                prop_assert!(!same(&before.get(*index), page));
                replayed.set(*index, page.clone());
            }
            prop_assert_eq!(&replayed, &after);
        }
    }
}
