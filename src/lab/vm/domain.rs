//! A libvirt domain on a node: the guest of one VMI with the volumes attached for it.

use std::collections::BTreeMap;
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
    /// Bytes that it had when it was opened.
    pub(super) bytes: u64,
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
    attached: Mutex<Vec<Attached>>,
    /// Volumes that are open where it is migrating to, in place of some of those.
    incoming: Mutex<Vec<Attached>>,
    /// Those that came later.
    plugged: Mutex<Vec<Attached>>,
    /// What its guest was told of disks that grew, by volume.
    grown: Mutex<BTreeMap<String, u64>>,
    guest: Mutex<Option<Arc<dyn Guest>>>,
    /// Boots so far, so that each gets its own entropy.
    pub(super) boots: AtomicU64,
    starting: AtomicBool,
    stopping: AtomicBool,
    agent: AtomicBool,
    /// Whether the agent ended a freeze by itself, of which its next thaw tells.
    gave_up: AtomicBool,
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
            attached: Mutex::new(attached),
            incoming: Mutex::default(),
            plugged: Mutex::default(),
            grown: Mutex::default(),
            guest: Mutex::new(None),
            boots: AtomicU64::new(0),
            starting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            agent: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// The agent ended a freeze by itself, or did not.
    pub(super) fn give_up(&self, gave_up: bool) {
        self.gave_up.store(gave_up, Ordering::Release);
    }

    /// Whether the agent ended a freeze by itself and says so.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Acquire)
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

    /// Whether so many bytes of a volume are news to its guest; only the first who asks is told so.
    pub(super) fn grows(&self, volume: &str, bytes: u64) -> bool {
        let mut all = self.attached().into_iter().chain(self.plugged());
        let Some(open) = all.find(|open| open.volume == volume) else {
            return false;
        };
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        let known = grown.get(volume).copied().unwrap_or(open.bytes);
        if bytes > known {
            grown.insert(volume.to_owned(), bytes);
        }
        bytes > known
    }

    /// What its guest was told of a disk's size does not hold: it could not be told, or the disk is
    /// another one now.
    pub(super) fn not_grown(&self, volume: &str) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        grown.remove(volume);
    }

    /// The volumes that its launcher brought.
    pub(super) fn attached(&self) -> Vec<Attached> {
        let attached = self.attached.lock();
        attached.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the volumes onto which some of its own are to be copied.
    pub(super) fn expect(&self, incoming: Vec<Attached>) {
        *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = incoming;
    }

    /// Takes what was expected, if anything was.
    pub(super) fn expected(&self) -> Vec<Attached> {
        std::mem::take(&mut self.incoming.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has other volumes in the place of those of the same name.
    pub(super) fn exchange(&self, others: Vec<Attached>) {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        for other in others {
            self.not_grown(&other.volume);
            if let Some(own) = attached.iter_mut().find(|own| own.volume == other.volume) {
                *own = other;
            }
        }
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
