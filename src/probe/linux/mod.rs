//! A real Linux guest: disks by serial or path, a file system where a volume asks for one, clocks.
//!
//! Contract: formats only a blank disk and only for a new ledger; every failure says what was tried
//! and what was seen. Needs root for devices; for file volumes `mount`, `mkfs` and the checker of
//! their file system.

mod file;
mod mount;
mod sysfs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::config::{FileTarget, Locator, Purpose, Target, Volume};
use super::disk::Disk;
use super::layout::CELL;
use super::platform::{Access, Clock, FileSystems, Freezes, OpenError, OpenVolume, Platform};

pub use file::FileDisk;
pub use sysfs::{DiskInfo, Sysfs};

/// The ledger file's name on its file system.
pub const LEDGER: &str = "ledger.vpl";
/// The largest ledger file that is made unless the config pins its cells: every byte of it is
/// written, and what is written is replicated.
const MOST_LEDGER: u64 = 256 << 20;
/// The guest that this process runs in.
#[derive(Debug)]
pub struct Linux {
    sysfs: Sysfs,
}

impl Default for Linux {
    fn default() -> Self {
        Self {
            sysfs: Sysfs::new("/"),
        }
    }
}

impl Linux {
    /// The disks of this guest.
    pub fn disks(&self) -> io::Result<Vec<DiskInfo>> {
        self.sysfs.disks()
    }

    /// The network cards of this guest, by name, each with its hardware address.
    pub fn cards(&self) -> io::Result<Vec<(String, String)>> {
        self.sysfs.cards()
    }

    fn locate(&self, on: &Locator) -> Result<PathBuf, OpenError> {
        match on {
            Locator::Serial(serial) => self.sysfs.find(serial),
            Locator::Path(path) => Ok(PathBuf::from(path)),
        }
    }

    fn open_path(&self, path: &Path, access: Access) -> Result<OpenVolume, OpenError> {
        let shown = path.display();
        let write_back = self.sysfs.has_write_cache(path);
        let disk = FileDisk::open(path, access, write_back)
            .map_err(|error| OpenError::io(format!("opening {shown}"), error))?;
        if access == Access::Read && !disk.grants().direct {
            // Only clean pages go, so this cannot lose anything. Without the right to do it the
            // grants still say that the reads were cached.
            fs::write("/proc/sys/vm/drop_caches", "1").ok();
        }
        Ok(OpenVolume {
            path: shown.to_string(),
            disk: Arc::new(disk),
        })
    }

    fn open_file(
        &self,
        cells: Option<u64>,
        target: &FileTarget,
        may_make: bool,
        access: Access,
    ) -> Result<OpenVolume, OpenError> {
        let device = self.locate(&target.on)?;
        mount::mount(&device, target, may_make, access)?;
        let path = Path::new(&target.mount).join(LEDGER);
        if may_make && !path.exists() {
            let size = cells.map_or_else(
                || Ok((mount::size_of(&device)? / 2).min(MOST_LEDGER)),
                |cells| Ok(cells * CELL as u64),
            )?;
            mount::make_ledger(&path, size)
                .map_err(|error| OpenError::io(format!("creating {}", path.display()), error))?;
            mount::remount(&device, target, access)?;
        }
        self.open_path(&path, access)
    }
}

impl Platform for Linux {
    fn open(
        &self,
        volume: &Volume,
        purpose: Purpose,
        access: Access,
    ) -> Result<OpenVolume, OpenError> {
        match &volume.target {
            Target::Raw(on) => self.open_path(&self.locate(on)?, access),
            Target::File(target) => {
                let may_make = purpose == Purpose::Load && access == Access::Write;
                self.open_file(volume.cells, target, may_make, access)
            }
        }
    }

    fn boot_id(&self) -> String {
        sysfs::read_word(Path::new("/proc/sys/kernel/random/boot_id"))
    }

    fn machine_id(&self) -> String {
        sysfs::read_word(Path::new("/etc/machine-id"))
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock(Instant::now()))
    }
}

impl FileSystems for Linux {
    fn device(&self, on: &Locator) -> Result<OpenVolume, OpenError> {
        let path = self.locate(on)?;
        self.open_path(&path, Access::Read)
    }

    fn check(&self, target: &FileTarget) -> Result<(Option<bool>, String), OpenError> {
        mount::check(&self.locate(&target.on)?, target)
    }
}

impl Freezes for Linux {
    fn freeze(&self, target: &FileTarget) -> io::Result<()> {
        let device = self.locate(&target.on).map_err(io::Error::other)?;
        mount::fsfreeze("--freeze", &device, target)
    }

    fn thaw(&self, target: &FileTarget) -> io::Result<()> {
        let device = self.locate(&target.on).map_err(io::Error::other)?;
        mount::fsfreeze("--unfreeze", &device, target)
    }
}

/// The clocks of this process: `CLOCK_MONOTONIC` (what [`Instant`] is on Linux) from the time it was
/// made, and `CLOCK_REALTIME`.
#[derive(Debug)]
pub struct SystemClock(pub Instant);

impl Clock for SystemClock {
    fn mono_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn real_ns(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            })
    }
}

#[cfg(test)]
mod tests;
