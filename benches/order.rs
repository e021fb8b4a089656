//! The order check (D2, D3) on long histories: time and memory.
//!
//! `cargo bench --bench order -- [WRITES…]`. Each size is judged twice, each time in a process of its
//! own so that its peak memory is its own: an image that a crash may leave, and the same with one
//! write missing that was durable long before others were issued. A wrong verdict fails the bench.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use virtproof::check::judge;
use virtproof::check::verdict::Status;
use virtproof::history::acks::AckLog;
use virtproof::history::event::{
    Event, Fact, LedgerMode, Outcome, Purpose, ReadVia, Site, VERSION, VolumeFact,
};
use virtproof::history::read::{History, Incarnation, Scan};
use virtproof::history::scanfile::VolumeScan;
use virtproof::history::segment::Record;
use virtproof::plan::{self, Known, Plan};
use virtproof::probe::cell::Kind;
use virtproof::probe::frame::{Ack, CellState, FromGuest, Identity, Rank, Seen};
use virtproof::probe::layout::{CELL, Layout, LayoutSpec, WRITER_LOG, address, mix};

const VOLUMES: usize = 2;
/// Hot writers of each volume.
const HOT_WRITERS: u32 = 4;
/// 256 MiB of hot cells on each volume.
const SPEC: LayoutSpec = LayoutSpec {
    canary: 64,
    log: 1024,
    hot: 65_536,
    cold_stride: 0,
    hot_writers: HOT_WRITERS,
};
const CELLS: u64 = 4 * 65_536;
const SEED: u64 = 11;
const LIFE: u64 = 0x0100_0001_0000_0001;
/// Ranks of a frame, as the probe sends them under load.
const FRAME: usize = 64;
/// The word by which this program knows that it is to measure.
const CHILD: &str = "measure-one";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let outcome = match words.split_first() {
        Some((word, rest)) if word == CHILD => one(rest),
        _ => all(&words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn say(text: &str) {
    println!("{text}");
}

fn all(words: &[String]) -> anyhow::Result<()> {
    let sizes: Vec<u64> = words
        .iter()
        .map(|word| {
            word.parse()
                .with_context(|| format!("`{word}` is no number of writes"))
        })
        .collect::<Result<_, _>>()?;
    let sizes = if sizes.is_empty() {
        vec![1_000_000, 10_000_000, 100_000_000]
    } else {
        sizes
    };
    say("| writes | image | D2 | D3 | taking the stream in, s | judging, s | peak memory, MiB |");
    say("|---|---|---|---|---|---|---|");
    for size in sizes {
        for image in ["legal", "breach"] {
            let done = Command::new(std::env::current_exe()?)
                .args([CHILD, &size.to_string(), image])
                .status()?;
            if !done.success() {
                bail!("{size} writes, {image}: {done}");
            }
        }
    }
    Ok(())
}

fn one(words: &[String]) -> anyhow::Result<()> {
    let [size, image] = words else {
        bail!("{CHILD} takes a number and an image");
    };
    let writes: u64 = size.parse()?;
    let breach = image == "breach";
    let layout = Layout::fit(CELLS, &SPEC)?;
    let mut world = World::new(vec![layout; VOLUMES], writes - writes / 10);
    let mut took = std::time::Duration::ZERO;
    let mut acks = AckLog::default();
    let mut at = 0;
    while world.rank < writes {
        let record = world.frame(writes);
        at += 1;
        let began = Instant::now();
        acks.absorb(&record).map_err(anyhow::Error::msg)?;
        took += began.elapsed();
    }
    if breach {
        world.lose_one()?;
    }
    let history = history(&world, acks, at);
    let plan = plan()?;
    let began = Instant::now();
    let verdicts = judge(&plan, &history);
    let judging = began.elapsed();
    let wanted = if breach { Status::Fail } else { Status::Pass };
    let mut words = Vec::new();
    for verdict in &verdicts.verdicts {
        if verdict.status != wanted {
            let (check, summary) = (&verdict.check, &verdict.summary);
            bail!(
                "{check} says {:?} of a {image} image: {summary}",
                verdict.status
            );
        }
        words.push(format!("{:?}", verdict.status).to_lowercase());
    }
    say(&format!(
        "| {writes} | {image} | {} | {:.2} | {:.2} | {} |",
        words.join(" | "),
        took.as_secs_f64(),
        judging.as_secs_f64(),
        peak_mib()?
    ));
    Ok(())
}

/// The most memory that this process has had, MiB.
fn peak_mib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .context("/proc/self/status tells no VmHWM")?
        .parse::<u64>()?
        / 1024)
}

