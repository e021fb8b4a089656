//! VolumeReplications.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Lab, NS};
use crate::history::event::Site::{self, Primary, Secondary};
use crate::lab::api::meta;
use crate::lab::faults::Fault;
use crate::lab::storage::{CLAIMS, VRS};
use crate::lab::world;

fn vr(claim: &str, state: &str) -> Value {
    json!({
        "metadata": {"name": claim, "namespace": NS},
        "spec": {
            "volumeReplicationClass": world::MIRROR,
            "replicationState": state,
            "autoResync": false,
            "dataSource": {"kind": "PersistentVolumeClaim", "name": claim},
        },
    })
}

/// `status/reason` of a condition, empty if there is none.
fn condition(vr: &Value, kind: &str) -> String {
    let list = vr.pointer("/status/conditions").and_then(Value::as_array);
    let found = list.into_iter().flatten().find(|c| c["type"] == kind);
    found.map_or_else(String::new, |c| {
        format!("{}/{}", meta::text(c, "/status"), meta::text(c, "/reason"))
    })
}

fn current(vr: &Value) -> bool {
    vr.pointer("/status/observedGeneration") == vr.pointer("/metadata/generation")
}

impl Lab {
    /// A mirrored claim whose first sync has been reported.
    async fn protected(&self, name: &str) -> String {
        self.claim(Primary, name, &json!({}));
        let (_, volume) = self.bound(Primary, name).await;
        self.store(Primary)
            .create(VRS, vr(name, "primary"))
            .unwrap();
        let synced = |v: &Value| v.pointer("/status/lastSyncTime").is_some();
        self.until(Primary, VRS, name, synced).await;
        meta::text(&volume, "/spec/csi/volumeHandle").to_owned()
    }

    fn order(&self, site: Site, name: &str, state: &str, auto_resync: bool) {
        self.modify(site, VRS, name, |v| {
            v["spec"]["replicationState"] = json!(state);
            v["spec"]["autoResync"] = json!(auto_resync);
        });
    }

    async fn primary_on(&self, site: Site, name: &str) -> Arc<Value> {
        let holds = |v: &Value| {
            current(v)
                && v["status"]["state"] == "Primary"
                && condition(v, "Completed") == "True/Promoted"
        };
        self.until(site, VRS, name, holds).await
    }

    fn write(&self, site: Site, handle: &str, byte: u8) {
        let disk = self.array.attach(site, handle, "n", true).unwrap();
        disk.write_at(0, &[byte; 4096]).unwrap();
    }

    fn read(&self, site: Site, handle: &str) -> u8 {
        let disk = self.array.attach(site, handle, "n", false).unwrap();
        let mut cell = [0; 4096];
        disk.read_at(0, &mut cell).unwrap();
        cell[0]
    }
}

fn peer_of(handle: &str) -> String {
    world::handle(Secondary, world::image_of(Primary, handle).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_protected_claim_reports_its_syncs() {
    let lab = Lab::start();
    lab.protected("data").await;
    let object = lab.primary_on(Primary, "data").await;
    assert_eq!(condition(&object, "Degraded"), "False/Healthy");
    assert_eq!(condition(&object, "Resyncing"), "False/NotResyncing");
    assert_eq!(
        condition(&object, "Validated"),
        "",
        "not touched on success"
    );
    assert_eq!(object["status"]["message"], "volume is marked primary");
    let synced = |v: &Value| condition(v, "Replicating") == "True/Replicating";
    let first = lab.until(Primary, VRS, "data", synced).await;
    let claim = lab.store(Primary).get(CLAIMS, NS, "data").unwrap();
    let owner = "replication.storage.openshift.io/volume-replication-name";
    assert_eq!(meta::annotation(&claim, owner), Some("data/default"));
    assert_eq!(first["status"]["lastSyncDuration"], "1s");
    // The peer is gone: the replica's time freezes while everything looks healthy.
    lab.array.set_link(false);
    lab.pass(600).await;
    let later = lab.store(Primary).get(VRS, NS, "data").unwrap();
    assert_eq!(
        later["status"]["lastSyncTime"],
        first["status"]["lastSyncTime"]
    );
    assert_eq!(condition(&later, "Replicating"), "True/Replicating");
}

#[tokio::test(start_paused = true)]
async fn a_planned_move_and_back_loses_nothing() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    let there = peer_of(&here);
    lab.write(Primary, &here, 7);
    lab.order(Primary, "data", "secondary", false);
    let demoted = |v: &Value| current(v) && condition(v, "Completed") == "True/Demoted";
    let first = lab.until(Primary, VRS, "data", demoted).await;
    assert_eq!(condition(&first, "Degraded"), "True/VolumeDegraded");
    assert_eq!(condition(&first, "Replicating"), "");
    let text = "volume is marked secondary and is degraded";
    assert_eq!(first["status"]["message"], text);
    let healthy = |v: &Value| current(v) && condition(v, "Degraded") == "False/Healthy";
    let ready = lab.until(Primary, VRS, "data", healthy).await;
    assert_eq!(condition(&ready, "Resyncing"), "False/NotResyncing");
    assert_eq!(ready.pointer("/status/lastSyncTime"), None);
    lab.hand_over("data", Primary).await;
    lab.store(Secondary)
        .create(VRS, vr("data", "primary"))
        .unwrap();
    lab.primary_on(Secondary, "data").await;
    assert_eq!(lab.read(Secondary, &there), 7);
    lab.write(Secondary, &there, 8);
    // The healthy secondary is a latch: it does not notice that its peer went on.
    lab.pass(3600).await;
    let latched = lab.store(Primary).get(VRS, NS, "data").unwrap();
    assert_eq!(condition(&latched, "Degraded"), "False/Healthy");
    // And back.
    lab.order(Secondary, "data", "secondary", false);
    lab.until(Secondary, VRS, "data", healthy).await;
    lab.order(Primary, "data", "primary", false);
    lab.primary_on(Primary, "data").await;
    assert_eq!(lab.read(Primary, &here), 8);
}

#[tokio::test(start_paused = true)]
async fn a_refused_promotion_is_forced_and_leaves_no_trace() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    lab.write(Primary, &here, 1);
    lab.hand_over("data", Primary).await;
    // Promoted although the peer is primary and its last write never crossed.
    lab.store(Secondary)
        .create(VRS, vr("data", "primary"))
        .unwrap();
    let object = lab.primary_on(Secondary, "data").await;
    assert_eq!(condition(&object, "Completed"), "True/Promoted");
    assert_eq!(condition(&object, "Degraded"), "False/Healthy");
    assert!(!object.to_string().to_lowercase().contains("force"));
    assert_eq!(lab.read(Secondary, &peer_of(&here)), 0);
    assert_eq!(lab.read(Primary, &here), 1, "both sides are writable");
}

