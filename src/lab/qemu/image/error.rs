//! Why there is no guest image, each in one sentence that says what to do.

use std::io;
use std::path::Path;

/// Why a guest image could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host is not Debian, or a Debian without apt.
    #[error(
        "`{tool}` is not on this host, and the guest image is made from Debian's packages: use a \
         Debian 12 or newer host with apt, or give a kernel and an initrd of your own"
    )]
    NoTool {
        /// The command that is missing.
        tool: &'static str,
    },
    /// apt's package lists do not have it.
    #[error(
        "apt on this host knows no package `{package}`: run `apt-get update` as root (Debian 12 or \
         newer, amd64), or give a kernel and an initrd of your own"
    )]
    Unknown {
        /// The package.
        package: String,
    },
    /// apt ran and failed.
    #[error(
        "`{command}` failed ({said}): check that this host reaches its package mirror and run \
         `apt-get update` as root"
    )]
    Apt {
        /// What was run, cut.
        command: String,
        /// apt's first error line.
        said: String,
    },
    /// A downloaded file is not the one that the package list describes.
    #[error(
        "the downloaded package {package} has SHA256 {found} where apt's lists say {wanted}: run \
         `apt-get update` as root and try again"
    )]
    Digest {
        /// The package.
        package: String,
        /// What the list says.
        wanted: String,
        /// What the file has.
        found: String,
    },
    /// A package does not hold what every Debian release so far has in it.
    #[error("the package {package} is not as expected: {why}")]
    Package {
        /// The package.
        package: String,
        /// What was wrong.
        why: String,
    },
    /// No package brings a library that a program needs.
    #[error("no package that {package} depends on brings {library}, which {file} needs")]
    Library {
        /// The package of the program.
        package: String,
        /// The program.
        file: String,
        /// The soname.
        library: String,
    },
    /// The kernel cannot be used.
    #[error("the kernel {kernel} cannot be used: {why}")]
    Kernel {
        /// Which one.
        kernel: String,
        /// What was wrong.
        why: String,
    },
    /// A kernel or an initrd of the user's own that is no file.
    #[error("{path} cannot be read as a guest's {role}: {why}")]
    Own {
        /// The path given.
        path: String,
        /// `kernel` or `initrd`.
        role: &'static str,
        /// What was wrong.
        why: String,
    },
    /// No place for the cache.
    #[error(
        "no folder for the guest image cache: neither XDG_CACHE_HOME nor HOME is an absolute path"
    )]
    NoCache,
    /// The host's own files.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    /// Turns an I/O error on a path into one that says what was tried.
    pub(super) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }

    /// A package that is not as expected.
    pub(super) fn package(package: &str, why: impl Into<String>) -> Self {
        Self::Package {
            package: package.to_owned(),
            why: why.into(),
        }
    }
}

/// A word that a guest would misread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` cannot be the {what} of a guest: {rule}")]
pub struct Unfit {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl Unfit {
    /// `value`, cut and made printable, is no legal `what`, for which `rule` holds.
    pub(super) fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        let value = value.escape_debug().take(80).collect();
        Self { what, value, rule }
    }
}
