//! Reads a whole ledger back and says what it found, cell by cell.
//!
//! Contract: ascending order; every cell that the ledger wrote or would write is looked at; an
//! unreadable one costs only itself; nothing is written. The stream begins with `Opened`, so that
//! the evidence says whether the reads bypassed the page cache.

use std::io::{self, Write};
use std::iter::Peekable;

use super::buffer::Aligned;
use super::cell::Kind;
use super::classify::{Expect, classify};
use super::codec::CELLS_PER_FRAME;
use super::config::{Config, Volume};
use super::disk::Disk;
use super::engine::errno;
use super::frame::{CellState, FromGuest, Opened, Seen};
use super::layout::{CELL, Layout, WRITER_FILL};
use super::platform::{Access, OpenError, OpenVolume, Platform};
use super::session::{fit, identity};
use super::window;

mod ahead;

/// Cells per read: 1 MiB.
const CHUNK: u64 = 256;
/// Reading over a gap of this many cells costs less than a read of its own.
const GAP: u64 = 8;
/// Linux's ENXIO: beyond the end of the device.
const ENXIO: i32 = 6;

/// Why a scan could not be finished.
#[derive(Debug)]
pub enum ScanError {
    /// A volume could not be opened; the others were not read.
    Open(OpenError),
    /// The frames could not be written.
    Write(io::Error),
}

impl std::fmt::Display for ScanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Write(error) => write!(f, "writing the scan: {error}"),
        }
    }
}
impl std::error::Error for ScanError {}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Reads all volumes and writes `Opened`, then for each volume `ScanBegin`, `Cells`, `ScanEnd`.
/// A failure is told in the stream as `Failed` too, as far as that is still possible.
pub fn scan(
    config: &Config,
    platform: &dyn Platform,
    out: &mut impl Write,
) -> Result<(), ScanError> {
    let mut frames = Frames { out, seq: 0 };
    let volumes = match open(config, platform) {
        Ok(volumes) => volumes,
        Err(error) => {
            frames.send(&FromGuest::Failed(error.to_string()))?;
            frames.out.flush()?;
            return Err(ScanError::Open(error));
        }
    };
    let opened = volumes.iter().zip(0..).map(|((found, _), volume)| Opened {
        volume,
        path: found.path.clone(),
        size: found.disk.size(),
        grants: found.disk.grants(),
    });
    let identity = identity(config, platform, opened.collect());
    frames.send(&FromGuest::Opened(identity))?;
    for (((found, layout), volume), ordinal) in volumes.iter().zip(&config.volumes).zip(0..) {
        let reader = Reader {
            disk: &*found.disk,
            config,
            volume,
            layout,
        };
        reader.scan(ordinal, &mut frames)?;
    }
    Ok(frames.out.flush()?)
}

fn open(config: &Config, platform: &dyn Platform) -> Result<Vec<(OpenVolume, Layout)>, OpenError> {
    let open_one = |(ordinal, volume): (usize, &Volume)| {
        let found = window::open(platform, volume, config.purpose, Access::Read)?;
        let layout = fit(volume, config, &*found.disk)
            .map_err(|error| OpenError::new(format!("volume {ordinal}: {error}")))?;
        Ok((found, layout))
    };
    config.volumes.iter().enumerate().map(open_one).collect()
}

/// Numbers frames, so that a hole in a stored scan shows.
struct Frames<'a, W> {
    out: &'a mut W,
    seq: u64,
}

impl<W: Write> Frames<'_, W> {
    fn send(&mut self, frame: &FromGuest) -> io::Result<()> {
        self.seq += 1;
        self.out.write_all(&frame.encode(self.seq))
    }
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    config: &'a Config,
    volume: &'a Volume,
    layout: &'a Layout,
}

/// What one volume's scan has gathered.
#[derive(Default)]
struct Found {
    cells: Vec<Seen>,
    read: u64,
    cold_ok: u64,
}

impl Found {
    /// Takes in what was found further on.
    fn add(&mut self, next: Self) {
        self.cells.extend(next.cells);
        self.read += next.read;
        self.cold_ok += next.cold_ok;
    }
}

/// Cells that are read at once: gaps no wider than [`GAP`], no longer than [`CHUNK`].
struct Runs<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = u64>> Runs<I> {
    fn of(cells: I) -> Self {
        Self(cells.peekable())
    }
}

