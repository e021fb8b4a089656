//! The leases of the volumes: cells that only the writer of the load may write.
//!
//! While the load runs each is read past any cache every 100 ms and compared with what was put there;
//! then a new stamp is made durable. What this writer did not put there somebody else did: a second
//! guest lives on the same volume. What it found at its start is its predecessor's. An older stamp of
//! its own is a lost write, which is for the ledger to find, and no sign of somebody else.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::super::buffer::Aligned;
use super::super::frame::{FromGuest, Lease};
use super::super::layout::CELL;
use super::super::lease::{Nonces, STAMP, Stamp, boot, describe};
use super::{Shared, Volume};

/// How often a lease is read and renewed.
const EVERY: Duration = Duration::from_millis(100);
/// How often what was found is told.
const TELL: Duration = Duration::from_secs(1);
/// How many of its own stamps a writer knows again: more than a volume can be behind without any
/// check of the ledger noticing.
const KNOWN: usize = 64;
/// The most foreign stamps in one frame.
const FOREIGN: usize = 8;

/// The memory of the writer.
pub(super) struct Keeper {
    nonces: Nonces,
    buffer: Aligned,
    held: Vec<Held>,
    told: Option<Instant>,
}

/// What is known of one volume's lease.
#[derive(Default)]
struct Held {
    /// What may stand there, oldest first; empty before the first look.
    own: VecDeque<[u8; STAMP]>,
    number: u64,
    last_read_ns: Option<u64>,
    reads: u64,
    longest_ns: u64,
    foreign: Vec<String>,
}

impl Keeper {
    /// Knows nothing yet of the leases of so many volumes.
    pub(super) fn new(volumes: usize) -> io::Result<Self> {
        Ok(Self {
            nonces: Nonces::open()?,
            buffer: Aligned::new(1),
            held: (0..volumes).map(|_| Held::default()).collect(),
            told: None,
        })
    }

    /// Reads one lease. A read that fails is no look, and the time since the last one goes on.
    fn look(&mut self, shared: &Shared, ordinal: usize, volume: &Volume) {
        let at = volume.layout.lease.start * CELL as u64;
        if volume.disk.read_at(at, self.buffer.bytes_mut()).is_err() {
            return;
        }
        let now = shared.clock.mono_ns();
        let held = &mut self.held[ordinal];
        let since = held.last_read_ns.replace(now);
        held.longest_ns = held
            .longest_ns
            .max(since.map_or(0, |last| now.saturating_sub(last)));
        held.reads += 1;
        let cell = self.buffer.cell_mut(0);
        let mut found = [0; STAMP];
        found.copy_from_slice(&cell[..STAMP]);
        if held.own.is_empty() {
            held.own.push_back(found);
        } else if !held.own.contains(&found) && held.foreign.len() < FOREIGN {
            held.foreign.push(describe(cell));
        }
    }

    /// Puts a new stamp. It counts as this writer's own from the moment at which it is issued, for a
    /// write that fails may have happened.
    fn renew(&mut self, shared: &Shared, ordinal: usize, volume: &Volume) {
        let held = &mut self.held[ordinal];
        // A stamp that could be foreseen would be worth nothing, so there is none without a nonce.
        let (Ok(nonce), false) = (self.nonces.draw(), held.own.is_empty()) else {
            return;
        };
        held.number += 1;
        let now = shared.now();
        let stamp = Stamp {
            run_id: shared.run_id,
            vol_id: volume.vol_id,
            incarnation: shared.incarnation,
            number: held.number,
            mono_ns: now.mono_ns,
            real_ns: now.real_ns,
            nonce,
            boot: boot(&shared.boot_id),
        };
        let bytes = stamp.encode();
        held.own.push_back(bytes);
        if held.own.len() > KNOWN {
            held.own.pop_front();
        }
        let cell = self.buffer.cell_mut(0);
        cell.fill(0);
        cell[..STAMP].copy_from_slice(&bytes);
        // Whether it happened shows at the next look.
        volume
            .write_durably(volume.layout.lease.start, self.buffer.bytes())
            .ok();
    }

    /// What is to be told of all volumes, and a fresh count from here on.
    fn tell(&mut self) -> Vec<FromGuest> {
        self.told = Some(Instant::now());
        let looked = self.held.iter_mut().zip(0..);
        looked
            .filter(|(held, _)| held.reads > 0)
            .map(|(held, volume)| {
                FromGuest::Lease(Lease {
                    volume,
                    reads: std::mem::take(&mut held.reads),
                    longest_ns: std::mem::take(&mut held.longest_ns),
                    foreign: std::mem::take(&mut held.foreign),
                })
            })
            .collect()
    }
}

/// Keeps the leases until the engine ends.
pub(super) fn run(shared: &Shared) {
    let mut due = Instant::now();
    loop {
        let mut state = shared.lock();
        loop {
            if state.ended {
                return;
            }
            if !state.is_running() {
                state = shared.wait(&shared.lease, state);
                continue;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.wait_for(&shared.lease, state, left);
        }
        drop(state);
        round(shared);
        due = Instant::now().max(due + EVERY);
    }
}

/// Looks at all leases and renews them, unless the load was stopped meanwhile.
fn round(shared: &Shared) {
    let mut keeper = shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
    for (ordinal, volume) in shared.volumes.iter().enumerate() {
        let state = shared.lock();
        if state.ended || !state.is_running() {
            return;
        }
        drop(state);
        keeper.look(shared, ordinal, volume);
        keeper.renew(shared, ordinal, volume);
    }
    if keeper.told.get_or_insert_with(Instant::now).elapsed() < TELL {
        return;
    }
    let mut state = shared.lock();
    // What cannot be told yet is told with the next, in sum.
    if state.outbox.has_room() {
        for frame in &keeper.tell() {
            state.push(frame);
        }
        shared.told(&mut state);
    }
}

/// Looks once more after the load was stopped; nothing is renewed from here on. What is left to tell.
pub(super) fn last_look(shared: &Shared) -> Vec<FromGuest> {
    let mut keeper = shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
    for (ordinal, volume) in shared.volumes.iter().enumerate() {
        // A lease that was never taken says nothing.
        if keeper.held[ordinal].number > 0 && !shared.lock().ended {
            keeper.look(shared, ordinal, volume);
        }
        // The time until the next load is no gap.
        keeper.held[ordinal].last_read_ns = None;
    }
    keeper.tell()
}
