//! What happened: owned, serialisable, versioned, in one order, append-only and hash-chained.
//!
//! Contract: the only writer and reader of a run directory's facts. Knows nothing of verdicts.
//! May use: nothing in this crate but the wire types of `probe`.

pub mod event;
