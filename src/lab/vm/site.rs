//! What the controllers of one site share: the store, the clock, the work queue and the domains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::domain::Domain;
use super::migration::Broken;
use super::{Guests, Setup};
use crate::history::event::Site;
use crate::lab::api::{ApiError, Store, meta};
use crate::lab::array::Array;
use crate::lab::clock::LabClock;
use crate::lab::faults::{Board, Fault};
use crate::lab::guest::Request;

/// How long things take, in real time; the lab's clock scales them. The values are those of the
/// recorded single-node cluster.
#[derive(Debug, Clone)]
pub struct Timing {
    /// From a scheduled launcher pod to its running containers.
    pub pod_start: Duration,
    /// From running containers to a started domain.
    pub domain_start: Duration,
    /// From a started domain to a guest that answers on the network.
    pub guest_boot: Duration,
    /// From there to the guest agent's first answer; also how stale its answers are.
    pub agent_lag: Duration,
    /// From the power button to power off in a guest that reacts.
    pub guest_stop: Duration,
    /// From a stopped domain to a launcher pod that is gone.
    pub pod_stop: Duration,
    /// Until a failed attach is tried again.
    pub attach_retry: Duration,
    /// How long live migration copies.
    pub migration: Duration,
    /// How long a freeze takes in the guest. Above 10 s virt-api gives up before it succeeds.
    pub freeze: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            pod_start: Duration::from_millis(2_500),
            domain_start: Duration::from_secs(3),
            guest_boot: Duration::from_secs(8),
            agent_lag: Duration::from_secs(5),
            guest_stop: Duration::from_secs(1),
            pod_stop: Duration::from_millis(2_300),
            attach_retry: Duration::from_secs(5),
            migration: Duration::from_secs(10),
            freeze: Duration::from_millis(200),
        }
    }
}

impl Timing {
    /// What a node takes under real guests, in true time: they boot, shut down and freeze at their own
    /// pace, so only what is the control plane's remains, shorter than on a cluster where nothing
    /// rests on it. The agent is polled as often as virt-launcher polls it.
    pub fn real() -> Self {
        Self {
            pod_start: Duration::from_millis(200),
            domain_start: Duration::from_millis(200),
            guest_boot: Duration::ZERO,
            agent_lag: Duration::from_secs(5),
            guest_stop: Duration::ZERO,
            pod_stop: Duration::from_millis(200),
            attach_retry: Duration::from_secs(1),
            migration: Duration::ZERO,
            freeze: Duration::ZERO,
        }
    }
}

/// An object by namespace and name.
pub(super) type Key = (String, String);

/// The key of an object.
pub(super) fn key(object: &Value) -> Key {
    (
        meta::namespace(object).to_owned(),
        meta::name(object).to_owned(),
    )
}

/// What the site's controllers have to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Look at a VM.
    Vm(Key),
    /// Look at a VMI.
    Vmi(Key),
    /// Look at a pod.
    Pod(Key),
    /// Look at a migration job.
    Migration(Key),
    /// The containers of a launcher pod came up.
    PodStarted(Key),
    /// A launcher pod's containers ended.
    PodStopped(Key),
    /// The domain of a VMI (by UID) is to be started.
    DomainStart(String),
    /// It was started.
    DomainStarted(String),
    /// The guest's operating system answers.
    GuestUp(String),
    /// The agent of a guest answers.
    AgentUp(String),
    /// A guest asks for something.
    Guest(String, Request),
    /// The domain ended; `true` if its guest switched itself off.
    DomainStopped(String, bool),
    /// The grace period of a domain is over.
    GraceOver(String),
    /// A hotplugged volume of a VMI goes a step on.
    Hotplug(Key, String),
    /// A migration's copying is over.
    Migrated(Key),
    /// A migration's copying ended without a move, and why.
    MigrationFailed(Key, Broken),
    /// A migration (its job also by UID) has waited for room.
    MigrationWaited(Key, String),
    /// The volumes of a VMI are to be moved once more.
    MoveStorage(Key),
    /// The time of a migration's target pod is over; `true`: if it has no node.
    TargetOverdue(Key, bool),
}

