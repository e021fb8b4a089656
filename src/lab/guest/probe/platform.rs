//! A simulated guest as the probe library sees it: disks by serial, and the file system on those
//! that carry one.

use std::io;
use std::sync::{Arc, PoisonError};

use super::filesystem::{File, Make, Mounted};
use super::holds::busy;
use crate::lab::guest::GuestDisk;
use crate::lab::guest::freeze::Mount;
use crate::lab::guest::machine::Machine;
use crate::probe::config::{FileTarget, Locator, Purpose, Target, Volume};
use crate::probe::linux::{DiskInfo, LEDGER, SystemClock};
use crate::probe::platform::{
    Access, Clock, FileSystems, Freezes, OpenError, OpenVolume, Platform,
};

/// One probe process in a guest.
pub(super) struct Process {
    /// The guest.
    pub(super) machine: Arc<Machine>,
    /// Process id.
    pub(super) pid: u32,
}

impl Process {
    fn disk(&self, on: &Locator) -> Result<GuestDisk, OpenError> {
        let found = self.machine.disks().into_iter().find(|disk| match on {
            Locator::Serial(serial) => disk.serial == *serial,
            Locator::Path(path) => path.strip_prefix("/dev/") == Some(disk.name.as_str()),
        });
        found.ok_or_else(|| OpenError::new(format!("no disk with {on}")))
    }

    /// The ledger file of a file volume. For writing its file system is mounted, once per boot.
    fn ledger(
        &self,
        target: &FileTarget,
        make: Option<Make>,
        access: Access,
    ) -> Result<File, OpenError> {
        let disk = self.disk(&target.on)?;
        let device = format!("/dev/{}", disk.name);
        let machine = &self.machine;
        let mut mounted = machine
            .mounted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = match (mounted.get(&device), access) {
            (Some(found), _) => Arc::clone(found),
            (None, Access::Read) => {
                return File::read(Arc::clone(&disk.disk), &device, target.kind);
            }
            (None, Access::Write | Access::Beside) => {
                self.not_taken(&device, "mounting")?;
                let (disk, planted) = (Arc::clone(&disk.disk), machine.planted.clone());
                let new = Mounted::mount(disk, &device, target.kind, make, planted)?;
                machine.freezer.mounts(Arc::clone(&new) as Arc<dyn Mount>);
                mounted.insert(device, Arc::clone(&new));
                new
            }
        };
        Ok(File::of(found, Arc::clone(&machine.freezer)))
    }

    /// A device that a probe has open exclusively can neither be mounted nor checked.
    fn not_taken(&self, device: &str, doing: &str) -> Result<(), OpenError> {
        if self.machine.probes.is_taken(device) {
            return Err(OpenError::io(format!("{doing} {device}"), busy()));
        }
        Ok(())
    }

    /// Takes a device as `O_EXCL` does: from a mounted file system and from another probe it cannot be
    /// taken.
    fn take_device(&self, path: &str) -> Result<(), OpenError> {
        let refused = |error| OpenError::io(format!("opening {path}"), error);
        let mounted = &self.machine.mounted;
        let mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if mounted.contains_key(path) {
            return Err(refused(busy()));
        }
        self.machine.probes.take(path, self.pid).map_err(refused)
    }

    /// Locks a ledger file.
    fn take_file(&self, path: &str) -> Result<(), OpenError> {
        let taken = self.machine.probes.take(path, self.pid);
        taken.map_err(|_busy| {
            let why = io::Error::new(io::ErrorKind::ResourceBusy, "another probe holds it");
            OpenError::io(format!("opening {path}"), why)
        })
    }
}

/// A disk of a guest as the probe describes it.
pub(super) fn describe(disk: &GuestDisk) -> DiskInfo {
    DiskInfo {
        name: disk.name.clone(),
        serial: disk.serial.clone(),
        size: disk.disk.size(),
        write_back: disk.disk.grants().write_back,
        removable: false,
        read_only: disk.read_only,
    }
}

