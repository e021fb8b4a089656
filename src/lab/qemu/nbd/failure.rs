//! Errors as a client of NBD may see them ("Error values").

use std::fmt;
use std::io;

/// The error numbers this server sends. `NBD_ENOMEM` is left out as the protocol advises, and
/// `NBD_EOVERFLOW` because no read is too long to go in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Errno {
    /// `NBD_EPERM`: a write to a read-only export or a demoted image.
    Perm = 1,
    /// `NBD_EIO`: the storage failed or is gone.
    Io = 5,
    /// `NBD_EINVAL`: the request is not one that can be served.
    Inval = 22,
    /// `NBD_ENOSPC`: no room, or a write beyond the end.
    NoSpc = 28,
    /// `NBD_ENOTSUP`: only ever in reply to `NBD_CMD_FLAG_FAST_ZERO`.
    NotSup = 95,
    /// `NBD_ESHUTDOWN`: the server is closing.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    pub(super) fn number(self) -> u32 {
        self as u32
    }
}

/// A request that was not served: the number for the client's program, the sentence for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    pub(super) why: String,
}

impl Failure {
    /// A failure of this kind.
    pub(super) fn new(errno: Errno, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { errno, why }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.errno, self.why)
    }
}

impl From<io::Error> for Failure {
    /// What the Disk's error is to a client. Everything that the protocol has no own number for is
    /// `NBD_EIO`; so is `Unsupported`, as `NBD_ENOTSUP` would tell the client to ask without
    /// `NBD_CMD_FLAG_FAST_ZERO`.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let errno = match error.kind() {
            Kind::ReadOnlyFilesystem | Kind::PermissionDenied => Errno::Perm,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Errno::NoSpc,
            Kind::InvalidInput => Errno::Inval,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_errors_become_the_numbers_that_the_protocol_has_for_them() {
        let (eperm, eio, eagain, enomem, erofs) = (1, 5, 11, 12, 30);
        let (einval, efbig, enospc, edquot, enotsup) = (22, 27, 28, 122, 95);
        for (raw, wanted) in [
            (eperm, Errno::Perm),
            (erofs, Errno::Perm),
            (eio, Errno::Io),
            (eagain, Errno::Io),
            (enomem, Errno::Io),
            (enotsup, Errno::Io),
            (einval, Errno::Inval),
            (efbig, Errno::NoSpc),
            (enospc, Errno::NoSpc),
            (edquot, Errno::NoSpc),
        ] {
            let failure = Failure::from(io::Error::from_raw_os_error(raw));
            assert_eq!(failure.errno, wanted, "errno {raw}");
            assert!(!failure.why.is_empty());
        }
        let numbers = [Errno::Perm, Errno::Io, Errno::Inval, Errno::NoSpc];
        assert_eq!(numbers.map(Errno::number), [1, 5, 22, 28]);
        assert_eq!(
            [Errno::NotSup, Errno::Shutdown].map(Errno::number),
            [95, 108]
        );
    }
}
