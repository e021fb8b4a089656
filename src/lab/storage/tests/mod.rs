//! The storage controllers on two sites over one array, in virtual time.

mod claims;
mod datavolumes;
mod fence;
mod recordings;
mod replication;
mod snapshots;
mod strikes;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CLAIMS, Storage, VOLUMES, run, seed};
use crate::history::event::Site::{self, Primary, Secondary};
use crate::lab::api::{ChangeKind, Part, Store, meta};
use crate::lab::array::{Array, Config};
use crate::lab::clock::LabClock;
use crate::lab::faults::Board;

pub(super) const NS: &str = "default";

pub(super) struct Lab {
    pub(super) array: Array,
    sites: [Storage; 2],
    stop: CancellationToken,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Lab {
    /// Both sites seeded and running. Lab time is the test's virtual time.
    pub(super) fn start() -> Self {
        let clock = LabClock::new(1.0);
        let array = Array::new(Config::default(), clock, Arc::new(Board::default()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let sites = [Primary, Secondary].map(|site| {
            let store = Store::new(site as u64 + 1);
            seed(&store, site).unwrap();
            let storage = Storage {
                site,
                store,
                array: array.clone(),
                clock,
            };
            run(&storage, &tasks, &stop);
            storage
        });
        let (daemon, end) = (array.clone(), stop.clone());
        tasks.spawn(async move { daemon.run(end).await });
        Self { array, sites, stop }
    }

    pub(super) fn store(&self, site: Site) -> &Store {
        &self.sites[site as usize].store
    }

    /// Waits until an object satisfies `holds`; for at most an hour of virtual time.
    pub(super) async fn until(
        &self,
        site: Site,
        resource: &str,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Arc<Value> {
        let mut watch = self.store(site).watch(resource);
        let mut last = None;
        let found = tokio::time::timeout(Duration::from_secs(3600), async {
            while let Some(change) = watch.recv().await {
                if meta::name(&change.object) == name && change.kind != ChangeKind::Deleted {
                    if holds(&change.object) {
                        return change.object;
                    }
                    last = Some(change.object);
                }
            }
            panic!("the watch ended");
        });
        let found = found.await;
        found.unwrap_or_else(|late| {
            panic!("{resource} {name} on {site} {late}: last seen {last:#?}")
        })
    }

    /// Waits until an object is gone.
    pub(super) async fn gone(&self, site: Site, resource: &str, name: &str) {
        let mut watch = self.store(site).watch(resource);
        let namespace = namespace(resource);
        let gone = tokio::time::timeout(Duration::from_secs(3600), async {
            while self.store(site).get(resource, namespace, name).is_some() {
                watch.recv().await.unwrap();
            }
        });
        let left = || self.store(site).get(resource, namespace, name);
        assert!(gone.await.is_ok(), "still there: {:#?}", left());
    }

    /// Lets lab time pass in which nothing is expected of the test.
    pub(super) async fn pass(&self, seconds: u64) {
        LabClock::new(1.0).pass(Duration::from_secs(seconds)).await;
    }

    pub(super) fn claim(&self, site: Site, name: &str, extra: &Value) {
        let mut spec = json!({
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}},
        });
        for (field, value) in extra.as_object().into_iter().flatten() {
            spec[field.as_str()] = value.clone();
        }
        let claim = json!({"metadata": {"name": name, "namespace": NS}, "spec": spec});
        self.store(site).create(CLAIMS, claim).unwrap();
    }

    pub(super) async fn bound(&self, site: Site, name: &str) -> (Arc<Value>, Arc<Value>) {
        let claim = self
            .until(site, CLAIMS, name, |c| {
                meta::text(c, "/status/phase") == "Bound"
            })
            .await;
        let volume = meta::text(&claim, "/spec/volumeName");
        (
            claim.clone(),
            self.store(site).get(VOLUMES, "", volume).unwrap(),
        )
    }

    /// What a careful client does to hand a claim over: the same PV with the peer's handle and a
    /// claimRef without uid, the same claim without its binding.
    pub(super) async fn hand_over(&self, name: &str, from: Site) {
        let (claim, volume) = self.bound(from, name).await;
        let to = from.peer();
        let handle = meta::text(&volume, "/spec/csi/volumeHandle");
        let id = crate::lab::world::image_of(from, handle).unwrap();
        let mut spec = volume["spec"].clone();
        spec["csi"]["volumeHandle"] = json!(crate::lab::world::handle(to, id));
        spec["claimRef"] = json!({"namespace": NS, "name": name});
        let volume = json!({"metadata": {"name": meta::name(&volume)}, "spec": spec});
        self.store(to).create(VOLUMES, volume).unwrap();
        let mut spec = claim["spec"].clone();
        spec["volumeName"] = json!(meta::text(&claim, "/spec/volumeName"));
        let claim = json!({"metadata": {"name": name, "namespace": NS}, "spec": spec});
        self.store(to).create(CLAIMS, claim).unwrap();
        self.bound(to, name).await;
    }

    pub(super) fn modify(
        &self,
        site: Site,
        resource: &str,
        name: &str,
        change: impl FnMut(&mut Value),
    ) {
        let namespace = namespace(resource);
        let store = self.store(site);
        store
            .modify(resource, namespace, name, Part::Object, change)
            .unwrap();
    }

    pub(super) fn delete(&self, site: Site, resource: &str, name: &str) {
        let namespace = namespace(resource);
        let options = crate::lab::api::DeleteOptions::default();
        let store = self.store(site);
        store.delete(resource, namespace, name, &options).unwrap();
    }

    /// The reasons of the events about an object, oldest first.
    pub(super) fn reasons(&self, site: Site, name: &str) -> Vec<String> {
        let events = self.store(site).list("events", Some(NS));
        let about = events
            .iter()
            .filter(|e| meta::text(e, "/involvedObject/name") == name);
        // Names of events are drawn, so their order says nothing.
        let reasons: std::collections::BTreeSet<String> =
            about.map(|e| meta::text(e, "/reason").to_owned()).collect();
        reasons.into_iter().collect()
    }
}

/// Where objects of a resource lie in these tests.
fn namespace(resource: &str) -> &'static str {
    if resource == VOLUMES { "" } else { NS }
}
