//! The numbers of the NBD protocol ("Values"), named as there without the prefix `NBD_`, and the two
//! ways in which bytes can make a connection useless.

use std::io;

/// A count of bytes as the protocol writes most lengths.
#[expect(
    clippy::cast_possible_truncation,
    reason = "messages are bounded by LONGEST, the data of an option and the strings of an export"
)]
pub(super) fn length(bytes: usize) -> u32 {
    bytes as u32
}

/// `NBDMAGIC`, the server's first word.
pub(super) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before the handshake flags and before each option.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before each reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before each request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before each simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply.
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request without its payload ("Request message").
pub(super) const REQUEST_BYTES: usize = 28;
/// The longest string a message may carry ("Conventions").
pub(super) const STRING_MAX: usize = 4096;

/// Pages of the Disk: the smallest addressable piece of the export, and the preferred one.
pub(super) const PAGE: usize = 4096;
/// The longest read or write: what the protocol calls portable and QEMU never exceeds.
pub(super) const LONGEST: u32 = 32 << 20;

/// "Handshake flags" and the "Client flags" that answer them: the same bits mean the same.
pub(super) mod handshake {
    pub(crate) const FIXED_NEWSTYLE: u16 = 1;
    pub(crate) const NO_ZEROES: u16 = 1 << 1;
}

/// "Transmission flags".
pub(super) mod transmission {
    pub(crate) const HAS_FLAGS: u16 = 1;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// "Option types".
pub(super) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

/// "Option reply types".
pub(super) mod option_reply {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    pub(crate) const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub(crate) const ERR_INVALID: u32 = (1 << 31) + 3;
    pub(crate) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub(crate) const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Information types of `NBD_REP_INFO`.
pub(super) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DESCRIPTION: u16 = 2;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// "Request types".
pub(super) mod command {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// "Command flags".
pub(super) mod command_flag {
    pub(crate) const FUA: u16 = 1;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
    pub(crate) const FAST_ZERO: u16 = 1 << 4;
}

/// "Structured reply types".
pub(super) mod chunk {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const OFFSET_HOLE: u16 = 2;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const ERROR: u16 = (1 << 15) + 1;
    /// `NBD_REPLY_FLAG_DONE` of "Structured reply flags".
    pub(crate) const DONE: u16 = 1;
}

/// The metadata context `base:allocation`.
pub(super) mod allocation {
    pub(crate) const NAMESPACE: &str = "base:";
    pub(crate) const NAME: &str = "base:allocation";
    /// Its id on every connection of this server.
    pub(crate) const ID: u32 = 1;
    pub(crate) const STATE_HOLE: u32 = 1;
    pub(crate) const STATE_ZERO: u32 = 1 << 1;
}

/// Why a connection ends other than by the client's wish. Nothing of it can be told to the client,
/// which is what "hard disconnect" is for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The client vanished, or the server is closing.
    #[error("the client's stream ended within a message or failed: {0}")]
    Stream(#[from] io::Error),
    /// What follows cannot be told apart any more.
    #[error("the client sent {found:#x} where the protocol wants the magic number {wanted:#x}")]
    Magic {
        /// The protocol's number.
        wanted: u64,
        /// The client's.
        found: u64,
    },
    /// "Client flags": unknown ones must end the connection.
    #[error("the client set the handshake flags {0:#x}, of which some were never offered")]
    Flags(u32),
    /// `NBD_OPT_EXPORT_NAME` has no error reply.
    #[error("the client asked with NBD_OPT_EXPORT_NAME for an export that is not here: {0}")]
    Export(String),
}
