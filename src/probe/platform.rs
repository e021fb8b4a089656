//! What the probe needs of the machine that it runs in: its disks, its names and its clocks. Real
//! Linux answers in [`super::linux`]; the lab's simulated guests answer for themselves.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::config::{FileTarget, Locator, Purpose, Volume};
use super::disk::Disk;

/// The guest's clocks.
pub trait Clock: Send + Sync {
    /// Monotonic nanoseconds from an arbitrary origin within one boot.
    fn mono_ns(&self) -> u64;
    /// Wall clock, nanoseconds since the Unix epoch.
    fn real_ns(&self) -> u64;
}

/// A volume as opened.
pub struct OpenVolume {
    /// Device or file path in the guest.
    pub path: String,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

/// Why a volume could not be opened, in words: what was tried and what was seen.
#[derive(Debug)]
pub struct OpenError {
    /// What was tried and what was seen.
    pub what: String,
    /// The system error behind it, if there is one.
    pub source: Option<io::Error>,
}

impl OpenError {
    /// An error without a system error behind it.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// An error of the system while doing `what`.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            what: what.into(),
            source: Some(source),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.what),
            None => f.write_str(&self.what),
        }
    }
}
impl std::error::Error for OpenError {}

/// What a volume is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only, beside whoever else has it open.
    Read,
    /// Reading and writing, alone.
    Write,
    /// Reading and writing, beside somebody who keeps to another part of it.
    Beside,
}

/// A guest.
pub trait Platform: Send + Sync {
    /// Finds and opens a volume. With [`Purpose::Load`] and [`Access::Write`] a file target is made
    /// on a blank disk; otherwise nothing on the disk changes.
    fn open(
        &self,
        volume: &Volume,
        purpose: Purpose,
        access: Access,
    ) -> Result<OpenVolume, OpenError>;
    /// Boot id of the running kernel.
    fn boot_id(&self) -> String;
    /// Machine id, empty if there is none.
    fn machine_id(&self) -> String;
    /// Id of the probe process.
    fn pid(&self) -> u32;
    /// The guest's clocks.
    fn clock(&self) -> Arc<dyn Clock>;
}

/// The file systems that a guest's file volumes carry, apart from the ledger on them.
pub trait FileSystems {
    /// The device under a file volume for reading, past any mount.
    fn device(&self, on: &Locator) -> Result<OpenVolume, OpenError>;
    /// Mounts the file system of a file volume, which recovers its journal or log, unmounts it and
    /// has its own checker look without changing anything. Whether it is sound, `None` if there is no
    /// checker, and what was said. What cannot be mounted is not sound. It must not be mounted yet.
    fn check(&self, target: &FileTarget) -> Result<(Option<bool>, String), OpenError>;
}

/// What `fsfreeze` does in a guest.
pub trait Freezes: Send + Sync {
    /// Freezes the file system of a file volume, which must be mounted. Blocks for what is under way.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] if it is frozen already, whoever froze it.
    fn freeze(&self, target: &FileTarget) -> io::Result<()>;
    /// Thaws it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is not frozen.
    fn thaw(&self, target: &FileTarget) -> io::Result<()>;
}
