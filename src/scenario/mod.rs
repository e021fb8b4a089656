//! The catalogue: ordered steps that record facts and assert nothing.
//!
//! Contract: announces before acting; everything a verdict needs becomes an event.
//! May use: all modules but check, run, report, lab and cli.
