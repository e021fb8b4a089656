//! What a run of the history would have recorded: its facts, streams and read-backs, in memory.

use super::guest::{NEVER, Write};
use super::passage::Passage;
use super::shape::{Hearing, MS, Move};
use super::times::BOUND_NS;
use super::world::World;
use crate::check::CATALOGUE;
use crate::history::acks::AckLog;
use crate::history::event::{
    ConditionFact, Event, Fact, LedgerMode, Outcome, Purpose, ReadVia, ReplicationFact, Site,
    Stage, VERSION, VolumeFact,
};
use crate::history::read::{History, Incarnation, Scan};
use crate::history::scanfile::VolumeScan;
use crate::probe::frame::{CellState, Seen};
use crate::probe::layout::CELL;

pub(super) const VM: &str = "ledger-0";
pub(super) const TRIAL: &str = "t1";

/// Something of the history at its moment.
enum Item {
    Run(Fact),
    Trial(Fact),
    Subject(Fact),
    Life { leg: usize, purpose: Purpose },
    Scan(usize),
}

/// The checks that the simulation asks for, whatever the trial.
const ALWAYS: [&str; 10] = ["D2", "D3", "D4", "D5", "D6", "D7", "O1", "O2", "O4", "G1"];
/// Those of transitions.
const MOVES: [&str; 5] = ["R1", "R2", "T1", "T2", "S1"];

/// The checks of a history's trial, in the order of the catalogue.
pub(super) fn checks(world: &World) -> Vec<&'static str> {
    let legs = &world.shape.legs;
    let moves = legs[0].how != Move::Restart;
    let owed = legs.iter().any(|leg| leg.how.zero_loss());
    let wanted = |id: &str| {
        ALWAYS.contains(&id)
            || (moves && MOVES.contains(&id))
            || (owed && id == "D1")
            || (legs.len() > 1 && id == "S3")
    };
    let ids = CATALOGUE.iter().map(|spec| spec.id);
    ids.filter(|id| wanted(id)).collect()
}

/// Puts the history together.
pub(super) fn history(world: &mut World) -> History {
    let mut items = opening(world);
    items.extend(closing(world));
    for (leg, passage) in world.passages.iter().enumerate() {
        items.extend(transition(world, leg, passage));
    }
    items.sort_by_key(|(at, _)| *at);
    let mut streams: Vec<[Option<AckLog>; 2]> = std::mem::take(&mut world.streams)
        .into_iter()
        .map(|pair| pair.map(Some))
        .collect();
    let mut history = History {
        head: format!("{:016x}", world.shape.seed),
        ..History::default()
    };
    for (seq, (at_ns, item)) in (0u64..).zip(items) {
        let (trial, subject, fact) = match item {
            Item::Run(fact) => (None, None, fact),
            Item::Trial(fact) => (Some(TRIAL), None, fact),
            Item::Subject(fact) => (Some(TRIAL), Some(VM), fact),
            Item::Life { leg, purpose } => {
                let side = usize::from(purpose == Purpose::Verify);
                let acks = streams[leg][side].take().unwrap_or_default();
                let life = life(world, leg, purpose, (seq, at_ns), acks);
                history.incarnations.push(life);
                continue;
            }
            Item::Scan(leg) => {
                history.scans.push(scan(world, leg, (seq, at_ns)));
                continue;
            }
        };
        history.events.push(Event {
            v: VERSION,
            seq,
            at_ns,
            wall: wall(world, at_ns),
            trial: trial.map(str::to_owned),
            subject: subject.map(str::to_owned),
            fact,
        });
    }
    history
}

fn wall(world: &World, at_ns: u64) -> jiff::Timestamp {
    let at = i128::from(world.epoch_ns) + i128::from(at_ns);
    jiff::Timestamp::from_nanosecond(at).unwrap_or_default()
}

/// A sync time as a site with its own clock writes it: whole seconds.
fn stamp(world: &World, point: u64) -> jiff::Timestamp {
    let ahead = i128::from(world.shape.skew_ms[0]) * i128::from(MS);
    let at = i128::from(world.epoch_ns) + i128::from(point) + ahead;
    let second = at.div_euclid(1_000_000_000) * 1_000_000_000;
    jiff::Timestamp::from_nanosecond(second).unwrap_or_default()
}

fn pvcs(world: &World) -> Vec<String> {
    let data = (0..world.layouts.len()).map(|volume| format!("pvc-{volume}"));
    std::iter::once("root".to_owned()).chain(data).collect()
}

/// The one step of a simulated trial.
const STEP: &str = "move";

