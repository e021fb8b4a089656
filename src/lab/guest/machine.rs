//! A booted operating system: who it is, what it kept, what its file tree holds. Built once per
//! boot from the root volume and the cloud-init seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::cloudinit;
use super::freeze::Freezer;
use super::image::{self, Os, State, User};
use super::planted::Planted;
use super::power::{Plugged, Power};
use super::probe::Probes;
use super::probe::filesystem::Mounted;
use super::shell::fs::Tree;
use super::{GuestDisk, Request, Root, Spec};
use crate::probe::disk::Disk;

/// How much the tmpfs on `/run` holds, as a distribution sizes it on a small guest.
const RUN_SPACE: u64 = 64 << 20;

/// A running operating system.
pub(super) struct Machine {
    /// What the host gave it.
    pub(super) os: Os,
    /// What it keeps.
    pub(super) state: State,
    /// Its host name.
    pub(super) hostname: String,
    /// New at each boot.
    pub(super) boot_id: Uuid,
    /// When it booted, the origin of its monotonic clock.
    pub(super) booted_at: Instant,
    /// Its file tree.
    pub(super) tree: Tree,
    /// Its power.
    pub(super) power: Arc<Power>,
    /// Hardware address of its network card.
    pub(super) mac: String,
    /// Its disks, each as it is plugged into that power.
    disks: RwLock<Vec<(GuestDisk, Arc<Plugged>)>>,
    /// The agent's hold on its file systems.
    pub(super) freezer: Arc<Freezer>,
    /// The probe processes in it.
    pub(super) probes: Probes,
    /// The file systems that it has mounted for writing in this boot, by device.
    pub(super) mounted: Mutex<BTreeMap<String, Arc<Mounted>>>,
    /// The faults that may strike in it.
    pub(super) planted: Planted,
    /// Whether somebody in the guest has stopped the agent.
    agent_stopped: AtomicBool,
    /// Where it asks the hypervisor for things.
    pub(super) requests: mpsc::UnboundedSender<Request>,
}

impl Machine {
    /// Boots from the root volume: reads the operating system and what it kept, applies the
    /// cloud-init seed if the instance is new, and makes that durable. `None` without an operating
    /// system. Blocks on the disk.
    pub(super) fn boot(
        spec: &Spec,
        power: &Arc<Power>,
        freezer: Arc<Freezer>,
        requests: mpsc::UnboundedSender<Request>,
    ) -> io::Result<Option<Self>> {
        let (os, kept, volume) = match &spec.root {
            Root::Missing => return Ok(None),
            Root::Ephemeral(os) => (os.clone(), None, None),
            Root::Volume(disk) => match image::os(disk.as_ref())? {
                None => return Ok(None),
                Some(os) => (os, image::state(disk.as_ref())?, Some(disk)),
            },
        };
        let state = instance(spec, &os, kept.clone());
        if let Some(disk) = volume
            && kept.as_ref() != Some(&state)
        {
            image::save(disk.as_ref(), &state)?;
        }
        let hostname =
            cloudinit::hostname(&spec.seed.user_data).unwrap_or_else(|| spec.hostname.clone());
        let machine = Self {
            tree: Tree::new(spec.root_space, RUN_SPACE),
            boot_id: uuid(spec, "boot"),
            booted_at: Instant::now(),
            power: Arc::clone(power),
            probes: Probes::default(),
            mounted: Mutex::default(),
            planted: spec.planted.clone(),
            os,
            state,
            hostname,
            mac: spec.mac.clone(),
            disks: RwLock::default(),
            freezer,
            agent_stopped: AtomicBool::new(false),
            requests,
        };
        for disk in &spec.disks {
            machine.plug(disk);
        }
        machine.furnish();
        Ok(Some(machine))
    }

    /// Whether the agent's process is there: the image carries it, and nobody has stopped it.
    pub(super) fn agent(&self) -> bool {
        self.os.agent && !self.agent_stopped.load(Ordering::Acquire)
    }

    /// Stops the agent or starts it, of which the hypervisor learns by its port.
    pub(super) fn stop_agent(&self, stop: bool) {
        let was = self.agent_stopped.swap(stop, Ordering::AcqRel);
        if was != stop && self.requests.send(Request::Agent).is_err() {
            tracing::debug!("nobody listens at the port of a guest's agent any more");
        }
    }

