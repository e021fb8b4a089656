//! Runs a campaign on some threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shape::Shape;
use super::tally::Tally;
use super::{Campaign, Judge, trial};
use crate::plan::PlanError;

/// Histories that a thread takes at a time.
const CHUNK: u64 = 256;

/// Makes and judges every history of a campaign. `progress` hears how many are done so far.
pub fn run(
    campaign: &Campaign,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Result<Tally, PlanError> {
    run_with(campaign, threads, progress, &crate::check::judge)
}

/// The same with another judge, to see that one which is broken is noticed.
pub fn run_with(
    campaign: &Campaign,
    threads: usize,
    progress: impl Fn(u64) + Sync,
    judge: &Judge<'_>,
) -> Result<Tally, PlanError> {
    let plan = super::plan()?;
    let (next, done) = (AtomicU64::new(campaign.seeds.start), AtomicU64::new(0));
    let total = Mutex::new(Tally::default());
    let work = || {
        let mut own = Tally::default();
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            let to = from.saturating_add(CHUNK).min(campaign.seeds.end);
            if from >= to {
                break;
            }
            for seed in from..to {
                let shape = Shape::drawn(seed, campaign.kind);
                own.add(seed, campaign.kind, &trial::run(shape, &plan, judge));
            }
            progress(done.fetch_add(to - from, Ordering::Relaxed) + to - from);
        }
        let mut total = total
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        total.merge(own);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    Ok(total
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}