/// The beginning of the run.
fn opening(world: &World) -> Vec<(u64, Item)> {
    let seen = |site, skew_ms| {
        Item::Run(Fact::SiteSeen {
            site,
            kubernetes: "v1.36".into(),
            kubevirt: None,
            clock_skew_ms: skew_ms,
            clock_bound_ms: BOUND_NS / MS,
        })
    };
    let volumes = (0u8..)
        .zip(&world.ids.volumes)
        .map(|(ordinal, id)| VolumeFact {
            ordinal,
            name: format!("data{ordinal}"),
            pvc: format!("pvc-{ordinal}"),
            vol_id: format!("{:032x}", u128::from_be_bytes(*id)),
            volume_mode: "Block".into(),
            ledger: LedgerMode::Raw,
        });
    let legs = &world.shape.legs;
    vec![
        (
            0,
            Item::Run(Fact::RunStarted {
                run_id: format!("{:032x}", u128::from_be_bytes(world.ids.run)),
                seed: world.shape.seed,
                tool: "simulation".into(),
                plan_blake3: String::new(),
                argv: Vec::new(),
                lab: true,
            }),
        ),
        (1, seen(Site::Primary, world.shape.skew_ms[0])),
        (2, seen(Site::Secondary, world.shape.skew_ms[1])),
        (
            3,
            Item::Trial(Fact::TrialStarted {
                scenario: match legs.len() {
                    1 => legs[0].how.scenario().into(),
                    _ => "failback.resync".into(),
                },
                subjects: vec![VM.into()],
                checks: checks(world).into_iter().map(str::to_owned).collect(),
                zero_loss: legs.iter().all(|leg| leg.how.zero_loss()),
                aimed: None,
                parts: std::collections::BTreeMap::new(),
            }),
        ),
        (4, Item::Trial(Fact::StepStarted { step: STEP.into() })),
        (
            5,
            Item::Subject(Fact::SubjectCreated {
                workload: "ledger".into(),
                namespace: "ns".into(),
                vm: VM.into(),
                volumes: volumes.collect(),
                pvcs: pvcs(world),
                seed: world.ids.seed,
            }),
        ),
        (6, guest(Site::Primary, None)),
    ]
}

/// The end of the run.
fn closing(world: &World) -> Vec<(u64, Item)> {
    let end = world.passages.last().map_or(0, |last| last.times.scanned) + 1_000 * MS;
    vec![
        (
            end,
            Item::Trial(Fact::StepEnded {
                step: STEP.into(),
                outcome: Outcome::Ok,
            }),
        ),
        (
            end + 1,
            Item::Trial(Fact::TrialEnded {
                outcome: Outcome::Ok,
            }),
        ),
        (
            end + 2,
            Item::Run(Fact::Swept {
                sites: vec![Site::Primary, Site::Secondary],
                residue: Vec::new(),
            }),
        ),
        (
            end + 3,
            Item::Run(Fact::RunEnded {
                reason: "completed".into(),
            }),
        ),
    ]
}

fn guest(site: Site, pinned: Option<bool>) -> Item {
    Item::Subject(Fact::Guest {
        site,
        host_key: "SHA256:k".into(),
        host_key_pinned: pinned,
        machine_id: "machine".into(),
        boot_id: "boot".into(),
    })
}

