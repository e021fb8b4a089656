//! A bench for the property tests: a probe over disks in memory, the host at the other end of its
//! stream, and the ledger of what the host has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cell::{Bytes, Header};
use super::config::{Config, DEFAULT_SCRATCH, Locator, Purpose, Target, Volume};
use super::disk::{Disk, Grants};
use super::frame::{CellState, FromGuest, ToGuest};
use super::layout::{Address, CELL, Layout, LayoutSpec, address};
use super::linux::SystemClock;
use super::memory::{MemDisk, Rack};
use super::platform::{Access, Clock, OpenError, OpenVolume, Platform};
use super::session::{Daemon, Left};
use super::wire::{Decoder, Raw};

/// Long enough for any machine that makes progress at all.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const INCARNATION: u64 = 0x0100_0001_1234_5678;
pub(super) const CELLS: u64 = 160;

/// Disks in memory as a guest.
pub(super) struct Bench {
    pub(super) rack: Rack,
    pub(super) config: Config,
    /// The header of every cell that anybody tried to write, in the order of the attempts.
    pub(super) tried: Arc<Mutex<Vec<Header>>>,
}

impl Bench {
    pub(super) fn new(volumes: usize, hot_writers: u32, dsync: bool, seed: u64) -> Self {
        let grants = Grants {
            dsync,
            ..Grants::default()
        };
        let volume = |ordinal: usize| Volume {
            vol_id: (0xF0 + ordinal as u128).to_be_bytes(),
            target: Target::Raw(Locator::Serial(ordinal.to_string())),
            cells: Some(CELLS),
            from: 0,
        };
        Self {
            rack: Rack::new(&vec![CELLS * CELL as u64; volumes], grants, seed),
            config: Config {
                run_id: [0x5A; 16],
                seed,
                incarnation: INCARNATION,
                purpose: Purpose::Load,
                layout: LayoutSpec {
                    canary: 4,
                    log: 12,
                    hot: 12,
                    cold_stride: 8,
                    hot_writers,
                },
                volumes: (0..volumes).map(volume).collect(),
                scratch: DEFAULT_SCRATCH,
                expect: vec![INCARNATION],
            },
            tried: Arc::default(),
        }
    }

    pub(super) fn layouts(&self) -> Vec<Layout> {
        let fit = |_: &Volume| Layout::fit(CELLS, &self.config.layout).unwrap();
        self.config.volumes.iter().map(fit).collect()
    }

    pub(super) fn start(&self) -> Arc<Daemon> {
        Arc::new(Daemon::open(&self.config, self).unwrap())
    }

    /// What a scan of these disks finds: the listed cells, and how many cold ones are in order.
    pub(super) fn scan(&self) -> (BTreeMap<Address, CellState>, u64) {
        let mut bytes = Vec::new();
        super::scan::scan(&self.config, self, &mut bytes).unwrap();
        found_in(&bytes)
    }
}

/// Takes a scan apart.
pub(super) fn found_in(mut bytes: &[u8]) -> (BTreeMap<Address, CellState>, u64) {
    let (mut cells, mut cold, mut volume, mut seq) = (BTreeMap::new(), 0, 0, 0);
    while let Some(raw) = Raw::read(&mut bytes).unwrap() {
        seq += 1;
        assert_eq!(raw.seq, seq);
        match FromGuest::decode(&raw).unwrap() {
            FromGuest::ScanBegin { volume: begun, .. } => volume = begun,
            FromGuest::Cells(seen) => {
                for seen in seen {
                    let cell = seen.cell;
                    let twice = cells.insert(Address { volume, cell }, seen.state);
                    assert_eq!(twice, None);
                }
            }
            FromGuest::ScanEnd { cold_ok, .. } => cold += cold_ok,
            FromGuest::Opened(identity) => assert_eq!(identity.incarnation, INCARNATION),
            other => panic!("not of a scan: {other:?}"),
        }
    }
    (cells, cold)
}

struct Watched {
    disk: MemDisk,
    tried: Arc<Mutex<Vec<Header>>>,
}

impl Watched {
    fn note(&self, buf: &[u8]) {
        let cells: &[Bytes] = buf.as_chunks().0;
        let headers = cells.iter().filter_map(Header::decode);
        self.tried.lock().unwrap().extend(headers);
    }
}

