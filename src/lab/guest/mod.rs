//! Simulated guests: an SSH server in the process whose disks are the array's volumes.
//!
//! Contract: a guest runs no host command and reads no host file. What it writes stops with its
//! power, not with its process; what it keeps between boots lies on its volumes.

pub mod cloudinit;
mod freeze;
pub mod image;
mod machine;
mod planted;
mod power;
mod probe;
mod shell;
mod ssh;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::probe::disk::Disk;
use cloudinit::Seed;
use freeze::Freezer;
use image::Os;
pub use machine::KERNEL;
use machine::Machine;
pub use planted::Planted;
pub use power::Link;
use power::Power;

/// What a guest boots from.
#[derive(Clone)]
pub enum Root {
    /// There is no disk to boot from.
    Missing,
    /// A container disk: the image is given, nothing on it survives the boot.
    Ephemeral(Os),
    /// A volume, which boots if an operating system was imported to it.
    Volume(Arc<dyn Disk>),
}

/// One data disk of a guest.
#[derive(Clone)]
pub struct GuestDisk {
    /// Name under `/dev`, such as `vdb`.
    pub name: String,
    /// Name of the volume in the VMI's spec.
    pub volume: String,
    /// Serial as the guest reads it from the device, at most 20 characters.
    pub serial: String,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// What happens when the device fails.
    pub errors: ErrorPolicy,
    /// The device.
    pub disk: Arc<dyn Disk>,
}

/// What the hypervisor does when a disk of the guest fails (`disks[].errorPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// The virtual CPUs stop before the guest learns of it; KubeVirt's default.
    #[default]
    Stop,
    /// The guest gets the error.
    Report,
    /// The guest is told that all is well.
    Ignore,
}

/// What the hypervisor gives to a guest.
#[derive(Clone)]
pub struct Spec {
    /// UID of the VirtualMachineInstance.
    pub uid: String,
    /// Host name unless user data says otherwise.
    pub hostname: String,
    /// cloud-init seed.
    pub seed: Seed,
    /// What it boots from.
    pub root: Root,
    /// Name of the volume that it boots from, if it is one.
    pub root_volume: Option<String>,
    /// Hardware address of its network card.
    pub mac: String,
    /// Data disks in the order of the VM's spec.
    pub disks: Vec<GuestDisk>,
    /// Memory in MiB; simulated guests need none.
    pub memory: u64,
    /// Free bytes on the root file system.
    pub root_space: u64,
    /// Seed of everything random in this boot.
    pub entropy: u64,
    /// The faults that may strike in it.
    pub planted: Planted,
}

/// What a guest asks of its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// It switched itself off.
    Poweroff,
    /// It wants to start again.
    Reboot,
    /// It starts again in place, and did not ask.
    Rebooted,
    /// It is off: switched off by itself if `clean`, else its hypervisor died.
    Off {
        /// By itself.
        clean: bool,
    },
    /// A disk failed and the error policy stopped the guest.
    IoError,
    /// Its agent came or went.
    Agent,
}

/// Why a connection to a guest is not made, in the words of `connect(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dial {
    /// Nothing answers at the address: no operating system is up.
    #[error("no route to host")]
    NoRoute,
    /// The guest answers, the port is closed.
    #[error("connection refused")]
    Refused,
    /// The guest was there and does not answer.
    #[error("connection timed out")]
    TimedOut,
}

/// A guest with power. Without an operating system on its root volume it answers nobody.
pub struct Guest {
    machine: Option<Arc<Machine>>,
    sshd: Option<Arc<russh::server::Config>>,
    /// Whether sshd has not come up although the rest of the guest has.
    sshd_held: AtomicBool,
    planted: Planted,
    power: Arc<Power>,
    freezer: Arc<Freezer>,
    requests: Mutex<Option<mpsc::UnboundedReceiver<Request>>>,
}

/// How much of a stream the network holds.
const WINDOW: usize = 256 * 1024;

impl Guest {
    /// Switches a guest on and boots it as far as its disks let it. Blocks on the root volume.
    pub fn boot(spec: &Spec) -> io::Result<Arc<Self>> {
        let power = Power::on();
        let (asks, requests) = mpsc::unbounded_channel();
        let freezer = Arc::<Freezer>::default();
        let machine = Machine::boot(spec, &power, Arc::clone(&freezer), asks)?.map(Arc::new);
        let sshd = machine
            .as_ref()
            .map(|machine| ssh::config(&machine.state.host_key));
        Ok(Arc::new(Self {
            machine,
            sshd,
            sshd_held: AtomicBool::new(false),
            planted: spec.planted.clone(),
            power,
            freezer,
            requests: Mutex::new(Some(requests)),
        }))
    }

    /// The operating system came up: the network answers from now on.
    pub fn bring_up(&self) {
        if self.machine.is_some() && self.power.link() == Link::Silent && !self.power.is_off() {
            self.power.set_link(Link::Up);
        }
    }

    /// Keeps sshd from listening, or lets it.
    pub fn hold_sshd(&self, held: bool) {
        self.sshd_held.store(held, Ordering::Release);
    }

    /// The guest went on at another address: streams to the old one end.
    pub fn moved(&self) {
        self.power.drop_streams();
    }