fn replication(world: &World, site: Site, synced: Option<jiff::Timestamp>) -> Item {
    let condition = |status: &str| ConditionFact {
        status: status.into(),
        reason: String::new(),
        message: String::new(),
    };
    let volumes = pvcs(world).into_iter().map(|pvc| ReplicationFact {
        pvc,
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
    Item::Subject(Fact::Replication {
        site,
        volumes: volumes.collect(),
    })
}

/// What a transition leaves in the history.
fn transition(world: &World, leg: usize, passage: &Passage) -> Vec<(u64, Item)> {
    let (old, new) = (world.site(leg, 0), world.site(leg, 1));
    let how = world.shape.legs[leg].how;
    let (fault, times) = (passage.load.fault, &passage.times);
    let life = |purpose| Item::Life { leg, purpose };
    let mut items = vec![
        (passage.load.start - 100 * MS, life(Purpose::Load)),
        (times.back - 50 * MS, life(Purpose::Verify)),
        (times.scanned, Item::Scan(leg)),
        (times.back - 60 * MS, guest(new, Some(true))),
        (times.back - 70 * MS, running(new)),
    ];
    if leg == 0 {
        items.extend(stages(world, passage));
        let claims = passage.claims.iter();
        items.extend(claims.map(|(point, seen)| {
            let at = (*seen).min(fault - 1);
            (at, replication(world, old, Some(stamp(world, *point))))
        }));
    }
    if how != Move::Restart {
        items.extend(handed_over(world, leg, passage));
    }
    if how == Move::NodeDown {
        let fact = Fact::Fault {
            name: "site-power-off".into(),
            site: Some(old),
            active: true,
            detail: String::new(),
        };
        items.push((fault, Item::Trial(fact)));
    }
    items
}

fn running(site: Site) -> Item {
    Item::Subject(Fact::Vm {
        site,
        status: "Running".into(),
        phase: "Running".into(),
        vmi_uid: None,
        node: None,
    })
}

fn stages(world: &World, passage: &Passage) -> Vec<(u64, Item)> {
    let (fault, times) = (passage.load.fault, &passage.times);
    let planned = world.shape.legs[0].how.planned();
    let mut marks = vec![
        (Stage::Fault, fault),
        (Stage::Ordered, fault + MS),
        (Stage::Fenced, times.fenced),
        (Stage::HandedOver, times.fenced.max(times.promoted - MS)),
        (Stage::Promoted, times.promoted.max(times.fenced)),
    ];
    if planned {
        marks.push((Stage::Demoted, times.fenced + 1));
    }
    let back = times.back + MS;
    let step = back.saturating_sub(times.promoted.max(times.fenced)) / 6;
    let rest = [
        Stage::VmCreated,
        Stage::VmiRunning,
        Stage::SshBanner,
        Stage::SshAuth,
        Stage::DevicesOpen,
    ];
    marks.extend(
        rest.into_iter()
            .rev()
            .zip(1..)
            .map(|(stage, n)| (stage, back - n * step)),
    );
    marks.push((Stage::FirstAck, back));
    let facts = marks.into_iter();
    facts
        .map(|(stage, at)| (at, Item::Subject(Fact::StageReached { stage })))
        .collect()
}

fn handed_over(world: &World, leg: usize, passage: &Passage) -> Vec<(u64, Item)> {
    let (old, new) = (world.site(leg, 0), world.site(leg, 1));
    let times = &passage.times;
    let method = match world.shape.legs[leg].how {
        Move::PrimaryUp => "networkFence",
        Move::NodeDown => "siteDown",
        _ => "stopVm",
    };
    let fence = |outcome| {
        Item::Subject(Fact::Fencing {
            site: old,
            method: method.into(),
            outcome,
        })
    };
    let gate = Fact::Gate {
        site: new,
        forced: !world.shape.legs[leg].how.planned(),
        open: true,
        why: String::new(),
    };
    let promoted = times.promoted.max(times.fenced);
    let mut items = vec![
        (passage.load.fault + MS, fence(None)),
        (times.fenced, fence(Some(Outcome::Ok))),
        (promoted - 1, Item::Subject(gate)),
        (promoted + 1, replication(world, new, None)),
    ];
    let claims = pvcs(world).into_iter().map(|pvc| {
        let handle = format!("{new}-{pvc}");
        let claim = Fact::Claim {
            site: new,
            pv: format!("pv-{pvc}"),
            pvc,
            expected: Some(handle.clone()),
            handle,
        };
        (promoted - 1, Item::Subject(claim))
    });
    items.extend(claims);
    items
}

fn life(
    world: &World,
    leg: usize,
    purpose: Purpose,
    (seq, at_ns): (u64, u64),
    acks: AckLog,
) -> Incarnation {
    let after = usize::from(purpose == Purpose::Verify);
    let number = if after == 0 {
        world.ids.loads[leg]
    } else {
        world.ids.readers[leg]
    };
    let parent = (leg > 0 && after == 0).then(|| name(world.ids.loads[leg - 1]));
    let torn = after == 0 && world.shape.legs[leg].hearing == Hearing::Torn;
    Incarnation {
        name: name(number),
        number,
        seq,
        at_ns,
        trial: Some(TRIAL.into()),
        subject: Some(VM.into()),
        site: world.site(leg, after),
        purpose,
        parent,
        identity: world.identity(number, leg, after),
        layouts: world.layouts.clone(),
        acks,
        torn: torn.then(|| "the segment has no end".into()),
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}")
}

fn scan(world: &World, leg: usize, (seq, at_ns): (u64, u64)) -> Scan {
    let judges = world.ids.loads[..=leg].iter().copied().map(name);
    Scan {
        seq,
        at_ns,
        trial: Some(TRIAL.into()),
        subject: Some(VM.into()),
        site: world.site(leg, 1),
        reader: name(world.ids.readers[leg]),
        judges: judges.collect(),
        via: ReadVia::Guest,
        zero_loss: Some(world.shape.legs[leg].how.zero_loss()),
        cut: None,
        volumes: (0u8..)
            .take(world.layouts.len())
            .map(|volume| volume_scan(world, leg, volume))
            .collect(),
    }
}

/// The probe's scan of one volume: cells that are as they were filled are counted, others listed.
fn volume_scan(world: &World, leg: usize, volume: u8) -> VolumeScan {
    let index = usize::from(volume);
    let passage = &world.passages[leg];
    let layout = &world.layouts[index];
    let writes: &[Write] = &world.writes;
    let mut scan = VolumeScan {
        volume,
        size: passage.sizes[index] * CELL as u64,
        ..VolumeScan::default()
    };
    let disk = &passage.disks[index];
    for (cell, held) in (0u64..).zip(disk) {
        if held.what == super::cells::What::Unread {
            continue;
        }
        scan.read += 1;
        let state = world
            .ids
            .state(writes, index, cell, held, world.shape.bytes);
        let cold = cell < layout.canary.start || cell >= layout.hot.end;
        if cold && as_filled(&state, cell, world) {
            scan.cold_ok += 1;
        } else {
            scan.cells.push(Seen { cell, state });
        }
    }
    scan
}

fn as_filled(state: &CellState, cell: u64, world: &World) -> bool {
    use crate::probe::cell::Kind;
    matches!(state, CellState::Ok { kind: Kind::Fill, incarnation, wseq, .. }
        if *wseq == cell + 1 && *incarnation == world.ids.loads[0])
}

/// Whether a moment came.
pub(super) const fn came(at: u64) -> bool {
    at != NEVER
}
