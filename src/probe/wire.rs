//! The envelope of frames on a byte stream, see [`super::frame`] for its layout, and the integers
//! and strings inside.
//!
//! Contract: never resynchronises. After one bad byte the stream is of no more use, because acks
//! that were skipped would look like writes that never happened.

use std::io::{self, Read};

use super::crc::crc32c;

/// Magic of every frame, little-endian on the wire.
pub const MAGIC: u16 = 0x5056;
/// Bytes before the payload.
pub const PREFIX: usize = 16;
/// The longest payload that either side accepts, bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// The longest text within a frame, bytes; longer ones are cut when encoded.
pub const MAX_TEXT: usize = 4096;
const CRC: usize = 4;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The stream does not stand at a frame.
    Magic(u16),
    /// The length field exceeds [`MAX_PAYLOAD`].
    TooLong(u32),
    /// The checksum does not fit.
    Crc {
        /// What the frame carries.
        carried: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A type that this side does not know.
    Kind(u8),
    /// The bytes end inside a frame or a field.
    Truncated,
    /// Bytes are left after the last field.
    Trailing(usize),
    /// A field holds what it cannot mean; the text names it.
    Value(&'static str),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic(seen) => write!(f, "expected frame magic {MAGIC:#06x}, saw {seen:#06x}"),
            Self::TooLong(len) => write!(
                f,
                "frame payload of {len} bytes exceeds the limit of {MAX_PAYLOAD}"
            ),
            Self::Crc { carried, computed } => write!(
                f,
                "frame carries CRC32C {carried:08x} but its bytes give {computed:08x}"
            ),
            Self::Kind(kind) => write!(f, "unknown frame type {kind:#04x}"),
            Self::Truncated => f.write_str("the frame ends too early"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes follow the last field of the frame"),
            Self::Value(field) => write!(f, "frame field {field} is out of range"),
        }
    }
}
impl std::error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A whole frame whose checksum holds, its payload not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Frame type.
    pub kind: u8,
    /// Frame number, 0 for unnumbered frames.
    pub seq: u64,
    /// The frame as on the wire, from magic to CRC: what the history keeps.
    pub bytes: Vec<u8>,
}

impl Raw {
    /// Takes exactly one frame from `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        match split(bytes)? {
            Some((raw, used)) if used == bytes.len() => Ok(raw),
            Some((_, used)) => Err(FrameError::Trailing(bytes.len() - used)),
            None => Err(FrameError::Truncated),
        }
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[PREFIX..self.bytes.len() - CRC]
    }

    /// Reads one frame from a blocking stream, `None` at an end between frames.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; PREFIX];
        if !read_or_end(stream, &mut bytes)? {
            return Ok(None);
        }
        let total = PREFIX + payload_len(&bytes)? + CRC;
        bytes.resize(total, 0);
        stream.read_exact(&mut bytes[PREFIX..])?;
        Ok(Some(Self::parse(&bytes)?))
    }
}

/// Fills `bytes`, or returns false if the stream ends before the first of them.
fn read_or_end(stream: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    let mut have = 0;
    while have < bytes.len() {
        match stream.read(&mut bytes[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(FrameError::Truncated.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Wraps a payload.
pub fn seal(kind: u8, seq: u64, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= MAX_PAYLOAD, "producers bound their frames");
    let mut out = Vec::with_capacity(PREFIX + payload.len() + CRC);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[kind, 0]);
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Takes a stream apart into frames as its bytes arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    broken: Option<FrameError>,
}

impl Decoder {
    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, `None` while it is incomplete. After an error every call gives that error.
    pub fn next_frame(&mut self) -> Result<Option<Raw>, FrameError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        match split(&self.buffer[self.start..]) {
            Ok(Some((raw, used))) => {
                self.start += used;
                Ok(Some(raw))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.broken = Some(error);
                Err(error)
            }
        }
    }

    /// To be called when the stream has ended: fails if it ended within a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.broken {
            Some(error) => Err(error),
            None if self.buffer.len() > self.start => Err(FrameError::Truncated),
            None => Ok(()),
        }
    }
}

