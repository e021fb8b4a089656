//! The storage array: images per site with an ordered write log, a volatile cache, mirror snapshots
//! and replication.
//!
//! One array lies under both sites. Its verbs answer as ceph-csi does on RBD mirroring
//! (replication.md §2, §3); its replicas are the last mirror snapshot that arrived whole. Unlike
//! one VolumeReplication per PVC on real RBD, images may share a *consistency group*, which is cut
//! at one instant; without one each image has its own schedule. Faults strike here, where they
//! would on a real array, and only on images that carry a ledger.

mod core;
mod image;
mod mirror;
mod pages;
mod port;
mod relocation;
mod resize;
mod snapshots;
mod status;
mod strike;
#[cfg(test)]
mod tests;
mod verbs;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use image::SyncInfo;
pub use snapshots::Snapshot;
pub use status::{Code, Outcome, Status};
pub use strike::Strike;
pub use verbs::{MirrorSpec, MirrorState};

use self::core::{Core, Key, Now};
use super::clock::LabClock;
use super::faults::{Board, Fault};
use super::world;
use crate::history::event::Site;
use crate::probe::disk::{Disk, Grants};

/// What demotion does to an image that somebody has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DemoteInUse {
    /// `FAILED_PRECONDITION`, as newer ceph-csi.
    #[default]
    Refuse,
    /// Goes on; the writer's next write fails with `EROFS`, as under older ceph-csi.
    Permit,
}

/// How an array behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Seed of every choice that faults make.
    pub seed: u64,
    /// What attached disks grant. With `dsync` a write is durable when it returns; without it and
    /// with `write_back` it is lost in a power cut unless flushed.
    pub grants: Grants,
    /// Demotion under an open image.
    pub demote_in_use: DemoteInUse,
    /// Lab time that each transfer of a mirror snapshot takes at least.
    pub transfer_fixed: Duration,
    /// Lab time per page that has to cross, or to be rolled back.
    pub transfer_page: Duration,
    /// Lab time that the fault `promote-stalls` holds a promotion.
    pub promote_stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            grants: Grants {
                direct: true,
                dsync: true,
                write_back: true,
            },
            demote_in_use: DemoteInUse::Refuse,
            transfer_fixed: Duration::from_secs(1),
            transfer_page: Duration::from_micros(40),
            promote_stall: Duration::from_secs(30 * 60),
        }
    }
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    clock: LabClock,
    board: Arc<Board>,
    started: Instant,
    changed: Notify,
    /// The sites without power.
    down: watch::Sender<BTreeSet<Site>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now {
            lab: self.clock.lab(self.started.elapsed()),
            wall: jiff::Timestamp::now(),
        }
    }
}

/// The array of a lab, both sites inside. Clones share it. Volumes are named by the handle that
/// their PV carries ([`world::handle`]); a handle of the other site names nothing here.
#[derive(Debug, Clone)]
pub struct Array {
    shared: Arc<Shared>,
}

impl Array {
    /// An array without images. Mirroring proceeds only while [`Self::run`] runs.
    pub fn new(config: Config, clock: LabClock, board: Arc<Board>) -> Self {
        Self {
            shared: Arc::new(Shared {
                core: Mutex::new(Core::new(config, Arc::clone(&board))),
                clock,
                board,
                started: Instant::now(),
                changed: Notify::new(),
                down: watch::Sender::default(),
            }),
        }
    }

