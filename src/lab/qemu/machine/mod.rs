//! A real guest: its QEMU, its network, its agent, for as long as its domain lives.
//!
//! Contract: what a node does to a guest it does here, and what a guest does by itself comes out as a
//! [`Request`]. Power that is cut takes the storage away before anything else, so that what the array
//! does not hold by then is lost, as it is on a node without power.

mod agent;
mod blueprint;
mod disks;
mod life;
mod report;
mod seed;
mod strike;
mod travel;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Boot, Memory};
use super::hypervisor::{Hypervisor, LaunchError};
use super::net::{Link, Segment};
use crate::lab::guest::{Dial, Request, Root, Spec};
use agent::Freeze;
use blueprint::{Blueprint, Slot};
pub(in crate::lab) use life::Devices;
use life::Life;
pub use report::{AgentReport, FileSystem};
use strike::Striker;
use travel::Journey;
pub use travel::{Limits, MoveError};

/// How long virt-api dials a guest.
const DIAL: Duration = Duration::from_secs(10);

/// Bytes of its console that somebody who attaches is shown.
const CONSOLE: u64 = 4096;

/// How far a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its QEMU runs, its operating system is not up.
    Booting,
    /// The console said that it is up.
    Up,
    /// It has no power, for good.
    Off,
}

/// A real guest.
pub struct Machine {
    hypervisor: Arc<Hypervisor>,
    blueprint: Blueprint,
    /// Disks that came later.
    late: Mutex<Vec<Slot>>,
    striker: Arc<Striker>,
    network: Segment,
    /// The QEMU that carries it now.
    life: Mutex<Arc<Life>>,
    stage: channel::Sender<Stage>,
    /// Whether the controllers let the network answer.
    open: AtomicBool,
    sshd_held: AtomicBool,
    freeze: Mutex<Freeze>,
    /// The last full word of the agent; a frozen one tells nothing but its state.
    last_report: Mutex<Option<AgentReport>>,
    journey: Mutex<Option<Journey>>,
    asks: mpsc::UnboundedSender<Request>,
    requests: Mutex<Option<mpsc::UnboundedReceiver<Request>>>,
    stop: CancellationToken,
    /// Its share of the host's memory, given back when it is off.
    memory: Mutex<Option<Memory>>,
    /// Its turn to boot, given back when it is up.
    booting: Mutex<Option<Boot>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Waits for room, then starts a QEMU.
    pub(super) async fn start(
        hypervisor: &Arc<Hypervisor>,
        spec: &Spec,
    ) -> Result<Arc<Self>, LaunchError> {
        let (drawer, wanted) = (Arc::clone(hypervisor), spec.clone());
        let blueprint = tokio::task::spawn_blocking(move || Blueprint::draw(&drawer, &wanted))
            .await
            .map_err(|error| LaunchError::GivenUp(error.to_string()))??;
        let (name, memory) = (&blueprint.launch.name, blueprint.memory());
        let memory = hypervisor.admission.memory(name, memory).await?;
        let booting = hypervisor.admission.boot(name).await;
        let dir = hypervisor.folder(name);
        std::fs::create_dir_all(&dir).map_err(LaunchError::Folder)?;
        let stop = CancellationToken::new();
        let network = Segment::open(&dir.join("net"), &stop)?;
        let (striker, deeds) = Striker::new(&spec.planted);
        let devices = striker.watch(&devices(spec), spec.root_volume.as_deref());
        let life = Life::start(
            hypervisor.host(),
            (&blueprint, &blueprint.slots),
            &devices,
            None,
            network.socket(),
            &dir,
        )
        .await?;
        let (asks, requests) = mpsc::unbounded_channel();
        let machine = Arc::new(Self {
            hypervisor: Arc::clone(hypervisor),
            blueprint,
            late: Mutex::default(),
            striker,
            network,
            life: Mutex::new(Arc::new(life)),
            stage: channel::Sender::new(Stage::Booting),
            open: AtomicBool::new(false),
            sshd_held: AtomicBool::new(false),
            freeze: Mutex::default(),
            last_report: Mutex::default(),
            journey: Mutex::default(),
            asks,
            requests: Mutex::new(Some(requests)),
            stop,
            memory: Mutex::new(Some(memory)),
            booting: Mutex::new(Some(booting)),
        });
        watch::begin(&machine);
        strike::carry_out(&machine, deeds);
        Ok(machine)
    }

