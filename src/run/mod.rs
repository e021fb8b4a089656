//! Order, budgets, cancellation and undo on every exit path, then judgement.
//!
//! Contract: nothing is left behind, and every path writes a report.
//! May use: all modules but lab and cli.

mod begin;
mod cleanup;
mod error;
mod finish;
pub mod preflight;
mod trials;

pub use crate::evidence::{PLAN_FILE, UNDO_FILE, VERDICTS_FILE};
pub use begin::{base, recipes, templates};
pub use cleanup::{Cleaned, cleanup};
pub use error::RunError;
pub use finish::{Judged, Keep, judge, keep, seal};
pub use trials::{Ended, Request, run};
