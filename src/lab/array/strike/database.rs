//! Faults that strike the database in a guest, on an image that carries no ledger. Its pages are known by
//! what every transaction carries.

use std::collections::BTreeMap;

use super::Strike;
use crate::history::event::Site;
use crate::lab::array::core::{Core, Key};
use crate::lab::array::pages::Page;
use crate::lab::faults::Fault;
use crate::lab::world::PAGE;
use crate::workload::database::MARK;

/// How many transactions a replica holds before it stops following: so many must be there for a
/// database to be read at all.
const SOME: u64 = 8;
/// First byte of a page of SQLite that holds rows of a table.
const LEAF: u8 = 0x0D;
/// Digits of a transaction's number.
const DIGITS: usize = 10;

impl Core {
    /// Loses a page of the table that is about to be promoted: the one with the oldest rows, which no
    /// log has any more.
    pub(super) fn lose_page(&mut self, key: &Key) {
        if !self.board.armed(Fault::DatabasePageLost) {
            return;
        }
        let mirror = self.images.get(key).and_then(|i| i.mirror.as_ref());
        let Some(point) = mirror.and_then(|m| m.point.as_ref()) else {
            return;
        };
        let leaves = point.pages.iter().filter(|(_, page)| page[0] == LEAF);
        let rows = leaves.filter_map(|(index, page)| Some((transactions(page).min()?, index)));
        let Some((_, index)) = rows.min() else {
            return;
        };
        let mut pages = point.pages.clone();
        pages.set(index, None);
        self.replace(key, pages);
        self.struck(
            Fault::DatabasePageLost,
            key,
            index,
            "a page of the database lost",
        );
    }

    /// Has the replica of the database's volume stay where it is, while it is told to follow.
    pub(super) fn fall_behind(&mut self, site: Site, deltas: &mut BTreeMap<String, Delta>) {
        let fault = Fault::DatabaseBehind;
        if !self.board.armed(fault) {
            return;
        }
        for (id, delta) in deltas {
            let hit = |s: &Strike| s.fault == fault && s.site == site && s.image == *id;
            if self.strikes.iter().any(hit) {
                delta.clear();
            } else if newest(delta).is_some_and(|newest| newest >= SOME) {
                let detail = "the replica follows no further";
                self.struck(fault, &(site, id.clone()), 0, detail);
            }
        }
    }
}

/// What a replica is brought up to date by.
type Delta = Vec<(u64, Page)>;

/// The newest transaction among pages.
fn newest(delta: &Delta) -> Option<u64> {
    let pages = delta.iter().filter_map(|(_, page)| page.as_deref());
    pages.flat_map(transactions).max()
}

/// The numbers of the transactions that a page carries.
fn transactions(page: &[u8; PAGE]) -> impl Iterator<Item = u64> {
    let mark = MARK.as_bytes();
    let found = page.windows(mark.len() + DIGITS);
    found.filter_map(move |window| {
        let digits = window.strip_prefix(mark)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::array::pages::page;

    #[test]
    fn transactions_are_found_wherever_they_lie() {
        let carrying = |number: u64| page(format!("\rxx{MARK}{number:010};").as_bytes());
        let delta = vec![
            (1, carrying(3)),
            (2, None),
            (7, carrying(17)),
            (8, carrying(5)),
        ];
        assert_eq!(newest(&delta), Some(17));
        assert_eq!(newest(&vec![(1, page(b"virtproof"))]), None);
        let mut edge = [b' '; PAGE];
        let text = format!("{MARK}{:010}", 9);
        edge[PAGE - text.len()..].copy_from_slice(text.as_bytes());
        assert_eq!(transactions(&edge).collect::<Vec<_>>(), [9]);
        edge[PAGE - 1] = b'x';
        assert_eq!(transactions(&edge).count(), 0);
    }
}
