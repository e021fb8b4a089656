//! A whole history from one shape: its legs one after the other, and the truth about each.

use super::array;
use super::cells::Ids;
use super::draw::Draw;
use super::family::Family;
use super::guest::Write;
use super::hear;
use super::passage::{self, From, Passage};
use super::shape::{MS, Move, Shape};
use crate::history::acks::AckLog;
use crate::history::event::Site;
use crate::history::segment::Record;
use crate::probe::disk::Grants;
use crate::probe::frame::{Identity, Opened};
use crate::probe::layout::{CELL, Layout, mix};

/// A history as it really went, with what the host heard of it.
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) layouts: Vec<Layout>,
    pub(super) ids: Ids,
    /// The host's wall clock at the beginning of the run, nanoseconds since 1970.
    pub(super) epoch_ns: u64,
    pub(super) writes: Vec<Write>,
    pub(super) passages: Vec<Passage>,
    /// By leg and rank minus 1: when the host heard of it.
    pub(super) heard: Vec<Vec<u64>>,
    /// By leg: the streams of the load and of the read-back.
    pub(super) streams: Vec<[AckLog; 2]>,
    /// What could not be put together; nothing in a working simulation.
    pub(super) broken: Option<String>,
}

const IDS: u64 = 2;
const SECOND: u64 = 1_000 * MS;
/// The first load begins then.
const START: u64 = SECOND;

/// When, on the run's clock, a second of the wall clock is to begin: within the first load, and for
/// faults of sync times close to its end, because only whole seconds are claimed.
fn turn(draw: &mut Draw, shape: &Shape) -> u64 {
    let leg = &shape.legs[0];
    let length = leg.writes * leg.pace_ns;
    let late = matches!(
        shape.family,
        Some(Family::OlderPoint | Family::SyncTimeLies)
    );
    let back = if late { 2 * leg.interval_ns } else { length };
    // Clocks that are ahead claim their own seconds.
    let ahead = shape.skew_ms[0].rem_euclid(1_000).unsigned_abs() * MS;
    START + length + ahead - draw.below(back.min(length))
}

impl World {
    pub(super) fn new(shape: Shape) -> Self {
        let draw = &mut Draw::new(shape.seed, IDS);
        let layouts = vec![shape.layout.clone(); shape.volumes];
        let id = |draw: &mut Draw| {
            (u128::from(draw.next()) << 64 | u128::from(draw.next())).to_be_bytes()
        };
        let number = |draw: &mut Draw, n: usize| (n as u64 + 1) << 56 | draw.next() >> 8;
        let legs = shape.legs.len();
        let ids = Ids {
            seed: draw.next(),
            run: id(draw),
            volumes: (0..shape.volumes).map(|_| id(draw)).collect(),
            loads: (0..legs).map(|leg| number(draw, 2 * leg)).collect(),
            readers: (0..legs).map(|leg| number(draw, 2 * leg + 1)).collect(),
        };
        let epoch_ns = 1_800_000_000 * SECOND + SECOND - turn(draw, &shape) % SECOND;
        let mut world = Self {
            shape,
            layouts,
            ids,
            epoch_ns,
            writes: Vec::new(),
            passages: Vec::new(),
            heard: Vec::new(),
            streams: Vec::new(),
            broken: None,
        };
        world.go();
        world
    }

    fn go(&mut self) {
        let mut base = array::filled(&self.layouts);
        let mut at = START;
        for number in 0..self.shape.legs.len() {
            let from = From {
                shape: &self.shape,
                layouts: &self.layouts,
                seed: self.ids.seed,
                number,
                at,
                base: &base,
            };
            let passage = passage::run(from, &mut self.writes);
            at = passage.times.scanned + 300 * MS;
            base.clone_from(&passage.disks);
            self.hear(number, &passage);
            self.passages.push(passage);
        }
    }

    fn hear(&mut self, number: usize, passage: &Passage) {
        let leg = &self.shape.legs[number];
        let speaker = self.identity(self.ids.loads[number], number, 0);
        // Every other living primary is only cut off from its storage and goes on saying so.
        let network = leg.how == Move::PrimaryUp && mix(self.shape.seed).is_multiple_of(2);
        let alive = network.then_some(passage.times.scanned);
        let heard = hear::load(
            &self.shape,
            leg,
            &passage.load,
            &self.layouts,
            speaker,
            alive,
        );
        hear::mark(&passage.load, &heard, &mut self.writes);
        let reader = self.identity(self.ids.readers[number], number, 1);
        let canaries = hear::canaries(reader, passage.times.back, self.layouts.len());
        let load = self.absorb(&heard.records);
        let reader = self.absorb(&canaries);
        self.streams.push([load, reader]);
        self.heard.push(heard.ranks);
    }

    fn absorb(&mut self, records: &[Record]) -> AckLog {
        let mut acks = AckLog::default();
        for record in records {
            if let Err(why) = acks.absorb(record) {
                self.broken.get_or_insert(why);
            }
        }
        acks
    }

    /// The site of a leg's load (`after` 0) or of its read-back (1).
    pub(super) fn site(&self, leg: usize, after: usize) -> Site {
        let stays = self.shape.legs[leg].how == Move::Restart;
        if stays || (leg + after).is_multiple_of(2) {
            Site::Primary
        } else {
            Site::Secondary
        }
    }

    /// Who speaks in the load of a leg (`after` 0) or in its read-back (1).
    pub(super) fn identity(&self, incarnation: u64, leg: usize, after: usize) -> Identity {
        let volumes = (0u8..).zip(&self.layouts).map(|(volume, layout)| Opened {
            volume,
            path: format!("/dev/vd{volume}"),
            size: layout.cells * CELL as u64,
            grants: Grants::default(),
        });
        Identity {
            incarnation,
            // A load goes on in the guest that was read back before it.
            boot_id: format!("boot-{}", leg + after),
            machine_id: "machine".into(),
            pid: 7,
            volumes: volumes.collect(),
        }
    }
}