/// The first frame of `bytes` and its length, `None` if more bytes are needed.
fn split(bytes: &[u8]) -> Result<Option<(Raw, usize)>, FrameError> {
    if bytes.len() < PREFIX {
        // A wrong magic shows before the prefix is complete: a chatty login shell must not hang us.
        let magic = MAGIC.to_le_bytes();
        let have = bytes.len().min(magic.len());
        return if bytes[..have] == magic[..have] {
            Ok(None)
        } else {
            let seen = bytes.iter().take(2).rev();
            Err(FrameError::Magic(
                seen.fold(0, |acc, &byte| acc << 8 | u16::from(byte)),
            ))
        };
    }
    let end = PREFIX + payload_len(bytes)?;
    let Some(crc) = bytes.get(end..end + CRC) else {
        return Ok(None);
    };
    let carried = crc
        .iter()
        .rev()
        .fold(0, |acc, &byte| acc << 8 | u32::from(byte));
    let computed = crc32c(&bytes[..end]);
    if carried != computed {
        return Err(FrameError::Crc { carried, computed });
    }
    let mut get = Get(&bytes[2..PREFIX]);
    let kind = get.u8()?;
    if get.u8()? != 0 {
        return Err(FrameError::Value("reserved"));
    }
    get.fixed::<4>()?;
    let seq = u64::from_le_bytes(get.fixed()?);
    let raw = Raw {
        kind,
        seq,
        bytes: bytes[..end + CRC].to_vec(),
    };
    Ok(Some((raw, end + CRC)))
}

/// The payload length in a complete prefix.
fn payload_len(prefix: &[u8]) -> Result<usize, FrameError> {
    let mut get = Get(prefix);
    let magic = u16::from_le_bytes(get.fixed()?);
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    get.fixed::<2>()?;
    let len = u32::from_le_bytes(get.fixed()?);
    match usize::try_from(len) {
        Ok(len) if len <= MAX_PAYLOAD => Ok(len),
        _ => Err(FrameError::TooLong(len)),
    }
}

/// Writes fields.
#[derive(Debug, Default)]
pub(super) struct Put(pub(super) Vec<u8>);

impl Put {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// LEB128, as in DWARF and protocol buffers.
    pub(super) fn uint(&mut self, value: impl Into<u64>) {
        let mut value = value.into();
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// A number near `last`, in either direction; any pair of numbers is representable.
    pub(super) fn near(&mut self, value: u64, last: u64) {
        let delta = value.wrapping_sub(last).cast_signed();
        self.uint((delta << 1 ^ delta >> 63).cast_unsigned());
    }

    pub(super) fn len(&mut self, len: usize) {
        self.uint(u64::try_from(len).unwrap_or(u64::MAX));
    }

    pub(super) fn text(&mut self, text: &str) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        self.len(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Reads fields.
#[derive(Debug)]
pub(super) struct Get<'a>(pub(super) &'a [u8]);

impl Get<'_> {
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn uint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FrameError::Value("integer"))
    }

    /// An integer that must fit a narrower type; `field` names it in the error.
    pub(super) fn narrow<T: TryFrom<u64>>(&mut self, field: &'static str) -> Result<T, FrameError> {
        T::try_from(self.uint()?).or(Err(FrameError::Value(field)))
    }

    pub(super) fn near(&mut self, last: u64) -> Result<u64, FrameError> {
        let zigzag = self.uint()?;
        let delta = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        Ok(last.wrapping_add(delta.cast_unsigned()))
    }

    /// A count of items that take at least one byte each, so that it cannot ask for more memory
    /// than the frame justifies.
    pub(super) fn count(&mut self) -> Result<usize, FrameError> {
        match usize::try_from(self.uint()?) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(FrameError::Truncated),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, FrameError> {
        let len = self.count()?;
        if len > MAX_TEXT {
            return Err(FrameError::Value("text length"));
        }
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        match str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(FrameError::Value("text")),
        }
    }

    pub(super) fn end(&self) -> Result<(), FrameError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(FrameError::Trailing(left)),
        }
    }
}
