//! The self-describing 4 KiB cell: who wrote it, when in which order, and proof that it is whole.
//!
//! Layout, little-endian. Bytes 0..128 header, then payload; each 512-byte sector ends in a
//! 16-byte stamp, so that a torn cell says which sectors belong to which write.
//!
//! | at | field | | at | field |
//! |---|---|---|---|---|
//! | 0 | magic `VPL1` | | 72 | cell u64 |
//! | 4 | fmt u8, kind u8, flags u16 | | 80 | prev_wseq u64 |
//! | 8 | run_id 16 | | 88 | dep u64 |
//! | 24 | vol_id 16 | | 96 | chain u64 |
//! | 40 | incarnation u64 | | 104 | mono_ns u64 |
//! | 48 | writer u32 | | 112 | token u32 |
//! | 52 | op_index u16, op_len u16 | | 116 | zero u32 |
//! | 56 | wseq u64 | | 120 | real seconds u32 |
//! | 64 | gseq u64 | | 124 | header CRC32C u32 |
//!
//! Stamp: cell u32 (low half), wseq u32 (low half), writer u16 (low half), tag 48 bits, which the
//! run's seed, the volume, the incarnation and the whole numbers before give. The payload of a sector
//! follows from its stamp, see [`super::payload`], and the header has its CRC. So every byte is proved: a
//! sector's by itself, and a cell's by what its header says.

use super::crc::crc32c;
use super::layout::{CELL, mix};
use super::payload;

/// What a cell is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(probe_standalone), serde(rename_all = "lowercase"))]
pub enum Kind {
    /// Written once before the clock starts, never again.
    Fill = 1,
    /// Random overwrite in the hot region.
    Hot = 2,
    /// Commit record in the log ring.
    Log = 3,
    /// Written after recovery, outside everything that is judged.
    Canary = 4,
}

/// The decoded header of a whole cell. Times are the guest's and serve only gaps inside the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Header {
    /// What the cell is for.
    pub kind: Kind,
    /// The run that wrote it.
    pub run_id: [u8; 16],
    /// The logical volume, derived from run and logical PVC, not from the PVC UID.
    pub vol_id: [u8; 16],
    /// Site (8 bits), counter (24) and host nonce (32) of the probe run that wrote it.
    pub incarnation: u64,
    /// Writer number within the VM, see [`super::layout`].
    pub writer: u32,
    /// Position within a multi-cell operation.
    pub op_index: u16,
    /// Cells in the operation, 1 for single writes.
    pub op_len: u16,
    /// The writer's sequence number, from 1 in each incarnation.
    pub wseq: u64,
    /// VM-wide issue order, from 1 in each incarnation.
    pub gseq: u64,
    /// Cell index that this was meant for.
    pub cell: u64,
    /// The wseq that this cell held before in this incarnation, 0 if none.
    pub prev_wseq: u64,
    /// Durability rank of the VM when the write was issued: how many ranks were durable before it.
    pub dep: u64,
    /// Hash of the previous log record for log cells, 0 otherwise.
    pub chain: u64,
    /// Guest monotonic clock at issue, nanoseconds.
    pub mono_ns: u64,
    /// The last host token that the probe had when it issued the write.
    pub token: u32,
    /// Guest wall clock at issue, seconds since the epoch, low 32 bits.
    pub real_s: u32,
}

/// A fixed-size buffer for one cell.
pub type Bytes = [u8; CELL];

/// Format number in the header. Before 2, checksums of the sectors stood for their proof.
pub const FORMAT: u8 = 2;
/// The first four bytes of every cell.
pub const MAGIC: [u8; 4] = *b"VPL1";
/// Bytes in a sector, the unit that a disk may tear a write at.
pub const SECTOR: usize = 512;
/// Sectors in a cell.
pub const SECTORS: usize = CELL / SECTOR;

pub(super) const HEADER: usize = 128;
const HEADER_CRC: usize = HEADER - 4;

impl Kind {
    /// The kind with this number on disk and on the wire.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Fill),
            2 => Some(Self::Hot),
            3 => Some(Self::Log),
            4 => Some(Self::Canary),
            _ => None,
        }
    }
}

/// What the end of a whole sector says about the write that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Low half of the cell that it was meant for.
    pub cell: u32,
    /// Low half of the writer number.
    pub writer: u16,
    /// Low half of the wseq.
    pub wseq: u32,
    /// What sets writes apart that agree in the others, 48 bits.
    pub tag: u64,
}

impl Stamp {
    fn to_key(self) -> payload::Key {
        let mut key = [0; payload::KEY];
        key[..4].copy_from_slice(&self.cell.to_le_bytes());
        key[4..8].copy_from_slice(&self.wseq.to_le_bytes());
        key[8..10].copy_from_slice(&self.writer.to_le_bytes());
        key[10..].copy_from_slice(&self.tag.to_le_bytes()[..6]);
        key
    }

    fn from_key(key: &payload::Key) -> Self {
        Self {
            cell: u32_at(key, 0),
            wseq: u32_at(key, 4),
            writer: u16_at(key, 8),
            tag: u64_at(key, 8) >> 16,
        }
    }
}

