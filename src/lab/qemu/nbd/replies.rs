//! Replies of the transmission phase: "Simple reply message" and "Structured reply chunk message".

use std::io::{self, Write};

use super::failure::Failure;
use super::storage::{Extent, runs};
use super::wire::{
    SIMPLE_REPLY_MAGIC, STRING_MAX, STRUCTURED_REPLY_MAGIC, allocation, chunk, length as length_of,
};

/// Where replies go. Each leaves whole: the output gathers what is written and sends it when the
/// reply ends, in one piece unless it carries much data.
#[derive(Debug)]
pub(super) struct Replies<W> {
    output: W,
    structured: bool,
}

impl<W: Write> Replies<W> {
    /// Replies to `output`, which should be buffered; `structured` as negotiated.
    pub(super) fn new(output: W, structured: bool) -> Self {
        Self { output, structured }
    }

    /// Success of a request other than a read. A simple reply will do for it on all connections,
    /// and is the shorter one.
    pub(super) fn done(&mut self, cookie: u64) -> io::Result<()> {
        self.simple(0, cookie)?;
        self.output.flush()
    }

    /// Failure of any request; a client that takes structured replies gets the sentence too.
    pub(super) fn failed(&mut self, cookie: u64, failure: &Failure) -> io::Result<()> {
        let errno = failure.errno.number();
        if self.structured {
            let mut end = failure.why.len().min(STRING_MAX);
            while !failure.why.is_char_boundary(end) {
                end -= 1;
            }
            let why = &failure.why.as_bytes()[..end];
            // 16 bits: the lower half, which STRING_MAX fits.
            let [_, _, length @ ..] = length_of(why.len()).to_be_bytes();
            let parts = [&errno.to_be_bytes()[..], &length, why];
            self.chunk(chunk::DONE, chunk::ERROR, cookie, &parts)?;
        } else {
            self.simple(errno, cookie)?;
        }
        self.output.flush()
    }

    /// The data of a read, all read by now, so that the last chunk can be the end of the reply.
    /// Pages of zeroes go as holes unless the client wants the data in one piece (`whole`), or takes
    /// simple replies only.
    pub(super) fn data(
        &mut self,
        cookie: u64,
        offset: u64,
        data: &[u8],
        whole: bool,
    ) -> io::Result<()> {
        if !self.structured {
            self.simple(0, cookie)?;
            self.output.write_all(data)?;
        } else if data.is_empty() {
            self.chunk(chunk::DONE, chunk::NONE, cookie, &[])?;
        } else if whole {
            let parts = [&offset.to_be_bytes(), data];
            self.chunk(chunk::DONE, chunk::OFFSET_DATA, cookie, &parts)?;
        } else {
            for (run, zero) in runs(data) {
                let flags = if run.end == data.len() {
                    chunk::DONE
                } else {
                    0
                };
                let at = (offset + run.start as u64).to_be_bytes();
                if zero {
                    let bytes = length_of(run.len()).to_be_bytes();
                    self.chunk(flags, chunk::OFFSET_HOLE, cookie, &[&at, &bytes])?;
                } else {
                    self.chunk(flags, chunk::OFFSET_DATA, cookie, &[&at, &data[run]])?;
                }
            }
        }
        self.output.flush()
    }

    /// The block status of `base:allocation`. On the thin storage behind a Disk zeroes take no room,
    /// so they are holes, whose later writing may fail for want of it. Of all else 0 is said, which
    /// the protocol calls safe for any block.
    pub(super) fn extents(&mut self, cookie: u64, extents: &[Extent]) -> io::Result<()> {
        let mut list = Vec::with_capacity(extents.len() * 8);
        for extent in extents {
            let state = if extent.zero {
                allocation::STATE_HOLE | allocation::STATE_ZERO
            } else {
                0
            };
            list.extend(extent.bytes.to_be_bytes());
            list.extend(state.to_be_bytes());
        }
        let parts = [&allocation::ID.to_be_bytes()[..], &list];
        self.chunk(chunk::DONE, chunk::BLOCK_STATUS, cookie, &parts)?;
        self.output.flush()
    }

    fn simple(&mut self, errno: u32, cookie: u64) -> io::Result<()> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        header[4..8].copy_from_slice(&errno.to_be_bytes());
        header[8..].copy_from_slice(&cookie.to_be_bytes());
        self.output.write_all(&header)
    }

    fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut header = [0; 20];
        header[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        header[4..6].copy_from_slice(&flags.to_be_bytes());
        header[6..8].copy_from_slice(&kind.to_be_bytes());
        header[8..16].copy_from_slice(&cookie.to_be_bytes());
        header[16..].copy_from_slice(&length_of(length).to_be_bytes());
        self.output.write_all(&header)?;
        parts
            .iter()
            .try_for_each(|part| self.output.write_all(part))
    }
}
