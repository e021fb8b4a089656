//! Disks of a machine that come, go and grow while it runs.
//!
//! They are virtio disks on root ports of their own, whatever bus the VM asks for.

use std::sync::Arc;
use std::time::Duration;

use super::blueprint::{Slot, data};
use super::{Machine, lock};
use crate::lab::guest::GuestDisk;

/// How long a guest may take to let go of a disk.
const RELEASE: Duration = Duration::from_secs(60);

impl Machine {
    /// All its disks, those that came later last.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let mut slots = self.blueprint.slots.clone();
        slots.extend(lock(&self.late).iter().cloned());
        slots
    }

    /// The drive of a volume.
    fn drive(&self, volume: &str) -> Result<String, String> {
        let slots = self.slots();
        let slot = slots.iter().find(|slot| slot.volume == volume);
        let why = || format!("the machine has no disk of volume {volume}");
        Ok(slot.ok_or_else(why)?.drive.name.clone())
    }

    /// Why nothing can be changed at its disks, if so: both ends of a migration have the same.
    fn settled(&self) -> Result<(), String> {
        let under_way = lock(&self.journey).is_some();
        let why = || "the guest is being migrated".to_owned();
        (!under_way).then_some(()).ok_or_else(why)
    }

    /// Gives it a further disk.
    pub async fn plug(&self, disk: GuestDisk) -> Result<(), String> {
        self.settled()?;
        let taken: Vec<_> = self
            .slots()
            .into_iter()
            .map(|slot| slot.drive.name)
            .collect();
        let mut names = (0..).map(|n| format!("late{n}"));
        let free = names.find(|name| !taken.contains(name));
        let slot = data(&free.unwrap_or_default(), &disk);
        let devices = vec![(disk.volume.clone(), Arc::clone(&disk.disk))];
        let devices = self.striker.watch(&devices, None);
        self.life().plug(&self.blueprint, &slot, &devices).await?;
        lock(&self.late).push(slot);
        Ok(())
    }

    /// Takes the disk of a volume away, once the guest has let go of it.
    pub async fn unplug(&self, volume: &str) -> Result<(), String> {
        self.settled()?;
        let drive = self.drive(volume)?;
        self.life().unplug(&drive, RELEASE).await?;
        lock(&self.late).retain(|slot| slot.volume != volume);
        Ok(())
    }

    /// Tells it that the disk of a volume has so many bytes by now.
    pub async fn resize(&self, volume: &str, bytes: u64) -> Result<(), String> {
        self.settled()?;
        let drive = self.drive(volume)?;
        let told = self.life().process.resize(&drive, bytes).await;
        told.map_err(|error| error.to_string())
    }
}
