//! Disks in memory with a volatile cache, for the property tests of everything above [`Disk`].
//!
//! Contract: what was not flushed (or written with [`Grants::dsync`]) when the power is cut may be
//! kept, lost or torn at any sector, in any order, decided by the seed; what was durable stays. All
//! disks of one [`Rack`] lose power at the same moment, as the disks of one VM do.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::{SECTOR, SECTORS};
use super::disk::{Disk, Grants};
use super::layout::{CELL, mix};

/// Linux's EIO, which dead and faulty disks answer with.
pub const EIO: i32 = 5;

type Page = Box<[u8; CELL]>;

/// Several disks with one power cord.
#[derive(Debug, Clone)]
pub struct Rack(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    disks: Vec<Platters>,
    /// Writes and flushes left until the power goes, if it is to go.
    fuse: Option<u64>,
    /// Writes and flushes left until the replica is cut, if it is to be.
    shutter: Option<u64>,
    /// What would have survived a power cut at the moment the shutter fired.
    replica: Option<Vec<Platters>>,
    dead: bool,
    seed: u64,
    draws: u64,
}

#[derive(Debug, Clone)]
struct Platters {
    size: u64,
    grants: Grants,
    durable: HashMap<u64, Page>,
    /// Completed and in-flight writes since the last flush, oldest first.
    cache: Vec<(u64, Page)>,
    failing_writes: u32,
    failing_flushes: u32,
}

/// One disk of a [`Rack`].
#[derive(Debug, Clone)]
pub struct MemDisk {
    rack: Rack,
    index: usize,
}

impl Rack {
    /// Disks of the given sizes in bytes, all with the same grants.
    pub fn new(sizes: &[u64], grants: Grants, seed: u64) -> Self {
        let disk = |&size| Platters {
            size,
            grants,
            durable: HashMap::new(),
            cache: Vec::new(),
            failing_writes: 0,
            failing_flushes: 0,
        };
        Self(Arc::new(Mutex::new(State {
            disks: sizes.iter().map(disk).collect(),
            fuse: None,
            shutter: None,
            replica: None,
            dead: false,
            seed,
            draws: 0,
        })))
    }

    /// Disk `index`.
    pub fn disk(&self, index: usize) -> MemDisk {
        MemDisk {
            rack: self.clone(),
            index,
        }
    }

    /// Cuts the power at the `steps`-th write or flush from now, while it is in flight.
    pub fn cut_after(&self, steps: u64) {
        self.lock().fuse = Some(steps);
    }

    /// Cuts the power now. Every later call fails until [`Self::power_on`].
    pub fn cut(&self) {
        self.lock().die();
    }

    /// Takes a replica at the `steps`-th write or flush from now, while it is in flight.
    pub fn replicate_after(&self, steps: u64) {
        self.lock().shutter = Some(steps);
    }

    /// The replica, as a rack of its own, if it was taken.
    pub fn replica(&self) -> Option<Self> {
        let mut state = self.lock();
        let disks = state.replica.take()?;
        let rack = Self::new(&[], Grants::default(), state.seed);
        rack.lock().disks = disks;
        Some(rack)
    }

    /// Whether the power is cut.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Gives power again: the disks hold what survived.
    pub fn power_on(&self) {
        let mut state = self.lock();
        state.dead = false;
        state.fuse = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn draw(&mut self) -> u64 {
        self.draws += 1;
        mix(self.seed ^ mix(self.draws))
    }

    /// Counts one step of fuse and shutter; true if the power goes with it.
    fn burn(&mut self) -> bool {
        if burnt(&mut self.shutter) {
            self.shutter = None;
            let mut copy = self.disks.clone();
            self.settle(&mut copy);
            self.replica = Some(copy);
        }
        burnt(&mut self.fuse)
    }

    fn die(&mut self) {
        if self.dead {
            return;
        }
        self.dead = true;
        let mut disks = std::mem::take(&mut self.disks);
        self.settle(&mut disks);
        self.disks = disks;
    }

    /// Draws what becomes of everything that is not durable.
    fn settle(&mut self, disks: &mut [Platters]) {
        for disk in disks {
            for (cell, page) in std::mem::take(&mut disk.cache) {
                let fate = self.draw();
                let sectors = match fate % 4 {
                    0 => 0,
                    1 => u8::try_from(fate >> 8 & 0xFF).unwrap_or(0),
                    _ => u8::MAX,
                };
                disk.persist(cell, &page, sectors);
            }
        }
    }
}

/// Counts a step down; true at the last.
fn burnt(steps: &mut Option<u64>) -> bool {
    if let Some(left) = steps {
        *left = left.saturating_sub(1);
        return *left == 0;
    }
    false
}

impl Platters {
    /// Makes the given sectors of a page durable.
    fn persist(&mut self, cell: u64, page: &Page, sectors: u8) {
        let kept = self
            .durable
            .entry(cell)
            .or_insert_with(|| Box::new([0; CELL]));
        for sector in (0..SECTORS).filter(|sector| sectors >> sector & 1 == 1) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            kept[range.clone()].copy_from_slice(&page[range]);
        }
    }

