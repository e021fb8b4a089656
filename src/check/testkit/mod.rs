//! Histories for the tests of the checks: a small simulated guest writes, the host hears, the volumes
//! come back as a legal cut of what was written, and each part can be spoilt afterwards.

use std::collections::BTreeMap;

use super::verdict::{Status, Verdict};
use super::{Verdicts, judge};
use crate::history::acks::AckLog;
use crate::history::event::{Event, Fact, Purpose, ReadVia, Site, VERSION};
use crate::history::read::{History, Incarnation, Scan};
use crate::history::segment::Record;
use crate::plan::Plan;
use crate::probe::frame::CellState;
use crate::probe::layout::{CELL, Layout, WRITER_LOG, mix};

mod disk;
mod facts;
mod failback;
mod inside;
mod live;
mod load;

pub(super) use disk::{state, state_of};
pub(super) use facts::{plan, replication, running, second};
pub(super) use failback::Failback;
pub(super) use inside::shows;
pub(super) use live::{PAUSE, PAUSED_MS, file_system, raw, vm};
pub(super) use load::Stall;

pub(super) const MS: u64 = 1_000_000;
pub(super) const LOAD: u64 = 0x0100_0001_0000_00AA;
pub(super) const VERIFY: u64 = 0x0200_0002_0000_00BB;
pub(super) const VM: &str = "ledger-0";
pub(super) const TRIAL: &str = "t1";
/// The load begins here and the fault comes at `FAULT`.
pub(super) const START: u64 = 1_000 * MS;
pub(super) const FAULT: u64 = 4_000 * MS;
/// What a move is judged by.
pub(super) const MOVE: [&str; 17] = [
    "D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "S2", "O1", "O2", "O4",
    "G1",
];
/// Draws numbers from a seed.
#[derive(Debug, Clone)]
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % n.max(1)
    }
}

/// A write as it happened.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) writer: u32,
    pub(super) wseq: u64,
    pub(super) volume: usize,
    pub(super) cell: u64,
    pub(super) dep: u64,
    pub(super) ack: u64,
    pub(super) heard: u64,
}

/// One trial of one VM, every part open to change.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    pub(super) plan: Plan,
    pub(super) scenario: &'static str,
    pub(super) zero_loss: bool,
    pub(super) seed: u64,
    pub(super) layouts: Vec<Layout>,
    pub(super) writes: Vec<Made>,
    /// Per volume, what the read-back finds in each cell of log, hot and cold samples.
    pub(super) disks: Vec<BTreeMap<u64, CellState>>,
    pub(super) sizes: Vec<u64>,
    pub(super) facts: Vec<(u64, Option<&'static str>, Fact)>,
    pub(super) load: Vec<Record>,
    pub(super) verify: Vec<Record>,
    pub(super) verify_site: Site,
    pub(super) torn: Option<String>,
    pub(super) truncated: Option<String>,
    pub(super) scanned: bool,
    /// Writes between flushes.
    pub(super) batch: u64,
    pub(super) stall: Option<Stall>,
    /// When each rank became durable.
    pub(super) ranks: Vec<u64>,
    pub(super) verify_boot: &'static str,
    /// Further read-backs.
    pub(super) reads: Vec<Scan>,
}

impl Kit {
    /// A planned move in which nothing is lost.
    pub(super) fn relocate(seed: u64) -> Self {
        let mut kit = Self::new(seed, 0, "relocate.zero-loss", true);
        let last = kit.writes.iter().map(|w| w.ack).max().unwrap_or(0);
        kit.cut(last, &mut Draw(seed));
        kit
    }

    /// An unplanned failover to a point some hundred milliseconds before the fault.
    pub(super) fn failover(seed: u64) -> Self {
        Self::failover_batched(seed, 0)
    }

    pub(super) fn failover_batched(seed: u64, batch: u64) -> Self {
        let mut kit = Self::new(seed, batch, "failover.unplanned.node-down", false);
        let last = kit
            .writes
            .iter()
            .map(|w| w.ack)
            .filter(|a| *a != u64::MAX)
            .max();
        let last = last.unwrap_or(0);
        kit.cut(last * 4 / 5, &mut Draw(seed));
        kit
    }

    fn new(seed: u64, batch: u64, scenario: &'static str, zero_loss: bool) -> Self {
        Self::stalled(seed, batch, scenario, zero_loss, None)
    }

    fn stalled(
        seed: u64,
        batch: u64,
        scenario: &'static str,
        zero_loss: bool,
        stall: Option<Stall>,
    ) -> Self {
        let layouts = vec![load::layout(), load::layout()];
        let sizes = vec![256 * CELL as u64; 2];
        let mut kit = Self {
            plan: plan("{rpo: 2s, rto: 10s}"),
            scenario,
            zero_loss,
            seed,
            disks: Vec::new(),
            writes: Vec::new(),
            facts: Vec::new(),
            load: Vec::new(),
            verify: Vec::new(),
            verify_site: Site::Secondary,
            torn: None,
            truncated: None,
            scanned: true,
            batch,
            stall,
            ranks: Vec::new(),
            verify_boot: "boot-b",
            reads: Vec::new(),
            layouts,
            sizes,
        };
        let ranks = kit.write(batch, &mut Draw(seed ^ 1));
        kit.hear(&ranks);
        kit.recover();
        kit.tell();
        kit
    }

