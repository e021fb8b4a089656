//! What a machine is built from, the same for each QEMU that carries it.

use std::sync::Arc;

use uuid::Uuid;

use super::seed::SeedDisk;
use crate::lab::guest::cloudinit::{self, Seed};
use crate::lab::guest::image::{self as volume, Os};
use crate::lab::guest::{ErrorPolicy, GuestDisk, Root, Spec};
use crate::lab::qemu::hypervisor::{Hypervisor, LaunchError};
use crate::lab::qemu::image::seed::{self, SeedUser, seed_tar};
use crate::lab::qemu::image::{self, Boot, cmdline};
use crate::lab::qemu::process::{Begin, Drive, Kernel, Launch, Nic, OnError};
use crate::probe::disk::Disk;

/// Label of the root file system that the guest makes when it is told to install itself.
const ROOT_LABEL: &str = "virtproof-root";
/// Serial of the root disk unless it is a data disk's.
const ROOT_SERIAL: &str = "virtproof-root";

/// One disk of the machine, whoever serves it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// Name of the volume in the VMI's spec; the seed has none.
    pub(super) volume: String,
    /// As QEMU shows it, without the socket.
    pub(super) drive: Drive,
}

/// A machine before it runs anywhere.
pub(super) struct Blueprint {
    pub(super) launch: Launch,
    pub(super) slots: Vec<Slot>,
    /// Name of the volume that it boots from, if it is one.
    pub(super) root: Option<String>,
    pub(super) seed: Arc<dyn Disk>,
    /// Whether an operating system comes up.
    pub(super) boots: bool,
}

/// Whether the root volume holds a system, and whether it is still to be installed.
enum Installed {
    Nothing,
    Imported(Os),
    There(Os),
}

impl Blueprint {
    /// Reads the root volume and draws the machine. Blocks on that volume.
    pub(super) fn draw(hypervisor: &Hypervisor, spec: &Spec) -> Result<Self, LaunchError> {
        let found = match &spec.root {
            Root::Missing => Installed::Nothing,
            Root::Ephemeral(os) => Installed::There(os.clone()),
            Root::Volume(disk) => look(disk.as_ref()).map_err(LaunchError::Root)?,
        };
        let on_disk = matches!(spec.root, Root::Volume(_));
        let (os, install) = match found {
            Installed::Nothing => (None, false),
            Installed::Imported(os) => (Some(os), true),
            Installed::There(os) => (Some(os), false),
        };
        let root = if on_disk {
            image::Root::Disk {
                serial: ROOT_SERIAL,
                install,
                init: hypervisor.init(),
            }
        } else {
            image::Root::Memory
        };
        if let (Root::Volume(disk), true) = (&spec.root, install) {
            fits(disk.as_ref(), hypervisor.image())?;
        }
        let boot = Boot {
            root,
            agent: os.as_ref().is_some_and(|os| os.agent) && !spec.planted.agent_missing(),
            hooks: !spec.planted.agent_hookless(),
            sshd: true,
        };
        let image = hypervisor.image();
        let kernel = os.as_ref().map(|_| -> Result<Kernel, LaunchError> {
            Ok(Kernel {
                image: image.kernel.clone(),
                initrd: Some(image.initrd.clone()),
                cmdline: cmdline(&boot)?,
            })
        });
        let launch = Launch {
            name: spec.hostname.clone(),
            uuid: Uuid::parse_str(&spec.uid)
                .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, spec.uid.as_bytes())),
            accel: hypervisor.accel(),
            memory_mib: u32::try_from(spec.memory.max(image.memory_mib()?)).unwrap_or(u32::MAX),
            vcpus: 1,
            kernel: kernel.transpose()?,
            drives: Vec::new(),
            ports: 8,
            nic: Some(Nic {
                socket: std::path::PathBuf::new(),
                mac: mac(&spec.mac)?,
            }),
            agent: true,
            clock_off: spec.planted.clock_off() / 1_000_000_000,
            begin: Begin::Running,
        };
        Ok(Self {
            launch,
            slots: slots(spec),
            root: spec.root_volume.clone(),
            seed: Arc::new(SeedDisk::new(told(spec, os.as_ref())?)),
            boots: os.is_some(),
        })
    }

    /// Memory in MiB.
    pub(super) const fn memory(&self) -> u32 {
        self.launch.memory_mib
    }
}

