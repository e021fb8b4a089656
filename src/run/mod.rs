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

pub use begin::templates;
pub use cleanup::{Cleaned, cleanup};
pub use error::RunError;
pub use finish::{Judged, judge, render};
pub use trials::{Ended, Request, run};

/// The plan in a run directory.
pub const PLAN_FILE: &str = "plan.yaml";
/// The undo log in a run directory.
pub const UNDO_FILE: &str = "undo.jsonl";
/// The verdicts in a run directory.
pub const VERDICTS_FILE: &str = "verdicts.json";
