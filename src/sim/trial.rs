//! One history from its shape to its judgement: what the checks said against what they must say.

use super::cells::What;
use super::family::{Family, Reason};
use super::guest::NEVER;
use super::oracle::{self, Must, View};
use super::shape::Shape;
use super::world::World;
use super::{Judge, tell};
use crate::check::Verdicts;
use crate::check::verdict::Status;
use crate::plan::Plan;

/// How a check's word and the demand differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Odd {
    /// It had to fail and did not.
    Miss,
    /// It failed and must not.
    False,
    /// It could not tell although it had all that it needs.
    Lame,
}

/// A check that did not say what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disagreement {
    pub(super) check: &'static str,
    pub(super) odd: Odd,
    pub(super) said: String,
}

/// What became of a planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Legal,
    /// A check that is ordained for it failed.
    Caught,
    /// Another check failed, as it must; what the fault left is not the ordained ones' by definition.
    Elsewhere,
    Undetectable(Reason),
    /// It had to be caught and was not.
    Missed,
}

/// One history, judged.
pub(super) struct Judged {
    pub(super) world: World,
    pub(super) verdicts: Verdicts,
    /// By check of the trial: the demand and the word.
    pub(super) words: Vec<(&'static str, Must, Status)>,
    pub(super) odd: Vec<Disagreement>,
    pub(super) fate: Fate,
}

/// Makes the history of `shape`, has it judged, and compares.
pub(super) fn run(shape: Shape, plan: &Plan, judge: &Judge<'_>) -> Judged {
    let mut world = World::new(shape);
    let history = tell::history(&mut world);
    let verdicts = judge(plan, &history);
    let mut words = Vec::new();
    let mut odd = Vec::new();
    for check in tell::checks(&world) {
        let demand = oracle::demand(&world, check);
        let found = verdicts.verdicts.iter().find(|v| v.check == check);
        let status = found.map_or(Status::Inconclusive, |verdict| verdict.status);
        let kind = match (demand, status) {
            (Must::Fail, Status::Pass | Status::Inconclusive) => Some(Odd::Miss),
            (Must::NotFail(_), Status::Fail) => Some(Odd::False),
            (Must::NotFail(None), Status::Inconclusive) if world.shape.family.is_none() => {
                Some(Odd::Lame)
            }
            _ => None,
        };
        words.push((check, demand, status));
        odd.extend(kind.map(|odd| Disagreement {
            check,
            odd,
            said: found.map_or_else(
                || "it gave no word".into(),
                |v| format!("{:?}: {}", v.status, v.summary),
            ),
        }));
    }
    if let Some(why) = &world.broken {
        odd.push(Disagreement {
            check: "",
            odd: Odd::False,
            said: format!("the simulated stream contradicts itself: {why}"),
        });
    }
    let fate = fate(&world, &words);
    Judged {
        world,
        verdicts,
        words,
        odd,
        fate,
    }
}

fn fate(world: &World, words: &[(&'static str, Must, Status)]) -> Fate {
    let Some(family) = world.shape.family else {
        return Fate::Legal;
    };
    let ordained = family.spec().ordained;
    let own = words.iter().filter(|(check, ..)| ordained.contains(check));
    let failed = |(_, _, status): &(&str, Must, Status)| *status == Status::Fail;
    let must = |(_, must, _): &(&str, Must, Status)| *must == Must::Fail;
    let struck = world.passages.last().and_then(|last| last.struck.as_ref());
    if struck.is_none() {
        return Fate::Undetectable(Reason::Nothing);
    }
    if own.clone().any(failed) {
        return Fate::Caught;
    }
    if own.clone().any(must) {
        return Fate::Missed;
    }
    if words.iter().any(must) {
        Fate::Elsewhere
    } else {
        Fate::Undetectable(reason(world, family))
    }
}

/// Why the ordained checks cannot see a fault that struck.
fn reason(world: &World, family: Family) -> Reason {
    let views = View::all(world);
    let Some(view) = views.last() else {
        return Reason::Nothing;
    };
    let passage = view.passage;
    match family {
        Family::TwoWriters => return Reason::Overlap,
        Family::SyncStalled => return Reason::WithinObjective,
        Family::SyncTimeLies => return Reason::Claim,
        _ => {}
    }
    let differ: Vec<(usize, u64)> = places(world)
        .filter(|(volume, cell)| {
            let at = super::draw::small(*cell);
            passage.disks[*volume][at] != passage.clean[*volume][at]
        })
        .collect();
    if differ.is_empty() {
        let aimed = &passage.aimed;
        let unread = |(volume, cell): &(usize, u64)| {
            passage.disks[*volume]
                .get(super::draw::small(*cell))
                .is_none_or(|held| held.what == What::Unread)
        };
        return if !aimed.is_empty() && aimed.iter().all(unread) {
            Reason::Unread
        } else {
            Reason::SameImage
        };
    }
    let canary = |(volume, cell): &(usize, u64)| world.layouts[*volume].canary.contains(cell);
    if differ.iter().all(canary) {
        return Reason::Canary;
    }
    if family == Family::ResurrectedWrite {
        return Reason::LegalPrefix;
    }
    if family == Family::OlderPoint {
        return Reason::Claim;
    }
    if family == Family::TornAckedWrite {
        return torn(view);
    }
    affected(view)
}

fn places(world: &World) -> impl Iterator<Item = (usize, u64)> {
    let volumes = world.layouts.iter().enumerate();
    volumes.flat_map(|(volume, layout)| (0..layout.cells).map(move |cell| (volume, cell)))
}

fn torn(view: &View<'_>) -> Reason {
    let disks = view.passage.disks.iter().flatten();
    let torn = disks.zip(view.passage.clean.iter().flatten());
    let mut new = torn.filter_map(|(held, clean)| match held.what {
        What::Torn { new, .. } if held.what != clean.what => Some(new),
        _ => None,
    });
    match new.next() {
        Some(new) if view.world.writes[new].heard == NEVER => Reason::Unheard,
        Some(new) if oracle::owed_whole(view, new) => Reason::OtherLife,
        _ => Reason::UnderWay,
    }
}

/// Why an image that differs from the one without the fault shows nothing.
fn affected(view: &View<'_>) -> Reason {
    let writes = &view.world.writes;
    let durable = |index: &usize| writes[*index].durable != NEVER;
    let own = || view.passage.load.writes.clone().filter(durable);
    if view.is_illegal_among(own(), |_| true) {
        return Reason::Unheard;
    }
    let without = View {
        world: view.world,
        leg: view.leg,
        passage: &super::passage::Passage {
            disks: view.passage.clean.clone(),
            ..view.passage.clone()
        },
    };
    let lost: Vec<usize> = own()
        .filter(|index| view.is_lost(*index) && !without.is_lost(*index))
        .collect();
    let more = own().any(|index| !view.is_lost(index) && without.is_lost(index));
    let owed = view.world.shape.legs[view.leg].how.zero_loss();
    if lost.is_empty() && !more {
        Reason::Unacked
    } else if owed && lost.iter().all(|index| writes[*index].heard == NEVER) {
        Reason::Unheard
    } else {
        Reason::LegalPrefix
    }
}