/// A version of a cell.
#[derive(Clone, Copy, Default)]
struct Version {
    wseq: u64,
    writer: u32,
    dep: u64,
    ack: u64,
}

/// Writers with one write in flight each; each write is durable by itself.
struct World {
    layouts: Vec<Layout>,
    /// The rank after which nothing reached the image.
    cut: u64,
    rank: u64,
    frames: u64,
    /// By writer: the write in flight and what was durable when it was issued.
    flying: Vec<(u64, u64)>,
    marks: Vec<u64>,
    /// By volume and slot: what the image holds, and what it held before.
    cells: Vec<Vec<[Version; 2]>>,
}

impl World {
    fn new(layouts: Vec<Layout>, cut: u64) -> Self {
        let writers = 1 + VOLUMES * HOT_WRITERS as usize;
        let slots = |l: &Layout| usize::try_from(l.hot.end - l.log.start).unwrap_or(0);
        Self {
            cells: layouts
                .iter()
                .map(|l| vec![Default::default(); slots(l)])
                .collect(),
            layouts,
            cut,
            rank: 0,
            frames: 0,
            flying: vec![(1, 0); writers],
            marks: vec![0; writers],
        }
    }

    /// The next frame of acks.
    fn frame(&mut self, writes: u64) -> Record {
        let first_rank = self.rank + 1;
        let mut ranks = Vec::with_capacity(FRAME);
        while ranks.len() < FRAME && self.rank < writes {
            ranks.push(Rank {
                marks: vec![self.next()],
            });
        }
        self.frames += 1;
        let frame = FromGuest::Ack(Ack {
            first_rank,
            ranks,
            mono_ns: self.rank * 100_000,
            real_ns: self.rank * 100_000,
            token: 0,
            max_gap_ns: 200_000,
        });
        Record::Frame {
            at_ns: self.rank * 100_000,
            seq: self.frames,
            bytes: frame.encode(self.frames),
        }
    }

    /// The next write becomes durable, and its writer issues another.
    fn next(&mut self) -> (u32, u64) {
        self.rank += 1;
        let lane = small(mix(self.rank ^ SEED) % self.flying.len() as u64);
        let (wseq, dep) = self.flying[lane];
        let writer = u32::try_from(lane).unwrap_or(WRITER_LOG);
        if self.rank <= self.cut
            && let Some(at) = address(&self.layouts, SEED, writer, wseq)
        {
            let volume = usize::from(at.volume);
            let slot = small(at.cell - self.layouts[volume].log.start);
            let cell = &mut self.cells[volume][slot];
            let ack = self.rank;
            *cell = [
                Version {
                    wseq,
                    writer,
                    dep,
                    ack,
                },
                cell[0],
            ];
        }
        self.marks[lane] = wseq;
        self.flying[lane] = (wseq + 1, self.rank);
        (writer, wseq)
    }

    /// Puts back what the cell held before that was written longest ago of all that are written.
    fn lose_one(&mut self) -> anyhow::Result<()> {
        let written = self.cells[0].iter_mut().filter(|cell| cell[0].wseq > 0);
        let oldest = written.min_by_key(|cell| cell[0].ack);
        let cell = oldest.context("nothing was written")?;
        cell[0] = cell[1];
        Ok(())
    }

