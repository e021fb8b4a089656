//! Reads a whole ledger back and says what it found, cell by cell.
//!
//! Contract: ascending order; every cell that the ledger wrote or would write is looked at; an
//! unreadable one costs only itself; nothing is written. The stream begins with `Opened`, so that
//! the evidence says whether the reads bypassed the page cache.

use std::io::{self, Write};

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
        let found = platform.open(volume, config.purpose, Access::Read)?;
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

impl Reader<'_> {
    fn scan(&self, ordinal: u8, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
        let size = self.disk.size();
        frames.send(&FromGuest::ScanBegin {
            volume: ordinal,
            size,
        })?;
        let mut found = Found::default();
        let mut buffer = Aligned::new(usize::try_from(CHUNK).unwrap_or(1));
        let mut wanted = self.wanted().peekable();
        let mut run = Vec::new();
        while let Some(first) = wanted.next() {
            run.clear();
            run.push(first);
            let mut last = first;
            while let Some(next) =
                wanted.next_if(|&next| next - last <= GAP && next - first < CHUNK)
            {
                run.push(next);
                last = next;
            }
            self.read_run(&run, &mut buffer, &mut found);
            if found.cells.len() + run.len() > CELLS_PER_FRAME - run.len() {
                frames.send(&FromGuest::Cells(std::mem::take(&mut found.cells)))?;
            }
        }
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
    fn wanted(&self) -> impl Iterator<Item = u64> {
        let mut cold = self.layout.cold_cells();
        let first = cold.next();
        first
            .into_iter()
            .chain(self.layout.canary.start..self.layout.hot.end)
            .chain(cold)
    }

    /// Reads the stretch that covers `run`, or its cells one by one if the stretch fails.
    fn read_run(&self, run: &[u64], buffer: &mut Aligned, found: &mut Found) {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
            return;
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