impl Platform for Process {
    fn open(
        &self,
        volume: &Volume,
        purpose: Purpose,
        access: Access,
    ) -> Result<OpenVolume, OpenError> {
        match &volume.target {
            Target::Raw(on) => {
                let device = self.device(on)?;
                if access == Access::Write {
                    self.take_device(&device.path)?;
                }
                Ok(device)
            }
            Target::File(target) => {
                let may_make = purpose == Purpose::Load && access == Access::Write;
                let cells = volume.cells;
                let make = may_make.then_some(Make { cells });
                let ledger = self.ledger(target, make, access)?;
                let path = format!("{}/{LEDGER}", target.mount);
                if access == Access::Write {
                    self.take_file(&path)?;
                }
                Ok(OpenVolume {
                    path,
                    disk: Arc::new(ledger),
                })
            }
        }
    }

    fn boot_id(&self) -> String {
        self.machine.boot_id.to_string()
    }

    fn machine_id(&self) -> String {
        self.machine.state.machine_id.clone()
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(GuestClock {
            clock: SystemClock(self.machine.booted_at),
            off: self.machine.planted.clock_off(),
        })
    }
}

impl FileSystems for Process {
    fn device(&self, on: &Locator) -> Result<OpenVolume, OpenError> {
        let disk = self.disk(on)?;
        Ok(OpenVolume {
            path: format!("/dev/{}", disk.name),
            disk: Arc::clone(&disk.disk),
        })
    }

    fn check(&self, target: &FileTarget) -> Result<(Option<bool>, String), OpenError> {
        let disk = self.disk(&target.on)?;
        let device = format!("/dev/{}", disk.name);
        let mounted = &self.machine.mounted;
        let mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if mounted.contains_key(&device) {
            let what = format!("{device} is mounted, so it cannot be checked");
            return Err(OpenError::new(what));
        }
        self.not_taken(&device, "checking")?;
        let (disk, planted) = (Arc::clone(&disk.disk), self.machine.planted.clone());
        let once = match Mounted::mount(disk, &device, target.kind, None, planted) {
            Ok(once) => once,
            Err(error) => return Ok((Some(false), format!("it does not mount: {error}"))),
        };
        once.unmount()
            .map_err(|error| OpenError::io(format!("unmounting {device}"), error))?;
        Ok((
            Some(true),
            "its superblock and journal are whole".to_owned(),
        ))
    }
}

impl Process {
    fn mounted(&self, target: &FileTarget) -> io::Result<Arc<Mounted>> {
        let disk = self.disk(&target.on).map_err(io::Error::other)?;
        let device = format!("/dev/{}", disk.name);
        let mounted = &self.machine.mounted;
        let mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.get(&device).cloned().ok_or_else(|| {
            let what = format!("{device} is not mounted at {}", target.mount);
            io::Error::new(io::ErrorKind::NotFound, what)
        })
    }

    /// As `fsfreeze` says what the kernel answered.
    fn told(doing: &str, target: &FileTarget, done: io::Result<()>) -> io::Result<()> {
        done.map_err(|error| {
            let said = match error.kind() {
                io::ErrorKind::ResourceBusy => "Device or resource busy".to_owned(),
                io::ErrorKind::InvalidInput => "Invalid argument".to_owned(),
                _ => error.to_string(),
            };
            let what = format!("fsfreeze: {}: {doing} failed: {said}", target.mount);
            io::Error::new(error.kind(), what)
        })
    }
}

impl Freezes for Process {
    fn freeze(&self, target: &FileTarget) -> io::Result<()> {
        let mounted = self.mounted(target)?;
        if self.machine.planted.fsfreeze_idles() {
            return Ok(());
        }
        let frozen = mounted.freeze(&self.machine.freezer);
        Self::told("freeze", target, frozen)?;
        self.machine.planted.froze();
        Ok(())
    }

    fn thaw(&self, target: &FileTarget) -> io::Result<()> {
        let mounted = self.mounted(target)?;
        if self.machine.planted.fsfreeze_idles() {
            return Ok(());
        }
        let thawed = mounted.thaw(&self.machine.freezer);
        Self::told("unfreeze", target, thawed)?;
        self.machine.planted.thawed();
        Ok(())
    }
}

/// The host's clock, with a guest's idea of the time of day.
struct GuestClock {
    clock: SystemClock,
    off: i64,
}

impl Clock for GuestClock {
    fn mono_ns(&self) -> u64 {
        self.clock.mono_ns()
    }

    fn real_ns(&self) -> u64 {
        self.clock.real_ns().saturating_add_signed(self.off)
    }
}
