//! Histories for the tests of the checks: a small simulated guest writes, the host hears, the volumes
//! come back as a legal cut of what was written, and each part can be spoilt afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use super::verdict::{Status, Verdict};
use super::{Verdicts, catalogue, judge};
use crate::history::acks::AckLog;
use crate::history::event::{
    ConditionFact, Event, Fact, LedgerMode, Outcome, Purpose, ReadVia, ReplicationFact, Site,
    Stage, VERSION, VolumeFact,
};
use crate::history::read::{History, Incarnation, Scan};
use crate::history::scanfile::VolumeScan;
use crate::history::segment::Record;
use crate::plan::{Known, Plan};
use crate::probe::cell::Kind;
use crate::probe::disk::Grants;
use crate::probe::frame::{Ack, CellState, FromGuest, Identity, Opened, Rank, Seen};
use crate::probe::layout::{CELL, Layout, LayoutSpec, WRITER_CANARY, WRITER_LOG, address, mix};

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
const EPOCH_S: i64 = 1_800_000_000;

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
}

fn layout() -> Layout {
    let spec = LayoutSpec {
        canary: 4,
        log: 16,
        hot: 48,
        cold_stride: 16,
        hot_writers: 1,
    };
    Layout::fit(256, &spec).expect("fits")
}

pub(super) fn plan(objectives: &str) -> Plan {
    let text = format!(
        "apiVersion: virtproof.dev/v1alpha1
kind: Plan
metadata: {{name: test}}
sites:
  primary: {{context: east}}
  secondary: {{context: west}}
protection:
  driver: volumeReplication
  volumeReplicationClass: fast
  schedulingInterval: 2s
workloads:
  - name: ledger
    template: any
objectives: {objectives}
scenarios: [relocate.zero-loss]
"
    );
    crate::plan::parse(&text, "test", Path::new("."), &Known::nothing())
        .expect("a plan")
        .plan
}

fn stamp(at_ns: u64) -> jiff::Timestamp {
    let at = i128::from(EPOCH_S) * 1_000_000_000 + i128::from(at_ns);
    jiff::Timestamp::from_nanosecond(at).expect("in range")
}

/// `lastSyncTime` as a cluster writes it: whole seconds.
pub(super) fn second(at_ns: u64) -> jiff::Timestamp {
    stamp(at_ns / 1_000_000_000 * 1_000_000_000)
}

fn identity(number: u64, boot: &str, sizes: &[u64]) -> Identity {
    Identity {
        incarnation: number,
        boot_id: boot.into(),
        machine_id: "machine".into(),
        pid: 7,
        volumes: (0u8..)
            .zip(sizes)
            .map(|(volume, size)| Opened {
                volume,
                path: format!("/dev/vd{volume}"),
                size: *size,
                grants: Grants::default(),
            })
            .collect(),
    }
}

fn token(at_ns: u64) -> u32 {
    u32::try_from(at_ns / (50 * MS)).expect("small")
}

fn tokens(from: u64, to: u64) -> Vec<Record> {
    (from.div_ceil(50 * MS)..=to / (50 * MS))
        .map(|n| Record::Token {
            at_ns: n * 50 * MS,
            n: u32::try_from(n).expect("small"),
        })
        .collect()
}

