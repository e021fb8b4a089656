//! What R1, R2, S1, T1 and T2 must say, from the true moments.

use super::guest::{NEVER, TOKEN_NS};
use super::oracle::{Must, View, worse};
use super::shape::{MS, Move};
use super::world::World;

/// The objective of the simulation's plan, nanoseconds.
pub(super) const RPO_NS: u64 = 1_000 * MS;
/// The bound of the clock comparison, nanoseconds.
pub(super) const BOUND_NS: u64 = 2 * MS;
const SECOND: u64 = 1_000 * MS;

/// R1: from the first heard write that is lost to the fault. Fails only if it surely was too long.
pub(super) fn rpo(view: &View<'_>) -> Must {
    let (load, end) = (&view.passage.load, view.passage.times.fenced);
    let in_time = || view.heard().filter(|(_, write)| write.heard <= end);
    let Some(last) = in_time().map(|(_, write)| write.heard).max() else {
        return Must::NotFail(Some("no ack was heard before the fault"));
    };
    let first = in_time()
        .filter(|(index, _)| view.is_lost(*index))
        .min_by_key(|(_, write)| write.rank);
    let low = first.map_or(0, |(_, write)| {
        load.fault.min(last).saturating_sub(write.heard)
    });
    if low > RPO_NS {
        return Must::Fail;
    }
    let since = view
        .heard()
        .map(|(_, write)| write.heard)
        .min()
        .unwrap_or(0);
    let span = load.fault.saturating_sub(since);
    let counted = in_time().filter(|(_, w)| since < w.heard && w.heard <= load.fault);
    // 100 a second, with room for what rounding and ties decide.
    let dense = counted.count() as u64 * SECOND > 101 * span;
    if !dense {
        return Must::NotFail(Some("fewer than 100 acks a second were heard"));
    }
    let quiet = |volume: usize| {
        let own = in_time().filter(|(_, write)| write.volume == volume);
        let last = own.map(|(_, write)| write.heard).max().unwrap_or(since);
        load.fault.saturating_sub(last) + 3 * TOKEN_NS > RPO_NS
    };
    if (0..view.world.layouts.len()).any(quiet) {
        return Must::NotFail(Some("a volume acked nothing for as long as the objective"));
    }
    // The bracket reaches back to a token and on to the last ack.
    let first = first.map_or(last, |(_, write)| write.heard);
    let wide = load.fault.max(last) + 3 * TOKEN_NS > first + RPO_NS;
    Must::NotFail(wide.then_some("the objective lies within the bracket"))
}

/// The claimed point that a site's stamp stands for, on the host's clock, no later than this.
pub(super) fn claimed(world: &World, point: u64) -> u64 {
    // The cluster cuts its own clock to whole seconds; the host knows it to within the bound.
    let ahead = i128::from(world.shape.skew_ms[0]) * i128::from(MS);
    let site = i128::from(world.epoch_ns) + i128::from(point) + ahead;
    let stamp = site - site.rem_euclid(i128::from(SECOND));
    let host = stamp - ahead - i128::from(world.epoch_ns) - i128::from(BOUND_NS);
    u64::try_from(host.max(0)).unwrap_or(u64::MAX)
}

/// R2: nothing heard to be durable before the newest claimed second is lost.
pub(super) fn honest(view: &View<'_>) -> Must {
    let claims = view.passage.claims.iter();
    let Some(claim) = claims.map(|(point, _)| claimed(view.world, *point)).max() else {
        return Must::NotFail(Some("no sync time was seen"));
    };
    let owed = || view.heard().filter(|(_, write)| write.heard <= claim);
    if owed().any(|(index, _)| view.is_lost(index)) {
        return Must::Fail;
    }
    let volumes = 0..view.world.layouts.len();
    let idle = volumes
        .into_iter()
        .any(|v| owed().all(|(_, write)| write.volume != v));
    Must::NotFail(idle.then_some("nothing was owed by the claimed second"))
}

/// S1: an ack of the old side with a token that was sent after the new side's first ack.
pub(super) fn split(world: &World) -> Must {
    let mut must = Must::NotFail(None);
    for (leg, passage) in world.passages.iter().enumerate() {
        if world.shape.legs[leg].how == Move::Restart {
            continue;
        }
        let since = passage.times.back + MS;
        let ranks = passage.load.ranks.iter().zip(&world.heard[leg]);
        let heard = ranks.filter(|(_, heard)| **heard != NEVER);
        let mut any = false;
        for (_, frame) in heard.clone() {
            any |= *frame != NEVER;
        }
        // A frame carries the token of its first rank.
        let mut before = NEVER;
        for (rank, frame) in heard {
            if *frame != before && u64::from(rank.token) * TOKEN_NS > since {
                must = Must::Fail;
            }
            before = *frame;
        }
        if !any {
            must = worse(must, Must::NotFail(Some("the old side was not heard")));
        }
    }
    must
}

/// T1 and T2 rest on an ack before the fault, and T2 on its being close to it.
pub(super) fn outage(view: &View<'_>) -> Must {
    let fault = view.passage.load.fault;
    let before = view.heard().filter(|(_, write)| write.heard <= fault);
    let last = before.map(|(_, write)| write.heard).max();
    let why = match last {
        None => Some("no ack was heard before the fault"),
        Some(last) if fault - last > 95 * MS => Some("the last ack was long before the fault"),
        Some(_) => None,
    };
    Must::NotFail(why)
}
