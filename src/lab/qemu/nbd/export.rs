//! What is served: a Disk under a name, and what the protocol says about it before transmission.

use std::fmt;
use std::sync::Arc;

use super::wire::{PAGE, STRING_MAX, transmission as flag};
use crate::probe::disk::Disk;

/// One export. Clients find it under its name, and under the empty name, which is the default export
/// of its socket.
#[derive(Clone)]
pub struct Export {
    /// The storage.
    pub disk: Arc<dyn Disk>,
    /// Whether writes, trims and zeroing are refused with `NBD_EPERM`.
    pub read_only: bool,
    /// Its canonical name: UTF-8 without NUL, at most 4096 bytes ("Conventions").
    pub name: String,
    /// For people, in listings; may be empty. The same limits.
    pub description: String,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("bytes", &self.disk.size())
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// Whether a client that asks for `name` means this export.
    pub(super) fn answers_to(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }

    /// What keeps it from being served, if anything.
    pub(super) fn defect(&self) -> Option<String> {
        let size = self.disk.size();
        for (what, text) in [("name", &self.name), ("description", &self.description)] {
            if text.len() > STRING_MAX {
                return Some(format!("its {what} has more than {STRING_MAX} bytes"));
            }
            if text.contains('\0') {
                return Some(format!("its {what} has a NUL in it"));
            }
        }
        (size == 0 || !size.is_multiple_of(PAGE as u64))
            .then(|| format!("its {size} bytes are not a positive number of whole pages of {PAGE}"))
    }

    /// The "Transmission flags". `NBD_FLAG_SEND_DF` belongs to structured replies.
    ///
    /// `NBD_FLAG_CAN_MULTI_CONN` is a promise that this server can give: all connections write to
    /// the same Disk and its one cache, and its flush covers every write that was completed before,
    /// whichever connection it came on. `NBD_FLAG_SEND_FAST_ZERO` only lets clients ask: a Disk has
    /// no way of zeroing that beats a write, so the answer is always `NBD_ENOTSUP`.
    pub(super) fn transmission_flags(&self, structured: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN;
        flags |= if self.read_only {
            flag::READ_ONLY
        } else {
            flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO
        };
        if structured {
            flags |= flag::SEND_DF;
        }
        flags
    }
}