/// Refuses a root volume on which there is no room for the system: the guest would stand at its
/// firmware's message and nobody would know why. What a user's own image does is its own affair.
fn fits(disk: &dyn Disk, image: &image::Image) -> Result<(), LaunchError> {
    if image.packages.is_empty() {
        return Ok(());
    }
    let (have, need) = (disk.size() >> 20, image.root_mib()?);
    if have < need {
        return Err(LaunchError::RootTooSmall { have, need });
    }
    Ok(())
}

fn look(disk: &dyn Disk) -> std::io::Result<Installed> {
    Ok(match volume::os(disk)? {
        None => Installed::Nothing,
        Some(os) if volume::has_root(disk, ROOT_LABEL)? => Installed::There(os),
        Some(os) => Installed::Imported(os),
    })
}

fn slots(spec: &Spec) -> Vec<Slot> {
    let mut slots = Vec::new();
    if let Some(volume) = &spec.root_volume {
        slots.push(Slot {
            volume: volume.clone(),
            drive: drive("root", ROOT_SERIAL, false, OnError::Stop),
        });
    }
    for (n, disk) in spec.disks.iter().enumerate() {
        slots.push(data(&format!("data{n}"), disk));
    }
    slots.push(Slot {
        volume: String::new(),
        drive: drive("seed", seed::SERIAL, true, OnError::Report),
    });
    slots
}

/// The slot of a data disk.
pub(super) fn data(name: &str, disk: &GuestDisk) -> Slot {
    let errors = match disk.errors {
        ErrorPolicy::Stop => OnError::Stop,
        ErrorPolicy::Report => OnError::Report,
        ErrorPolicy::Ignore => OnError::Ignore,
    };
    Slot {
        volume: disk.volume.clone(),
        drive: drive(name, &disk.serial, disk.read_only, errors),
    }
}

fn drive(name: &str, serial: &str, read_only: bool, errors: OnError) -> Drive {
    Drive {
        name: name.to_owned(),
        serial: serial.to_owned(),
        socket: std::path::PathBuf::new(),
        read_only,
        write_cache: true,
        errors,
        boot_index: None,
        port: None,
    }
}

/// The seed disk of a guest: what cloud-init would make of its seed.
fn told(spec: &Spec, os: Option<&Os>) -> Result<Vec<u8>, LaunchError> {
    let Seed { instance_id, .. } = &spec.seed;
    let users = match (os, instance_id) {
        (Some(os), Some(_)) => cloudinit::users(os, &spec.seed),
        _ => Vec::new(),
    };
    let hostname = cloudinit::hostname(&spec.seed.user_data);
    let instance_id = instance_id.clone().map(|id| {
        // Taken for another instance although it is the old one.
        let suffix = if spec.planted.new_instance() {
            "-new"
        } else {
            ""
        };
        format!("{id}{suffix}")
    });
    Ok(seed_tar(&seed::Seed {
        hostname: hostname.unwrap_or_else(|| spec.hostname.clone()),
        instance_id,
        users: users
            .into_iter()
            .map(|user| SeedUser {
                name: user.name,
                keys: user.keys,
                sudo: user.sudo,
            })
            .collect(),
    })?)
}

fn mac(text: &str) -> Result<[u8; 6], LaunchError> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = part.ok_or_else(|| LaunchError::Mac(text.to_owned()))?;
    }
    if parts.next().is_some() {
        return Err(LaunchError::Mac(text.to_owned()));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_has_six_parts() {
        assert_eq!(mac("02:0a:00:ff:1:2").ok(), Some([2, 10, 0, 255, 1, 2]));
        for bad in [
            "",
            "02:0a:00:ff:01",
            "02:0a:00:ff:01:02:03",
            "02:0a:00:fg:01:02",
        ] {
            let error = mac(bad).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