    fn page(&self, cell: u64) -> Option<&Page> {
        let cached = self.cache.iter().rev().find(|(at, _)| *at == cell);
        cached
            .map(|(_, page)| page)
            .or_else(|| self.durable.get(&cell))
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<u64> {
        let cell = CELL as u64;
        let end = offset.checked_add(len as u64);
        if !offset.is_multiple_of(cell)
            || !len.is_multiple_of(CELL)
            || end.is_none_or(|end| end > self.size)
        {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(offset / cell)
    }
}

impl MemDisk {
    /// A disk on its own: direct, durable only by flush.
    pub fn new(size: u64) -> Self {
        Rack::new(&[size], Grants::default(), 0).disk(0)
    }

    /// Makes the next `count` writes fail with EIO; whether each took effect is drawn.
    pub fn fail_writes(&self, count: u32) {
        self.rack.lock().disks[self.index].failing_writes = count;
    }

    /// Makes the next `count` flushes fail with EIO, and forget what they covered as Linux does.
    pub fn fail_flushes(&self, count: u32) {
        self.rack.lock().disks[self.index].failing_flushes = count;
    }

    /// Changes durable bytes behind everybody's back.
    pub fn damage(&self, cell: u64, change: impl FnOnce(&mut [u8; CELL])) {
        let mut state = self.rack.lock();
        let durable = &mut state.disks[self.index].durable;
        change(durable.entry(cell).or_insert_with(|| Box::new([0; CELL])));
    }

    fn write(&self, offset: u64, buf: &[u8], durable: bool) -> io::Result<()> {
        let mut state = self.rack.lock();
        let state = &mut *state;
        let first = state.disks[self.index].check(offset, buf.len())?;
        if state.dead {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let failing = state.disks[self.index].failing_writes > 0;
        let lands = !failing || state.draw().is_multiple_of(2);
        if lands {
            for (cell, bytes) in (first..).zip(buf.as_chunks::<CELL>().0) {
                let page = Box::new(*bytes);
                state.disks[self.index].cache.push((cell, page));
            }
        }
        if state.burn() {
            state.die();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let disk = &mut state.disks[self.index];
        if failing {
            disk.failing_writes -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if durable {
            let cells = first..first + buf.as_chunks::<CELL>().0.len() as u64;
            let (through, kept) = std::mem::take(&mut disk.cache)
                .into_iter()
                .partition(|(cell, _)| cells.contains(cell));
            disk.cache = kept;
            let through: Vec<(u64, Page)> = through;
            for (cell, page) in through {
                disk.persist(cell, &page, u8::MAX);
            }
        }
        Ok(())
    }
}

impl Disk for MemDisk {
    fn size(&self) -> u64 {
        self.rack.lock().disks[self.index].size
    }

    fn grants(&self) -> Grants {
        self.rack.lock().disks[self.index].grants
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.rack.lock();
        let disk = &state.disks[self.index];
        let first = disk.check(offset, buf.len())?;
        if state.dead {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        for (cell, out) in (first..).zip(buf.as_chunks_mut::<CELL>().0) {
            match disk.page(cell) {
                Some(page) => *out = **page,
                None => *out = [0; CELL],
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf, self.grants().dsync)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf, false)
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.rack.lock();
        if state.dead {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if state.burn() {
            state.die();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let disk = &mut state.disks[self.index];
        let cache = std::mem::take(&mut disk.cache);
        if disk.failing_flushes > 0 {
            disk.failing_flushes -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        for (cell, page) in cache {
            disk.persist(cell, &page, u8::MAX);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = CELL as u64;

    fn byte(disk: &MemDisk, cell: u64) -> u8 {
        let mut buf = [0; CELL];
        disk.read_at(cell * PAGE, &mut buf).unwrap();
        buf[0]
    }

    #[test]
    fn flushed_survives_and_cached_may_not() {
        let mut kept = 0;
        let mut torn = 0;
        for seed in 0..64 {
            let rack = Rack::new(&[8 * PAGE], Grants::default(), seed);
            let disk = rack.disk(0);
            disk.write_at(0, &[1; CELL]).unwrap();
            disk.flush().unwrap();
            disk.write_at(PAGE, &[2; CELL]).unwrap();
            rack.cut();
            assert_eq!(
                disk.write_at(0, &[9; CELL]).unwrap_err().raw_os_error(),
                Some(EIO)
            );
            rack.power_on();
            assert_eq!(byte(&disk, 0), 1);
            let mut buf = [0; CELL];
            disk.read_at(PAGE, &mut buf).unwrap();
            let twos: usize = buf.iter().map(|&byte| usize::from(byte == 2)).sum();
            kept += usize::from(twos == CELL);
            torn += usize::from(twos > 0 && twos < CELL);
        }
        assert!(kept > 0 && torn > 0 && kept + torn < 64, "{kept} {torn}");
    }

    #[test]
    fn dsync_writes_survive() {
        let dsync = Grants {
            dsync: true,
            ..Grants::default()
        };
        let rack = Rack::new(&[8 * PAGE], dsync, 1);
        let disk = rack.disk(0);
        disk.write_lazily_at(0, &[7; CELL]).unwrap();
        disk.write_at(0, &[1; CELL]).unwrap();
        rack.cut();
        rack.power_on();
        assert_eq!(byte(&disk, 0), 1);
    }

    #[test]
    fn out_of_range_is_refused() {
        let disk = MemDisk::new(2 * PAGE);
        for (offset, len) in [
            (0, 3 * CELL),
            (PAGE, 2 * CELL),
            (1, CELL),
            (0, 5),
            (u64::MAX - 4095, CELL),
        ] {
            let error = disk.write_at(offset, &vec![0; len]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
