//! One QEMU that carries a machine, with the exports of its disks. A machine has one, and while it
//! migrates two.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::blueprint::{Blueprint, Slot};
use super::lock;
use crate::lab::qemu::host::Host;
use crate::lab::qemu::hypervisor::LaunchError;
use crate::lab::qemu::nbd::{Export, Server};
use crate::lab::qemu::process::{Drive, Process};
use crate::probe::disk::Disk;

/// The devices of a machine by the name of their volume.
pub(in crate::lab) type Devices = Vec<(String, Arc<dyn Disk>)>;

/// A QEMU and its exports.
pub(super) struct Life {
    pub(super) process: Process,
    /// By the name of the drive that each is for.
    exports: Mutex<Vec<(String, Server)>>,
    dir: PathBuf,
}

impl Life {
    /// Exports the devices, then starts a QEMU on them in `dir`: to run, or to take over from another
    /// life of the same machine.
    pub(super) async fn start(
        host: &Host,
        (blueprint, slots): (&Blueprint, &[Slot]),
        devices: &Devices,
        from: Option<&Self>,
        network: &Path,
        dir: &Path,
    ) -> Result<Self, LaunchError> {
        std::fs::create_dir_all(dir).map_err(LaunchError::Folder)?;
        let mut launch = from.map_or_else(|| blueprint.launch.clone(), |from| from.process.twin());
        let placed = std::mem::take(&mut launch.drives);
        let mut exports = Vec::new();
        if let Some(nic) = &mut launch.nic {
            network.clone_into(&mut nic.socket);
        }
        for slot in slots {
            let server = serve(blueprint, slot, devices, dir)?;
            let mut placed = placed.iter();
            let placed = placed.find(|drive| drive.name == slot.drive.name);
            launch.drives.push(Drive {
                socket: server.path().to_owned(),
                port: placed.and_then(|drive| drive.port),
                ..slot.drive.clone()
            });
            exports.push((slot.drive.name.clone(), server));
        }
        let process = Process::start(host, &launch, dir).await?;
        Ok(Self {
            process,
            exports: Mutex::new(exports),
            dir: dir.to_owned(),
        })
    }

    /// Exports a device and plugs it in as a further disk.
    pub(super) async fn plug(
        &self,
        blueprint: &Blueprint,
        slot: &Slot,
        devices: &Devices,
    ) -> Result<(), String> {
        let server = serve(blueprint, slot, devices, &self.dir).map_err(|e| e.to_string())?;
        let drive = Drive {
            socket: server.path().to_owned(),
            ..slot.drive.clone()
        };
        let plugged = self.process.hotplug(drive).await;
        plugged.map_err(|error| error.to_string())?;
        lock(&self.exports).push((slot.drive.name.clone(), server));
        Ok(())
    }

    /// Has the guest let go of a disk, then withdraws its export.
    pub(super) async fn unplug(&self, drive: &str, limit: Duration) -> Result<(), String> {
        let gone = self.process.unplug(drive, limit).await;
        gone.map_err(|error| error.to_string())?;
        let mut exports = lock(&self.exports);
        let withdrawn: Vec<_> = exports.extract_if(.., |(name, _)| name == drive).collect();
        drop(exports);
        // Closing one waits for its clients.
        drop(withdrawn);
        Ok(())
    }

    /// Takes the storage and the power away at once: when this returns, no access to a device is under
    /// way and none will begin. Blocks for those that are.
    pub(super) fn cut(&self) {
        for (_, export) in lock(&self.exports).iter() {
            export.cut();
        }
        self.process.kill_soon();
    }
}

fn serve(
    blueprint: &Blueprint,
    slot: &Slot,
    devices: &Devices,
    dir: &Path,
) -> Result<Server, LaunchError> {
    let path = dir.join(format!("{}.nbd", slot.drive.name));
    Ok(Server::listen(&path, export(blueprint, slot, devices)?)?)
}

fn export(blueprint: &Blueprint, slot: &Slot, devices: &Devices) -> Result<Export, LaunchError> {
    let disk = if slot.volume.is_empty() {
        Arc::clone(&blueprint.seed)
    } else {
        let found = devices.iter().find(|(volume, _)| *volume == slot.volume);
        let found = found.ok_or_else(|| LaunchError::NoDevice(slot.volume.clone()))?;
        Arc::clone(&found.1)
    };
    Ok(Export {
        disk,
        read_only: slot.drive.read_only,
        name: String::new(),
        description: slot.drive.serial.clone(),
    })
}
