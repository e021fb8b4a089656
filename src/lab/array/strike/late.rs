//! A group snapshot whose last member is cut later than the others: as soon as it holds writes that
//! were issued after writes which the others lack. What is said of it is what was said of the group.

use super::{Skew, has_ledger, loaded};
use crate::lab::array::core::{Core, Key, Now};
use crate::lab::array::pages::Page;
use crate::lab::array::status::Outcome;
use crate::lab::faults::Fault;

/// A member that is still to be cut.
#[derive(Debug)]
pub(in crate::lab::array) struct Late {
    of: Key,
    name: String,
    /// When its group was cut.
    at: Now,
    /// The images of the group.
    group: Vec<String>,
    skew: Skew,
}

impl Core {
    /// Whether a member of a group snapshot is still held back; cuts the others first.
    pub(in crate::lab::array) fn is_late(
        &mut self,
        members: &[(Key, &str)],
        now: Now,
    ) -> Outcome<bool> {
        if self.late.is_some() {
            return Ok(true);
        }
        let is_cut = |of: &Key, name: &str| self.snapshots.contains_key(&(of.0, name.to_owned()));
        if !self.board.armed(Fault::GroupSnapshotSkew)
            || members.iter().all(|(of, name)| is_cut(of, name))
        {
            return Ok(false);
        }
        let ledger = |of: &Key| self.images.get(of).is_some_and(|i| has_ledger(&i.pages));
        let carriers: Vec<_> = members.iter().filter(|(of, _)| ledger(of)).collect();
        let [_, .., (last, name)] = carriers.as_slice() else {
            return Ok(false);
        };
        let (last, name) = (last.clone(), (*name).to_owned());
        for (of, name) in members.iter().filter(|(of, _)| *of != last) {
            self.cut_snapshot(of, name, now)?;
        }
        self.late = Some(Late {
            skew: Skew::new(last.1.clone()),
            group: members.iter().map(|(of, _)| of.1.clone()).collect(),
            of: last,
            name,
            at: now,
        });
        Ok(true)
    }

    /// Counts writes that have become durable towards the cut of the member that is late.
    pub(in crate::lab::array) fn count_towards_late(&mut self, key: &Key, pages: &[Page]) {
        let Some(late) = self.late.as_mut() else {
            return;
        };
        if key.0 != late.of.0 || !late.group.contains(&key.1) {
            return;
        }
        for header in pages.iter().filter_map(loaded) {
            late.skew.count(&key.1, &header);
        }
        if late.skew.dependent < 2 {
            return;
        }
        if let Some(late) = self.late.take()
            && let Ok(_) = self.cut_snapshot(&late.of, &late.name, late.at)
        {
            let detail = "cut later than the others of its group snapshot";
            self.struck(Fault::GroupSnapshotSkew, &late.of, 0, detail);
        }
    }
}
