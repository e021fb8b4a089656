//! A route to a byte stream, and SSH on any stream.
//!
//! Contract: expects every stream to break at any byte; pins host keys; builds no shell string from
//! untrusted text. Only the establishment of a connection is ever retried; a command that may have
//! run is reported, never repeated.
//! May use: plan, cluster.

mod client;
pub mod error;
mod exec;
pub mod facts;
pub mod hostkey;
pub mod keys;
mod limit;
pub mod retry;
pub mod route;
pub mod shell;
mod tap;

pub use error::GuestError;
pub use facts::{DiskFact, FactsError, GuestFacts, System};
pub use hostkey::{HostKeyRule, HostSeen, Pins};
pub use keys::LoginKey;
pub(crate) use limit::within;
pub use retry::{Patience, connect};
pub use route::{BoxStream, DialError, HostPort, JumpHost, PortForward, Route};
pub use shell::{
    Ended, Exit, Finished, Job, Login, Milestone, OnMilestone, Output, Shell, Streams,
};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