impl Header {
    /// The stamp that every sector of this cell carries under `seed`.
    pub fn stamp(&self, seed: u64) -> Stamp {
        let [a, b] = [u64_at(&self.vol_id, 0), u64_at(&self.vol_id, 8)];
        let writer = u64::from(self.writer);
        let drawn = [a, b, self.cell, self.incarnation, writer, self.wseq]
            .into_iter()
            .fold(mix(seed), |key, part| mix(key ^ part));
        Stamp {
            cell: low32(self.cell),
            writer: low16(writer),
            wseq: low32(self.wseq),
            tag: drawn >> 16,
        }
    }

    /// Whether a stamp is of this write, as far as that can be said without the seed.
    pub fn bears(&self, stamp: &Stamp) -> bool {
        let own = (
            low32(self.cell),
            low16(u64::from(self.writer)),
            low32(self.wseq),
        );
        own == (stamp.cell, stamp.writer, stamp.wseq)
    }

    /// Reads the header of a cell, or `None` unless its magic, format, kind and CRC all fit.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        if bytes[..4] != MAGIC || bytes[4] != FORMAT {
            return None;
        }
        if u32_at(bytes, HEADER_CRC) != crc32c(&bytes[..HEADER_CRC]) {
            return None;
        }
        Some(Self {
            kind: Kind::from_byte(bytes[5])?,
            run_id: array_at(bytes, 8),
            vol_id: array_at(bytes, 24),
            incarnation: u64_at(bytes, 40),
            writer: u32_at(bytes, 48),
            op_index: u16_at(bytes, 52),
            op_len: u16_at(bytes, 54),
            wseq: u64_at(bytes, 56),
            gseq: u64_at(bytes, 64),
            cell: u64_at(bytes, 72),
            prev_wseq: u64_at(bytes, 80),
            dep: u64_at(bytes, 88),
            chain: u64_at(bytes, 96),
            mono_ns: u64_at(bytes, 104),
            token: u32_at(bytes, 112),
            real_s: u32_at(bytes, 120),
        })
    }

    /// Writes the whole cell: header, and the stamps and payload that it must carry under `seed`.
    pub fn encode(&self, seed: u64, out: &mut Bytes) {
        payload::fill(&self.stamp(seed).to_key(), out);
        out[..4].copy_from_slice(&MAGIC);
        out[4] = FORMAT;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&[0; 2]);
        out[8..24].copy_from_slice(&self.run_id);
        out[24..40].copy_from_slice(&self.vol_id);
        out[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        out[48..52].copy_from_slice(&self.writer.to_le_bytes());
        out[52..54].copy_from_slice(&self.op_index.to_le_bytes());
        out[54..56].copy_from_slice(&self.op_len.to_le_bytes());
        out[56..64].copy_from_slice(&self.wseq.to_le_bytes());
        out[64..72].copy_from_slice(&self.gseq.to_le_bytes());
        out[72..80].copy_from_slice(&self.cell.to_le_bytes());
        out[80..88].copy_from_slice(&self.prev_wseq.to_le_bytes());
        out[88..96].copy_from_slice(&self.dep.to_le_bytes());
        out[96..104].copy_from_slice(&self.chain.to_le_bytes());
        out[104..112].copy_from_slice(&self.mono_ns.to_le_bytes());
        out[112..116].copy_from_slice(&self.token.to_le_bytes());
        out[116..120].copy_from_slice(&[0; 4]);
        out[120..124].copy_from_slice(&self.real_s.to_le_bytes());
        let header = crc32c(&out[..HEADER_CRC]);
        out[HEADER_CRC..HEADER].copy_from_slice(&header.to_le_bytes());
    }

    /// Whether every sector carries the stamp and the payload that this cell must carry under `seed`.
    /// With the header's own CRC that is every byte.
    pub fn is_carried_by(&self, seed: u64, bytes: &Bytes) -> bool {
        payload::carries(&self.stamp(seed).to_key(), bytes)
    }
}

/// The stamp of each sector, `None` unless the sector is whole: its payload follows from its stamp and
/// its place, and the first one's header agrees.
pub fn sector_stamps(bytes: &Bytes) -> [Option<Stamp>; SECTORS] {
    let mut stamps = [None; SECTORS];
    let sectors = bytes.as_chunks::<SECTOR>().0.iter().enumerate();
    for (stamp, (index, sector)) in stamps.iter_mut().zip(sectors) {
        *stamp = payload::proved(index, sector).map(|key| Stamp::from_key(&key));
    }
    let header = Header::decode(bytes);
    stamps[0] = stamps[0].filter(|stamp| header.is_some_and(|header| header.bears(stamp)));
    stamps
}

/// Whether a cell is whole and of one write, for readers without its seed.
pub fn is_whole(bytes: &Bytes) -> bool {
    let [first, others @ ..] = sector_stamps(bytes);
    first.is_some() && others.iter().all(|stamp| *stamp == first)
}

/// The hash by which a log record names its predecessor: over the predecessor's whole header.
pub fn chain(bytes: &Bytes) -> u64 {
    bytes[..HEADER]
        .as_chunks::<8>()
        .0
        .iter()
        .fold(0, |hash, word| mix(hash ^ u64::from_le_bytes(*word)))
}

/// The low half, which is all that a sector trailer has room for.
pub const fn low32(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

const fn low16(value: u64) -> u16 {
    (value & 0xFFFF) as u16
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
