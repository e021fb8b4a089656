//! The planted faults of the storage controllers, each at the place where it strikes.

use std::time::Duration;

use serde_json::{Value, json};

use super::replication::{condition, current, peer_of, vr};
use super::{Lab, NS};
use crate::history::event::Site::{Primary, Secondary};
use crate::lab::api::meta;
use crate::lab::faults::{Fault, Moment, parse};
use crate::lab::storage::{CLAIMS, DATA_VOLUMES, FENCES, VRS};
use crate::lab::world;

impl Lab {
    fn plant(&self, text: &str) {
        self.array.board().put(parse(text).unwrap());
    }

    fn struck(&self, fault: Fault) -> usize {
        let strikes = self.array.strikes();
        strikes.iter().filter(|s| s.fault == fault).count()
    }

    /// A mirrored claim, handed over, whose primary has lost its power.
    async fn failed_over(&self, fault: &str) -> String {
        let here = self.protected("data").await;
        self.plant(fault);
        self.hand_over("data", Primary).await;
        self.array.power_cut(Primary);
        let wanted = vr("data", "primary");
        self.store(Secondary).create(VRS, wanted).unwrap();
        peer_of(&here)
    }

    fn attachable(&self, handle: &str) -> bool {
        self.array.attach(Secondary, handle, "n", true).is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn completed_is_said_and_nothing_is_promoted() {
    let lab = Lab::start();
    let there = lab.failed_over("completed-not-primary").await;
    let said = |v: &Value| current(v) && condition(v, "Completed") == "True/Promoted";
    let object = lab.until(Secondary, VRS, "data", said).await;
    assert_eq!(object["status"]["state"], "Unknown");
    lab.pass(600).await;
    assert!(!lab.attachable(&there));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_done_and_never_recognised() {
    let lab = Lab::start();
    let there = lab.failed_over("promotion-unrecognised").await;
    let failed = |v: &Value| condition(v, "Completed") == "False/FailedToPromote";
    lab.until(Secondary, VRS, "data", failed).await;
    lab.pass(600).await;
    let object = lab.store(Secondary).get(VRS, NS, "data").unwrap();
    assert_eq!(object["status"]["state"], "Unknown");
    assert!(lab.attachable(&there));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_said_before_the_volume_can_be_attached() {
    let lab = Lab::start();
    let there = lab.failed_over("vm-before-promotion").await;
    lab.primary_on(Secondary, "data").await;
    assert!(!lab.attachable(&there));
    lab.pass(60).await;
    assert!(lab.attachable(&there));
    assert_eq!(lab.struck(Fault::VmBeforePromotion), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_replication_says_so_and_never_syncs_again() {
    let lab = Lab::start();
    lab.failed_over("replication-paused-after").await;
    let paused = |v: &Value| condition(v, "Replicating") == "False/NotReplicating";
    lab.primary_on(Secondary, "data").await;
    lab.array.power_on(Primary);
    lab.order(Primary, "data", "secondary", true);
    let first = lab.until(Secondary, VRS, "data", paused).await;
    lab.pass(3600).await;
    let later = lab.store(Secondary).get(VRS, NS, "data").unwrap();
    let synced = |v: &Value| v.pointer("/status/lastSyncTime").cloned();
    assert!(synced(&first).is_some());
    assert_eq!(synced(&later), synced(&first));
}

#[tokio::test(start_paused = true)]
async fn a_secondary_that_cannot_be_disabled_stays_terminating() {
    let lab = Lab::start();
    lab.protected("data").await;
    lab.plant("vr-stuck-terminating");
    lab.order(Primary, "data", "secondary", false);
    let clean = |v: &Value| current(v) && condition(v, "Degraded") == "False/Healthy";
    lab.until(Primary, VRS, "data", clean).await;
    lab.hand_over("data", Primary).await;
    let wanted = vr("data", "primary");
    lab.store(Secondary).create(VRS, wanted).unwrap();
    lab.primary_on(Secondary, "data").await;
    lab.delete(Primary, VRS, "data");
    lab.pass(600).await;
    let object = lab.store(Primary).get(VRS, NS, "data").unwrap();
    assert!(meta::deleting(&object));
    lab.array.board().heal(Fault::VrStuckTerminating);
    lab.gone(Primary, VRS, "data").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_reserved_for_a_claim_of_long_ago_binds_to_none() {
    let lab = Lab::start();
    lab.protected("data").await;
    lab.plant("claimref-mismatch");
    let bound = tokio::time::timeout(Duration::from_secs(600), lab.hand_over("data", Primary));
    assert!(bound.await.is_err());
    let claim = lab.store(Secondary).get(CLAIMS, NS, "data").unwrap();
    assert_eq!(meta::text(&claim, "/status/phase"), "Pending");
    assert_eq!(lab.struck(Fault::ClaimrefMismatch), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_nothing_is_said_and_nothing_is_fenced() {
    let lab = Lab::start();
    lab.plant("no-leader");
    lab.claim(Primary, "data", &json!({}));
    lab.bound(Primary, "data").await;
    let store = lab.store(Primary);
    store.create(VRS, vr("data", "primary")).unwrap();
    store.create(FENCES, fence("Fenced")).unwrap();
    lab.pass(600).await;
    for (resource, name) in [(VRS, "data"), (FENCES, "f")] {
        let namespace = if resource == VRS { NS } else { "" };
        let object = store.get(resource, namespace, name).unwrap();
        assert_eq!(object.get("status"), None, "{resource}");
    }
    assert!(lab.array.fenced(Primary).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clone_without_a_mirrored_parent_is_not_mirrored() {
    let lab = Lab::start();
    lab.plant("clone-parent-not-mirrored");
    let made = |name: &str, source: Value| {
        json!({"metadata": {"name": name, "namespace": NS}, "spec": {
            "source": source,
            "pvc": {"accessModes": ["ReadWriteMany"], "volumeMode": "Block",
                "resources": {"requests": {"storage": "1Gi"}}}}})
    };
    let store = lab.store(Primary);
    let image = json!({"registry": {"url": "docker://registry.example/fedora:42"}});
    store.create(DATA_VOLUMES, made("root", image)).unwrap();
    store
        .create(DATA_VOLUMES, made("data", json!({"blank": {}})))
        .unwrap();
    for name in ["root", "data"] {
        lab.bound(Primary, name).await;
        store.create(VRS, vr(name, "primary")).unwrap();
    }
    let unmet = |v: &Value| condition(v, "Validated") == "False/PrerequisiteNotMet";
    lab.until(Primary, VRS, "root", unmet).await;
    lab.primary_on(Primary, "data").await;
}

#[tokio::test(start_paused = true)]
async fn a_pruned_replication_takes_one_replica_with_it() {
    let lab = Lab::start();
    let handles = [lab.protected("a").await, lab.protected("b").await];
    lab.plant("replica-removed-with-vr@load");
    lab.pass(600).await;
    assert_eq!(lab.struck(Fault::ReplicaRemovedWithVr), 0);
    lab.array.board().moment(Moment::Load);
    lab.pass(600).await;
    let left = |name| lab.store(Primary).get(VRS, NS, name).is_some();
    assert_eq!([left("a"), left("b")].iter().filter(|l| **l).count(), 1);
    let replicas = handles.map(|handle| lab.array.exists(Secondary, &peer_of(&handle)));
    assert_eq!(replicas, [left("a"), left("b")]);
}

fn fence(state: &str) -> Value {
    json!({"metadata": {"name": "f"}, "spec": {"fenceState": state,
        "networkFenceClassName": world::FENCE_CLASS, "cidrs": ["10.71.0.0/24"]}})
}

#[tokio::test(start_paused = true)]
async fn a_late_fence_is_acknowledged_first_and_a_blocklist_survives_its_fence() {
    let lab = Lab::start();
    lab.plant("fence-late");
    let store = lab.store(Primary);
    store.create(FENCES, fence("Fenced")).unwrap();
    let said = |word: &'static str| {
        move |f: &Value| meta::text(f, "/status/message") == format!("{word} operation successful")
    };
    lab.until(Primary, FENCES, "f", said("fencing")).await;
    assert!(lab.array.fenced(Primary).is_empty());
    lab.pass(31).await;
    assert_eq!(lab.array.fenced(Primary), world::nodes(Primary));
    lab.array.board().heal(Fault::FenceLate);
    lab.plant("fence-leaves-blocklist");
    lab.modify_fence("Unfenced");
    lab.until(Primary, FENCES, "f", said("unfencing")).await;
    lab.pass(600).await;
    assert_eq!(lab.array.fenced(Primary), world::nodes(Primary));
}

impl Lab {
    fn modify_fence(&self, state: &str) {
        let part = crate::lab::api::Part::Object;
        let store = self.store(Primary);
        store
            .modify(FENCES, "", "f", part, |f| {
                f["spec"]["fenceState"] = json!(state);
            })
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn sync_times_are_told_by_the_sites_own_clock() {
    let lab = Lab::start();
    lab.plant("cluster-clock-skew:seconds=5000");
    lab.protected("data").await;
    let object = lab.store(Primary).get(VRS, NS, "data").unwrap();
    let told: jiff::Timestamp = meta::text(&object, "/status/lastSyncTime").parse().unwrap();
    let ahead = told.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((4_900..=5_000).contains(&ahead), "{ahead}");
    let west = crate::lab::clock::skew(lab.array.board(), Secondary);
    assert_eq!(west.as_secs(), -5000);
}
