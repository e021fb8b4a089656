//! A simulated guest as the probe library sees it: disks by serial, and the file system on those
//! that carry one.

use std::sync::{Arc, PoisonError};

use super::{filesystem, journal};
use crate::lab::guest::GuestDisk;
use crate::lab::guest::freeze::Frozen;
use crate::lab::guest::machine::Machine;
use crate::probe::config::{Locator, Purpose, Target, Volume};
use crate::probe::disk::Disk;
use crate::probe::linux::{DiskInfo, LEDGER, SystemClock};
use crate::probe::platform::{Access, Clock, OpenError, OpenVolume, Platform};

/// One probe process in a guest.
pub(super) struct Process {
    /// The guest.
    pub(super) machine: Arc<Machine>,
    /// Process id.
    pub(super) pid: u32,
}

impl Process {
    fn disk(&self, on: &Locator) -> Result<&GuestDisk, OpenError> {
        let found = self.machine.disks.iter().find(|disk| match on {
            Locator::Serial(serial) => disk.serial == *serial,
            Locator::Path(path) => path.strip_prefix("/dev/") == Some(disk.name.as_str()),
        });
        found.ok_or_else(|| OpenError::new(format!("no disk with {on}")))
    }

    /// Mounts the file system on a device, once per boot: its journal is replayed, if it has one.
    fn mount(&self, disk: &dyn Disk, device: &str) -> Result<(), OpenError> {
        let mounted = &self.machine.mounted;
        let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if mounted.contains(device) {
            return Ok(());
        }
        let failed = |error| OpenError::io(format!("mounting {device}"), error);
        let rewritten = journal::replay(disk).map_err(failed)?;
        if rewritten > 0 {
            tracing::debug!(device, rewritten, "a journal was replayed");
        }
        mounted.insert(device.to_owned());
        Ok(())
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
                let disk = self.disk(on)?;
                Ok(OpenVolume {
                    path: format!("/dev/{}", disk.name),
                    disk: Arc::clone(&disk.disk),
                })
            }
            Target::File { on, mount } => {
                let disk = self.disk(on)?;
                let may_make = purpose == Purpose::Load && access == Access::Write;
                let mounted = Arc::new(Frozen::new(
                    Arc::clone(&self.machine.freezer),
                    Arc::clone(&disk.disk),
                    self.machine.planted.clone(),
                ));
                let device = format!("/dev/{}", disk.name);
                self.mount(mounted.as_ref(), &device)?;
                let journals = self.machine.planted.journals();
                let ledger = filesystem::ledger(mounted, &device, volume.cells, may_make)?;
                let ledger = ledger.journalled(journals);
                Ok(OpenVolume {
                    path: format!("{mount}/{LEDGER}"),
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
