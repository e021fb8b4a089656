//! The probe inside a guest: uploaded bytes that equal the embedded probe run the probe library in
//! this process, over the guest's disks.

use std::sync::Arc;

use bytes::Bytes;

use super::machine::Machine;
use super::shell::{Status, Stdio};

/// The probe processes of a guest.
#[derive(Debug, Default)]
pub(super) struct Probes {}

impl Probes {
    /// Ends every daemon after its write in flight.
    pub(super) fn stop(&self) {}

    /// Whether a daemon listens on a socket path.
    pub(super) fn listens(&self, _path: &str) -> bool {
        false
    }
}

/// Whether these bytes are the probe and run on this architecture.
pub(super) fn is_ours(_content: &Bytes, _arch: &str) -> bool {
    false
}

/// The bytes as a file's content; the probe's are shared by all guests that have it.
pub(super) fn shared(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Runs the probe with its subcommand.
pub(super) async fn run(
    _machine: &Arc<Machine>,
    _user: &str,
    _arguments: &[String],
    stdio: &mut Stdio,
) -> Status {
    stdio.err.put(b"").await;
    1
}
