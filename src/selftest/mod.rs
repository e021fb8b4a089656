//! The proof that every check can fail and never fails wrongly: each row of the fault table is put
//! into effect in a run of this program, and what the run said is held against what the row ordains.
//!
//! Contract: rows run as a user would run them, in processes of their own; judging them
//! (`word`, `coverage`) is pure. Nothing that could not be shown is called caught.
//! May use: plan, history, check, run, sim, scenario's catalogue, lab::faults.

mod actor;
mod coverage;
mod html;
mod matrix;
mod seen;
mod simulated;
mod table;
#[cfg(test)]
mod tests;
mod word;

pub use actor::{Actor, chosen};
pub use coverage::{Gap, gaps, scenario_checks, without};
pub use html::render as html;
pub use matrix::{Matrix, Row, Tally};
pub use seen::Seen;
pub use simulated::{Family, Simulated, simulate};
pub use table::render as table;
pub use word::{Word, judge};
