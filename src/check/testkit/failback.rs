//! A failover, a second life of the load on the new side, and the way back: the old side is resynced
//! and read.

use std::collections::BTreeMap;

use super::facts::stopped;
use super::{FAULT, Kit, LOAD, MS, Made, TRIAL, VM, state, state_of};
use crate::check::judge;
use crate::check::verdict::Verdict;
use crate::history::acks::AckLog;
use crate::history::event::{Fact, Outcome, Purpose, ReadVia, Site};
use crate::history::read::{History, Incarnation, Scan};
use crate::history::segment::Record;
use crate::probe::frame::CellState;

/// The load on the new side.
pub(in crate::check) const LOAD2: u64 = 0x0200_0003_0000_00CC;
/// The reader on the old side.
const VERIFY2: u64 = 0x0100_0004_0000_00DD;
/// By how much the second life comes later than the first.
const LATER: u64 = 10_000 * MS;

/// Both halves of the story.
#[derive(Debug, Clone)]
pub(in crate::check) struct Failback {
    /// Up to the read-back after the failover.
    pub(in crate::check) first: Kit,
    /// The load on the new side, and in its disks what the old side holds in the end.
    pub(in crate::check) second: Kit,
    pub(in crate::check) zero_loss: Option<bool>,
    /// Where the end is read back.
    pub(in crate::check) site: Site,
}

impl Failback {
    /// Nothing of the new line is lost and nothing of the old one comes back.
    pub(in crate::check) fn new(seed: u64) -> Self {
        let mut first = Kit::failover(seed);
        let gone = LATER + FAULT;
        for (at, outcome) in [(10, None), (100, Some(Outcome::Ok))] {
            let fencing = Fact::Fencing {
                site: Site::Secondary,
                method: "stopVm".into(),
                outcome,
            };
            first.add(gone + at * MS, fencing);
        }
        first.add(gone + 90 * MS, stopped(Site::Secondary));
        let mut second = Kit::failover(seed);
        // The same addresses, as all loads of a subject have, at another pace.
        second.again(seed ^ 0x5EED);
        second.disks.clone_from(&first.disks);
        let writes = second.writes.clone();
        for write in &writes {
            second.overwrite(write);
        }
        Self {
            first,
            second,
            zero_loss: Some(true),
            site: Site::Primary,
        }
    }

    /// Acked writes of the first load that the failover lost and whose cell nobody wrote since, each
    /// the last of its cell.
    pub(in crate::check) fn discarded(&self) -> Vec<Made> {
        let mut last: BTreeMap<(usize, u64), &Made> = BTreeMap::new();
        for write in self.first.writes.iter().filter(|w| w.ack != u64::MAX) {
            last.insert((write.volume, write.cell), write);
        }
        last.into_values()
            .filter(|w| {
                let held = self.first.disks[w.volume].get(&w.cell);
                let newer = matches!(held, Some(CellState::Ok { wseq, .. }) if *wseq >= w.wseq);
                !newer && held != Some(&state(w))
            })
            .cloned()
            .collect()
    }

    pub(in crate::check) fn history(&self) -> History {
        let mut history = self.first.history();
        let later = |records: &[Record]| {
            let mut acks = AckLog::default();
            for record in records {
                acks.absorb(&shift(record)).expect("consistent");
            }
            acks
        };
        let old = history.incarnations[0].clone();
        let verify = history.incarnations[1].clone();
        history.incarnations.push(Incarnation {
            name: format!("{LOAD2:016x}"),
            number: LOAD2,
            seq: 1_000,
            at_ns: FAULT + 6_000 * MS,
            site: Site::Secondary,
            purpose: Purpose::Load,
            parent: Some(format!("{LOAD:016x}")),
            acks: later(&self.second.load),
            identity: verify.identity.clone(),
            ..old
        });
        history.incarnations.push(Incarnation {
            name: format!("{VERIFY2:016x}"),
            number: VERIFY2,
            seq: 1_500,
            at_ns: LATER + FAULT + 2_700 * MS,
            site: self.site,
            acks: later(&self.second.verify),
            ..verify
        });
        history.scans.push(Scan {
            seq: 2_000,
            at_ns: LATER + FAULT + 5_000 * MS,
            trial: Some(TRIAL.into()),
            subject: Some(VM.into()),
            site: self.site,
            reader: format!("{VERIFY2:016x}"),
            judges: vec![format!("{LOAD:016x}"), format!("{LOAD2:016x}")],
            via: ReadVia::Guest,
            zero_loss: self.zero_loss,
            cut: None,
            volumes: (0u8..2).map(|volume| self.second.scan(volume)).collect(),
        });
        history
    }

    pub(in crate::check) fn verdict(&self, check: &str) -> Verdict {
        let verdicts = judge(&self.first.plan, &self.history()).verdicts;
        let found = verdicts.into_iter().find(|verdict| verdict.check == check);
        found.expect("a verdict")
    }
}

impl Kit {
    /// Writes anew with the same addresses.
    fn again(&mut self, pace: u64) {
        self.writes.clear();
        let ranks = self.write(0, &mut super::Draw(pace));
        self.hear(&ranks);
    }

    /// Puts a write of the second load on its cell, whatever the first left there.
    fn overwrite(&mut self, write: &Made) {
        let disk = &mut self.disks[write.volume];
        let newer = matches!(disk.get(&write.cell),
            Some(CellState::Ok { incarnation: LOAD2, wseq, .. }) if *wseq > write.wseq);
        if !newer {
            disk.insert(write.cell, state_of(write, LOAD2));
        }
    }
}

fn shift(record: &Record) -> Record {
    let mut record = record.clone();
    let (Record::Token { at_ns, .. } | Record::Link { at_ns, .. } | Record::Frame { at_ns, .. }) =
        &mut record;
    *at_ns += LATER;
    record
}