    fn furnish(&self) {
        let text = |text: String| Some(Bytes::from(text));
        let put = |path: &str, content: String| {
            self.tree.plant(path, 0o644, "root", text(content));
        };
        put("/etc/machine-id", format!("{}\n", self.state.machine_id));
        put("/etc/hostname", format!("{}\n", self.hostname));
        put("/etc/os-release", format!("ID={}\n", self.os.id));
        put(
            "/proc/sys/kernel/random/boot_id",
            format!("{}\n", self.boot_id),
        );
        put("/proc/version", format!("Linux version {KERNEL}\n"));
        for user in &self.state.users {
            if user.name != "root" {
                let home = home(&user.name);
                self.tree.plant(&home, 0o700, &user.name, None);
            }
        }
    }

    /// Its disks as they are now.
    pub(super) fn disks(&self) -> Vec<GuestDisk> {
        let disks = self.disks.read().unwrap_or_else(PoisonError::into_inner);
        let seen = disks.iter().map(|(disk, plugged)| GuestDisk {
            disk: Arc::clone(plugged) as Arc<dyn Disk>,
            ..disk.clone()
        });
        seen.collect()
    }

    /// It gets a further disk.
    pub(super) fn plug(&self, disk: &GuestDisk) {
        let power = Arc::clone(&self.power);
        let plugged = Plugged::plug(power, disk, self.requests.clone(), &self.planted);
        let mut disks = self.disks.write().unwrap_or_else(PoisonError::into_inner);
        disks.push((disk.clone(), plugged));
    }

    /// The hypervisor says that the disk of a volume has another size. Whether there is such a disk.
    pub(super) fn resized(&self, volume: &str) -> bool {
        let disks = self.disks.read().unwrap_or_else(PoisonError::into_inner);
        let found = disks.iter().find(|(disk, _)| disk.volume == volume);
        found.inspect(|(_, plugged)| plugged.resized()).is_some()
    }

    /// The disk of a volume is taken away.
    pub(super) fn unplug(&self, volume: &str) {
        let mut disks = self.disks.write().unwrap_or_else(PoisonError::into_inner);
        disks.retain(|(disk, _)| disk.volume != volume);
    }

    /// Unmounts its file systems, as an orderly shutdown does. Frozen ones are left as they are: they
    /// were flushed.
    pub(super) fn unmount(&self) {
        if self.freezer.frozen() {
            return;
        }
        let mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, mounted) in &*mounted {
            if let Err(error) = mounted.unmount() {
                tracing::debug!(device, %error, "a file system was not unmounted");
            }
        }
    }

    /// A user by name.
    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.state.users.iter().find(|user| user.name == name)
    }
}

/// A user's home directory.
pub(super) fn home(user: &str) -> String {
    match user {
        "root" => "/root".to_owned(),
        user => format!("/home/{user}"),
    }
}

/// The kernel release that every simulated guest reports.
pub const KERNEL: &str = "6.12.0-lab";

/// What cloud-init leaves: everything of a known instance as it was; for a new instance new users
/// and, because `ssh_deletekeys` is on by default, a new host key. The machine-id is made once.
fn instance(spec: &Spec, os: &Os, kept: Option<State>) -> State {
    let known = |state: &State| {
        if spec.planted.new_instance() {
            return false;
        }
        spec.seed.instance_id.is_none() || state.instance_id == spec.seed.instance_id
    };
    if let Some(state) = kept.as_ref().filter(|state| known(state)) {
        return state.clone();
    }
    let users = if spec.seed.instance_id.is_some() {
        cloudinit::users(os, &spec.seed)
    } else {
        Vec::new()
    };
    State {
        machine_id: kept.map_or_else(
            || uuid(spec, "machine-id").simple().to_string(),
            |state| state.machine_id,
        ),
        host_key: draw(spec, "host key"),
        instance_id: spec.seed.instance_id.clone(),
        users,
    }
}

fn draw(spec: &Spec, purpose: &str) -> [u8; 32] {
    let input = format!("{}/{}/{purpose}", spec.entropy, spec.uid);
    *blake3::hash(input.as_bytes()).as_bytes()
}

fn uuid(spec: &Spec, purpose: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&draw(spec, purpose)[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
