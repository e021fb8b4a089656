//! A libvirt domain on a node: the guest of one VMI with the volumes attached for it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::guest::Guest;
use super::site::Key;
use crate::probe::disk::Disk;

/// A volume that the node opened for the guest.
#[derive(Clone)]
pub(super) struct Attached {
    /// Volume name in the VMI's spec.
    pub(super) volume: String,
    /// Handle on the array.
    pub(super) handle: String,
    /// The open device.
    pub(super) disk: Arc<dyn Disk>,
}

/// What a domain has at the moment; migration moves it.
#[derive(Clone)]
pub(super) struct Place {
    /// The node.
    pub(super) node: String,
    /// Name of the launcher pod.
    pub(super) pod: String,
    /// UID of the launcher pod.
    pub(super) pod_uid: String,
    /// The pod's address, which is how the guest is reached.
    pub(super) ip: Ipv4Addr,
}

/// One domain.
pub(super) struct Domain {
    /// UID of its VMI.
    pub(super) uid: String,
    /// The VMI.
    pub(super) vmi: Key,
    place: Mutex<Place>,
    /// Nodes that it came from by migration; its volumes stay open there until it ends.
    left: Mutex<Vec<String>>,
    attached: Vec<Attached>,
    /// Those that came later.
    plugged: Mutex<Vec<Attached>>,
    guest: Mutex<Option<Arc<dyn Guest>>>,
    /// Boots so far, so that each gets its own entropy.
    pub(super) boots: AtomicU64,
    starting: AtomicBool,
    stopping: AtomicBool,
    agent: AtomicBool,
    ended: AtomicBool,
}

impl Domain {
    /// A domain that is not started yet.
    pub(super) fn new(uid: String, vmi: Key, place: Place, attached: Vec<Attached>) -> Arc<Self> {
        Arc::new(Self {
            uid,
            vmi,
            place: Mutex::new(place),
            left: Mutex::default(),
            attached,
            plugged: Mutex::default(),
            guest: Mutex::new(None),
            boots: AtomicU64::new(0),
            starting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            agent: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// Where it is.
    pub(super) fn place(&self) -> Place {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Moves it.
    pub(super) fn moved(&self, place: Place) {
        let mut now = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, place);
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(before.node);
    }

    /// Every node that has its volumes open.
    pub(super) fn nodes(&self) -> Vec<String> {
        let mut nodes = self
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        nodes.push(self.place().node);
        nodes
    }

    /// The hotplugged volumes.
    pub(super) fn plugged(&self) -> Vec<Attached> {
        self.late().clone()
    }

    fn late(&self) -> std::sync::MutexGuard<'_, Vec<Attached>> {
        self.plugged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a hotplugged volume.
    pub(super) fn plug(&self, open: Attached) {
        self.late().push(open);
    }

    /// Gives up a hotplugged volume.
    pub(super) fn unplug(&self, volume: &str) -> Option<Attached> {
        let mut late = self.late();
        let at = late.iter().position(|open| open.volume == volume)?;
        Some(late.remove(at))
    }

    /// The volumes that its launcher brought.
    pub(super) fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The guest, once started.
    pub(super) fn guest(&self) -> Option<Arc<dyn Guest>> {
        self.guest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts a started guest in place.
    pub(super) fn started(&self, guest: Arc<dyn Guest>) {
        self.agent.store(false, Ordering::Release);
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = Some(guest);
    }

    /// Notes that its guest is being started; true for the first who asks.
    pub(super) fn begin_start(&self) -> bool {
        !self.starting.swap(true, Ordering::AcqRel)
    }

    /// Its guest could not be started, so somebody else may try.
    pub(super) fn not_started(&self) {
        self.starting.store(false, Ordering::Release);
    }

    /// Whether it was told to stop; true for the first who asks.
    pub(super) fn begin_stop(&self) -> bool {
        !self.stopping.swap(true, Ordering::AcqRel)
    }

    /// Marks the domain as ended; true for the first who does.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Whether it has ended.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes whether the agent answered when it was asked; whether that is news.
    pub(super) fn agent_seen(&self, answers: bool) -> bool {
        self.agent.swap(answers, Ordering::AcqRel) != answers
    }

    /// Whether the agent answers, as virt-handler knows.
    pub(super) fn agent(&self) -> bool {
        self.agent.load(Ordering::Acquire) && self.guest().is_some_and(|guest| guest.agent())
    }
}
