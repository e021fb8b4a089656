//! Storage controllers: PV and PVC binding, CDI DataVolumes, snapshots, csi-addons replication and
//! fencing.
//!
//! Each controller reacts to watches of one site's store and works on the array below; none of
//! them talks to the other site. They behave as the real components do, silent failures included
//! (replication.md §1, kubevirt.md §3).

mod claims;
mod conditions;
mod datavolumes;
pub(in crate::lab) mod engine;
mod expand;
mod fence;
mod objects;
pub(in crate::lab) mod quantity;
mod replication;
mod seed;
mod snapshots;
mod volumes;
mod webhook;

#[cfg(test)]
mod tests;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use seed::seed;
pub use webhook::Claims;

use super::api::Store;
use super::array::Array;
use super::clock::LabClock;
use crate::history::event::Site;

pub(super) const CLAIMS: &str = "persistentvolumeclaims";
pub(super) const VOLUMES: &str = "persistentvolumes";
pub(super) const PODS: &str = "pods";
pub(super) const STORAGE_CLASSES: &str = "storageclasses.storage.k8s.io";
pub(super) const DATA_VOLUMES: &str = "datavolumes.cdi.kubevirt.io";
pub(super) const DATA_SOURCES: &str = "datasources.cdi.kubevirt.io";
pub(super) const VRS: &str = "volumereplications.replication.storage.openshift.io";
pub(super) const VR_CLASSES: &str = "volumereplicationclasses.replication.storage.openshift.io";
pub(super) const VGRS: &str = "volumegroupreplications.replication.storage.openshift.io";
pub(super) const FENCES: &str = "networkfences.csiaddons.openshift.io";
pub(super) const FENCE_CLASSES: &str = "networkfenceclasses.csiaddons.openshift.io";

/// One site's storage control plane.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Which site.
    pub site: Site,
    /// Its objects.
    pub store: Store,
    /// The array under both sites.
    pub array: Array,
    /// The lab's time.
    pub clock: LabClock,
}

/// Starts the storage controllers of a site; they end when `stop` is cancelled. The array's own
/// daemons ([`Array::run`]) are the caller's to start, once per lab.
pub fn run(storage: &Storage, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(claims::run(storage.clone(), stop.clone()));
    tasks.spawn(volumes::run(storage.clone(), stop.clone()));
    tasks.spawn(expand::run(storage.clone(), stop.clone()));
    tasks.spawn(datavolumes::run(storage.clone(), stop.clone()));
    tasks.spawn(replication::run(storage.clone(), stop.clone()));
    tasks.spawn(fence::run(storage.clone(), stop.clone()));
    snapshots::run(storage, tasks, stop);
}
