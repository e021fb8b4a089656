//! Evidence in, text out.
//!
//! Contract: pure; the same run directory gives the same bytes.
//! May use: plan, history, check.
