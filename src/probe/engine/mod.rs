//! The writer: a load whose every cell says what was durable when it was issued.
//!
//! Contract: a rank is told only after its writes are durable; `dep` in a cell never exceeds what
//! was durable at its issue; every write that was issued is acked, unknown, or (after power loss)
//! neither; frames are never dropped: when the host stops hearing, the writers stall.

mod chore;
mod lease;
mod pace;
mod state;
mod volume;
mod writer;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::cell::{Header, Kind};
use super::config::{Config, Purpose};
use super::frame::{FromGuest, Identity};
use super::layout::{Address, Layout, WRITER_CANARY, WRITER_LOG, hot_writer};
use super::outbox::{OutOfStep, Outbox};
use super::platform::Clock;
pub(super) use state::errno;
use state::{Chore, Issue, Lane, Now, State};
use volume::Volume;

/// Stack of each thread: a writer needs a few cells, and a lab runs thousands.
const STACK: usize = 256 * 1024;

/// A volume for the engine.
pub struct Prepared {
    /// The disk.
    pub disk: Arc<dyn super::disk::Disk>,
    /// Its regions.
    pub layout: Layout,
    /// Its id.
    pub vol_id: [u8; 16],
    /// Where it was found, for messages.
    pub path: String,
}

/// A running engine. Dropping it ends it, see [`Engine::end`].
pub struct Engine {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the session waits for.
pub enum Mail {
    /// Frames from the number asked for on, as on the wire.
    Frames(Vec<Arc<[u8]>>),
    /// Nothing new within the time given.
    Nothing,
    /// The engine has ended, or the asker is no longer wanted.
    Over,
}

struct Shared {
    run_id: [u8; 16],
    seed: u64,
    incarnation: u64,
    may_fill: bool,
    volumes: Vec<Volume>,
    layouts: Vec<Layout>,
    clock: Arc<dyn Clock>,
    boot_id: String,
    /// Held while a lease is read or renewed. Taken before `state`, never after.
    leases: Mutex<lease::Keeper>,
    state: Mutex<State>,
    /// Writers and whoever waits for them to come to rest.
    work: Condvar,
    /// The chore thread.
    chore: Condvar,
    /// The thread that renews the leases.
    lease: Condvar,
    /// The framer.
    frame: Condvar,
    /// The session.
    mail: Condvar,
}

impl Engine {
    /// Starts the threads, holding. That `identity` opened becomes frame 1.
    pub fn start(
        config: &Config,
        volumes: Vec<Prepared>,
        clock: Arc<dyn Clock>,
        identity: &Identity,
    ) -> io::Result<Self> {
        let layouts: Vec<Layout> = volumes.iter().map(|v| v.layout.clone()).collect();
        let mut outbox = Outbox::new(config.scratch);
        outbox.push(&FromGuest::Opened(identity.clone()));
        let lanes = lanes(&layouts);
        // The canary lane has no thread: it is a chore.
        let writers = lanes.len() - 1;
        let keeper = lease::Keeper::new(volumes.len())?;
        let shared = Arc::new(Shared {
            run_id: config.run_id,
            seed: config.seed,
            incarnation: config.incarnation,
            may_fill: config.purpose == Purpose::Load,
            volumes: volumes
                .into_iter()
                .map(|v| Volume::new(v.disk, v.layout, v.vol_id, v.path))
                .collect(),
            layouts,
            clock,
            boot_id: identity.boot_id.clone(),
            leases: Mutex::new(keeper),
            state: Mutex::new(State::new(lanes, outbox)),
            work: Condvar::new(),
            chore: Condvar::new(),
            lease: Condvar::new(),
            frame: Condvar::new(),
            mail: Condvar::new(),
        });
        let engine = Self {
            shared,
            threads: Mutex::new(Vec::new()),
        };
        let started = engine.spawn_all(writers);
        if started.is_err() {
            engine.end();
        }
        started.map(|()| engine)
    }