    fn life(&self) -> Arc<Life> {
        Arc::clone(&lock(&self.life))
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// What the guest asks of its node, for the first caller only.
    pub fn requests(&self) -> Option<mpsc::UnboundedReceiver<Request>> {
        lock(&self.requests).take()
    }

    /// Waits until the operating system is up; false if that will not come.
    pub async fn ready(&self) -> bool {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| *stage != Stage::Booting).await;
        reached.is_ok_and(|stage| *stage == Stage::Up)
    }

    /// The network answers from now on.
    pub fn bring_up(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Keeps sshd from answering, or lets it.
    pub fn hold_sshd(&self, held: bool) {
        self.sshd_held.store(held, Ordering::Release);
    }

    /// The guest went on at another address: what becomes of its sessions is the network's.
    pub fn moved(&self) {
        if self.hypervisor.sessions() == super::Sessions::Break {
            self.network.drop_streams();
        }
    }

    /// Whether the guest would react to its power button.
    pub fn reacts(&self) -> bool {
        self.stage() == Stage::Up
    }

    /// Whether it has no power any more.
    pub fn is_off(&self) -> bool {
        self.stage() == Stage::Off
    }

    /// The end of what it said on its console.
    pub async fn console(&self) -> Vec<u8> {
        let life = self.life();
        let console = life.process.console();
        let from = console.length().saturating_sub(CONSOLE);
        match console.tail(from).await {
            Ok(said) => said,
            Err(error) => {
                tracing::warn!(%error, "a console cannot be shown");
                Vec::new()
            }
        }
    }

    /// Opens a TCP stream to a port of the guest.
    pub async fn connect(&self, port: u16) -> Result<DuplexStream, Dial> {
        if !self.open.load(Ordering::Acquire) || self.stage() != Stage::Up {
            return Err(Dial::NoRoute);
        }
        if port == 22 && self.sshd_held.load(Ordering::Acquire) {
            return Err(Dial::Refused);
        }
        self.network.connect(port, Instant::now() + DIAL).await
    }

    /// Stops or resumes the virtual CPUs.
    pub async fn pause(&self, paused: bool) -> Result<(), String> {
        let life = self.life();
        let done = if paused {
            life.process.pause().await
        } else {
            life.process.resume().await
        };
        done.map_err(|error| error.to_string())
    }

    /// The power button; true once the guest switched itself off, false if it does not react.
    pub async fn shut_down(&self) -> bool {
        if !self.reacts() {
            return false;
        }
        let life = self.life();
        if let Err(error) = life.process.powerdown().await {
            tracing::debug!(%error, "the power button had no effect");
            return false;
        }
        let exit = life.process.exited().await;
        exit.shutdown.is_some_and(|shutdown| shutdown.guest)
    }

    /// Starts the guest again in place: by its own reboot, or at once. A guest that does not listen is
    /// reset. Always true: nothing is left for the node to do.
    pub async fn reboot(&self, hard: bool) -> bool {
        if !hard && self.agent() && self.ask_to_reboot().await {
            return true;
        }
        if let Err(error) = self.life().process.reset().await {
            tracing::debug!(%error, "the reset button had no effect");
        }
        true
    }

    /// Cuts the power: no further access to any disk, the network falls silent. Blocks for the access
    /// that is under way.
    pub fn power_cut(&self) {
        self.network.set_link(Link::Silent);
        self.stage.send_replace(Stage::Off);
        self.life().cut();
        if let Some(journey) = lock(&self.journey).take() {
            journey.cut();
        }
        lock(&self.memory).take();
        lock(&self.booting).take();
    }

    /// Cuts the power and gives the address up, so that streams end at last.
    pub fn release(&self) {
        self.power_cut();
        self.network.set_link(Link::Closed);
        self.stop.cancel();
    }
}

/// The devices that the node opened for a guest.
fn devices(spec: &Spec) -> Devices {
    let mut devices = Devices::new();
    if let (Some(volume), Root::Volume(disk)) = (&spec.root_volume, &spec.root) {
        devices.push((volume.clone(), Arc::clone(disk)));
    }
    let data = spec.disks.iter();
    devices.extend(data.map(|disk| (disk.volume.clone(), Arc::clone(&disk.disk))));
    devices
}
