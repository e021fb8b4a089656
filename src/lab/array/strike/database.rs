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
/// What a page of a table of PostgreSQL, of 8 KiB, has from byte 16: where its special space begins, which
/// is at its end, and its size with version 4 of the layout (`bufpage.h`). The rows of an index are none.
const HEAP: [u8; 4] = [0x00, 0x20, 0x04, 0x20];
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
        let leaves = point.pages.iter().filter(|(_, page)| holds_rows(page));
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

/// Whether a page holds rows of a table of an engine whose pages are lost. InnoDB's are not: its log goes
/// back as far as it has room, and gives a lost page again.
fn holds_rows(page: &[u8; PAGE]) -> bool {
    page[0] == LEAF || page[16..20] == HEAP
}

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
    fn pages_of_tables_are_told_from_those_of_logs() {
        let mut heap = [0; PAGE];
        heap[12..20].copy_from_slice(&[0x38, 0, 0x80, 0x1c, 0x00, 0x20, 0x04, 0x20]);
        // A page of the write-ahead log begins with its magic, and has how much of a record goes on there.
        let mut log = [0; PAGE];
        log[..20].copy_from_slice(&[
            0x10, 0xD1, 5, 0, 1, 0, 0, 0, 0, 0, 0x54, 1, 0, 0, 0, 0, 0x84, 3, 0, 0,
        ]);
        let leaf = page(b"\rxx");
        assert!(holds_rows(&heap) && leaf.is_some_and(|leaf| holds_rows(&leaf)));
        assert!(!holds_rows(&log) && !holds_rows(&[0; PAGE]));
    }

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
