//! The self-describing 4 KiB cell: who wrote it, when in which order, and proof that it is whole.
//!
//! Layout, little-endian. Bytes 0..128 header, then payload; each 512-byte sector ends in a
//! 16-byte trailer, so that a torn cell says which sectors belong to which write.
//!
//! | at | field | | at | field |
//! |---|---|---|---|---|
//! | 0 | magic `VPL1` | | 72 | cell u64 |
//! | 4 | fmt u8, kind u8, flags u16 | | 80 | prev_wseq u64 |
//! | 8 | run_id 16 | | 88 | dep u64 |
//! | 24 | vol_id 16 | | 96 | chain u64 |
//! | 40 | incarnation u64 | | 104 | mono_ns u64 |
//! | 48 | writer u32 | | 112 | token u32 |
//! | 52 | op_index u16, op_len u16 | | 116 | payload CRC32C u32 |
//! | 56 | wseq u64 | | 120 | real seconds u32 |
//! | 64 | gseq u64 | | 124 | header CRC32C u32 |
//!
//! Sector trailer (last 16 bytes of each 512): cell u32 (low half), sector u16, writer u16 (low
//! half), wseq u32 (low half), CRC32C u32 of the sector's first 508 bytes.

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
