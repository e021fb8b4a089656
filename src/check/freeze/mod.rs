//! A1 to A4: was a point that claims quiesced file systems taken while they were?
//!
//! `fsfreeze` stops writers of mounted file systems and nobody else, so the hot writers of raw
//! volumes go on and date what was taken. The log writer goes round all volumes and stops with the
//! first file volume that it comes to, so it says nothing.
//!
//! A1 asks whether there was a freeze at all. Where there was none, the others have nothing to judge
//! and say so: one finding, not four.

use std::collections::BTreeSet;

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Event, Fact, FreezeFact, LedgerMode, Outcome, Site};
use crate::history::read::Incarnation;
use crate::probe::layout::hot_writer;

mod point;
mod seen;
mod thaw;
mod unmounted;

pub(super) use point::check as point;
pub(super) use seen::check as seen;
pub(super) use thaw::check as thaw;
pub(super) use unmounted::check as unmounted;

/// One freeze, from its asking to its end.
#[derive(Debug, Clone, Copy)]
struct Freeze<'a> {
    site: Site,
    asked: &'a Event,
    timeout_ms: u64,
    frozen: Option<&'a Event>,
    refused: Option<(&'a Event, &'a str)>,
    thaw_asked: Option<&'a Event>,
    thawed: Option<(&'a Event, &'a Outcome)>,
    /// The word that nobody is to thaw it.
    abandoned: Option<&'a Event>,
    /// The asking for the end of the guest's power before any thaw, and its coming about.
    cut: Option<(&'a Event, &'a Event)>,
}

impl Freeze<'_> {
    /// Whether it holds as far as anybody was told, so that another freeze there changes nothing.
    fn holds(&self, site: Site) -> bool {
        let ended = self.thaw_asked.is_some() || self.cut.is_some() || self.abandoned.is_some();
        self.site == site && self.frozen.is_some() && !ended
    }

    /// While this lasts the file systems must take no write: from the word that they are frozen to
    /// the asking for the thaw, the end of the power, or the earliest moment at which the launcher's
    /// timer may have thawed them.
    fn window(&self) -> Option<(u64, u64)> {
        let from = self.frozen?.at_ns;
        Some((from, self.ended().min(self.timer(self.asked))))
    }

    /// When it was surely over at the latest: as [`Self::window`], but by the latest moment of the
    /// timer.
    fn over(&self) -> u64 {
        let armed = self.frozen.unwrap_or(self.asked);
        self.ended().min(self.timer(armed))
    }

    /// When somebody ended it.
    fn ended(&self) -> u64 {
        let cut = self.cut.map(|(_, cut)| cut);
        let end = self.thaw_asked.or(cut);
        end.map_or(u64::MAX, |event| event.at_ns)
    }

    /// When the launcher thaws if its timer was armed by this event.
    const fn timer(&self, armed: &Event) -> u64 {
        if self.timeout_ms == 0 {
            return u64::MAX;
        }
        armed
            .at_ns
            .saturating_add(self.timeout_ms.saturating_mul(1_000_000))
    }
}

