//! Order, budgets, cancellation and undo on every exit path, then judgement.
//!
//! Contract: nothing is left behind, and every path writes a report.
//! May use: all modules but lab and cli.
