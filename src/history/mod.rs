//! What happened: owned, serialisable, versioned, in one order, append-only and hash-chained.
//!
//! Contract: the only writer and reader of a run directory's facts. Knows nothing of verdicts.
//! May use: nothing in this crate but the wire types of `probe`.

pub mod acks;
pub mod chain;
pub mod event;
pub mod read;
pub mod recorder;
pub mod scanfile;
pub mod segment;
mod sync;

pub use sync::RecordError;