    fn spawn_all(&self, writers: usize) -> io::Result<()> {
        self.spawn("chores", chore::run)?;
        self.spawn("framer", frame_acks)?;
        if self.shared.may_fill {
            self.spawn("leases", lease::run)?;
        }
        for lane in 0..writers {
            self.spawn("writer", move |shared| writer::run(shared, lane))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, run: impl FnOnce(&Shared) + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let builder = Builder::new().name(name.to_owned()).stack_size(STACK);
        let handle = builder.spawn(move || run(&shared))?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(handle);
        Ok(())
    }

    /// Notes a token from the host; older ones that arrive late are ignored.
    pub fn token(&self, token: u32) {
        let mut state = self.shared.lock();
        state.token = state.token.max(token);
    }

    /// Fills every volume; answered by a `Filled` for each, or `Failed`.
    pub fn fill(&self) {
        self.chore(Chore::Fill);
    }

    /// Writes one canary on each volume.
    pub fn canary(&self) {
        self.chore(Chore::Canary);
    }

    /// Starts the load, or changes its rate.
    pub fn run(&self, rate: u32, batch: u32) {
        self.chore(Chore::Start { rate, batch });
    }

    /// Brings the load to rest and accounts for it with a `Stopped`.
    pub fn stop(&self) {
        self.chore(Chore::Stop);
    }

    fn chore(&self, chore: Chore) {
        let mut state = self.shared.lock();
        state.chores.push_back(chore);
        self.shared.chore.notify_one();
    }

    /// Starts delivery over after frame `heard`.
    pub fn resume(&self, heard: u64) -> Result<(), OutOfStep> {
        self.forget(|outbox| outbox.resume(heard))
    }

    /// Forgets the frames up to `heard`, which makes room for more.
    pub fn heard(&self, heard: u64) -> Result<(), OutOfStep> {
        self.forget(|outbox| outbox.forget(heard))
    }

    fn forget(
        &self,
        forget: impl FnOnce(&mut Outbox) -> Result<(), OutOfStep>,
    ) -> Result<(), OutOfStep> {
        let mut state = self.shared.lock();
        let stalled = !state.outbox.has_room();
        let forgotten = forget(&mut state.outbox);
        if stalled {
            self.shared.work.notify_all();
        }
        forgotten
    }

    /// Waits up to `patience` for frames from number `next` on, at most about `bytes` of them,
    /// as long as `relevant`.
    pub fn mail(
        &self,
        next: u64,
        bytes: usize,
        patience: Duration,
        relevant: impl Fn() -> bool,
    ) -> Mail {
        let mut state = self.shared.lock();
        let mut waited = false;
        loop {
            if state.ended || !relevant() {
                return Mail::Over;
            }
            let mut left = bytes;
            let frames: Vec<_> = (next..)
                .map_while(|seq| state.outbox.get(seq))
                .take_while(|frame| {
                    let fits = left > 0;
                    left = left.saturating_sub(frame.len());
                    fits
                })
                .cloned()
                .collect();
            if !frames.is_empty() {
                return Mail::Frames(frames);
            }
            if waited {
                return Mail::Nothing;
            }
            let (guard, timeout) = self
                .shared
                .mail
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            waited = timeout.timed_out();
        }
    }

    /// Wakes everyone who waits for mail, so that they ask whether they are still wanted.
    pub fn nudge(&self) {
        let _state = self.shared.lock();
        self.shared.mail.notify_all();
    }

    /// The sign of life to send now.
    pub fn alive(&self) -> FromGuest {
        FromGuest::Alive {
            mono_ns: self.shared.clock.mono_ns(),
            token: self.shared.lock().token,
        }
    }

    /// Whether [`Self::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Ends everything as a power cut would: nothing is flushed, accounted for or told. When this
    /// returns no thread of the engine touches a disk again; writes that a disk had already taken
    /// are waited for.
    pub fn end(&self) {
        let shared = &self.shared;
        shared.lock().ended = true;
        let conditions = [
            &shared.work,
            &shared.chore,
            &shared.lease,
            &shared.frame,
            &shared.mail,
        ];
        for everyone in conditions {
            everyone.notify_all();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panicked thread has ended too, which is all that is asked for here.
            thread.join().ok();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

/// The log writer, the hot writers of each volume in order, the canary.
fn lanes(layouts: &[Layout]) -> Vec<Lane> {
    let hot = layouts.iter().enumerate().flat_map(|(volume, layout)| {
        (0..layout.hot_writers).map(move |k| hot_writer(layouts, volume, k))
    });
    std::iter::once(WRITER_LOG)
        .chain(hot)
        .chain(std::iter::once(WRITER_CANARY))
        .map(|writer| Lane {
            writer,
            wseq: 0,
            not_before: None,
        })
        .collect()
}

/// Closes acks that have waited long enough for company.
fn frame_acks(shared: &Shared) {
    let mut state = shared.lock();
    while !state.ended {
        let Some(due) = state.frame_due() else {
            state = shared.wait(&shared.frame, state);
            continue;
        };
        let left = due.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            state.seal();
            shared.told(&mut state);
        } else {
            state = shared.wait_for(&shared.frame, state, left);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::unused_self, reason = "reads as what it is at the call")]
    fn wait<'a>(&self, on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::unused_self, reason = "reads as what it is at the call")]
    fn wait_for<'a>(
        &self,
        on: &Condvar,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = on.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// To be called after a change that may have made or begun a frame.
    fn told(&self, state: &mut State) {
        let news = state.news();
        if news.draft {
            self.frame.notify_one();
        }
        if news.frames {
            self.mail.notify_all();
        }
    }

    fn now(&self) -> Now {
        Now {
            mono_ns: self.clock.mono_ns(),
            real_ns: self.clock.real_ns(),
        }
    }

    /// The header of a write; kind, `prev_wseq` and `chain` are the writer's to say.
    fn header(&self, issue: &Issue, at: Address) -> Header {
        let now = self.now();
        Header {
            kind: Kind::Hot,
            run_id: self.run_id,
            vol_id: self.volumes[usize::from(at.volume)].vol_id,
            incarnation: self.incarnation,
            writer: issue.writer,
            op_index: 0,
            op_len: 1,
            wseq: issue.wseq,
            gseq: issue.gseq,
            cell: at.cell,
            prev_wseq: 0,
            dep: issue.dep,
            chain: 0,
            mono_ns: now.mono_ns,
            token: issue.token,
            real_s: super::cell::low32(now.real_ns / 1_000_000_000),
        }
    }
}
