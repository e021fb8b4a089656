//! Simulated sites behind real protocols and a real kubeconfig; faults by script.
//!
//! Contract: behaves like the real systems, traps included, never like our client expects. All
//! randomness comes from one printed seed. Nothing but `cli` and tests imports it.
//! May use: cluster::crd, workload, probe, and `history::event::Site` for naming its sites.

pub mod api;
pub mod array;
mod assembly;
pub mod clock;
pub mod control;
pub mod faults;
pub mod guest;
pub mod qemu;
pub mod storage;
pub mod vm;
pub mod world;

#[cfg(test)]
pub(crate) use assembly::promote_stall;
pub use assembly::{Lab, LabConfig, LabError};
pub use vm::Guests;
