//! The transmission phase of one connection: a request, its reply, the next request.

use std::io::{self, BufRead, Read, Write};

use super::export::Export;
use super::failure::Failure;
use super::gate::Gate;
use super::handshake::{Terms, negotiate};
use super::replies::Replies;
use super::request::{Command, Limits, Request};
use super::storage::{Storage, room};
use super::wire::{Broken, REQUEST_BYTES, command as kind};

/// A buffer that grew beyond this many bytes for a long request is given back after it.
const KEPT: usize = 1 << 20;

/// Serves one client from the greeting to the end. `Ok` if the client took its leave, or went
/// between two requests.
pub(super) fn serve(
    export: &Export,
    gate: &Gate,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Broken> {
    let Some(terms) = negotiate(export, &mut input, &mut output)? else {
        return Ok(());
    };
    tracing::debug!(?export, ?terms, "an NBD client begins");
    Transmission::new(export, gate, terms, input, output).run()
}

struct Transmission<'a, R, W> {
    input: R,
    replies: Replies<W>,
    storage: Storage<'a>,
    limits: Limits,
    /// Data on their way in or out.
    buffer: Vec<u8>,
}

impl<'a, R: BufRead, W: Write> Transmission<'a, R, W> {
    fn new(export: &'a Export, gate: &'a Gate, terms: Terms, input: R, output: W) -> Self {
        let disk = export.disk.as_ref();
        Self {
            input,
            replies: Replies::new(output, terms.structured),
            storage: Storage { disk, gate },
            limits: Limits {
                size: disk.size(),
                read_only: export.read_only,
                terms,
            },
            buffer: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), Broken> {
        while !self.ended()? {
            let mut header = [0; REQUEST_BYTES];
            self.input.read_exact(&mut header)?;
            let request = Request::parse(&header)?;
            if request.kind == kind::DISC {
                return Ok(());
            }
            if let Err(failure) = self.answer(&request)? {
                tracing::debug!(?request, %failure, "an NBD request failed");
                self.replies.failed(request.cookie, &failure)?;
            }
            if self.buffer.len() > KEPT {
                self.buffer.truncate(KEPT);
                self.buffer.shrink_to_fit();
            }
        }
        Ok(())
    }

    /// Whether the client has gone. Between two requests that is no error of the protocol.
    fn ended(&mut self) -> io::Result<bool> {
        loop {
            match self.input.fill_buf().map(<[u8]>::is_empty) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                ended => return ended,
            }
        }
    }

    /// Serves a request and replies, unless it fails.
    fn answer(&mut self, request: &Request) -> Result<Result<(), Failure>, Broken> {
        let command = match request.judge(&self.limits) {
            Ok(command) => command,
            Err(failure) => {
                self.skip(request.payload())?;
                return Ok(Err(failure));
            }
        };
        let (cookie, offset) = (request.cookie, request.offset);
        let length = request.length as usize;
        let served = match command {
            Command::Read { whole } => {
                let data = room(&mut self.buffer, length);
                match self.storage.read(offset, data) {
                    Ok(()) => return Ok(Ok(self.replies.data(cookie, offset, data, whole)?)),
                    Err(failure) => Err(failure),
                }
            }
            Command::Write { fua } => {
                let data = room(&mut self.buffer, length);
                self.input.read_exact(data)?;
                self.storage.write(offset, data, fua)
            }
            Command::Flush => self.storage.flush(),
            Command::Zero { fua } => self.storage.zero(offset, request.length.into(), fua),
            Command::BlockStatus { one } => {
                let scratch = &mut self.buffer;
                match self.storage.extents(offset, request.length, one, scratch) {
                    Ok(extents) => return Ok(Ok(self.replies.extents(cookie, &extents)?)),
                    Err(failure) => Err(failure),
                }
            }
        };
        if served.is_ok() {
            self.replies.done(cookie)?;
        }
        Ok(served)
    }

    /// Reads past the payload of a request that is not served. However long, it needs no memory.
    fn skip(&mut self, bytes: u32) -> Result<(), Broken> {
        let mut payload = self.input.by_ref().take(bytes.into());
        let skipped = io::copy(&mut payload, &mut io::sink())?;
        if skipped < bytes.into() {
            return Err(Broken::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}
