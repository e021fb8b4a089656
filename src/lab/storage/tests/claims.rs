//! Claims and volumes.

use serde_json::{Value, json};

use super::{Lab, NS};
use crate::history::event::Site::{Primary, Secondary};
use crate::lab::api::{Part, meta};
use crate::lab::storage::{CLAIMS, PODS, STORAGE_CLASSES, VOLUMES};
use crate::lab::world;

fn pod(claim: &str) -> Value {
    json!({
        "metadata": {"name": "user", "namespace": NS},
        "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]},
        "status": {"phase": "Running"},
    })
}

fn volume(name: &str, extra: &Value) -> Value {
    let mut spec = json!({
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "volumeMode": "Block",
        "storageClassName": world::CLASS_BLOCK,
        "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": world::DRIVER, "volumeHandle": world::handle(Primary, "given")},
    });
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field.as_str()] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_volume_and_both_go_together() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (claim, volume) = lab.bound(Primary, "data").await;
    assert_eq!(claim["spec"]["storageClassName"], world::CLASS_BLOCK);
    assert_eq!(claim["status"]["capacity"], json!({"storage": "1Gi"}));
    assert_eq!(meta::finalizers(&claim), ["kubernetes.io/pvc-protection"]);
    assert_eq!(volume["spec"]["claimRef"]["uid"], meta::uid(&claim));
    let handle = meta::text(&volume, "/spec/csi/volumeHandle").to_owned();
    assert_eq!(lab.array.size(Primary, &handle), Ok(1 << 30));
    lab.store(Primary).create(PODS, pod("data")).unwrap();
    lab.delete(Primary, CLAIMS, "data");
    lab.pass(60).await;
    assert!(
        lab.store(Primary).get(CLAIMS, NS, "data").is_some(),
        "a pod uses it"
    );
    lab.delete(Primary, PODS, "user");
    lab.gone(Primary, CLAIMS, "data").await;
    lab.gone(Primary, VOLUMES, meta::name(&volume)).await;
    assert!(!lab.array.exists(Primary, &handle));
}

#[tokio::test(start_paused = true)]
async fn an_image_in_use_is_not_deleted_under_its_user() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (_, volume) = lab.bound(Primary, "data").await;
    let handle = meta::text(&volume, "/spec/csi/volumeHandle").to_owned();
    let disk = lab
        .array
        .attach(Primary, &handle, "east-node-0", true)
        .unwrap();
    lab.delete(Primary, CLAIMS, "data");
    let name = meta::name(&volume);
    let stuck = lab.until(Primary, VOLUMES, name, |v| {
        v["status"]["message"].is_string()
    });
    assert_eq!(stuck.await["status"]["phase"], "Released");
    drop(disk);
    lab.gone(Primary, VOLUMES, name).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_that_waits_provisions_for_its_first_pod() {
    let lab = Lab::start();
    let class = json!({"storageClassName": world::CLASS_WAIT});
    lab.claim(Primary, "late", &class);
    lab.pass(60).await;
    let claim = lab.store(Primary).get(CLAIMS, NS, "late").unwrap();
    assert_eq!(claim["status"]["phase"], "Pending");
    assert_eq!(lab.reasons(Primary, "late"), ["WaitForFirstConsumer"]);
    lab.store(Primary).create(PODS, pod("late")).unwrap();
    lab.bound(Primary, "late").await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_class_is_said_in_an_event_and_waited_for() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({"storageClassName": "absent"}));
    lab.pass(1).await;
    assert_eq!(lab.reasons(Primary, "data"), ["ProvisioningFailed"]);
    let class = json!({
        "metadata": {"name": "absent"}, "provisioner": world::DRIVER,
        "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate",
    });
    lab.store(Primary)
        .create("storageclasses.storage.k8s.io", class)
        .unwrap();
    let (_, volume) = lab.bound(Primary, "data").await;
    lab.delete(Primary, CLAIMS, "data");
    let name = meta::name(&volume);
    let kept = lab.until(Primary, VOLUMES, name, |v| {
        v["status"]["phase"] == "Released"
    });
    kept.await;
    lab.pass(600).await;
    assert!(
        lab.store(Primary).get(VOLUMES, "", name).is_some(),
        "retained"
    );
}