fn frames(list: Vec<(u64, FromGuest)>) -> Vec<Record> {
    (1u64..)
        .zip(list)
        .map(|(seq, (at_ns, frame))| Record::Frame {
            at_ns,
            seq,
            bytes: frame.encode(seq),
        })
        .collect()
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
        let layouts = vec![layout(), layout()];
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
            layouts,
            sizes,
        };
        let ranks = kit.write(batch, &mut Draw(seed ^ 1));
        kit.hear(&ranks);
        kit.recover();
        kit.tell();
        kit
    }

    /// Three writers, one write in flight each, five hundred writes per second. Gives the marks of
    /// each rank and when it was durable.
    fn write(&mut self, batch: u64, draw: &mut Draw) -> Vec<(u64, Vec<(u32, u64)>)> {
        let mut ranks: Vec<(u64, Vec<(u32, u64)>)> = Vec::new();
        let mut flying: BTreeMap<u32, usize> = BTreeMap::new();
        let mut wseq: BTreeMap<u32, u64> = BTreeMap::new();
        let mut done: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = START;
        while now < FAULT - 5 * MS {
            now += MS;
            let writer = u32::try_from(draw.below(3)).expect("small");
            if let Some(index) = flying.remove(&writer) {
                let mark = self.writes[index].wseq;
                if batch == 0 {
                    ranks.push((now, vec![(writer, mark)]));
                } else {
                    done.insert(writer, mark);
                }
            } else {
                let next = wseq.entry(writer).or_insert(0);
                *next += 1;
                let at = address(&self.layouts, self.seed, writer, *next).expect("a writer");
                flying.insert(writer, self.writes.len());
                self.writes.push(Made {
                    writer,
                    wseq: *next,
                    volume: usize::from(at.volume),
                    cell: at.cell,
                    dep: ranks.len() as u64,
                    ack: u64::MAX,
                    heard: u64::MAX,
                });
            }
            if batch > 0 && (self.writes.len() as u64).is_multiple_of(batch) && !done.is_empty() {
                let marks = done.iter().map(|(writer, mark)| (*writer, *mark)).collect();
                ranks.push((now, marks));
            }
        }
        let mut waiting: BTreeMap<u32, std::collections::VecDeque<usize>> = BTreeMap::new();
        for (index, write) in self.writes.iter().enumerate() {
            waiting.entry(write.writer).or_default().push_back(index);
        }
        for (rank, (_, marks)) in (1u64..).zip(&ranks) {
            for (writer, mark) in marks {
                let Some(queue) = waiting.get_mut(writer) else {
                    continue;
                };
                while let Some(index) = queue.front().copied()
                    && self.writes[index].wseq <= *mark
                {
                    queue.pop_front();
                    self.writes[index].ack = rank;
                }
            }
        }
        ranks
    }

    /// The host hears every eight ranks, a millisecond later.
    fn hear(&mut self, ranks: &[(u64, Vec<(u32, u64)>)]) {
        let opened = identity(LOAD, "boot-a", &self.sizes);
        let mut list = vec![(START - 100 * MS, FromGuest::Opened(opened))];
        let cold = self.layouts[0].cold_cells().count() as u64;
        for volume in 0..2 {
            list.push((
                START - 50 * MS,
                FromGuest::Filled {
                    volume,
                    cells: cold,
                },
            ));
        }
        let mut first_rank = 1;
        for chunk in ranks.chunks(8) {
            let (at, _) = chunk[chunk.len() - 1];
            for write in &mut self.writes {
                if (first_rank..first_rank + chunk.len() as u64).contains(&write.ack) {
                    write.heard = at + MS;
                }
            }
            let ack = Ack {
                first_rank,
                ranks: chunk
                    .iter()
                    .map(|(_, marks)| Rank {
                        marks: marks.clone(),
                    })
                    .collect(),
                mono_ns: at,
                real_ns: at,
                token: token(chunk[0].0),
                max_gap_ns: MS,
            };
            list.push((at + MS, FromGuest::Ack(ack)));
            first_rank += chunk.len() as u64;
        }
        self.load = frames(list);
        self.load.extend(tokens(START - 200 * MS, FAULT));
        self.load.sort_by_key(Record::at_ns);
    }

    fn recover(&mut self) {
        let at = FAULT + 3_000 * MS;
        let opened = identity(VERIFY, "boot-b", &self.sizes);
        let canary = |rank, wseq, at: u64| {
            FromGuest::Ack(Ack {
                first_rank: rank,
                ranks: vec![Rank {
                    marks: vec![(WRITER_CANARY, wseq)],
                }],
                mono_ns: at,
                real_ns: at,
                token: token(at - MS),
                max_gap_ns: 0,
            })
        };
        self.verify = frames(vec![
            (at - 100 * MS, FromGuest::Opened(opened)),
            (at, canary(1, 1, at)),
            (at + 2 * MS, canary(2, 2, at)),
        ]);
        self.verify.extend(tokens(at - 200 * MS, at + 500 * MS));
        self.verify.sort_by_key(Record::at_ns);
    }

    /// What the volumes hold if everything up to `rank` reached them, and of the rest a random part
    /// of what can have been under way.
    pub(super) fn cut(&mut self, rank: u64, draw: &mut Draw) {
        self.disks = self.layouts.iter().map(blank).collect();
        let mut kept = self.writes.clone();
        kept.retain(|w| w.ack <= rank || (w.dep <= rank && draw.below(2) == 0));
        for write in &kept {
            self.put(write);
        }
    }

    /// Puts a write on its cell unless a later one is there.
    pub(super) fn put(&mut self, write: &Made) {
        let disk = &mut self.disks[write.volume];
        let newer =
            matches!(disk.get(&write.cell), Some(CellState::Ok { wseq, .. }) if *wseq > write.wseq);
        if !newer {
            disk.insert(write.cell, state(write));
        }
    }

    #[expect(clippy::too_many_lines, reason = "a whole trial as one table of facts")]
    fn tell(&mut self) {
        let volumes = (0u8..2)
            .map(|ordinal| VolumeFact {
                ordinal,
                name: format!("data{ordinal}"),
                pvc: format!("pvc-{ordinal}"),
                vol_id: format!("{:032x}", 0xABC0 + u128::from(ordinal)),
                volume_mode: "Block".into(),
                ledger: LedgerMode::Raw,
            })
            .collect();
        let pvcs: Vec<String> = vec!["root".into(), "pvc-0".into(), "pvc-1".into()];
        let s = Some(VM);
        let mut facts = vec![
            (
                0,
                None,
                Fact::RunStarted {
                    run_id: "00".repeat(16),
                    seed: 1,
                    tool: "test".into(),
                    plan_blake3: String::new(),
                    argv: Vec::new(),
                    lab: true,
                },
            ),
            (0, None, seen(Site::Primary)),
            (0, None, seen(Site::Secondary)),
            (
                1,
                None,
                Fact::TrialStarted {
                    scenario: self.scenario.into(),
                    subjects: vec![VM.into()],
                    checks: catalogue().iter().map(|spec| spec.id.to_owned()).collect(),
                    zero_loss: self.zero_loss,
                    aimed: None,
                },
            ),
            (
                2,
                None,
                Fact::StepStarted {
                    step: "move".into(),
                },
            ),
            (
                3,
                s,
                Fact::SubjectCreated {
                    workload: "ledger".into(),
                    namespace: "ns".into(),
                    vm: VM.into(),
                    volumes,
                    pvcs: pvcs.clone(),
                    seed: self.seed,
                },
            ),
            (
                FAULT - 200 * MS,
                s,
                replication(Site::Primary, &pvcs, Some(second(FAULT - 1_500 * MS))),
            ),
            (FAULT - 100 * MS, s, guest(Site::Primary)),
            (
                FAULT + 10 * MS,
                s,
                Fact::Fencing {
                    site: Site::Primary,
                    method: "stopVm".into(),
                    outcome: None,
                },
            ),
            (FAULT + 90 * MS, s, stopped(Site::Primary)),
            (
                FAULT + 100 * MS,
                s,
                Fact::Fencing {
                    site: Site::Primary,
                    method: "stopVm".into(),
                    outcome: Some(Outcome::Ok),
                },
            ),
            (
                FAULT + 300 * MS,
                s,
                Fact::Gate {
                    site: Site::Secondary,
                    forced: !self.zero_loss,
                    open: true,
                    why: String::new(),
                },
            ),
            (
                FAULT + 600 * MS,
                s,
                replication(Site::Secondary, &pvcs, None),
            ),
            (FAULT + 2_000 * MS, s, running(Site::Secondary)),
            (FAULT + 2_500 * MS, s, guest(Site::Secondary)),
            (
                FAULT + 6_000 * MS,
                None,
                Fact::StepEnded {
                    step: "move".into(),
                    outcome: Outcome::Ok,
                },
            ),
            (
                FAULT + 6_100 * MS,
                None,
                Fact::TrialEnded {
                    outcome: Outcome::Ok,
                },
            ),
            (
                FAULT + 7_000 * MS,
                None,
                Fact::Swept {
                    sites: vec![Site::Primary, Site::Secondary],
                    residue: Vec::new(),
                },
            ),
            (
                FAULT + 7_100 * MS,
                None,
                Fact::RunEnded {
                    reason: "completed".into(),
                },
            ),
        ];
        for pvc in &pvcs {
            facts.push((
                FAULT + 400 * MS,
                s,
                Fact::Claim {
                    site: Site::Secondary,
                    pvc: pvc.clone(),
                    pv: format!("pv-{pvc}"),
                    handle: format!("west-{pvc}"),
                    expected: Some(format!("west-{pvc}")),
                },
            ));
        }
        let stages = [
            (Stage::Fault, 0),
            (Stage::Ordered, 50),
            (Stage::Fenced, 100),
            (Stage::HandedOver, 400),
            (Stage::Promoted, 500),
            (Stage::VmCreated, 700),
            (Stage::VmiRunning, 2_000),
            (Stage::SshBanner, 2_300),
            (Stage::SshAuth, 2_400),
            (Stage::DevicesOpen, 2_800),
            (Stage::FirstAck, 3_001),
        ];
        facts.extend(stages.map(|(stage, ms)| (FAULT + ms * MS, s, Fact::StageReached { stage })));
        self.facts = facts;
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
                wall: stamp(at_ns),
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
                "boot-b",
            ),
        ];
        history.incarnations[0].torn.clone_from(&self.torn);
        if self.scanned {
            history.scans.push(Scan {
                seq: 999,
                at_ns: FAULT + 5_000 * MS,
                trial: Some(TRIAL.into()),
                subject: Some(VM.into()),
                site: self.verify_site,
                reader: format!("{VERIFY:016x}"),
                judges: vec![format!("{LOAD:016x}")],
                via: ReadVia::Guest,
                zero_loss: None,
                volumes: (0u8..2).map(|volume| self.scan(volume)).collect(),
            });
        }
        history
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
            identity: identity(number, boot, &[256 * CELL as u64; 2]),
            layouts: self.layouts.clone(),
            acks,
            torn: None,
        }
    }

    fn scan(&self, volume: u8) -> VolumeScan {
        let index = usize::from(volume);
        let layout = &self.layouts[index];
        let mut cells: Vec<Seen> = layout
            .canary
            .clone()
            .map(|cell| Seen {
                cell,
                state: CellState::Zeroed,
            })
            .collect();
        let mut cold_ok = 0;
        for (cell, state) in &self.disks[index] {
            let filled =
                matches!(state, CellState::Ok { kind: Kind::Fill, wseq, .. } if *wseq == cell + 1);
            if filled {
                cold_ok += 1;
            } else {
                cells.push(Seen {
                    cell: *cell,
                    state: *state,
                });
            }
        }
        cells.sort_by_key(|seen| seen.cell);
        VolumeScan {
            volume,
            size: self.sizes[index],
            read: self.disks[index].len() as u64 + 4,
            cold_ok,
            cells,
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

pub(super) fn state(write: &Made) -> CellState {
    CellState::Ok {
        kind: if write.writer == WRITER_LOG {
            Kind::Log
        } else {
            Kind::Hot
        },
        incarnation: LOAD,
        writer: write.writer,
        wseq: write.wseq,
        dep: write.dep,
        token: 0,
    }
}

/// A volume after its fill.
fn blank(layout: &Layout) -> BTreeMap<u64, CellState> {
    let mut disk: BTreeMap<u64, CellState> = (layout.log.start..layout.hot.end)
        .map(|cell| (cell, CellState::Zeroed))
        .collect();
    disk.extend(layout.cold_cells().map(|cell| {
        let fill = CellState::Ok {
            kind: Kind::Fill,
            incarnation: LOAD,
            writer: crate::probe::layout::WRITER_FILL,
            wseq: cell + 1,
            dep: 0,
            token: 0,
        };
        (cell, fill)
    }));
    disk
}

fn seen(site: Site) -> Fact {
    Fact::SiteSeen {
        site,
        kubernetes: "v1.36".into(),
        kubevirt: None,
        clock_skew_ms: 0,
        clock_bound_ms: 2,
    }
}

pub(super) fn running(site: Site) -> Fact {
    Fact::Vm {
        site,
        status: "Running".into(),
        phase: "Running".into(),
        vmi_uid: None,
        node: None,
    }
}

pub(super) fn stopped(site: Site) -> Fact {
    Fact::Vm {
        site,
        status: "Stopped".into(),
        phase: String::new(),
        vmi_uid: None,
        node: None,
    }
}

pub(super) fn guest(site: Site) -> Fact {
    Fact::Guest {
        site,
        host_key: "SHA256:k".into(),
        host_key_pinned: (site == Site::Secondary).then_some(true),
        machine_id: "machine".into(),
        boot_id: "boot".into(),
    }
}

pub(super) fn replication(site: Site, pvcs: &[String], synced: Option<jiff::Timestamp>) -> Fact {
    let condition = |status: &str| ConditionFact {
        status: status.into(),
        reason: String::new(),
        message: String::new(),
    };
    let volumes = pvcs.iter().map(|pvc| ReplicationFact {
        pvc: pvc.clone(),
        desired: "primary".into(),
        state: "Primary".into(),
        current: true,
        conditions: [
            ("Completed".to_owned(), condition("True")),
            ("Degraded".to_owned(), condition("False")),
        ]
        .into(),
        last_sync_time: synced,
        message: String::new(),
    });
    Fact::Replication {
        site,
        volumes: volumes.collect(),
    }
}
