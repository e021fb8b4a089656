//! The load: one thread per writer, each with one write in flight, and the flush that they share.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::super::buffer::Aligned;
use super::super::cell::{Header, Kind, chain};
use super::super::layout::{self, Address, WRITER_LOG};
use super::Shared;
use super::state::{Issue, Load, State, Unflushed};

/// A write to make.
struct Order {
    issue: Issue,
    at: Address,
    strict: bool,
}

/// Runs the writer of lane `index` until the engine ends.
pub(super) fn run(shared: &Shared, index: usize) {
    let mut buffer = Aligned::new(1);
    let mut held: BTreeMap<Address, u64> = BTreeMap::new();
    let mut previous = 0;
    while let Some(order) = next(shared, index) {
        let Order { issue, at, strict } = order;
        let is_log = issue.writer == WRITER_LOG;
        let header = Header {
            kind: if is_log { Kind::Log } else { Kind::Hot },
            prev_wseq: held.insert(at, issue.wseq).unwrap_or(0),
            chain: if is_log { previous } else { 0 },
            ..shared.header(&issue, at)
        };
        header.encode(shared.seed, buffer.cell_mut(0));
        if is_log {
            previous = chain(buffer.cell_mut(0));
        }
        let volume = &shared.volumes[usize::from(at.volume)];
        if strict {
            let outcome = volume.write_durably(at.cell, buffer.bytes());
            strictly_done(shared, &issue, outcome);
        } else {
            let outcome = volume.write_lazily(at.cell, buffer.bytes());
            lazily_done(shared, &issue, at, outcome);
        }
    }
}

/// Waits until the lane may write, `None` once the engine ends. The one place that paces the load.
fn next(shared: &Shared, index: usize) -> Option<Order> {
    let mut due: Option<Instant> = None;
    let mut state = shared.lock();
    loop {
        if state.ended {
            return None;
        }
        let batch = match &state.load {
            Load::Hold => None,
            // Unheard frames fill the outbox, or a flush has as much behind it as it covers: wait.
            Load::Run { batch, .. } => (state.outbox.has_room()
                && (*batch == 0 || !(state.flushing && is_full(&state, *batch))))
            .then_some(*batch),
        };
        let Some(batch) = batch else {
            due = None;
            state = shared.wait(&shared.work, state);
            continue;
        };
        let now = Instant::now();
        if due.is_none()
            && let Load::Run { pace, .. } = &mut state.load
        {
            due = Some(pace.take(now));
        }
        let ready = due.max(state.lanes[index].not_before);
        if let Some(ready) = ready
            && let Some(wait) = ready.checked_duration_since(now)
            && !wait.is_zero()
        {
            state = shared.wait_for(&shared.work, state, wait);
            continue;
        }
        let lane = state.lanes[index];
        // Every lane is made from the layouts, so it has an address.
        let at = layout::address(&shared.layouts, shared.seed, lane.writer, lane.wseq + 1)?;
        return Some(Order {
            issue: state.issue(index),
            at,
            strict: batch == 0,
        });
    }
}

fn is_full(state: &State, batch: u32) -> bool {
    u32::try_from(state.unflushed.len()).is_ok_and(|len| len >= batch)
}

pub(super) fn strictly_done(shared: &Shared, issue: &Issue, outcome: io::Result<()>) {
    let now = shared.now();
    let mut state = shared.lock();
    match outcome {
        Ok(()) => state.durable(vec![(issue.writer, issue.wseq)], issue.token, now),
        Err(error) => state.unknown(issue.writer, issue.wseq, &error),
    }
    landed(shared, &mut state);
}

fn lazily_done(shared: &Shared, issue: &Issue, at: Address, outcome: io::Result<u64>) {
    let mut state = shared.lock();
    match outcome {
        Ok(epoch) => state.unflushed.push(Unflushed {
            writer: issue.writer,
            wseq: issue.wseq,
            volume: usize::from(at.volume),
            epoch,
        }),
        Err(error) => state.unknown(issue.writer, issue.wseq, &error),
    }
    landed(shared, &mut state);
    let due = match &state.load {
        Load::Run { batch, .. } => *batch > 0 && is_full(&state, *batch),
        Load::Hold => false,
    };
    if due && !state.flushing && !state.ended {
        drop(state);
        flush_all(shared);
    }
}

fn landed(shared: &Shared, state: &mut State) {
    state.in_flight -= 1;
    // Only who brings the load to rest waits for this, and waking nobody costs a system call too.
    if state.in_flight == 0 && !state.is_running() {
        shared.work.notify_all();
    }
    shared.told(state);
}

/// Makes every write that completed before now durable, by a flush of all volumes, as one rank.
/// What a failed flush covered is reported unknown and never acked.
pub(super) fn flush_all(shared: &Shared) {
    let mut state = shared.lock();
    if state.ended || state.flushing {
        return;
    }
    state.flushing = true;
    let covered = std::mem::take(&mut state.unflushed);
    let token = state.token;
    drop(state);
    let flushed: Vec<io::Result<u64>> = shared.volumes.iter().map(super::Volume::flush).collect();
    let now = shared.now();
    let mut state = shared.lock();
    state.flushing = false;
    let mut marks: BTreeMap<u32, u64> = BTreeMap::new();
    for write in &covered {
        match &flushed[write.volume] {
            Ok(epoch) if *epoch == write.epoch => {
                marks.insert(write.writer, write.wseq);
            }
            Ok(_) => {
                let error = io::Error::other("a flush before this one failed");
                state.unknown(write.writer, write.wseq, &error);
            }
            Err(error) => state.unknown(write.writer, write.wseq, error),
        }
    }
    if !marks.is_empty() {
        state.durable(marks.into_iter().collect(), token, now);
    }
    shared.told(&mut state);
    shared.work.notify_all();
}