    /// The mirror daemons of both sites: cuts snapshots when they are due and moves them.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let next = {
                let now = self.shared.now();
                let mut core = self.shared.lock();
                core.tick(now);
                core.next_due().map(|due| due.saturating_sub(now.lab))
            };
            let due = async {
                match next {
                    Some(wait) => self.shared.clock.pass(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.shared.changed.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn key(site: Site, handle: &str) -> Outcome<Key> {
        let id = world::image_of(site, handle).ok_or_else(|| {
            let text = format!(
                "volume {handle} not found: not a volume of {}",
                world::short(site)
            );
            Status::new(Code::NotFound, text)
        })?;
        Ok((site, id.to_owned()))
    }

    /// Runs `f` on the image with time brought up to date, and wakes the mirror daemons.
    fn with<T>(
        &self,
        site: Site,
        handle: &str,
        f: impl FnOnce(&mut Core, &Key, Now) -> Outcome<T>,
    ) -> Outcome<T> {
        let key = Self::key(site, handle)?;
        let now = self.shared.now();
        let mut core = self.shared.lock();
        if core.down.contains(&site) {
            let text = format!("storage of {} does not answer", world::short(site));
            return Err(Status::new(Code::Unavailable, text));
        }
        core.tick(now);
        let done = f(&mut core, &key, now);
        drop(core);
        self.shared.changed.notify_one();
        done
    }

    /// Makes an empty image of `bytes` bytes; fine if it is there already with that size.
    pub fn create(&self, site: Site, handle: &str, bytes: u64) -> Outcome {
        self.with(site, handle, |core, key, _| core.create(key.clone(), bytes))
    }

    /// Makes `to` a copy of `from` with `bytes` bytes, at least those of `from`, on the same site.
    pub fn copy(&self, site: Site, from: &str, to: &str, bytes: u64) -> Outcome {
        let to = Self::key(site, to)?;
        self.with(site, from, |core, key, _| core.copy(key, &to, bytes))
    }

    /// Deletes an image that nobody has open, and with a primary its replica. A secondary stays:
    /// its primary owns it.
    pub fn delete(&self, site: Site, handle: &str) -> Outcome {
        self.with(site, handle, |core, key, _| core.delete(key))
    }

    /// Whether the image is there.
    pub fn exists(&self, site: Site, handle: &str) -> bool {
        self.with(site, handle, |core, key, _| core.image(key).map(drop))
            .is_ok()
    }

    /// Size of the image in bytes.
    pub fn size(&self, site: Site, handle: &str) -> Outcome<u64> {
        self.with(site, handle, |core, key, _| core.image(key).map(|i| i.size))
    }

    /// Opens an image on a node with the grants of [`Config::grants`]. Dropping the disk or
    /// [`Self::detach`] closes it. `NotFound` without such an image, `ReadOnlyFilesystem` unless
    /// the image is primary (even for reading: RBD does not map a secondary), `EIO` on a fenced or
    /// powered-off node.
    pub fn attach(
        &self,
        site: Site,
        handle: &str,
        host: &str,
        writable: bool,
    ) -> io::Result<Arc<dyn Disk>> {
        let grants = self.shared.lock().config.grants;
        self.attach_with(site, handle, host, writable, grants)
    }

    /// [`Self::attach`] with grants of its own.
    pub fn attach_with(
        &self,
        site: Site,
        handle: &str,
        host: &str,
        writable: bool,
        grants: Grants,
    ) -> io::Result<Arc<dyn Disk>> {
        let not_found = |e: Status| io::Error::new(io::ErrorKind::NotFound, e.message);
        let key = Self::key(site, handle).map_err(not_found)?;
        let mut core = self.shared.lock();
        let id = core.attach(&key, host, writable)?;
        drop(core);
        Ok(Arc::new(port::Port {
            array: Arc::clone(&self.shared),
            key,
            id,
            grants,
        }))
    }

    /// Closes every handle that a node has on an image; disks still held return `EIO`. The last
    /// close writes the volatile cache back.
    pub fn detach(&self, site: Site, handle: &str, host: &str) {
        if let Ok(key) = Self::key(site, handle) {
            self.shared.lock().detach(&key, |_, a| a.host == host);
        }
    }

    /// The guest that has an image open was migrated to another node.
    pub fn moved(&self, site: Site, handle: &str) {
        if let Ok(key) = Self::key(site, handle) {
            self.shared.lock().left_behind(&key);
        }
    }

    /// The nodes that have an image open.
    pub fn attachments(&self, site: Site, handle: &str) -> Vec<String> {
        let Ok(key) = Self::key(site, handle) else {
            return Vec::new();
        };
        let core = self.shared.lock();
        let image = core.image(&key);
        let open = image.into_iter().flat_map(|i| i.attached.values());
        open.filter(|a| !a.dead).map(|a| a.host.clone()).collect()
    }

    /// Cuts a site's power: storage, nodes and the replication link. Everything not flushed is
    /// gone and open handles are dead for good.
    pub fn power_cut(&self, site: Site) {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        core.tick(now);
        core.interrupt_all(now);
        core.cut_host(site, None);
        core.down.insert(site);
        drop(core);
        self.shared.down.send_modify(|down| {
            down.insert(site);
        });
        self.shared.changed.notify_one();
    }

    /// Brings a site back: images are as they were, schedules go on.
    pub fn power_on(&self, site: Site) {
        self.shared.lock().down.remove(&site);
        self.shared.down.send_modify(|down| {
            down.remove(&site);
        });
        self.reconnected();
    }

    /// Waits until a site has power: what runs there does nothing without.
    pub async fn powered(&self, site: Site) {
        let mut down = self.shared.down.subscribe();
        // The sender lives as long as this array, so waiting cannot fail.
        if down.wait_for(|down| !down.contains(&site)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Cuts the power of one node.
    pub fn cut_host(&self, site: Site, host: &str) {
        self.shared.lock().cut_host(site, Some(host));
    }

    /// Cuts or restores the replication link alone.
    pub fn set_link(&self, up: bool) {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        if !up {
            core.tick(now);
            core.interrupt_all(now);
        }
        core.link = up;
        drop(core);
        self.reconnected();
    }

    fn reconnected(&self) {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        core.collect_orphans();
        core.tick(now);
        drop(core);
        self.shared.changed.notify_one();
    }

    /// Refuses all I/O of the given nodes on a site's storage from now on; fault
    /// `two-live-writers` makes it a promise only.
    pub fn fence(&self, site: Site, hosts: &[String]) {
        let mut core = self.shared.lock();
        if core.board.armed(Fault::TwoLiveWriters) {
            let key = (site, hosts.join(","));
            core.struck(Fault::TwoLiveWriters, &key, 0, "fence acknowledged only");
        } else {
            core.fence(site, hosts, true);
        }
    }

    /// Lets nodes in again.
    pub fn unfence(&self, site: Site, hosts: &[String]) {
        self.shared.lock().fence(site, hosts, false);
    }

    /// The nodes that a site's storage refuses.
    pub fn fenced(&self, site: Site) -> Vec<String> {
        self.shared.lock().fenced(site)
    }

    /// Starts mirroring an image; a no-op where it is mirrored already.
    pub fn enable(&self, site: Site, handle: &str, spec: &MirrorSpec) -> Outcome {
        self.with(site, handle, |core, key, now| core.enable(key, spec, now))
    }

    /// Makes an image primary, after as much lab time as that takes. Without force only from a
    /// demoted state: `FAILED_PRECONDITION` ("Device or resource busy") otherwise.
    pub async fn promote(
        &self,
        site: Site,
        handle: &str,
        force: bool,
        spec: &MirrorSpec,
    ) -> Outcome {
        let mut wait = self.with(site, handle, |core, key, now| {
            core.promotion_takes(key, force, now)
        })?;
        let second = Duration::from_secs(1);
        while wait > Duration::ZERO {
            let step = wait.min(second);
            self.shared.clock.pass(step).await;
            wait = wait.saturating_sub(step);
            let left = self.with(site, handle, |core, key, now| {
                core.promotion_takes(key, force, now)
            })?;
            // A stall that was healed, or a promotion that somebody else finished, is waited for
            // no longer.
            wait = wait.min(left);
        }
        self.with(site, handle, |core, key, now| {
            core.promote(key, force, spec, now)
        })
    }

    /// Makes an image secondary and takes its final snapshot, which travels on its own.
    pub fn demote(&self, site: Site, handle: &str) -> Outcome {
        self.with(site, handle, Core::demote)
    }

    /// Repairs a secondary; `true` once both sides are demoted and equal.
    pub fn resync(&self, site: Site, handle: &str, force: bool) -> Outcome<bool> {
        self.with(site, handle, |core, key, now| core.resync(key, force, now))
    }

    /// What the replica of a primary image holds; `NOT_FOUND` before the first sync.
    pub fn info(&self, site: Site, handle: &str) -> Outcome<SyncInfo> {
        self.with(site, handle, |core, key, _| core.info(key))
    }

    /// What the mirror daemon of a site says about an image.
    pub fn mirror_state(&self, site: Site, handle: &str) -> Outcome<MirrorState> {
        self.with(site, handle, |core, key, _| Ok(core.state(key)))
    }

    /// Ends mirroring; on the primary that deletes the replica.
    pub fn disable(&self, site: Site, handle: &str) -> Outcome {
        self.with(site, handle, |core, key, _| core.disable(key))
    }

    /// The planted faults that really did something, and where.
    pub fn strikes(&self) -> Vec<Strike> {
        self.shared.lock().strikes.clone()
    }

    /// Records that a fault planted in a controller did something to an object.
    pub fn record(&self, fault: Fault, site: Site, object: &str, detail: &str) {
        let key = (site, object.to_owned());
        self.shared.lock().struck(fault, &key, 0, detail);
    }

    /// The board that this array consults.
    pub fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }
}
