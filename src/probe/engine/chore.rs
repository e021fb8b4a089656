//! What the probe does beside the load, one thing at a time: fill, canaries, start and stop.

use std::collections::BTreeMap;
use std::io;

use super::super::buffer::Aligned;
use super::super::cell::{Header, Kind};
use super::super::frame::FromGuest;
use super::super::layout::{self, Address, CELL, WRITER_CANARY, WRITER_FILL};
use super::state::{Chore, Issue, Load, State};
use super::writer::flush_all;
use super::{Shared, Volume};

/// Cells per write of the fill: 1 MiB.
const CHUNK: usize = 256;

/// Works off chores until the engine ends.
pub(super) fn run(shared: &Shared) {
    let mut canaries = Canaries::default();
    loop {
        let mut state = shared.lock();
        let chore = loop {
            if state.ended {
                return;
            }
            match state.chores.pop_front() {
                Some(chore) => break chore,
                None => state = shared.wait(&shared.chore, state),
            }
        };
        drop(state);
        match chore {
            Chore::Fill => fill(shared),
            Chore::Canary => canaries.write(shared),
            Chore::Start { rate, batch } => start(shared, rate, batch),
            Chore::Stop => stop(shared),
        }
    }
}

/// Starts the load. A load in another mode is brought to rest first, because a strict ack of a
/// writer stands for all that it wrote before.
fn start(shared: &Shared, rate: u32, batch: u32) {
    let running = match &shared.lock().load {
        Load::Run { batch, .. } => Some(*batch),
        Load::Hold => None,
    };
    if running != Some(batch) {
        rest(shared);
    }
    let mut state = shared.lock();
    state.run(rate, batch);
    shared.work.notify_all();
    shared.lease.notify_all();
}

fn stop(shared: &Shared) {
    rest(shared);
    let leases = super::lease::last_look(shared);
    let mut state = shared.lock();
    if state.ended {
        return;
    }
    for lease in &leases {
        state.push(lease);
    }
    let account = state.account();
    state.push(&account);
    shared.told(&mut state);
}

/// Stops the writers and makes what they wrote durable.
fn rest(shared: &Shared) {
    let mut state = shared.lock();
    state.load = Load::Hold;
    shared.work.notify_all();
    while !state.ended && (state.in_flight > 0 || state.flushing) {
        state = shared.wait(&shared.work, state);
    }
    let dirty = !state.unflushed.is_empty();
    drop(state);
    if dirty {
        flush_all(shared);
    }
}

#[derive(Default)]
struct Canaries {
    wseq: u64,
    held: BTreeMap<Address, u64>,
}

impl Canaries {
    /// Writes one canary on each volume, each durable before the next.
    fn write(&mut self, shared: &Shared) {
        let mut buffer = Aligned::new(1);
        for _ in 0..shared.volumes.len() {
            let next = self.wseq + 1;
            let Some(at) = layout::address(&shared.layouts, shared.seed, WRITER_CANARY, next)
            else {
                return;
            };
            let mut state = shared.lock();
            if state.ended {
                return;
            }
            let Some(lane) = state.lanes.iter().position(|l| l.writer == WRITER_CANARY) else {
                return;
            };
            let issue = state.issue(lane);
            drop(state);
            self.wseq = next;
            let header = Header {
                kind: Kind::Canary,
                prev_wseq: self.held.insert(at, next).unwrap_or(0),
                ..shared.header(&issue, at)
            };
            header.encode(shared.seed, buffer.cell_mut(0));
            let volume = &shared.volumes[usize::from(at.volume)];
            let outcome = volume.write_durably(at.cell, buffer.bytes());
            super::writer::strictly_done(shared, &issue, outcome);
        }
    }
}

