//! Ack segments: what one probe run's stream carried and when, in the order in which it was heard.
//!
//! A file is the 8-byte magic [`MAGIC`] and then records: length u32 (of what follows it up to the
//! checksum), kind u8, at_ns u64, body, CRC-32C u32 over length to body, and the first 16 bytes of
//! the BLAKE3 chain over everything so far. Little-endian. The last record of a segment that was
//! closed is an end mark with the record count; without it the tail may be missing.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::chain::{self, Link};
use super::sync::{RecordError, Synced, Syncer};
use crate::probe::crc::crc32c;

/// First bytes of a segment, format version included.
pub const MAGIC: &[u8; 8] = b"VPSEG 1\n";

/// The largest body of a record, bytes.
pub const MAX_BODY: usize = 4 << 20;

/// One thing that the host sent, heard or noticed on a probe's stream. Times are the run's
/// monotonic clock ([`super::recorder::Recorder::now_ns`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A time token was sent.
    Token {
        /// Taken before the token was handed to the transport.
        at_ns: u64,
        /// Its number.
        n: u32,
    },
    /// A frame came in.
    Frame {
        /// Taken when the last byte of the frame had been read.
        at_ns: u64,
        /// The frame's seq, 0 for unnumbered ones.
        seq: u64,
        /// The whole wire frame.
        bytes: Vec<u8>,
    },
    /// The stream came up or broke.
    Link {
        /// When it was noticed.
        at_ns: u64,
        /// Whether it is up now.
        up: bool,
    },
}

impl Record {
    /// When.
    pub const fn at_ns(&self) -> u64 {
        match self {
            Self::Token { at_ns, .. } | Self::Frame { at_ns, .. } | Self::Link { at_ns, .. } => {
                *at_ns
            }
        }
    }
}

const TOKEN: u8 = 1;
const FRAME: u8 = 2;
const LINK: u8 = 3;
const END: u8 = 0xFF;
/// kind and at_ns.
const HEAD: usize = 9;
/// Checksum and chain.
const TAIL: usize = 20;

fn encode(kind: u8, at_ns: u64, body: &[&[u8]]) -> Option<Vec<u8>> {
    let len = HEAD + body.iter().map(|part| part.len()).sum::<usize>();
    if len > HEAD + 8 + MAX_BODY {
        return None;
    }
    let mut out = Vec::with_capacity(4 + len + TAIL);
    out.extend_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&at_ns.to_le_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
    let crc = crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Some(out)
}

fn next_link(link: &Link, framed: &[u8]) -> Link {
    let mut hasher = blake3::Hasher::new();
    hasher.update(link);
    hasher.update(framed);
    *hasher.finalize().as_bytes()
}

/// Appends records to one segment. Each is handed to the operating system before `append` returns
/// (so it survives a killed process) and is on the disk within 10 ms (so it survives a power cut).
#[derive(Debug)]
pub struct SegmentWriter {
    file: Arc<Synced>,
    syncer: Arc<Syncer>,
    relative: String,
    link: Link,
    records: u64,
    last_ns: u64,
}

/// What a closed segment amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Path relative to the run directory.
    pub path: String,
    /// Records, the end mark excluded.
    pub records: u64,
    /// The end of its hash chain, hex.
    pub root: String,
}

impl SegmentWriter {
    pub(super) fn create(
        dir: &Path,
        name: &str,
        syncer: &Arc<Syncer>,
    ) -> Result<Self, RecordError> {
        let relative = format!("acks/{name}.seg");
        let file = syncer.create(dir.join(&relative))?;
        let mut writer = Self {
            file,
            syncer: Arc::clone(syncer),
            relative,
            link: next_link(&chain::GENESIS, MAGIC),
            records: 0,
            last_ns: 0,
        };
        writer.write(MAGIC)?;
        super::sync::sync_dir(&dir.join("acks")).map_err(|e| syncer.health().fail(e))?;
        Ok(writer)
    }

    /// Path relative to the run directory, as `Fact::IncarnationStarted` names it.
    pub fn path(&self) -> &str {
        &self.relative
    }

    /// Appends one record. A frame counts as heard once this has returned.
    pub fn append(&mut self, record: &Record) -> Result<(), RecordError> {
        let framed = match record {
            Record::Token { at_ns, n } => encode(TOKEN, *at_ns, &[&n.to_le_bytes()]),
            Record::Frame { at_ns, seq, bytes } => {
                encode(FRAME, *at_ns, &[&seq.to_le_bytes(), bytes])
            }
            Record::Link { at_ns, up } => encode(LINK, *at_ns, &[&[u8::from(*up)]]),
        };
        self.last_ns = self.last_ns.max(record.at_ns());
        self.records += 1;
        self.put(framed)
    }

    /// Writes the end mark and makes the whole segment durable. A segment that is not closed counts
    /// as truncated, and what rests on it as inconclusive.
    pub fn close(mut self) -> Result<Closed, RecordError> {
        let end = encode(END, self.last_ns, &[&self.records.to_le_bytes()]);
        self.put(end)?;
        let file = &self.file;
        file.file.sync_all().map_err(|e| {
            let error = RecordError::new(&file.path, "fsync", &e);
            self.syncer.health().fail(error)
        })?;
        Ok(Closed {
            path: self.relative,
            records: self.records,
            root: chain::hex(&self.link),
        })
    }