    fn scan(&self, volume: usize) -> VolumeScan {
        let layout = &self.layouts[volume];
        let cells = (layout.log.start..).zip(&self.cells[volume]);
        VolumeScan {
            volume: u8::try_from(volume).unwrap_or(u8::MAX),
            size: layout.cells * CELL as u64,
            read: layout.cells,
            cold_ok: 2,
            cells: cells
                .map(|(cell, [held, _])| Seen {
                    cell,
                    state: state(held),
                })
                .collect(),
        }
    }
}

fn small(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn state(held: &Version) -> CellState {
    if held.wseq == 0 {
        return CellState::Zeroed;
    }
    CellState::Ok {
        kind: if held.writer == WRITER_LOG {
            Kind::Log
        } else {
            Kind::Hot
        },
        incarnation: LIFE,
        writer: held.writer,
        wseq: held.wseq,
        dep: held.dep,
        token: 0,
    }
}

fn plan() -> anyhow::Result<Plan> {
    let loaded = plan::lab_with(Path::new("."), &[], &Known::nothing());
    Ok(loaded?.plan)
}

const VM: &str = "ledger-0";
const TRIAL: &str = "order";

fn event(seq: u64, at_ns: u64, subject: Option<&str>, fact: Fact) -> Event {
    Event {
        v: VERSION,
        seq,
        at_ns,
        wall: jiff::Timestamp::UNIX_EPOCH,
        trial: Some(TRIAL.to_owned()),
        subject: subject.map(str::to_owned),
        fact,
    }
}

/// The run around the stream and the image.
fn history(world: &World, acks: AckLog, frames: u64) -> History {
    let end = world.rank * 100_000 + frames;
    let name = format!("{LIFE:016x}");
    let started = Fact::TrialStarted {
        scenario: "failover.unplanned.node-down".into(),
        subjects: vec![VM.into()],
        checks: vec!["D2".into(), "D3".into()],
        zero_loss: false,
        aimed: None,
        parts: std::collections::BTreeMap::new(),
    };
    let volumes = (0u8..).take(VOLUMES).map(|ordinal| VolumeFact {
        ordinal,
        name: format!("data{ordinal}"),
        pvc: format!("pvc-{ordinal}"),
        vol_id: format!("{ordinal:032x}"),
        volume_mode: "Block".into(),
        ledger: LedgerMode::Raw,
    });
    let created = Fact::SubjectCreated {
        workload: "ledger".into(),
        namespace: "bench".into(),
        vm: VM.into(),
        volumes: volumes.collect(),
        pvcs: Vec::new(),
        seed: SEED,
    };
    let ended = Fact::TrialEnded {
        outcome: Outcome::Ok,
    };
    let place = |seq, at_ns| (seq, at_ns, Some(TRIAL.to_owned()), Some(VM.to_owned()));
    let (seq, at_ns, trial, subject) = place(2, 0);
    let life = Incarnation {
        name: name.clone(),
        number: LIFE,
        seq,
        at_ns,
        trial,
        subject,
        site: Site::Primary,
        purpose: Purpose::Load,
        parent: None,
        identity: Identity {
            incarnation: LIFE,
            boot_id: String::new(),
            machine_id: String::new(),
            pid: 1,
            volumes: Vec::new(),
        },
        layouts: world.layouts.clone(),
        acks,
        torn: None,
    };
    let (seq, at_ns, trial, subject) = place(3, end + 1);
    let scan = Scan {
        seq,
        at_ns,
        trial,
        subject,
        site: Site::Secondary,
        reader: name.clone(),
        judges: vec![name],
        via: ReadVia::Guest,
        zero_loss: None,
        cut: None,
        volumes: (0..VOLUMES).map(|volume| world.scan(volume)).collect(),
    };
    History {
        events: vec![
            event(0, 0, None, started),
            event(1, 0, Some(VM), created),
            event(4, end + 2, None, ended),
        ],
        head: "bench".into(),
        truncated: None,
        incarnations: vec![life],
        scans: vec![scan],
    }
}
