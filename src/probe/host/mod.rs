//! The host side of a probe: puts it into the guest, starts it, listens to it over a stream that
//! may break at any byte, and keeps what it says before saying that it was heard.
//!
//! Contract: a numbered frame is in the ack segment before `Heard` leaves; each is there exactly
//! once and in order, whatever happens to the stream; a time token is in the segment before it
//! leaves. Never judges, and never repeats a command that is not safe to repeat.
//! May use: guest, history, and `cluster::Deadline`.

mod attach;
mod binary;
mod deploy;
mod ear;
mod echo;
mod error;
mod files;
mod freeze;
mod link;
mod prober;
mod progress;
mod scan;

pub use binary::ProbeBinary;
pub use deploy::Reach;
pub use ear::Order;
pub use echo::{Echo, Echoes};
pub use error::ProbeError;
pub use files::{check_files, look_at_files};
pub use freeze::{Inside, thaw_files};
pub use prober::{Prober, Setup};
pub use progress::{LinkState, Progress, Stopped};
pub use scan::{Inspected, inspect};

#[cfg(test)]
mod tests;