#[tokio::test(start_paused = true)]
async fn a_static_volume_waits_for_the_claim_that_it_names() {
    let lab = Lab::start();
    let store = lab.store(Primary);
    let reserved = json!({"claimRef": {"namespace": NS, "name": "mine"}});
    store.create(VOLUMES, volume("static", &reserved)).unwrap();
    lab.until(Primary, VOLUMES, "static", |v| {
        v["status"]["phase"] == "Available"
    })
    .await;
    lab.claim(Primary, "other", &json!({}));
    let (_, fresh) = lab.bound(Primary, "other").await;
    assert_ne!(meta::name(&fresh), "static");
    lab.claim(Primary, "mine", &json!({}));
    let (claim, found) = lab.bound(Primary, "mine").await;
    assert_eq!(meta::name(&found), "static");
    assert_eq!(found["spec"]["claimRef"]["uid"], meta::uid(&claim));
    assert_eq!(
        meta::annotation(&found, "pv.kubernetes.io/bound-by-controller"),
        None,
        "the user chose"
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_names_a_misfit_waits_and_says_why() {
    let lab = Lab::start();
    let small = json!({"capacity": {"storage": "512Mi"}});
    lab.store(Primary)
        .create(VOLUMES, volume("small", &small))
        .unwrap();
    lab.claim(Primary, "data", &json!({"volumeName": "small"}));
    lab.pass(1).await;
    let claim = lab.store(Primary).get(CLAIMS, NS, "data").unwrap();
    assert_eq!(claim["status"]["phase"], "Pending");
    assert_eq!(lab.reasons(Primary, "data"), ["VolumeMismatch"]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_claim_has_another_uid_is_released() {
    let lab = Lab::start();
    let stale = json!({"claimRef": {"namespace": NS, "name": "data", "uid": "old"}});
    lab.store(Primary)
        .create(VOLUMES, volume("stale", &stale))
        .unwrap();
    lab.until(Primary, VOLUMES, "stale", |v| {
        v["status"]["phase"] == "Released"
    })
    .await;
    lab.claim(Primary, "data", &json!({}));
    let (_, found) = lab.bound(Primary, "data").await;
    assert_ne!(
        meta::name(&found),
        "stale",
        "an empty one instead, as on a real cluster"
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_disappears_is_lost() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (_, volume) = lab.bound(Primary, "data").await;
    let name = meta::name(&volume);
    lab.delete(Primary, VOLUMES, name);
    lab.pass(60).await;
    assert!(
        lab.store(Primary).get(VOLUMES, "", name).is_some(),
        "protected while bound"
    );
    lab.modify(Primary, VOLUMES, name, |v| {
        v["metadata"]["finalizers"] = json!([]);
    });
    let lost = |c: &Value| c["status"]["phase"] == "Lost";
    lab.until(Primary, CLAIMS, "data", lost).await;
    assert!(
        lab.reasons(Primary, "data")
            .contains(&"ClaimLost".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_can_clone_another() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (_, volume) = lab.bound(Primary, "data").await;
    let handle = meta::text(&volume, "/spec/csi/volumeHandle");
    let disk = lab.array.attach(Primary, handle, "n", true).unwrap();
    disk.write_at(4096, &[3; 4096]).unwrap();
    drop(disk);
    let source = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "data"}});
    lab.claim(Primary, "copy", &source);
    let (_, volume) = lab.bound(Primary, "copy").await;
    let copy = meta::text(&volume, "/spec/csi/volumeHandle");
    assert_ne!(copy, handle);
    let disk = lab.array.attach(Primary, copy, "n", false).unwrap();
    let mut seen = [0; 4096];
    disk.read_at(4096, &mut seen).unwrap();
    assert_eq!(seen, [3; 4096]);
}

#[tokio::test(start_paused = true)]
async fn without_power_a_site_does_nothing() {
    let lab = Lab::start();
    lab.array.power_cut(Secondary);
    lab.claim(Secondary, "data", &json!({}));
    lab.pass(600).await;
    let claim = lab.store(Secondary).get(CLAIMS, NS, "data").unwrap();
    assert_eq!(claim.pointer("/status/phase"), None);
    lab.array.power_on(Secondary);
    lab.bound(Secondary, "data").await;
}

/// Asks for another size of a bound claim, as the admission chain would let it through.
fn ask(lab: &Lab, name: &str, size: &str) {
    let asked = lab.store(Primary).modify(CLAIMS, NS, name, Part::Any, |c| {
        c["spec"]["resources"]["requests"]["storage"] = json!(size);
    });
    asked.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_grows_image_first_and_says_so_last() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (claim, volume) = lab.bound(Primary, "data").await;
    let handle = meta::text(&volume, "/spec/csi/volumeHandle").to_owned();
    ask(&lab, "data", "2Gi");
    let conditions = |c: &Value| c["status"]["conditions"].clone();
    let begun = lab.until(Primary, CLAIMS, "data", |c| conditions(c).is_array());
    let begun = begun.await;
    assert_eq!(conditions(&begun)[0]["type"], "Resizing");
    assert_eq!(
        begun["status"]["capacity"], claim["status"]["capacity"],
        "it lags"
    );
    let grown = lab.until(Primary, CLAIMS, "data", |c| {
        c["status"]["capacity"]["storage"] == "2Gi"
    });
    assert_eq!(conditions(&*grown.await), Value::Null);
    assert_eq!(lab.array.size(Primary, &handle), Ok(2 << 30));
    let volume = lab
        .store(Primary)
        .get(VOLUMES, "", meta::name(&volume))
        .unwrap();
    assert_eq!(volume["spec"]["capacity"]["storage"], "2Gi");
}

#[tokio::test(start_paused = true)]
async fn a_file_system_grows_once_a_pod_uses_its_volume() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({"volumeMode": "Filesystem"}));
    lab.bound(Primary, "data").await;
    ask(&lab, "data", "2Gi");
    let waits = |c: &Value| c["status"]["conditions"][0]["type"] == "FileSystemResizePending";
    lab.until(Primary, CLAIMS, "data", waits).await;
    lab.pass(60).await;
    let still = lab.store(Primary).get(CLAIMS, NS, "data").unwrap();
    assert!(waits(&still) && still["status"]["capacity"]["storage"] == "1Gi");
    lab.store(Primary).create(PODS, pod("data")).unwrap();
    let grown = |c: &Value| c["status"]["capacity"]["storage"] == "2Gi";
    let grown = lab.until(Primary, CLAIMS, "data", grown).await;
    assert!(grown["status"]["conditions"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_class_lets_none_grow_stays() {
    let lab = Lab::start();
    lab.store(Primary)
        .modify(STORAGE_CLASSES, "", world::CLASS_BLOCK, Part::Any, |c| {
            c["allowVolumeExpansion"] = json!(false);
        })
        .unwrap();
    lab.claim(Primary, "data", &json!({}));
    lab.bound(Primary, "data").await;
    ask(&lab, "data", "2Gi");
    lab.pass(600).await;
    let claim = lab.store(Primary).get(CLAIMS, NS, "data").unwrap();
    assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
    assert!(claim["status"]["conditions"].is_null());
}