/// The freezes of a case in order.
fn freezes<'a>(case: &Case<'a>) -> Vec<Freeze<'a>> {
    let mut freezes: Vec<Freeze<'a>> = Vec::new();
    let mut cutting: Option<&Event> = None;
    for event in case.events() {
        if let Fact::Fencing { site, outcome, .. } = &event.fact {
            match outcome {
                None => cutting = Some(event),
                Some(Outcome::Ok) if stops(event) => {
                    let open = freezes.iter_mut().rfind(|open| open.site == *site);
                    if let Some(open) = open.filter(|open| open.thaw_asked.is_none()) {
                        open.cut = cutting.map(|asked| (asked, event));
                    }
                }
                Some(_) => {}
            }
        }
        let Fact::Freeze { site, freeze } = &event.fact else {
            continue;
        };
        if let FreezeFact::Asked { timeout_ms } = freeze {
            // What is frozen already stays so by its first timer, whoever asks again.
            let held = freezes.last().is_some_and(|last| last.holds(*site));
            if held {
                continue;
            }
            freezes.push(Freeze {
                site: *site,
                asked: event,
                timeout_ms: *timeout_ms,
                frozen: None,
                refused: None,
                thaw_asked: None,
                thawed: None,
                abandoned: None,
                cut: None,
            });
            continue;
        }
        let Some(open) = freezes.iter_mut().rfind(|open| open.site == *site) else {
            continue;
        };
        match freeze {
            FreezeFact::Frozen => open.frozen = open.frozen.or(Some(event)),
            // A freeze of what is frozen that is refused leaves it frozen.
            FreezeFact::Refused { why } if open.frozen.is_none() => {
                open.refused = Some((event, why));
            }
            FreezeFact::ThawAsked => open.thaw_asked = open.thaw_asked.or(Some(event)),
            FreezeFact::Thawed { outcome } => open.thawed = Some((event, outcome)),
            FreezeFact::Abandoned => open.abandoned = Some(event),
            FreezeFact::Refused { .. } | FreezeFact::Asked { .. } | FreezeFact::Reported { .. } => {
            }
        }
    }
    freezes
}

/// Whether a fencing took the power of the guest, and with it any freeze.
fn stops(event: &Event) -> bool {
    matches!(&event.fact, Fact::Fencing { method, .. } if method == "siteDown" || method == "stopVm")
}

/// The hot writers of a load, by what their volume carries.
#[derive(Debug, Default)]
struct Writers {
    file: BTreeSet<u32>,
    raw: BTreeSet<u32>,
    file_volumes: BTreeSet<usize>,
}

impl Writers {
    fn of(case: &Case<'_>, load: &Incarnation) -> Self {
        let mut writers = Self::default();
        let volumes = case.created().map_or(&[][..], |created| created.volumes);
        for (index, layout) in load.layouts.iter().enumerate() {
            let fact = volumes
                .iter()
                .find(|fact| usize::from(fact.ordinal) == index);
            let Some(fact) = fact else { continue };
            let own = (0..layout.hot_writers).map(|k| hot_writer(&load.layouts, index, k));
            match fact.ledger {
                LedgerMode::File => {
                    writers.file_volumes.insert(index);
                    writers.file.extend(own);
                }
                LedgerMode::Raw => writers.raw.extend(own),
            }
        }
        writers
    }
}

/// The ack frames that carry acks of some writers, ascending.
fn frames_of(load: &Incarnation, writers: &BTreeSet<u32>) -> Vec<usize> {
    let mut frames: Vec<usize> = load
        .acks
        .acked()
        .filter(|acked| writers.contains(&acked.writer))
        .map(|acked| acked.batch)
        .collect();
    frames.dedup();
    frames
}

/// Those of them that lie wholly within a window.
fn wholly(load: &Incarnation, frames: &[usize], (from, to): (u64, u64)) -> Vec<usize> {
    let inside = |frame: &usize| {
        let bracket = load.acks.bracket(*frame);
        bracket.is_some_and(|bracket| bracket.low > from && bracket.high < to)
    };
    frames.iter().copied().filter(inside).collect()
}

/// The volumes whose file systems a freeze held at a moment: that they took no write was ordered.
pub(super) fn held(case: &Case<'_>, load: &Incarnation, at_ns: u64) -> BTreeSet<usize> {
    let holds = freezes(case).into_iter().any(|freeze| {
        freeze.frozen.is_some_and(|frozen| frozen.at_ns <= at_ns)
            && at_ns <= freeze.over()
            && !seen::never_held(case, &freeze)
    });
    if holds {
        Writers::of(case, load).file_volumes
    } else {
        BTreeSet::new()
    }
}

/// Judges every freeze; the worst word counts.
fn each(case: &Case<'_>, judge: impl Fn(&Freeze<'_>) -> Finding) -> Finding {
    freezes(case)
        .iter()
        .map(judge)
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no freeze was asked for in this trial"))
}
