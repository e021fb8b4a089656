//! One QEMU that carries a machine, with the exports of its disks. A machine has one, and while it
//! migrates two.

use std::path::Path;
use std::sync::Arc;

use super::blueprint::{Blueprint, Slot};
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
    exports: Vec<Server>,
}

impl Life {
    /// Exports the devices, then starts a QEMU on them in `dir`: to run, or to take over from another
    /// life of the same machine.
    pub(super) async fn start(
        host: &Host,
        blueprint: &Blueprint,
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
        for slot in &blueprint.slots {
            let export = export(blueprint, slot, devices)?;
            let path = dir.join(format!("{}.nbd", slot.drive.name));
            let server = Server::listen(&path, export)?;
            let mut placed = placed.iter();
            let placed = placed.find(|drive| drive.name == slot.drive.name);
            launch.drives.push(Drive {
                socket: server.path().to_owned(),
                port: placed.and_then(|drive| drive.port),
                ..slot.drive.clone()
            });
            exports.push(server);
        }
        let process = Process::start(host, &launch, dir).await?;
        Ok(Self { process, exports })
    }

    /// Takes the storage and the power away at once: when this returns, no access to a device is under
    /// way and none will begin. Blocks for those that are.
    pub(super) fn cut(&self) {
        for export in &self.exports {
            export.cut();
        }
        self.process.kill_soon();
    }
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
