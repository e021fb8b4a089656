//! Evidence in, text out.
//!
//! Contract: pure; the same run directory gives the same bytes.
//! May use: plan, history, check.

pub mod html;
pub mod junit;
pub mod markdown;
pub mod view;
