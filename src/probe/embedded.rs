//! The static probe executable that `build.rs` compiled for this build's own architecture.

/// The executable.
pub static BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtproof-probe"));

/// The architecture that it runs on, as `uname -m` says it.
pub const ARCH: &str = env!("VIRTPROOF_PROBE_ARCH");
