//! The shape of a history: everything that shrinking can make smaller, drawn from the seed.

use super::Kind;
use super::draw::Draw;
use super::family::{FAMILIES, Family};
use crate::probe::layout::{Layout, LayoutSpec};

pub(super) const MS: u64 = 1_000_000;

/// How a load comes to its end and where its volumes come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Planned: writers stop and account for everything, then the final sync.
    Quiesced,
    /// Planned: the VM is stopped while it writes, then the final sync.
    Stopped,
    /// Unplanned: the whole site loses its power.
    NodeDown,
    /// Unplanned: the old side lives and is fenced.
    PrimaryUp,
    /// The power fails and comes back on the same site.
    Restart,
}

impl Move {
    /// Whether everything acknowledged must come back.
    pub(super) const fn zero_loss(self) -> bool {
        matches!(self, Self::Quiesced | Self::Stopped | Self::Restart)
    }

    pub(super) const fn planned(self) -> bool {
        matches!(self, Self::Quiesced | Self::Stopped)
    }

    pub(super) const fn scenario(self) -> &'static str {
        match self {
            Self::Quiesced | Self::Stopped => "relocate.zero-loss",
            Self::NodeDown => "failover.unplanned.node-down",
            Self::PrimaryUp => "failover.unplanned.primary-up",
            Self::Restart => "boot.replicated",
        }
    }
}

/// How well the host hears the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    Good,
    /// Long and uneven delays.
    Slow,
    /// The stream breaks, and what was not confirmed is delivered again.
    Redelivered,
    /// Nothing arrives for longer than a live probe is silent.
    Deaf,
    /// A frame is lost for good.
    Hole,
    /// The ack segment has no end.
    Torn,
}

impl Hearing {
    /// Whether checks may say that they cannot tell.
    pub(super) const fn poor(self) -> bool {
        matches!(self, Self::Deaf | Self::Hole | Self::Torn)
    }
}

/// One load and the transition after it.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    /// Writes issued before the fault.
    pub(super) writes: u64,
    /// Mean time between two writes, nanoseconds.
    pub(super) pace_ns: u64,
    pub(super) how: Move,
    /// Between two mirror snapshots, nanoseconds.
    pub(super) interval_ns: u64,
    /// Acks from this long before the end never reach the host, nanoseconds.
    pub(super) unheard_ns: u64,
    pub(super) hearing: Hearing,
}

/// The shape of a history.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) seed: u64,
    pub(super) family: Option<Family>,
    pub(super) volumes: usize,
    pub(super) layout: Layout,
    /// Writes between flushes, 0 for durable writes.
    pub(super) batch: u64,
    /// One write in so many fails with an unknown outcome; 0 for none.
    pub(super) eio: u64,
    /// Writes that are not durable may be torn at a cut.
    pub(super) torn: bool,
    /// One or two.
    pub(super) legs: Vec<Leg>,
    /// Every cell is written out and classified, not only damaged ones.
    pub(super) bytes: bool,
    /// Clocks of the sites, milliseconds ahead of the host's.
    pub(super) skew_ms: [i64; 2],
}

const SHAPE: u64 = 1;

impl Shape {
    /// The shape that belongs to a seed.
    pub(super) fn drawn(seed: u64, kind: Kind) -> Self {
        let draw = &mut Draw::new(seed, SHAPE);
        let family = match kind {
            Kind::Legal => None,
            Kind::Faulty => Some(FAMILIES[draw.index(FAMILIES.len())].family),
        };
        let group = family.is_some_and(|family| family.spec().group);
        let volumes = draw.between(if group { 2 } else { 1 }, 3);
        let batch = if draw.one_in(2) {
            0
        } else {
            draw.between(2, 12)
        };
        let legs = legs(draw, family);
        Self {
            seed,
            family,
            volumes: super::draw::small(volumes),
            layout: layout(draw),
            batch,
            eio: if draw.one_in(8) {
                draw.between(8, 40)
            } else {
                0
            },
            torn: draw.one_in(3),
            legs,
            bytes: draw.one_in(512),
            skew_ms: [0; 2].map(|_: i32| {
                let by = i64::try_from(draw.below(10_000)).unwrap_or(0);
                if draw.one_in(4) { by - 5_000 } else { 0 }
            }),
        }
    }

    /// Whether any part of it was made hard to hear.
    pub(super) fn poor(&self) -> bool {
        self.legs.iter().any(|leg| leg.hearing.poor())
    }
}

fn legs(draw: &mut Draw, family: Option<Family>) -> Vec<Leg> {
    let all = [
        Move::Quiesced,
        Move::Stopped,
        Move::NodeDown,
        Move::PrimaryUp,
        Move::Restart,
    ];
    let moves = family.map_or(&all[..], |family| family.spec().moves);
    let how = draw.pick(moves).unwrap_or(Move::Stopped);
    let stalled = family == Some(Family::SyncStalled);
    // Only what the first transition shows is judged by R1, R2 and S1.
    let single = matches!(
        family,
        Some(Family::SyncStalled | Family::OlderPoint | Family::SyncTimeLies | Family::TwoWriters)
    );
    let forked = family == Some(Family::ResurrectedWrite);
    let double = forked || (!single && how != Move::Restart && draw.one_in(5));
    let mut legs = Vec::new();
    if double {
        // Only an unplanned failover discards anything.
        let firsts = if forked { &all[2..4] } else { &all[..4] };
        let first = draw.pick(firsts).unwrap_or(Move::NodeDown);
        legs.push(leg(draw, first, false));
    }
    legs.push(leg(draw, how, stalled));
    if family.is_none() {
        let hearing = match draw.below(48) {
            0 => Hearing::Deaf,
            1 => Hearing::Hole,
            2 => Hearing::Torn,
            3..=9 => Hearing::Slow,
            10..=17 => Hearing::Redelivered,
            _ => Hearing::Good,
        };
        let at = draw.index(legs.len());
        legs[at].hearing = hearing;
    }
    legs
}

fn leg(draw: &mut Draw, how: Move, stalled: bool) -> Leg {
    let (low, high) = if stalled { (150, 260) } else { (12, 130) };
    let pace_ns = if stalled {
        draw.between(5 * MS, 8 * MS)
    } else {
        draw.between(2 * MS, 7 * MS)
    };
    Leg {
        writes: draw.between(low, high),
        pace_ns,
        how,
        interval_ns: draw.between(20 * MS, 200 * MS),
        unheard_ns: if draw.one_in(2) {
            0
        } else {
            draw.below(60 * MS)
        },
        hearing: Hearing::Good,
    }
}

/// A layout small enough that every cell sees some writes.
fn layout(draw: &mut Draw) -> Layout {
    let spec = LayoutSpec {
        canary: draw.between(2, 4),
        log: draw.between(3, 14),
        hot: draw.between(4, 14),
        cold_stride: [0, 1, 4, 8, 16][draw.index(5)],
        hot_writers: if draw.one_in(3) { 2 } else { 1 },
    };
    fitted(draw.between(64, 80), &spec)
}

/// The layout of `cells` cells; volumes of the simulation are never too small.
fn fitted(cells: u64, spec: &LayoutSpec) -> Layout {
    Layout::fit(cells, spec).unwrap_or(Layout {
        cells: 64,
        canary: 1..3,
        log: 3..7,
        hot: 7..11,
        lease: 11..12,
        cold: 12..63,
        cold_stride: 1,
        hot_writers: 1,
    })
}
