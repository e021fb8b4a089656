//! Requests of the transmission phase: reading their header, and judging them before anything is
//! done ("Request message", "Command flags", "Error values").

use super::failure::{Errno, Failure};
use super::handshake::Terms;
use super::wire::{
    Broken, LONGEST, PAGE, REQUEST_BYTES, REQUEST_MAGIC, command as kind, command_flag as flag,
};

/// The header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) kind: u16,
    /// The client's name for the request, called handle in older texts.
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What is to be done. Where it writes, `fua` asks that it be durable before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// `NBD_CMD_READ`; `whole` if in one chunk (`NBD_CMD_FLAG_DF`).
    Read { whole: bool },
    /// `NBD_CMD_WRITE`; the data follow.
    Write { fua: bool },
    /// `NBD_CMD_FLUSH`. Its offset and length are reserved and not looked at.
    Flush,
    /// `NBD_CMD_TRIM`, and `NBD_CMD_WRITE_ZEROES`, which a Disk has only one answer to. What
    /// `NBD_CMD_FLAG_NO_HOLE` asks for is beyond a Disk: on thin storage a written page of zeroes
    /// and one never written are the same.
    Zero { fua: bool },
    /// `NBD_CMD_BLOCK_STATUS`; `one` if about one extent only (`NBD_CMD_FLAG_REQ_ONE`).
    BlockStatus { one: bool },
}

/// What a request is measured against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the export, as told in the handshake.
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) terms: Terms,
}

impl Request {
    /// Reads a header; only the magic number can be wrong here.
    pub(super) fn parse(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, Broken> {
        let (wanted, found) = (REQUEST_MAGIC, u32::from_be_bytes(field(bytes, 0)));
        if found != wanted {
            let (wanted, found) = (wanted.into(), found.into());
            return Err(Broken::Magic { wanted, found });
        }
        Ok(Self {
            flags: u16::from_be_bytes(field(bytes, 4)),
            kind: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            length: u32::from_be_bytes(field(bytes, 24)),
        })
    }

    /// Bytes that follow the header, whatever comes of the request.
    pub(super) fn payload(&self) -> u32 {
        if self.kind == kind::WRITE {
            self.length
        } else {
            0
        }
    }

    /// What the request asks for, or why it cannot be had. Never touches the Disk.
    pub(super) fn judge(&self, limits: &Limits) -> Result<Command, Failure> {
        let fua = self.flags & flag::FUA != 0;
        let (command, known) = match self.kind {
            kind::READ => {
                let whole = self.flags & flag::DF != 0;
                let df = if limits.terms.structured { flag::DF } else { 0 };
                (Command::Read { whole }, df)
            }
            kind::WRITE => (Command::Write { fua }, 0),
            kind::FLUSH => (Command::Flush, 0),
            kind::TRIM => (Command::Zero { fua }, 0),
            kind::WRITE_ZEROES => (Command::Zero { fua }, flag::NO_HOLE | flag::FAST_ZERO),
            kind::BLOCK_STATUS if limits.terms.allocation => {
                let one = self.flags & flag::REQ_ONE != 0;
                (Command::BlockStatus { one }, flag::REQ_ONE)
            }
            kind::BLOCK_STATUS => return Err(invalid("no metadata context was selected")),
            other => return Err(invalid(format!("command {other} is not known here"))),
        };
        // FUA is to be taken with every command, even where it means nothing.
        let unknown = self.flags & !(known | flag::FUA);
        if unknown != 0 {
            let text = format!("flags {unknown:#x} do not belong to command {}", self.kind);
            return Err(invalid(text));
        }
        if matches!(command, Command::Write { .. } | Command::Zero { .. }) && limits.read_only {
            return Err(Failure::new(Errno::Perm, "the export is read-only"));
        }
        if command != Command::Flush {
            self.fits(limits)?;
        }
        if self.kind == kind::WRITE_ZEROES && self.flags & flag::FAST_ZERO != 0 {
            let text = "zeroing is no faster here than writing";
            return Err(Failure::new(Errno::NotSup, text));
        }
        Ok(command)
    }

    /// "Block size constraints" and the end of the export. Only `NBD_CMD_TRIM` and
    /// `NBD_CMD_BLOCK_STATUS` may be longer than the maximum block size, and zeroing with
    /// `NBD_CMD_FLAG_FAST_ZERO`, which then fails for that.
    fn fits(&self, limits: &Limits) -> Result<(), Failure> {
        let page = PAGE as u64;
        let (offset, length) = (self.offset, u64::from(self.length));
        if !offset.is_multiple_of(page) || !length.is_multiple_of(page) {
            let text = format!("{length} bytes at {offset} are not whole pages of {page}");
            return Err(invalid(text));
        }
        let bounded = match self.kind {
            kind::READ | kind::WRITE => true,
            kind::WRITE_ZEROES => self.flags & flag::FAST_ZERO == 0,
            _ => false,
        };
        if bounded && self.length > LONGEST {
            let text = format!("{length} bytes are more than the maximum of {LONGEST}");
            return Err(invalid(text));
        }
        if self.length == 0 && self.kind == kind::BLOCK_STATUS {
            return Err(invalid("nothing has no status"));
        }
        if offset
            .checked_add(length)
            .is_some_and(|end| end <= limits.size)
        {
            return Ok(());
        }
        let errno = match self.kind {
            kind::WRITE | kind::WRITE_ZEROES => Errno::NoSpc,
            _ => Errno::Inval,
        };
        let text = format!("{length} bytes at {offset} end beyond {}", limits.size);
        Err(Failure::new(errno, text))
    }
}

/// The field at `from` of a header.
fn field<const N: usize>(header: &[u8; REQUEST_BYTES], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[from..from + N]);
    field
}

fn invalid(why: impl Into<String>) -> Failure {
    Failure::new(Errno::Inval, why)
}