    /// Whether the guest would react to its power button: an operating system is up and runs.
    pub fn reacts(&self) -> bool {
        self.machine.is_some() && self.power.link() == Link::Up
    }

    /// Whether there is an operating system.
    pub fn booted(&self) -> bool {
        self.machine.is_some()
    }

    /// Whether the guest agent runs: the image carries it, nobody stopped it, and the guest runs.
    pub fn agent(&self) -> bool {
        let runs = self.machine.as_ref().is_some_and(|m| m.agent());
        runs && !self.planted.agent_missing() && self.power.link() == Link::Up
    }

    /// The operating system, if one is up.
    pub fn os(&self) -> Option<&Os> {
        self.machine.as_ref().map(|machine| &machine.os)
    }

    /// The host name, if an operating system is up.
    pub fn hostname(&self) -> Option<&str> {
        self.machine.as_ref().map(|m| m.hostname.as_str())
    }

    /// The host key that sshd shows, in OpenSSH form.
    pub fn host_key(&self) -> Option<String> {
        let machine = self.machine.as_ref()?;
        ssh::public_key(&machine.state.host_key).to_openssh().ok()
    }

    /// What the guest says on its serial console after power on.
    pub fn console(&self) -> String {
        self.machine.as_ref().map_or_else(
            || "No bootable device.\r\n".to_owned(),
            |machine| format!("\r\n{} login: ", machine.hostname),
        )
    }

    /// The agent's hold on the file systems.
    pub fn freezer(&self) -> &Arc<Freezer> {
        &self.freezer
    }

    /// What the guest asks of its hypervisor, for the first caller only.
    pub fn requests(&self) -> Option<mpsc::UnboundedReceiver<Request>> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Opens a TCP stream to a port of the guest. Must be called within a Tokio runtime.
    pub fn connect(&self, port: u16) -> Result<DuplexStream, Dial> {
        let (Some(machine), Some(config)) = (&self.machine, &self.sshd) else {
            return Err(Dial::NoRoute);
        };
        match self.power.link() {
            Link::Silent => return Err(Dial::NoRoute),
            Link::Closed => return Err(Dial::Refused),
            Link::Up | Link::Stalled if port != 22 || self.sshd_held.load(Ordering::Acquire) => {
                return Err(Dial::Refused);
            }
            Link::Up | Link::Stalled => {}
        }
        let (client, near) = tokio::io::duplex(WINDOW);
        let (far, server) = tokio::io::duplex(WINDOW);
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        for_stream(&self.power, near_read, far_write);
        for_stream(&self.power, far_read, near_write);
        let (config, machine) = (Arc::clone(config), Arc::clone(machine));
        tokio::spawn(async move {
            if let Err(error) = ssh::serve(config, machine, server).await {
                tracing::debug!(%error, "an SSH connection to a guest ended");
            }
        });
        Ok(client)
    }

    /// Gives it a further disk; without an operating system nobody notices.
    pub fn plug(&self, disk: &GuestDisk) -> Result<(), String> {
        let Some(machine) = &self.machine else {
            return Err("no operating system is up".to_owned());
        };
        machine.plug(disk);
        Ok(())
    }

    /// Takes the disk of a volume away.
    pub fn unplug(&self, volume: &str) {
        if let Some(machine) = &self.machine {
            machine.unplug(volume);
        }
    }

    /// Tells it that the disk of a volume has another size.
    pub fn resized(&self, volume: &str) -> Result<(), String> {
        let told = (self.machine.as_ref()).is_some_and(|machine| machine.resized(volume));
        let why = || format!("no operating system is up that has the disk of {volume}");
        told.then_some(()).ok_or_else(why)
    }

    /// Stops or resumes the virtual CPUs.
    pub fn pause(&self, paused: bool) {
        self.power.pause(paused);
    }

    /// The ACPI power button: sshd stops first, then the probe after its write in flight; file systems
    /// are unmounted, then the power goes. Without an operating system nobody reacts, and it returns false. Blocks.
    pub fn shut_down(&self) -> bool {
        let Some(machine) = &self.machine else {
            return false;
        };
        self.power.set_link(Link::Closed);
        machine.probes.stop();
        machine.unmount();
        self.power.cut();
        self.power.set_link(Link::Closed);
        true
    }

    /// Cuts the power: no further access to any disk, streams fall silent. Blocks for the access
    /// that is under way.
    pub fn power_cut(&self) {
        self.power.cut();
        self.freezer.power_off();
        if let Some(machine) = &self.machine {
            machine.probes.stop();
        }
    }

    /// The guest's address is gone, so its streams end at last.
    pub fn release(&self) {
        self.power_cut();
        self.power.set_link(Link::Closed);
    }

    /// Whether the guest has no power any more.
    pub fn is_off(&self) -> bool {
        self.power.is_off()
    }
}

fn for_stream(
    power: &Arc<Power>,
    from: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    to: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
) {
    let power = Arc::clone(power);
    tokio::spawn(async move {
        if let Err(error) = power.pump(from, to).await {
            tracing::debug!(%error, "a stream to a guest broke");
        }
    });
}
