//! Scans on disk: the frames of one `probe scan` as they came in, and what they amount to.
//!
//! One file holds the frames of all volumes, each volume as `ScanBegin`, `Cells`…, `ScanEnd`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use super::event::ScanFact;
use super::recorder::Recorder;
use super::sync::{RecordError, sync_dir};
use crate::probe::frame::{FromGuest, Seen};
use crate::probe::wire::Raw;

/// The largest scan file that is read, bytes.
pub const MAX_BYTES: u64 = 4 << 30;
/// The most listed cells of one volume.
pub const MAX_CELLS: usize = 1 << 26;

/// What a scan found on one volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeScan {
    /// Volume ordinal.
    pub volume: u8,
    /// Device size in bytes as the guest saw it.
    pub size: u64,
    /// Cells read.
    pub read: u64,
    /// Cold cells found as they should be, which are not listed.
    pub cold_ok: u64,
    /// All other cells that were read, ascending.
    pub cells: Vec<Seen>,
}

/// Why frames are not a scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The scan could not be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The frames cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// The frames are whole but are not a complete scan.
    #[error("not a complete scan: {0}")]
    Odd(String),
}

fn odd<T>(what: impl Into<String>) -> Result<T, ScanError> {
    Err(ScanError::Odd(what.into()))
}

/// Puts frames together to scans.
#[derive(Debug, Default)]
pub struct Assembly {
    done: Vec<VolumeScan>,
    open: Option<VolumeScan>,
    keep: bool,
    last_cell: Option<u64>,
    last_seq: u64,
}

impl Assembly {
    /// An assembly that keeps the cells (`keep`) or only counts them.
    pub fn new(keep: bool) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    /// Takes the next frame as it came in. Numbered frames must not skip a number.
    pub fn push(&mut self, raw: &Raw) -> Result<(), ScanError> {
        if raw.seq != 0 && raw.seq != self.last_seq + 1 {
            return odd(format!("frame {} follows frame {}", raw.seq, self.last_seq));
        }
        self.last_seq = self.last_seq.max(raw.seq);
        let frame = FromGuest::decode(raw).map_err(|e| ScanError::Odd(e.to_string()))?;
        self.take(frame)
    }

    fn take(&mut self, frame: FromGuest) -> Result<(), ScanError> {
        match (frame, &mut self.open) {
            (FromGuest::ScanBegin { volume, size }, None) => {
                if self.done.iter().any(|done| done.volume == volume) {
                    return odd(format!("volume {volume} comes twice"));
                }
                self.last_cell = None;
                self.open = Some(VolumeScan {
                    volume,
                    size,
                    ..VolumeScan::default()
                });
            }
            (FromGuest::Cells(cells), Some(open)) => {
                for seen in &cells {
                    if self.last_cell.is_some_and(|last| last >= seen.cell) {
                        return odd(format!("cell {} does not ascend", seen.cell));
                    }
                    self.last_cell = Some(seen.cell);
                }
                if self.keep {
                    open.cells.extend(cells);
                }
                if open.cells.len() > MAX_CELLS {
                    return odd(format!("more than {MAX_CELLS} cells are listed"));
                }
            }
            (
                FromGuest::ScanEnd {
                    volume,
                    read,
                    cold_ok,
                },
                Some(open),
            ) if open.volume == volume => {
                open.read = read;
                open.cold_ok = cold_ok;
                self.done.extend(self.open.take());
            }
            (FromGuest::Failed(text), _) => return odd(format!("the probe gave up: {text}")),
            (FromGuest::Opened(_) | FromGuest::Alive { .. }, _) => {}
            (other, _) => return odd(format!("{other:?} is out of place")),
        }
        Ok(())
    }

    /// The volumes, once all frames are in.
    pub fn finish(self) -> Result<Vec<VolumeScan>, ScanError> {
        match self.open {
            Some(open) => odd(format!("the scan of volume {} has no end", open.volume)),
            None if self.done.is_empty() => odd("it holds no volume"),
            None => Ok(self.done),
        }
    }
}

/// Writes the frames of one scan beside the history.
#[derive(Debug)]
pub struct ScanWriter {
    dir: PathBuf,
    path: PathBuf,
    relative: String,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    assembly: Assembly,
}

impl ScanWriter {
    /// Begins `scans/NAME.bin`, which must not exist yet.
    pub fn create(recorder: &Recorder, name: &str) -> Result<Self, ScanError> {
        let relative = format!("scans/{name}.bin");
        let path = recorder.dir().join(&relative);
        let file =
            File::create_new(&path).map_err(|e| RecordError::new(&path, "create the file", &e))?;
        Ok(Self {
            dir: recorder.dir().join("scans"),
            path,
            relative,
            out: BufWriter::with_capacity(1 << 16, file),
            hasher: blake3::Hasher::new(),
            assembly: Assembly::new(false),
        })
    }

    /// Appends a frame as it came in.
    pub fn push(&mut self, raw: &Raw) -> Result<(), ScanError> {
        self.assembly.push(raw)?;
        self.hasher.update(&raw.bytes);
        self.out
            .write_all(&raw.bytes)
            .map_err(|e| RecordError::new(&self.path, "append a frame", &e).into())
    }

    /// Throws the file away, so that the scan can be made again under the same name.
    pub fn abandon(self) -> Result<(), RecordError> {
        std::fs::remove_file(&self.path)
            .map_err(|e| RecordError::new(&self.path, "remove the unfinished scan", &e))
    }

    /// Makes the scan durable and gives one fact per volume, for `Fact::Scanned`. Fails if the scan
    /// is not complete; then nothing may be recorded as scanned.
    pub fn finish(mut self) -> Result<Vec<ScanFact>, ScanError> {
        let doing = |e: &io::Error| RecordError::new(&self.path, "fsync", e);
        self.out.flush().map_err(|e| doing(&e))?;
        self.out.get_ref().sync_all().map_err(|e| doing(&e))?;
        sync_dir(&self.dir)?;
        let blake3 = self.hasher.finalize().to_hex().to_string();
        let facts = self.assembly.finish()?.into_iter().map(|scan| ScanFact {
            volume: scan.volume,
            size: scan.size,
            read: scan.read,
            cold_ok: scan.cold_ok,
            file: self.relative.clone(),
            blake3: blake3.clone(),
        });
        Ok(facts.collect())
    }
}

/// Passes bytes on and hashes them.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        Ok(read)
    }
}

/// Reads a scan file: its volumes and the BLAKE3 of its bytes, hex.
pub fn read(path: &std::path::Path) -> Result<(Vec<VolumeScan>, String), ScanError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > MAX_BYTES {
        return odd(format!(
            "it has {size} bytes and at most {MAX_BYTES} are read"
        ));
    }
    let mut input = Hashing {
        inner: BufReader::with_capacity(1 << 16, file),
        hasher: blake3::Hasher::new(),
    };
    let mut assembly = Assembly::new(true);
    while let Some(raw) = Raw::read(&mut input)? {
        assembly.push(&raw)?;
    }
    Ok((
        assembly.finish()?,
        input.hasher.finalize().to_hex().to_string(),
    ))
}

#[cfg(test)]
mod tests;
