//! The catalogue: ordered steps that record facts and assert nothing.
//!
//! Contract: announces before acting; everything a verdict needs becomes an event.
//! May use: all modules but check, run, report, lab and cli.

pub mod catalogue;
mod commits;
mod hands;
mod member;
mod recipe;
mod step;
mod trial;
mod trouble;
mod world;

pub use hands::{GuestHands, drop_key, keep_key, kept_key};
pub use member::Member;
pub use recipe::admissible;
pub use trial::{Trial, heal};
pub use world::{Mint, World, hex, short};