#[tokio::test(start_paused = true)]
async fn after_a_failover_the_old_side_is_demoted_and_resynced() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    let there = peer_of(&here);
    lab.hand_over("data", Primary).await;
    lab.array.power_cut(Primary);
    lab.store(Secondary)
        .create(VRS, vr("data", "primary"))
        .unwrap();
    lab.primary_on(Secondary, "data").await;
    lab.write(Secondary, &there, 5);
    lab.array.power_on(Primary);
    lab.write(Primary, &here, 9);
    lab.order(Primary, "data", "secondary", true);
    let failing = |v: &Value| condition(v, "Completed") == "False/FailedToResync";
    let flapped = lab.until(Primary, VRS, "data", failing).await;
    assert_eq!(condition(&flapped, "Resyncing"), "False/FailedToResync");
    let resyncing = |v: &Value| condition(v, "Resyncing") == "True/ResyncTriggered";
    let on_its_way = lab.until(Primary, VRS, "data", resyncing).await;
    assert_eq!(condition(&on_its_way, "Degraded"), "True/VolumeDegraded");
    // Healthy only once the new primary is demoted too, and then with its data.
    lab.order(Secondary, "data", "secondary", false);
    let healthy = |v: &Value| current(v) && condition(v, "Degraded") == "False/Healthy";
    lab.until(Primary, VRS, "data", healthy).await;
    lab.order(Primary, "data", "primary", false);
    lab.primary_on(Primary, "data").await;
    assert_eq!(lab.read(Primary, &here), 5);
}

#[tokio::test(start_paused = true)]
async fn a_claim_has_one_owner_and_the_other_hears_nothing() {
    let lab = Lab::start();
    lab.protected("data").await;
    let mut other = vr("data", "primary");
    other["metadata"]["name"] = json!("other");
    lab.store(Primary).create(VRS, other).unwrap();
    lab.pass(600).await;
    let blank = lab.store(Primary).get(VRS, NS, "other").unwrap();
    assert_eq!(blank.get("status"), None);
}

#[tokio::test(start_paused = true)]
async fn deletion_disables_the_primary_and_can_get_stuck_on_a_demoted_one() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    let there = peer_of(&here);
    assert!(lab.array.exists(Secondary, &there));
    lab.delete(Primary, CLAIMS, "data");
    lab.pass(60).await;
    assert!(
        lab.store(Primary).get(CLAIMS, NS, "data").is_some(),
        "protected"
    );
    lab.delete(Primary, VRS, "data");
    lab.gone(Primary, VRS, "data").await;
    lab.gone(Primary, CLAIMS, "data").await;
    assert!(
        !lab.array.exists(Secondary, &there),
        "the replica goes with the primary"
    );

    lab.protected("other").await;
    lab.order(Primary, "other", "secondary", false);
    let healthy = |v: &Value| current(v) && condition(v, "Degraded") == "False/Healthy";
    lab.until(Primary, VRS, "other", healthy).await;
    lab.delete(Primary, VRS, "other");
    lab.pass(3600).await;
    let stuck = lab.store(Primary).get(VRS, NS, "other").unwrap();
    assert!(meta::deleting(&stuck), "neither side follows the other");
}

