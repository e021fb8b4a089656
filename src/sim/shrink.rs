//! Makes a failing history small: fewer loads, volumes, writers and writes, less that is special,
//! as long as the same check goes wrong in the same way.

use super::shape::{Hearing, Shape};
use super::story::Story;
use super::trial::{self, Disagreement, Odd};
use super::{Judge, Kind};
use crate::plan::{Plan, PlanError};

/// Shrinks the history of a seed on which a check does not say what it must. A history on which all
/// do is told as it is.
pub fn shrink(seed: u64, kind: Kind) -> Result<Story, PlanError> {
    shrink_with(seed, kind, &crate::check::judge)
}

/// The same with another judge.
pub fn shrink_with(seed: u64, kind: Kind, judge: &Judge<'_>) -> Result<Story, PlanError> {
    let plan = super::plan()?;
    let mut shape = Shape::drawn(seed, kind);
    let first = trial::run(shape.clone(), &plan, judge).odd;
    let Some(wanted) = first.first() else {
        return Ok(Story::new(shape, &plan, judge));
    };
    let mut better = true;
    while better {
        better = false;
        for smaller in smaller(&shape) {
            if fails(&smaller, &plan, judge, wanted) {
                shape = smaller;
                better = true;
                break;
            }
        }
    }
    Ok(Story::new(shape, &plan, judge))
}

fn fails(shape: &Shape, plan: &Plan, judge: &Judge<'_>, wanted: &Disagreement) -> bool {
    let same = |odd: &Disagreement| (odd.check, odd.odd) == (wanted.check, wanted.odd);
    // Without its fault a history cannot miss one.
    let planted = wanted.odd != Odd::Miss || shape.family.is_some();
    planted && trial::run(shape.clone(), plan, judge).odd.iter().any(same)
}

/// Shapes that are one step smaller, the largest steps first.
fn smaller(shape: &Shape) -> Vec<Shape> {
    let mut list = Vec::new();
    let mut add = |change: &dyn Fn(&mut Shape)| {
        let mut other = shape.clone();
        change(&mut other);
        list.push(other);
    };
    if shape.legs.len() > 1 {
        add(&|shape| {
            shape.legs.remove(0);
        });
        add(&|shape| shape.legs.truncate(1));
    }
    let least = if shape.family.is_some_and(|family| family.spec().group) {
        2
    } else {
        1
    };
    if shape.volumes > least {
        add(&|shape| shape.volumes -= 1);
    }
    if shape.layout.hot_writers > 1 && (shape.layout.hot.end - shape.layout.hot.start) > 1 {
        add(&|shape| shape.layout.hot_writers = 1);
    }
    for (on, off) in [
        (
            shape.batch > 0,
            &(|s: &mut Shape| s.batch = 0) as &dyn Fn(&mut Shape),
        ),
        (shape.eio > 0, &|s| s.eio = 0),
        (shape.torn, &|s| s.torn = false),
        (shape.bytes, &|s| s.bytes = false),
        (shape.skew_ms != [0; 2], &|s| s.skew_ms = [0; 2]),
    ] {
        if on {
            add(off);
        }
    }
    for at in 0..shape.legs.len() {
        let leg = &shape.legs[at];
        if leg.hearing != Hearing::Good {
            add(&|shape| shape.legs[at].hearing = Hearing::Good);
        }
        if leg.unheard_ns > 0 {
            add(&|shape| shape.legs[at].unheard_ns = 0);
        }
        for fewer in [leg.writes / 2, leg.writes - leg.writes / 4, leg.writes - 1] {
            if 0 < fewer && fewer < leg.writes {
                add(&|shape| shape.legs[at].writes = fewer);
            }
        }
    }
    list
}
