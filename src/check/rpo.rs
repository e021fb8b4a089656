//! R1: how much acknowledged work did an unplanned failover lose, in time?
//!
//! From the first acknowledged write that is missing to the end of the service. Both ends are
//! brackets on the host's clock: the write became durable between the sending of the token that the
//! guest had and the arrival of its ack; the service ended between the last ack and the fault.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case::{Case, deaf};
use super::finding::{Finding, float, moment, seconds, time};
use super::freeze;
use super::image::{Image, Losses};
use crate::history::event::Stage;
use crate::probe::layout::CELL;

/// Below this rate the loss is quantised too coarsely to be judged, acked writes per second.
const LEAST_RATE: f64 = 100.0;
/// The rate is taken over at most this long before the fault.
const RATE_NS: u64 = 10_000_000_000;

/// R1.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let Some(fault) = case.fault() else {
        return Finding::unsure("the history holds no fault and no order to move");
    };
    let image = match super::image_after(case, fault) {
        Ok(image) => image,
        Err(why) => return Finding::unsure(why),
    };
    // What the old side acks after it was to be dead is S1's; the service ends before.
    let end = [Stage::Fenced, Stage::Promoted]
        .into_iter()
        .filter_map(|stage| case.stage(stage))
        .filter(|at| *at >= fault)
        .min()
        .unwrap_or(fault);
    let acks = &image.load.acks;
    let Some(last) = acks
        .last_batch_at(end)
        .and_then(|at| acks.batches().get(at))
    else {
        return Finding::unsure("no ack was heard before the fault");
    };
    let in_time = |batch: usize| acks.batches().get(batch).is_some_and(|b| b.at_ns <= end);
    let losses = image.losses(|batch, _| in_time(batch));
    let overlap = image.losses(|batch, _| !in_time(batch)).writes;
    let (low, high) = match losses.first.and_then(|first| acks.bracket(first.batch)) {
        Some(at) => (
            fault.min(last.at_ns).saturating_sub(at.high),
            fault.max(last.at_ns).saturating_sub(at.low),
        ),
        None => (
            0,
            fault.max(last.at_ns).saturating_sub(acks.sent(last.token)),
        ),
    };
    let objective = case.plan.objectives().rpo;
    let target = objective.unwrap_or_else(|| case.plan.protection().scheduling_interval * 2);
    let service = service(image, fault, &freeze::held(case, image.load, fault));
    let finding = verdict(image, fault, (low, high), target, (&losses, &service));
    let finding = if objective.is_none() {
        finding.limit("the plan sets no RPO; judged against twice the scheduling interval")
    } else {
        finding
    };
    finding
        .measure(time("rpo", low, high, Some(target.as_secs_f64())))
        .count("lost-writes", "writes", losses.writes)
        .count("lost-cells", "cells", losses.cells)
        .count("lost-bytes", "bytes", losses.cells * CELL as u64)
        .count("overlap-writes", "writes", overlap)
        .limit(format!(
            "bracket {:.3} s wide; {} acked writes compared; acks the host never heard widen it",
            seconds(high.saturating_sub(low)),
            losses.looked
        ))
}

fn verdict(
    image: &Image<'_>,
    fault: u64,
    (low, high): (u64, u64),
    target: Duration,
    (losses, service): (&Losses, &Service),
) -> Finding {
    let allowed = u64::try_from(target.as_nanos()).unwrap_or(u64::MAX);
    let lost = if losses.writes == 0 {
        "no heard write was lost".to_owned()
    } else {
        format!(
            "{} acked writes on {} cells were lost",
            losses.writes, losses.cells
        )
    };
    let within = format!(
        "between {:.3} s and {:.3} s of work",
        seconds(low),
        seconds(high)
    );
    if low > allowed {
        return Finding::fail(format!(
            "{lost}: {within}, more than the {:.1} s allowed",
            target.as_secs_f64()
        ))
        .witnesses(&losses.samples);
    }
    if let Some(deaf) = deaf(image.load, fault) {
        return Finding::unsure(format!("{lost}: {within}, but {deaf}"));
    }
    if let Some((volume, silent)) = service.quietest().filter(|(_, silent)| *silent > allowed) {
        return Finding::unsure(format!(
            "{lost}, but nothing was acked on volume {volume} in the last {:.1} s before the fault, longer than the {:.1} s allowed",
            seconds(silent),
            target.as_secs_f64()
        ));
    }
    let rate = service.rate;
    if rate < LEAST_RATE {
        return Finding::unsure(format!(
            "{lost}, but only {rate:.0} acks per second came before the fault and {LEAST_RATE:.0} are needed"
        ));
    }
    if high > allowed {
        return Finding::unsure(format!(
            "{lost}: {within}; the {:.1} s allowed lie inside the bracket",
            target.as_secs_f64()
        ));
    }
    Finding::pass(format!(
        "{lost}: {within}, {:.1} s allowed",
        target.as_secs_f64()
    ))
}

/// What was acked before the fault.
struct Service {
    /// Acked writes per second over the last seconds.
    rate: f64,
    /// How long before the fault the last write of each volume was acked; since the service began where
    /// none was, and not at all where a freeze held it.
    silent: Vec<u64>,
}

impl Service {
    /// The volume that was silent for longest before the fault.
    fn quietest(&self) -> Option<(usize, u64)> {
        let silent = self.silent.iter().copied().enumerate();
        silent.max_by_key(|(_, silent)| *silent)
    }
}

fn service(image: &Image<'_>, fault: u64, held: &BTreeSet<usize>) -> Service {
    let batches = image.load.acks.batches();
    let first = batches.first().map_or(fault, |batch| batch.at_ns);
    let from = fault.saturating_sub(RATE_NS).max(first);
    let mut writes = 0;
    let since = |volume| {
        let served = !held.contains(&volume);
        if served {
            fault.saturating_sub(first)
        } else {
            0
        }
    };
    let mut silent: Vec<u64> = (0..image.volumes.len()).map(since).collect();
    image.walk(|acked, (volume, _), _| {
        let at = batches.get(acked.batch).map_or(0, |batch| batch.at_ns);
        writes += u64::from(from < at && at <= fault);
        if let Some(silent) = silent.get_mut(volume) {
            *silent = (*silent).min(fault.saturating_sub(at));
        }
    });
    let span = fault.saturating_sub(from);
    let rate = if span == 0 {
        0.0
    } else {
        float(writes) / seconds(span)
    };
    Service { rate, silent }
}

/// The moment of a bracket in words, for other checks.
pub(super) fn between(low: u64, high: u64) -> String {
    format!("between {} and {}", moment(low), moment(high))
}