    fn put(&mut self, framed: Option<Vec<u8>>) -> Result<(), RecordError> {
        let Some(mut framed) = framed else {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the record is larger than {MAX_BODY} bytes"),
            );
            let error = RecordError::new(&self.file.path, "append a record", &error);
            return Err(self.syncer.health().fail(error));
        };
        self.link = next_link(&self.link, &framed);
        framed.extend_from_slice(&self.link[..16]);
        self.write(&framed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.syncer.health().check()?;
        let mut file = &self.file.file;
        file.write_all(bytes).map_err(|e| {
            let error = RecordError::new(&self.file.path, "append a record", &e);
            self.syncer.health().fail(error)
        })?;
        self.syncer.mark(&self.file);
        Ok(())
    }
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With its end mark: nothing is missing. The end of its chain, hex.
    Closed {
        /// The end of its hash chain, hex.
        root: String,
    },
    /// Within a record or without an end mark; the whole records before `at` are good.
    Torn {
        /// Offset of the first byte that belongs to no whole record.
        at: u64,
    },
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A record in the middle is damaged or was edited.
    #[error("damaged at byte {at}: {what}")]
    Corrupt {
        /// Where the record begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
}

/// Reads a segment record by record; see [`Reader::next`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes in the file.
    len: u64,
    at: u64,
    link: Link,
    records: u64,
    ending: Option<Ending>,
}

impl Reader<BufReader<File>> {
    /// Opens a segment file.
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Self::new(BufReader::with_capacity(1 << 16, file), len)
    }
}

impl<R: Read> Reader<R> {
    /// Reads `len` bytes of segment from `input`.
    pub fn new(mut input: R, len: u64) -> Result<Self, SegmentError> {
        let mut magic = [0; MAGIC.len()];
        let mut ending = None;
        let head = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        if len < head {
            ending = Some(Ending::Torn { at: 0 });
        } else {
            input.read_exact(&mut magic)?;
            if &magic != MAGIC {
                let what = "it does not begin as an ack segment of this version";
                return Err(SegmentError::Corrupt { at: 0, what });
            }
        }
        Ok(Self {
            input,
            len,
            at: head,
            link: next_link(&chain::GENESIS, MAGIC),
            records: 0,
            ending,
        })
    }

    /// How the segment ended, once [`Reader::next`] has given `None`.
    pub const fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The next whole record, or `None` at the end, whose kind [`Reader::ending`] then tells.
    #[expect(
        clippy::should_implement_trait,
        reason = "a fallible cursor whose ending is read afterwards"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, SegmentError> {
        if self.ending.is_some() {
            return Ok(None);
        }
        let left = self.len.saturating_sub(self.at);
        if left < wide(4 + HEAD + TAIL) {
            return Ok(self.torn());
        }
        let mut len = [0; 4];
        self.input.read_exact(&mut len)?;
        let size = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
        if !(HEAD..=HEAD + 8 + MAX_BODY).contains(&size) {
            // A power cut can leave zeros where the file had grown and the data had not arrived.
            let rest = left - 4;
            return if size == 0 && self.zeros(rest)? {
                Ok(self.torn())
            } else {
                Err(self.corrupt("its length makes no sense"))
            };
        }
        if left < wide(4 + size + TAIL) {
            return Ok(self.torn());
        }
        let mut framed = vec![0; 4 + size + TAIL];
        framed[..4].copy_from_slice(&len);
        self.input.read_exact(&mut framed[4..])?;
        let (body, tail) = framed.split_at(4 + size);
        let last = left == wide(framed.len());
        let link = next_link(&self.link, &framed[..framed.len() - 16]);
        if crc32c(body).to_le_bytes() != tail[..4] {
            return if last {
                Ok(self.torn())
            } else {
                Err(self.corrupt("its checksum does not match"))
            };
        }
        if link[..16] != tail[4..] {
            return Err(self.corrupt("it does not continue the record before; it was edited"));
        }
        let record = self.decode(&body[4..], link, last)?;
        self.link = link;
        self.at += wide(framed.len());
        self.records += u64::from(record.is_some());
        Ok(record)
    }

    fn decode(
        &mut self,
        body: &[u8],
        link: Link,
        last: bool,
    ) -> Result<Option<Record>, SegmentError> {
        let odd = || SegmentError::Corrupt {
            at: self.at,
            what: "it is of no kind that this version knows",
        };
        let (head, rest) = body.split_at_checked(HEAD).ok_or_else(odd)?;
        let at_ns = u64_at(head, 1).ok_or_else(odd)?;
        let record = match (head[0], rest) {
            (TOKEN, &[a, b, c, d]) => Record::Token {
                at_ns,
                n: u32::from_le_bytes([a, b, c, d]),
            },
            (LINK, &[up @ (0 | 1)]) => Record::Link { at_ns, up: up == 1 },
            (FRAME, rest) if rest.len() >= 8 => Record::Frame {
                at_ns,
                seq: u64_at(rest, 0).ok_or_else(odd)?,
                bytes: rest[8..].to_vec(),
            },
            (END, rest) => {
                if u64_at(rest, 0) != Some(self.records) || rest.len() != 8 {
                    return Err(self.corrupt("its end mark counts other records"));
                }
                if !last {
                    return Err(self.corrupt("records follow its end mark"));
                }
                self.ending = Some(Ending::Closed {
                    root: chain::hex(&link),
                });
                return Ok(None);
            }
            _ => return Err(odd()),
        };
        Ok(Some(record))
    }

    fn torn(&mut self) -> Option<Record> {
        self.ending = Some(Ending::Torn { at: self.at });
        None
    }

    fn corrupt(&self, what: &'static str) -> SegmentError {
        SegmentError::Corrupt { at: self.at, what }
    }

    fn zeros(&mut self, mut left: u64) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        while left > 0 {
            let take = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            self.input.read_exact(&mut chunk[..take])?;
            if chunk[..take].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            left -= wide(take);
        }
        Ok(true)
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(eight.try_into().ok()?))
}

#[cfg(test)]
mod tests;