impl<I: Iterator<Item = u64>> Iterator for Runs<I> {
    type Item = Vec<u64>;

    fn next(&mut self) -> Option<Vec<u64>> {
        let first = self.0.next()?;
        let mut run = vec![first];
        let mut last = first;
        let fits = |next: u64, last: u64| next - last <= GAP && next - first < CHUNK;
        while let Some(next) = self.0.next_if(|&next| fits(next, last)) {
            run.push(next);
            last = next;
        }
        Some(run)
    }
}

/// How many threads read and check: twice the processors, so that as many can wait for the disk as
/// check.
fn readers() -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u64::try_from(2 * processors).unwrap_or(u64::MAX).min(8)
}

impl Reader<'_> {
    fn scan(&self, ordinal: u8, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
        let size = self.disk.size();
        frames.send(&FromGuest::ScanBegin {
            volume: ordinal,
            size,
        })?;
        let mut found = Found::default();
        let buffer = || Aligned::new(usize::try_from(CHUNK).unwrap_or(1));
        let read = |run: Vec<u64>, buffer: &mut Aligned| self.read_run(&run, buffer);
        ahead::in_order(readers(), Runs::of(self.wanted()), buffer, read, |run| {
            if found.cells.len() + run.cells.len() > CELLS_PER_FRAME {
                frames.send(&FromGuest::Cells(std::mem::take(&mut found.cells)))?;
            }
            found.add(run);
            Ok(())
        })?;
        if !found.cells.is_empty() {
            frames.send(&FromGuest::Cells(std::mem::take(&mut found.cells)))?;
        }
        frames.send(&FromGuest::ScanEnd {
            volume: ordinal,
            read: found.read,
            cold_ok: found.cold_ok,
        })
    }

    /// The cells to look at, ascending: the first cold cell, canary, log, hot, the other cold cells.
    fn wanted(&self) -> impl Iterator<Item = u64> + use<> {
        let mut cold = self.layout.cold_cells();
        let first = cold.next();
        first
            .into_iter()
            .chain(self.layout.canary.start..self.layout.hot.end)
            .chain(cold)
    }

    /// Reads the stretch that covers `run`, or its cells one by one if the stretch fails.
    fn read_run(&self, run: &[u64], buffer: &mut Aligned) -> Found {
        let mut found = Found::default();
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
            return found;
        };
        let stretch = usize::try_from(last - first + 1).unwrap_or(1) * CELL;
        let bytes = &mut buffer.bytes_mut()[..stretch];
        // A device that shrank is not asked for what lies beyond its end.
        let whole = last < self.disk.size() / CELL as u64
            && self.disk.read_at(first * CELL as u64, bytes).is_ok();
        for &cell in run {
            let state = if whole {
                let at = usize::try_from(cell - first).unwrap_or(0);
                self.classify(cell, buffer.cell_mut(at))
            } else {
                self.read_one(cell, buffer)
            };
            found.read += 1;
            if self.is_as_filled(cell, &state) {
                found.cold_ok += 1;
            } else {
                found.cells.push(Seen { cell, state });
            }
        }
        found
    }

    fn read_one(&self, cell: u64, buffer: &mut Aligned) -> CellState {
        if cell >= self.disk.size() / CELL as u64 {
            return CellState::Unreadable { errno: ENXIO };
        }
        let bytes = &mut buffer.bytes_mut()[..CELL];
        match self.disk.read_at(cell * CELL as u64, bytes) {
            Ok(()) => self.classify(cell, buffer.cell_mut(0)),
            Err(error) => CellState::Unreadable {
                errno: errno(&error),
            },
        }
    }

    fn classify(&self, cell: u64, bytes: &[u8; CELL]) -> CellState {
        let expect = Expect {
            seed: self.config.seed,
            run_id: self.config.run_id,
            vol_id: self.volume.vol_id,
            cell,
        };
        classify(bytes, &expect)
    }

    /// Whether this is a cold cell as one of the expected incarnations filled it.
    fn is_as_filled(&self, at: u64, state: &CellState) -> bool {
        let cold = !(self.layout.canary.start..self.layout.hot.end).contains(&at);
        match *state {
            CellState::Ok {
                kind: Kind::Fill,
                incarnation,
                writer: WRITER_FILL,
                wseq,
                ..
            } => cold && wseq == at + 1 && self.config.expect.contains(&incarnation),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