#[tokio::test(start_paused = true)]
async fn one_leftover_survives_cleanup_until_it_is_healed() {
    let lab = Lab::start();
    lab.protected("data").await;
    lab.protected("other").await;
    lab.array.board().plant(Fault::LeftoverAfterCleanup);
    lab.delete(Primary, VRS, "data");
    lab.pass(10).await;
    lab.delete(Primary, VRS, "other");
    lab.gone(Primary, VRS, "other").await;
    lab.pass(3600).await;
    let left = lab.store(Primary).get(VRS, NS, "data").unwrap();
    assert!(meta::deleting(&left));
    lab.array.board().heal(Fault::LeftoverAfterCleanup);
    lab.gone(Primary, VRS, "data").await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_demotion_says_so_and_is_tried_again() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    let disk = lab.array.attach(Primary, &here, "n", true).unwrap();
    lab.order(Primary, "data", "secondary", false);
    let failed = |v: &Value| condition(v, "Completed") == "False/FailedToDemote";
    let object = lab.until(Primary, VRS, "data", failed).await;
    assert_eq!(condition(&object, "Degraded"), "True/Error");
    assert_eq!(object["status"]["state"], "Primary", "the state there was");
    drop(disk);
    let demoted = |v: &Value| condition(v, "Completed") == "True/Demoted";
    lab.until(Primary, VRS, "data", demoted).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_promotion_fails_at_the_controllers_deadline_and_goes_on() {
    let lab = Lab::start();
    let here = lab.protected("data").await;
    lab.hand_over("data", Primary).await;
    lab.array.power_cut(Primary);
    lab.array.board().plant(Fault::PromoteStalls);
    let before = tokio::time::Instant::now();
    lab.store(Secondary)
        .create(VRS, vr("data", "primary"))
        .unwrap();
    let failed = |v: &Value| condition(v, "Completed") == "False/FailedToPromote";
    let object = lab.until(Secondary, VRS, "data", failed).await;
    assert_eq!(object["status"]["message"], "context deadline exceeded");
    lab.primary_on(Secondary, "data").await;
    let minutes = before.elapsed().as_secs() / 60;
    assert!((29..45).contains(&minutes), "{minutes}");
    assert_eq!(lab.read(Secondary, &peer_of(&here)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_another_driver_cannot_be_mirrored() {
    let lab = Lab::start();
    let local = json!({"storageClassName": world::CLASS_LOCAL});
    lab.claim(Primary, "data", &local);
    lab.bound(Primary, "data").await;
    lab.store(Primary)
        .create(VRS, vr("data", "primary"))
        .unwrap();
    let failed = |v: &Value| condition(v, "Completed") == "False/FailedToPromote";
    let object = lab.until(Primary, VRS, "data", failed).await;
    assert_eq!(condition(&object, "Validated"), "True/PrerequisiteMet");
    assert_eq!(object["status"]["state"], "Unknown");
}

#[tokio::test(start_paused = true)]
async fn the_volumes_of_a_vm_are_cut_together() {
    let lab = Lab::start();
    let vm = json!({
        "metadata": {"name": "vm", "namespace": NS},
        "spec": {"template": {"spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "a"}},
            {"name": "b", "dataVolume": {"name": "b"}},
        ]}}},
    });
    lab.store(Primary)
        .create("virtualmachines.kubevirt.io", vm)
        .unwrap();
    let group = |claim: &str| crate::lab::storage::objects::group(lab.store(Primary), NS, claim);
    assert_eq!(
        (group("a").as_str(), group("b").as_str()),
        ("default/vm", "default/vm")
    );
    assert_eq!(group("c"), "default/");
    for name in ["a", "b"] {
        lab.protected(name).await;
    }
    // Both report the same instant once a scheduled snapshot has crossed.
    let mut times = Vec::new();
    lab.pass(180).await;
    for name in ["a", "b"] {
        let vr = lab.store(Primary).get(VRS, NS, name).unwrap();
        let claim = lab.store(Primary).get(CLAIMS, NS, name).unwrap();
        let volume = meta::text(&claim, "/spec/volumeName");
        let volume = lab
            .store(Primary)
            .get("persistentvolumes", "", volume)
            .unwrap();
        let handle = meta::text(&volume, "/spec/csi/volumeHandle");
        times.push(lab.array.info(Primary, handle).unwrap().time);
        assert!(vr.pointer("/status/lastSyncTime").is_some());
    }
    assert_eq!(times[0], times[1]);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_status_claims_the_new_generation_and_still_tells_the_old_state() {
    let lab = Lab::start();
    lab.protected("a").await;
    lab.array.board().plant(Fault::StaleGeneration);
    lab.order(Primary, "a", "secondary", false);
    let asked = |v: &Value| current(v) && v["spec"]["replicationState"] == "secondary";
    let first = lab.until(Primary, VRS, "a", asked).await;
    assert_eq!(first["status"]["state"], "Primary");
    assert_eq!(condition(&first, "Completed"), "True/Promoted");
    assert_eq!(condition(&first, "Degraded"), "False/Healthy");
    let told = lab
        .until(Primary, VRS, "a", |v| v["status"]["state"] == "Secondary")
        .await;
    assert!(current(&told));
    assert_eq!(condition(&told, "Completed"), "True/Demoted");
}
