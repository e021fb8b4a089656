//! The Disk behind the gate, in the terms of the protocol: durable or not, zero or not.

use std::ops::Range;

use super::failure::Failure;
use super::gate::Gate;
use super::wire::{PAGE, length as length_of};
use crate::probe::disk::Disk;

/// Zeroes go to the Disk, and block status is read from it, in pieces of this many bytes.
const PIECE: usize = 1 << 20;
/// How far one `NBD_CMD_BLOCK_STATUS` looks: the answer may be about less than was asked for, and
/// its cost is bounded.
const STATUS_REACH: u64 = 16 << 20;

static ZEROES: [u8; PIECE] = [0; PIECE];

/// A stretch of the export that reads as zeroes, or of which nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) bytes: u32,
    pub(super) zero: bool,
}

/// Splits whole pages into runs of pages that are all zero and runs of pages that are not.
pub(super) fn runs(data: &[u8]) -> impl Iterator<Item = (Range<usize>, bool)> {
    let zero = |page: &[u8]| page == &ZEROES[..page.len()];
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut pages = data.get(start..)?.chunks(PAGE);
        let first = zero(pages.next()?);
        let more = pages.take_while(|page| zero(page) == first).count();
        let from = start;
        start = data.len().min(from + (1 + more) * PAGE);
        Some((from..start, first))
    })
}

/// The Disk behind the gate. Offsets and lengths are whole pages inside the Disk: requests are judged
/// before they come here.
#[derive(Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) gate: &'a Gate,
}

impl Storage<'_> {
    /// Reads all of `buf`.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Failure> {
        self.gate.pass(|| self.disk.read_at(offset, buf))
    }

    /// Writes all of `data` into the Disk's volatile cache; durably with `fua`. A Disk that grants
    /// `dsync` takes a durable write in one access. On another one a flush follows; it makes older
    /// writes durable too, which is more than was asked for and never less.
    pub(super) fn write(&self, offset: u64, data: &[u8], fua: bool) -> Result<(), Failure> {
        self.gate.pass(|| {
            if !fua {
                self.disk.write_lazily_at(offset, data)
            } else if self.disk.grants().dsync {
                self.disk.write_at(offset, data)
            } else {
                self.disk.write_lazily_at(offset, data)?;
                self.disk.flush()
            }
        })
    }

    /// Zeroes `length` bytes, which may be almost 4 GiB, piece by piece: neither memory nor a cut of
    /// the storage has to wait for the whole.
    pub(super) fn zero(&self, offset: u64, length: u64, fua: bool) -> Result<(), Failure> {
        let end = offset + length;
        let dsync = self.disk.grants().dsync;
        let mut at = offset;
        while at < end {
            let piece = &ZEROES[..piece(end - at)];
            self.write(at, piece, fua && dsync)?;
            at += piece.len() as u64;
        }
        if fua && !dsync { self.flush() } else { Ok(()) }
    }

    /// Makes every completed write durable.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.gate.pass(|| self.disk.flush())
    }

    /// What reads as zeroes from `offset` on, at most `length` bytes far; with `one`, only the first
    /// extent. `scratch` is used to read; its content is lost.
    ///
    /// A Disk has no allocation map, so `base:allocation` is told by reading: slower than a map, but
    /// never wrong, and it spares whoever copies or compares an image the zeroes on the wire.
    pub(super) fn extents(
        &self,
        offset: u64,
        length: u32,
        one: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<Extent>, Failure> {
        let end = offset + u64::from(length).min(STATUS_REACH);
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = offset;
        while at < end {
            let data = room(scratch, piece(end - at));
            self.read(at, data)?;
            at += data.len() as u64;
            for (run, zero) in runs(data) {
                let bytes = length_of(run.len());
                match extents.last_mut() {
                    Some(last) if last.zero == zero => last.bytes += bytes,
                    Some(_) if one => return Ok(extents),
                    _ => extents.push(Extent { bytes, zero }),
                }
            }
        }
        Ok(extents)
    }
}

/// The next piece of what is left.
fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

/// The first `bytes` of a buffer that grows when it must.
pub(super) fn room(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_cover_all_pages_alternate_and_tell_the_truth(
            pages in prop::collection::vec(any::<bool>(), 0..20),
            at in 0..PAGE,
        ) {
            let mut data = vec![0; pages.len() * PAGE];
            for (page, filled) in data.chunks_mut(PAGE).zip(&pages) {
                page[at] = u8::from(*filled);
            }
            let mut next = 0;
            let mut before = None;
            for (run, zero) in runs(&data) {
                prop_assert_eq!(run.start, next);
                prop_assert!(!run.is_empty());
                prop_assert_ne!(before, Some(zero));
                for page in &pages[run.start / PAGE..run.end / PAGE] {
                    prop_assert_eq!(*page, !zero);
                }
                (next, before) = (run.end, Some(zero));
            }
            prop_assert_eq!(next, data.len());
        }
    }
}