impl Disk for Watched {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn grants(&self) -> Grants {
        self.disk.grants()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.note(buf);
        self.disk.write_at(offset, buf)
    }
    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.note(buf);
        self.disk.write_lazily_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl Platform for Bench {
    fn open(&self, volume: &Volume, _: Purpose, _: Access) -> Result<OpenVolume, OpenError> {
        let ordinal = self.config.volumes.iter().position(|v| v == volume);
        let ordinal = ordinal.ok_or_else(|| OpenError::new("no such disk"))?;
        Ok(OpenVolume {
            path: format!("/dev/mem{ordinal}"),
            disk: Arc::new(Watched {
                disk: self.rack.disk(ordinal),
                tried: Arc::clone(&self.tried),
            }),
        })
    }
    fn boot_id(&self) -> String {
        "boot".to_owned()
    }
    fn machine_id(&self) -> String {
        String::new()
    }
    fn pid(&self) -> u32 {
        1
    }
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock(Instant::now()))
    }
}

/// The host's end of one attachment.
pub(super) struct Host {
    pub(super) stream: UnixStream,
    decoder: Decoder,
    served: Option<JoinHandle<io::Result<Left>>>,
    /// The last numbered frame.
    pub(super) heard: u64,
    /// Numbered frames in order.
    pub(super) frames: Vec<FromGuest>,
    /// Whether hearing is confirmed.
    pub(super) confirms: bool,
}

impl Host {
    /// Attaches, says hello and goes on after frame `heard`.
    pub(super) fn attach(daemon: &Arc<Daemon>, heard: u64) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let daemon = Arc::clone(daemon);
        let served = std::thread::spawn(move || {
            let (read, cut) = (theirs.try_clone()?, theirs.try_clone()?);
            let cut = Box::new(move || drop(cut.shutdown(Shutdown::Both)));
            daemon.serve_cut(read, theirs, cut)
        });
        let mut host = Self {
            stream: ours,
            decoder: Decoder::default(),
            served: Some(served),
            heard,
            frames: Vec::new(),
            confirms: true,
        };
        host.send(&ToGuest::Hello { heard });
        host
    }

    pub(super) fn send(&mut self, frame: &ToGuest) {
        self.stream.write_all(&frame.encode()).unwrap();
    }

    /// The next frame, `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Option<FromGuest> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(raw) = self.decoder.next_frame().unwrap() {
                let frame = FromGuest::decode(&raw).unwrap();
                if raw.seq > 0 {
                    assert_eq!(raw.seq, self.heard + 1, "frames come once and in order");
                    self.heard = raw.seq;
                    self.frames.push(frame.clone());
                    if self.confirms {
                        let heard = ToGuest::Heard(raw.seq).encode();
                        // A probe that has just ended no longer listens.
                        self.stream.write_all(&heard).ok();
                    }
                }
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
                // The probe's end closed with some of our confirmations unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// Reads until a frame fits.
    pub(super) fn until(&mut self, what: &str, fits: impl Fn(&FromGuest) -> bool) -> FromGuest {
        loop {
            match self.next() {
                Some(frame) if fits(&frame) => return frame,
                Some(_) => {}
                None => panic!("the stream ended while awaiting {what}"),
            }
        }
    }

    /// Fills all volumes.
    pub(super) fn fill(&mut self, volumes: usize) {
        self.send(&ToGuest::Fill);
        for _ in 0..volumes {
            self.until("filled", |frame| matches!(frame, FromGuest::Filled { .. }));
        }
    }

    /// Stops the load and gives what was issued.
    pub(super) fn stop(&mut self) -> (Vec<(u32, u64)>, u64) {
        self.send(&ToGuest::Stop);
        let stopped = self.until("stopped", |f| matches!(f, FromGuest::Stopped { .. }));
        match stopped {
            FromGuest::Stopped { issued, last_rank } => (issued, last_rank),
            _ => unreachable!("the filter lets only stopped through"),
        }
    }

    /// How the attachment ended on the probe's side.
    pub(super) fn left(mut self) -> io::Result<Left> {
        self.stream.shutdown(Shutdown::Both).ok();
        match self.served.take().map(JoinHandle::join) {
            Some(Ok(left)) => left,
            other => panic!("left twice, or serving panicked: {other:?}"),
        }
    }
}

/// What the host knows: rank of each acked write, and the writes that may or may not be there.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) acked: BTreeMap<(u32, u64), u64>,
    pub(super) unknown: BTreeSet<(u32, u64)>,
    marks: BTreeMap<u32, u64>,
    pub(super) rank: u64,
}

