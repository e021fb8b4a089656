//! The plan: text in, one validated immutable value out.
//!
//! Contract: the only reader of plan YAML; nobody re-reads YAML or the environment later.
//! May use: nothing in this crate.

pub mod model;
