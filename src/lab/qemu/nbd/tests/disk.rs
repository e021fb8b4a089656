//! A Disk in memory that knows what would survive a power cut, fails on demand and can be held up.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::probe::disk::{Disk, Grants};

pub(super) const PAGE: usize = 4096;

/// One call of the Disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read(u64, usize),
    Write(u64, usize),
    Lazily(u64, usize),
    Flush,
}

#[derive(Default)]
struct State {
    durable: Vec<u8>,
    cached: BTreeMap<usize, Vec<u8>>,
    calls: Vec<Call>,
    error: Option<i32>,
    held: bool,
    inside: usize,
}

pub(super) struct TestDisk {
    state: Mutex<State>,
    bell: Condvar,
    grants: Grants,
}

impl TestDisk {
    /// So many pages of zeroes.
    pub(super) fn new(pages: usize, dsync: bool) -> Self {
        let state = State {
            durable: vec![0; pages * PAGE],
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            bell: Condvar::new(),
            grants: Grants {
                direct: true,
                dsync,
                write_back: true,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every later access fails with this Linux error.
    pub(super) fn fail(&self, errno: Option<i32>) {
        self.lock().error = errno;
    }

    /// Accesses stay inside until released.
    pub(super) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.bell.notify_all();
    }

    /// Accesses inside now.
    pub(super) fn inside(&self) -> usize {
        self.lock().inside
    }

    /// What was called since the last time.
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// What a power cut would leave.
    pub(super) fn durable(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    /// What a reader sees.
    pub(super) fn content(&self) -> Vec<u8> {
        let state = self.lock();
        let mut content = state.durable.clone();
        for (page, bytes) in &state.cached {
            content[page * PAGE..][..PAGE].copy_from_slice(bytes);
        }
        content
    }

    fn released<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.bell.wait_while(state, |state| state.held).unwrap()
    }

    fn enter(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if let Call::Read(at, len) | Call::Write(at, len) | Call::Lazily(at, len) = call {
            let end = index(at) + len;
            assert!(
                at.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE),
                "{call:?}"
            );
            assert!(end <= state.durable.len(), "{call:?} is out of range");
        }
        state.calls.push(call);
        state.inside += 1;
        self.bell.notify_all();
        state = self.released(state);
        state.inside -= 1;
        match state.error {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(state),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn pages(offset: u64, buf: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = index(offset) / PAGE;
    (first..).zip(buf.chunks(PAGE))
}

impl Disk for TestDisk {
    fn size(&self) -> u64 {
        self.lock().durable.len() as u64
    }

    fn grants(&self) -> Grants {
        self.grants
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.enter(Call::Read(offset, buf.len()))?;
        let first = index(offset) / PAGE;
        for (page, out) in (first..).zip(buf.chunks_mut(PAGE)) {
            match state.cached.get(&page) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.copy_from_slice(&state.durable[page * PAGE..][..PAGE]),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if !self.grants.dsync {
            return self.write_lazily_at(offset, buf);
        }
        let mut state = self.enter(Call::Write(offset, buf.len()))?;
        for (page, bytes) in pages(offset, buf) {
            state.cached.remove(&page);
            state.durable[page * PAGE..][..PAGE].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut state = self.enter(Call::Lazily(offset, buf.len()))?;
        for (page, bytes) in pages(offset, buf) {
            state.cached.insert(page, bytes.to_vec());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.enter(Call::Flush)?;
        for (page, bytes) in std::mem::take(&mut state.cached) {
            state.durable[page * PAGE..][..PAGE].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