impl Heard {
    pub(super) fn of(frames: &[FromGuest]) -> Self {
        let mut heard = Self::default();
        for frame in frames {
            match frame {
                FromGuest::Unknown { writer, wseq, .. } => {
                    assert!(!heard.acked.contains_key(&(*writer, *wseq)));
                    assert!(heard.unknown.insert((*writer, *wseq)), "told once");
                }
                FromGuest::Ack(ack) => {
                    assert_eq!(ack.first_rank, heard.rank + 1, "ranks have no holes");
                    for rank in &ack.ranks {
                        heard.rank += 1;
                        for &(writer, wseq) in &rank.marks {
                            heard.mark(writer, wseq);
                        }
                    }
                }
                _ => {}
            }
        }
        heard
    }

    fn mark(&mut self, writer: u32, wseq: u64) {
        let last = self.marks.insert(writer, wseq).unwrap_or(0);
        assert!(wseq > last, "watermarks rise");
        for wseq in last + 1..=wseq {
            if !self.unknown.contains(&(writer, wseq)) {
                self.acked.insert((writer, wseq), self.rank);
            }
        }
    }
}

/// One write as the order rule sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) at: Address,
    pub(super) writer: u32,
    pub(super) wseq: u64,
    pub(super) dep: u64,
    /// `u64::MAX` for never.
    pub(super) ack: u64,
    /// Version of its cell, from 1.
    pub(super) version: usize,
}

/// The load's writes in issue order, canaries and fill left out.
pub(super) fn history(bench: &Bench, heard: &Heard) -> Vec<Op> {
    let layouts = bench.layouts();
    let mut tried = bench.tried.lock().unwrap().clone();
    tried.retain(|header| header.gseq > 0);
    tried.sort_by_key(|header| header.gseq);
    let mut versions: BTreeMap<Address, usize> = BTreeMap::new();
    let op = |header: &Header| {
        let (writer, wseq) = (header.writer, header.wseq);
        let at = address(&layouts, bench.config.seed, writer, wseq).unwrap();
        assert_eq!(at.cell, header.cell, "the address stream can be replayed");
        let version = versions.entry(at).or_default();
        *version += 1;
        Op {
            at,
            writer,
            wseq,
            dep: header.dep,
            ack: *heard.acked.get(&(writer, wseq)).unwrap_or(&u64::MAX),
            version: *version,
        }
    };
    tried.iter().map(op).collect()
}

/// The order rule: the smallest rank missing exceeds the largest dependency present. `image` gives
/// the version of each cell; cells that it lacks are left out.
pub(super) fn in_order(ops: &[Op], image: &BTreeMap<Address, usize>) -> bool {
    let present = |op: &&Op| image.get(&op.at) == Some(&op.version);
    let missing = |op: &&Op| {
        image
            .get(&op.at)
            .is_some_and(|found| op.version == found + 1)
    };
    let max_dep = ops.iter().filter(present).map(|op| op.dep).max();
    let min_ack = ops.iter().filter(missing).map(|op| op.ack).min();
    min_ack.unwrap_or(u64::MAX) > max_dep.unwrap_or(0) || max_dep.is_none()
}

/// The same question by its meaning: is there a set of writes, closed under "was durable before" and
/// "overwrote", that leaves exactly this image?
pub(super) fn explainable(ops: &[Op], image: &BTreeMap<Address, usize>) -> bool {
    let needs = |later: &Op, earlier: &Op| {
        earlier.ack <= later.dep || (earlier.at == later.at && earlier.version < later.version)
    };
    (0u32..1 << ops.len()).any(|set| {
        let holds = |index: usize| set >> index & 1 == 1;
        let closed = ops.iter().enumerate().all(|(i, later)| {
            !holds(i)
                || ops
                    .iter()
                    .enumerate()
                    .all(|(j, op)| holds(j) || !needs(later, op))
        });
        closed
            && image.iter().all(|(at, found)| {
                let of_cell = ops.iter().enumerate().filter(|(_, op)| op.at == *at);
                let newest = of_cell.filter(|(i, _)| holds(*i)).map(|(_, op)| op.version);
                newest.max().unwrap_or(0) == *found
            })
    })
}

/// The version that each cell of the load holds in a scan; damaged cells are left out.
pub(super) fn image_of(
    ops: &[Op],
    cells: &BTreeMap<Address, CellState>,
) -> BTreeMap<Address, usize> {
    let mut image = BTreeMap::new();
    for op in ops {
        match cells.get(&op.at) {
            Some(CellState::Ok { writer, wseq, .. })
                if (*writer, *wseq) == (op.writer, op.wseq) =>
            {
                image.insert(op.at, op.version);
            }
            Some(CellState::Zeroed) => {
                image.insert(op.at, 0);
            }
            _ => {}
        }
    }
    image
}
