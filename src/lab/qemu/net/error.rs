//! What can go wrong on a segment, in the words of the system calls that it stands for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::GUEST;

/// Why a segment cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The socket cannot be made.
    #[error(
        "the socket `{}` for the network of a guest cannot be made: {why}; the path must be new and \
         shorter than 108 bytes, its directory writable",
        path.display()
    )]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
}

/// The guest was not heard of in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest did not answer ARP for {GUEST} within {waited:?}: {asked} requests went out, {ports} \
     QEMU processes are plugged in, {}",
    last_heard(*.heard)
)]
pub struct Unheard {
    /// How long was waited.
    pub waited: Duration,
    /// How many requests were made meanwhile.
    pub asked: u64,
    /// How many QEMU processes were connected at the end.
    pub ports: usize,
    /// How long before the end the guest was heard for the last time, if ever.
    pub heard: Option<Duration>,
}

fn last_heard(heard: Option<Duration>) -> String {
    heard.map_or_else(
        || "it was never heard".to_owned(),
        |ago| format!("it was last heard {ago:?} ago"),
    )
}