/// One site's shared state.
pub(super) struct Inner {
    pub(super) site: Site,
    pub(super) store: Store,
    pub(super) array: Array,
    pub(super) clock: LabClock,
    pub(super) board: Arc<Board>,
    pub(super) timing: Timing,
    pub(super) guests: Guests,
    pub(super) seed: u64,
    pub(super) powered: AtomicBool,
    /// UIDs of what faults struck that strike one object only.
    struck: Mutex<BTreeMap<Fault, String>>,
    /// UIDs of the migration jobs that wait for room.
    waiting: Mutex<BTreeSet<String>>,
    pub(super) tracker: TaskTracker,
    pub(super) token: CancellationToken,
    queue: mpsc::UnboundedSender<Work>,
    domains: Mutex<BTreeMap<String, Arc<Domain>>>,
    counter: AtomicU64,
}

/// One site, shared.
pub(super) type Ctx = Arc<Inner>;

impl Inner {
    pub(super) fn new(
        setup: Setup,
        queue: mpsc::UnboundedSender<Work>,
        tracker: TaskTracker,
        token: CancellationToken,
    ) -> Self {
        Self {
            site: setup.site,
            store: setup.store,
            array: setup.array,
            clock: setup.clock,
            board: setup.board,
            timing: setup.timing,
            guests: setup.guests,
            seed: setup.seed,
            powered: AtomicBool::new(true),
            struck: Mutex::default(),
            waiting: Mutex::default(),
            tracker,
            token,
            queue,
            domains: Mutex::default(),
            counter: AtomicU64::new(1),
        }
    }

    /// A number that was not given before on this site.
    pub(super) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether an object is the one that a fault strikes which strikes one only: the first that asks.
    pub(super) fn is_struck(&self, fault: Fault, uid: &str) -> bool {
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        struck.entry(fault).or_insert_with(|| uid.to_owned()) == uid
    }

    /// Notes that a migration job waits for room; true if that is news.
    pub(super) fn waits(&self, uid: &str) -> bool {
        self.waiting().insert(uid.to_owned())
    }

    /// A migration job has waited.
    pub(super) fn waited(&self, uid: &str) {
        self.waiting().remove(uid);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address for a new pod.
    pub(super) fn pod_ip(&self) -> Ipv4Addr {
        let second = match self.site {
            Site::Primary => 81,
            Site::Secondary => 82,
        };
        let n = self.next();
        let octet = |n: u64| u8::try_from(n % 254 + 1).unwrap_or(1);
        Ipv4Addr::new(10, second, octet(n / 254), octet(n))
    }

    /// Queues work. A queue that nobody reads belongs to a site that is shutting down.
    pub(super) fn push(&self, work: Work) {
        if let Err(error) = self.queue.send(work) {
            tracing::debug!(work = ?error.0, "the site is shutting down");
        }
    }

    /// Queues work for later, as the lab counts time.
    pub(super) fn after(self: &Arc<Self>, real: Duration, work: Work) {
        let this = Arc::clone(self);
        self.tracker.spawn(async move {
            tokio::select! {
                () = this.token.cancelled() => {}
                () = this.clock.pass(real) => this.push(work),
            }
        });
    }

    /// The domain of a VMI by UID.
    pub(super) fn domain(&self, uid: &str) -> Option<Arc<Domain>> {
        self.domains().get(uid).cloned()
    }

    /// All domains.
    pub(super) fn all_domains(&self) -> Vec<Arc<Domain>> {
        self.domains().values().cloned().collect()
    }

    /// Takes a domain in.
    pub(super) fn put_domain(&self, domain: Arc<Domain>) {
        self.domains().insert(domain.uid.clone(), domain);
    }

    /// Lets go of a domain.
    pub(super) fn take_domain(&self, uid: &str) -> Option<Arc<Domain>> {
        self.domains().remove(uid)
    }

    fn domains(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Domain>>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Emits an event; one that cannot be stored any more is of no use to anybody.
    pub(super) fn event(&self, about: &Value, kind: &str, reason: &str, text: &str, from: &str) {
        if let Err(error) = self.store.emit_event(about, kind, reason, text, from) {
            tracing::debug!(%error, reason, "an event found no place");
        }
    }
}

/// The parameter `seconds` of a fault that is planted and awake, as lab time.
pub(super) fn seconds(ctx: &Inner, fault: Fault) -> Option<Duration> {
    let seconds = ctx.board.param(fault, "seconds")?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A write to an object that may be gone by now: gone is fine, anything else is logged.
pub(super) fn settle<T>(what: &str, result: Result<T, ApiError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.code == 404 || error.code == 409 => None,
        Err(error) => {
            tracing::warn!(%error, what, "a controller's write failed");
            None
        }
    }
}
