//! What travels between probe and host on any byte stream: framed, numbered, checksummed.
//!
//! Wire form, little-endian: magic u16 `0x5056`, type u8, reserved u8, payload length u32, seq u64,
//! payload, CRC32C u32 over everything before it. Guest frames that must not be lost carry seq ≥ 1
//! and stay in the probe's memory until the host says `Heard(seq)`; after a broken stream the host
//! says `Hello{heard}` and the probe delivers from `heard + 1` on. Frames with seq 0 are unnumbered.

use super::disk::Grants;

/// One volume as the probe opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Opened {
    /// Volume ordinal within the VM.
    pub volume: u8,
    /// Device or file path in the guest.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// What the target grants.
    pub grants: Grants,
}

/// Who is speaking: the guest and the probe process in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Identity {
    /// The incarnation that the host minted for this probe run.
    pub incarnation: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `/etc/machine-id`, empty if the guest has none.
    pub machine_id: String,
    /// Probe process id.
    pub pid: u32,
    /// The volumes, by ordinal.
    pub volumes: Vec<Opened>,
}

/// Writes that became durable at one rank: for each writer, all its writes up to `wseq`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Rank {
    /// `(writer, wseq watermark)`; in strict mode exactly one pair.
    pub marks: Vec<(u32, u64)>,
}

/// What a writer found in the lease cell of one volume, see [`super::lease`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Lease {
    /// Volume ordinal.
    pub volume: u8,
    /// How often it was read.
    pub reads: u64,
    /// The longest time between two reads, guest monotonic clock, nanoseconds.
    pub longest_ns: u64,
    /// What stood there that this writer did not put there, in words; a few of them, if many.
    pub foreign: Vec<String>,
}

/// A batch of consecutive durability ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Ack {
    /// The rank of `ranks[0]`; ranks count from 1 in each incarnation.
    pub first_rank: u64,
    /// The ranks, in order.
    pub ranks: Vec<Rank>,
    /// Guest monotonic clock at the latest of them that became durable, nanoseconds.
    pub mono_ns: u64,
    /// Guest wall clock at the same moment, nanoseconds since the epoch.
    pub real_ns: u64,
    /// A host token that the probe had before any of them became durable, the last or one of the last.
    pub token: u32,
    /// The longest gap between two durable writes since the previous frame, nanoseconds.
    pub max_gap_ns: u64,
}

/// The state of one cell as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(probe_standalone), serde(rename_all = "lowercase", tag = "state"))]
pub enum CellState {
    /// Whole, in its place, of this run and volume, its payload regenerated and equal.
    Ok {
        /// What it is for.
        kind: super::cell::Kind,
        /// Who wrote it.
        incarnation: u64,
        /// Writer number.
        writer: u32,
        /// Its sequence number.
        wseq: u64,
        /// Durability rank when it was issued.
        dep: u64,
        /// The last host token that the writer had.
        token: u32,
    },
    /// Sectors of different writes: bit `i` of `sectors` is set if sector `i` is whole and newest.
    Torn {
        /// Whole sectors of the newest write found.
        sectors: u8,
        /// Newest wseq found among whole sectors.
        wseq: u64,
        /// Its writer.
        writer: u32,
    },
    /// Not whole, and not explained by tearing.
    Corrupt,
    /// A whole cell of this run that belongs elsewhere.
    Misdirected {
        /// Volume id it was meant for equals this volume's.
        same_volume: bool,
        /// The cell it was meant for.
        cell: u64,
        /// Its first eight bytes of volume id.
        vol: u64,
    },
    /// A whole cell of another run.
    Foreign {
        /// First eight bytes of the other run's id.
        run: u64,
    },
    /// All zero.
    Zeroed,
    /// The read failed.
    Unreadable {
        /// The error number.
        errno: i32,
    },
}

/// One cell of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Seen {
    /// Cell index.
    pub cell: u64,
    /// What was found there.
    pub state: CellState,
}

/// A frame from the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(probe_standalone), serde(rename_all = "kebab-case"))]
pub enum FromGuest {
    /// First frame of a probe run and of each attach (seq 0 when repeated).
    Opened(Identity),
    /// The cold fill of one volume is durable.
    Filled {
        /// Volume ordinal.
        volume: u8,
        /// Cells written.
        cells: u64,
    },
    /// Writes became durable.
    Ack(Ack),
    /// A write failed: whether it took effect is unknown. The writer goes on with the next wseq.
    Unknown {
        /// Writer number.
        writer: u32,
        /// The write.
        wseq: u64,
        /// The error number.
        errno: i32,
    },
    /// Nothing new, but alive: sent every second while holding or stalled.
    Alive {
        /// Guest monotonic clock, nanoseconds.
        mono_ns: u64,
        /// The last token heard.
        token: u32,
    },
    /// The writers have stopped as told; everything issued is accounted for.
    Stopped {
        /// `(writer, last issued wseq)`.
        issued: Vec<(u32, u64)>,
        /// The last durability rank.
        last_rank: u64,
    },
    /// A scan of one volume begins.
    ScanBegin {
        /// Volume ordinal.
        volume: u8,
        /// Device size in bytes as the guest sees it now.
        size: u64,
    },
    /// Cells of the volume whose scan is under way, ascending. Cold cells that are as they should
    /// be are not listed but counted in `ScanEnd`.
    Cells(Vec<Seen>),
    /// The scan of the volume is complete.
    ScanEnd {
        /// Volume ordinal.
        volume: u8,
        /// Cells read.
        read: u64,
        /// Cold cells found as they should be.
        cold_ok: u64,
    },
    /// What the writer of a volume found in its lease cell since the frame before.
    Lease(Lease),
    /// The probe cannot go on; the text says what it tried and what it saw.
    Failed(String),
}

/// A frame to the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub enum ToGuest {
    /// First frame of each attach: everything up to `heard` has been journaled.
    Hello {
        /// The last frame seq journaled, 0 for none.
        heard: u64,
    },
    /// Everything up to this seq is journaled and may be forgotten.
    Heard(u64),
    /// A numbered mark in time, sent every 50 ms.
    Token(u32),
    /// Fill the cold region of every volume, then hold.
    Fill,
    /// Write one canary on each volume.
    Canary,
    /// Start the load.
    Start {
        /// Target writes per second over all writers; 0 is as fast as it goes.
        rate: u32,
        /// Writes between flushes; 0 is strict (each write durable by itself).
        batch: u32,
    },
    /// Stop the writers, make everything durable, answer `Stopped`.
    Stop,
    /// End the probe process.
    Quit,
}
