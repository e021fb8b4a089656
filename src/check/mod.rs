//! History in, verdicts out: pure and total.
//!
//! Contract: no I/O, no clock, no randomness; the same history gives byte-identical verdicts.
//! May use: plan, history, the probe's record format.

pub mod verdict;
