//! Where planted faults strike. Victims are chosen by seed among ledger cells, so that a fault
//! always hits something that a check is about.

use std::collections::BTreeMap;

use super::core::{Core, Key};
use super::mirror::Cut;
use super::pages::{Page, Pages};
use crate::history::event::Site;
use crate::lab::faults::Fault;

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

impl Core {
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

    pub(super) fn skewed(&self, _site: Site, _group: &str, _members: &[String]) -> Option<String> {
        None
    }
    pub(super) fn count_towards_skew(&mut self, _key: &Key, _pages: u64) {}
    pub(super) fn close_skew(&mut self, _site: Site, _group: &str) {}
    pub(super) fn without_final_sync(&mut self, _key: &Key) -> Option<Pages> {
        None
    }
    pub(super) fn strike_in_transit(
        &mut self,
        _site: Site,
        _cut: &Cut,
        _deltas: &mut BTreeMap<String, Vec<(u64, Page)>>,
    ) {
    }
    pub(super) fn strike_at_promotion(&mut self, _key: &Key) {}
}
