//! The lab answers as the recorded servers did: every recorded request is sent again, in order.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that reports"
)]

mod core;
mod crds;
mod harness;
mod kubevirt;
mod names;
mod published;
mod shape;