/// Fills every volume, or says why not. What is done already is told again and not done again.
fn fill(shared: &Shared) {
    let state = shared.lock();
    let refusal = if !shared.may_fill {
        Some("asked to fill volumes that were opened to verify")
    } else if state.is_running() {
        Some("asked to fill while the load is running")
    } else {
        None
    };
    let known = state.filled.clone();
    drop(state);
    if let Some(refusal) = refusal {
        return fail(shared, refusal.to_owned());
    }
    let mut filled = Vec::new();
    for (ordinal, volume) in shared.volumes.iter().enumerate() {
        let done = match &known {
            Some(cells) => Ok(cells[ordinal]),
            None => fill_volume(shared, ordinal, volume),
        };
        match done {
            Ok(cells) => {
                filled.push(cells);
                told(shared, |state| {
                    state.push(&FromGuest::Filled {
                        volume: u8::try_from(ordinal).unwrap_or(u8::MAX),
                        cells,
                    });
                });
            }
            Err(Unfilled::Ended) => return,
            Err(Unfilled::Io(at, error)) => {
                let path = &volume.path;
                let text = format!("filling volume {ordinal} ({path}) at cell {at}: {error}");
                return fail(shared, text);
            }
        }
    }
    shared.lock().filled = Some(filled);
}

fn fail(shared: &Shared, text: String) {
    told(shared, |state| state.push(&FromGuest::Failed(text)));
}

fn told(shared: &Shared, change: impl FnOnce(&mut State)) {
    let mut state = shared.lock();
    change(&mut state);
    shared.told(&mut state);
}

enum Unfilled {
    Ended,
    Io(u64, io::Error),
}

/// Blanks the regions that the load will write, so that what an earlier owner left there cannot be
/// taken for ours, writes the cold cells, and flushes. Returns the number of cold cells.
fn fill_volume(shared: &Shared, ordinal: usize, volume: &Volume) -> Result<u64, Unfilled> {
    blank(shared, volume)?;
    let mut buffer = Aligned::new(CHUNK);
    let mut cells = volume.layout.cold_cells().peekable();
    let mut count = 0;
    while let Some(first) = cells.next() {
        // What is written at once is issued at once.
        let issued = fill_header(shared, ordinal, first);
        let mut len = 0;
        let mut cell = first;
        loop {
            let wseq = cell + 1;
            let header = Header {
                wseq,
                cell,
                ..issued
            };
            header.encode(shared.seed, buffer.cell_mut(len));
            len += 1;
            match cells.next_if(|&next| next == cell + 1 && len < CHUNK) {
                Some(next) => cell = next,
                None => break,
            }
        }
        write(shared, volume, first, &buffer.bytes()[..len * CELL])?;
        count += len as u64;
    }
    volume.flush().map_err(|error| Unfilled::Io(0, error))?;
    Ok(count)
}

fn fill_header(shared: &Shared, ordinal: usize, cell: u64) -> Header {
    let issue = Issue {
        writer: WRITER_FILL,
        wseq: cell + 1,
        gseq: 0,
        dep: 0,
        token: shared.lock().token,
    };
    let at = Address {
        volume: u8::try_from(ordinal).unwrap_or(u8::MAX),
        cell,
    };
    Header {
        kind: Kind::Fill,
        ..shared.header(&issue, at)
    }
}

/// Zeroes canary, log and hot regions and the lease where they are not zero.
fn blank(shared: &Shared, volume: &Volume) -> Result<(), Unfilled> {
    let zero = Aligned::new(CHUNK);
    let mut buffer = Aligned::new(CHUNK);
    let mut first = volume.layout.canary.start;
    let end = volume.layout.lease.end;
    while first < end {
        let cells = usize::try_from(end - first).map_or(CHUNK, |left| left.min(CHUNK));
        let bytes = &mut buffer.bytes_mut()[..cells * CELL];
        let read = volume.disk.read_at(first * CELL as u64, bytes);
        read.map_err(|error| Unfilled::Io(first, error))?;
        if bytes != &zero.bytes()[..cells * CELL] {
            write(shared, volume, first, &zero.bytes()[..cells * CELL])?;
        }
        first += cells as u64;
    }
    Ok(())
}

fn write(shared: &Shared, volume: &Volume, first: u64, bytes: &[u8]) -> Result<(), Unfilled> {
    if shared.lock().ended {
        return Err(Unfilled::Ended);
    }
    volume
        .disk
        .write_lazily_at(first * CELL as u64, bytes)
        .map_err(|error| Unfilled::Io(first, error))
}
