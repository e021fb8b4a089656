//! Evidence in, text out.
//!
//! Contract: pure; the same run directory gives the same bytes.
//! May use: plan, history, check.

mod build;
pub mod html;
pub mod junit;
pub mod live;
pub mod markdown;
mod marks;
mod record;
pub mod sample;
pub mod table;
pub mod view;

pub use build::{PLANTED, build};

#[cfg(test)]
mod tests;