    /// Drops the facts that `gone` selects.
    pub(super) fn without(&mut self, gone: impl Fn(&Fact) -> bool) -> &mut Self {
        self.facts.retain(|(.., fact)| !gone(fact));
        self
    }

    /// Changes every fact.
    pub(super) fn change(&mut self, how: impl Fn(&mut Fact)) -> &mut Self {
        self.facts.iter_mut().for_each(|(.., fact)| how(fact));
        self
    }

    /// Adds a fact of the VM.
    pub(super) fn add(&mut self, at_ns: u64, fact: Fact) -> &mut Self {
        self.facts.push((at_ns, Some(VM), fact));
        self
    }

    pub(super) fn history(&self) -> History {
        let mut facts = self.facts.clone();
        facts.sort_by_key(|(at, ..)| *at);
        let events = (0u64..).zip(facts).map(|(seq, (at_ns, subject, fact))| {
            let run = matches!(
                fact,
                Fact::RunStarted { .. }
                    | Fact::RunEnded { .. }
                    | Fact::SiteSeen { .. }
                    | Fact::Swept { .. }
            );
            Event {
                v: VERSION,
                seq,
                at_ns,
                wall: facts::stamp(at_ns),
                trial: (!run).then(|| TRIAL.into()),
                subject: subject.map(str::to_owned),
                fact,
            }
        });
        let mut history = History {
            events: events.collect(),
            head: "head".into(),
            truncated: self.truncated.clone(),
            ..History::default()
        };
        history.incarnations = vec![
            self.life(
                LOAD,
                Site::Primary,
                Purpose::Load,
                START - 150 * MS,
                "boot-a",
            ),
            self.life(
                VERIFY,
                self.verify_site,
                Purpose::Verify,
                FAULT + 2_700 * MS,
                self.verify_boot,
            ),
        ];
        history.incarnations[0].torn.clone_from(&self.torn);
        if self.scanned {
            history.scans.push(self.read(999, ReadVia::Guest));
        }
        history.scans.extend(self.reads.iter().cloned());
        history
    }

    /// The volumes as they are now, read back on the target by an event of that number.
    pub(super) fn read(&self, seq: u64, via: ReadVia) -> Scan {
        Scan {
            seq,
            at_ns: FAULT + (4_001 + seq) * MS,
            trial: Some(TRIAL.into()),
            subject: Some(VM.into()),
            site: self.verify_site,
            reader: match via {
                ReadVia::Guest => format!("{VERIFY:016x}"),
                ReadVia::Clone => "0300000300000000".into(),
            },
            judges: vec![format!("{LOAD:016x}")],
            via,
            zero_loss: None,
            cut: None,
            volumes: (0u8..2).map(|volume| self.scan(volume)).collect(),
        }
    }

    fn life(
        &self,
        number: u64,
        site: Site,
        purpose: Purpose,
        at_ns: u64,
        boot: &str,
    ) -> Incarnation {
        let mut acks = AckLog::default();
        let records = if purpose == Purpose::Load {
            &self.load
        } else {
            &self.verify
        };
        for record in records {
            acks.absorb(record).expect("consistent");
        }
        Incarnation {
            name: format!("{number:016x}"),
            number,
            seq: number >> 56,
            at_ns,
            trial: Some(TRIAL.into()),
            subject: Some(VM.into()),
            site,
            purpose,
            parent: None,
            identity: load::identity(number, boot, &[256 * CELL as u64; 2]),
            layouts: self.layouts.clone(),
            acks,
            torn: None,
        }
    }

    pub(super) fn judge(&self) -> Verdicts {
        judge(&self.plan, &self.history())
    }

    pub(super) fn verdict(&self, check: &str) -> Verdict {
        let verdicts = self.judge().verdicts;
        let found = verdicts.into_iter().find(|verdict| verdict.check == check);
        found.expect("a verdict")
    }

    pub(super) fn status(&self, check: &str) -> Status {
        self.verdict(check).status
    }

    /// The last acked write that is present and whose cell no present write overwrote.
    pub(super) fn recent(&self, log: bool) -> Made {
        let found = self.writes.iter().rev().find(|w| {
            (w.writer == WRITER_LOG) == log
                && w.ack != u64::MAX
                && self.disks[w.volume].get(&w.cell) == Some(&state(w))
        });
        found.expect("something is present").clone()
    }

    /// What the cell of a write held before it.
    pub(super) fn before(&self, write: &Made) -> CellState {
        let earlier = self
            .writes
            .iter()
            .rev()
            .find(|w| (w.volume, w.cell) == (write.volume, write.cell) && w.wseq < write.wseq);
        earlier.map_or(CellState::Zeroed, state)
    }
}
