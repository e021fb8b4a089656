//! DataVolumes.

use serde_json::{Value, json};

use super::{Lab, NS};
use crate::history::event::Site::{Primary, Secondary};
use crate::lab::api::{Admission, Operation, Review, User, meta};
use crate::lab::guest::image;
use crate::lab::storage::{CLAIMS, Claims, DATA_VOLUMES, VOLUMES};
use crate::lab::world;

fn dv(name: &str, source: &Value, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": NS, "annotations": annotations,
            "labels": {"mine": "yes"},
        },
        "spec": {
            "source": source,
            "storage": {"resources": {"requests": {"storage": "1Gi"}}},
        },
    })
}

fn registry() -> Value {
    json!({"registry": {"url": "docker://registry.example/containerdisks/fedora:latest"}})
}

fn succeeded(dv: &Value) -> bool {
    meta::text(dv, "/status/phase") == "Succeeded"
}

fn os(lab: &Lab, volume: &Value) -> Option<image::Os> {
    let handle = meta::text(volume, "/spec/csi/volumeHandle");
    let disk = lab.array.attach(Primary, handle, "n", false).unwrap();
    image::os(disk.as_ref()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_import_goes_through_its_phases_and_leaves_a_system() {
    let lab = Lab::start();
    let mut watch = lab.store(Primary).watch(DATA_VOLUMES);
    let made = lab
        .store(Primary)
        .create(DATA_VOLUMES, dv("root", &registry(), &json!({})))
        .unwrap();
    let mut phases = Vec::new();
    while phases.last().map(String::as_str) != Some("Succeeded") {
        let change = watch.recv().await.unwrap();
        let phase = meta::text(&change.object, "/status/phase").to_owned();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
    let expected = [
        "",
        "Pending",
        "ImportScheduled",
        "ImportInProgress",
        "Succeeded",
    ];
    assert_eq!(phases, expected);
    let (claim, volume) = lab.bound(Primary, "root").await;
    assert_eq!(meta::label(&claim, "mine"), Some("yes"));
    assert_eq!(meta::controller(&claim).unwrap()["uid"], meta::uid(&made));
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    assert_eq!(claim["spec"]["volumeMode"], "Block");
    assert_eq!(os(&lab, &volume).unwrap().id, "fedora");
    let done = lab.store(Primary).get(DATA_VOLUMES, NS, "root").unwrap();
    assert_eq!(done["status"]["progress"], "100.0%");
    lab.delete(Primary, DATA_VOLUMES, "root");
    lab.gone(Primary, CLAIMS, "root").await;
}

#[tokio::test(start_paused = true)]
async fn a_blank_volume_does_not_boot_and_a_clone_of_a_root_does() {
    let lab = Lab::start();
    let store = lab.store(Primary);
    store
        .create(DATA_VOLUMES, dv("blank", &json!({"blank": {}}), &json!({})))
        .unwrap();
    store
        .create(DATA_VOLUMES, dv("root", &registry(), &json!({})))
        .unwrap();
    let clone = json!({"pvc": {"namespace": NS, "name": "root"}});
    store
        .create(DATA_VOLUMES, dv("clone", &clone, &json!({})))
        .unwrap();
    for name in ["blank", "root", "clone"] {
        lab.until(Primary, DATA_VOLUMES, name, succeeded).await;
    }
    let (_, blank) = lab.bound(Primary, "blank").await;
    let (_, copy) = lab.bound(Primary, "clone").await;
    assert_eq!(os(&lab, &blank), None);
    assert_eq!(os(&lab, &copy).unwrap().id, "fedora");
}

fn review(lab: &Lab, object: &Value) -> Result<Vec<String>, crate::lab::api::ApiError> {
    let user = User {
        name: "admin".into(),
        uid: String::new(),
        groups: Vec::new(),
    };
    let review = Review {
        operation: Operation::Create,
        resource: DATA_VOLUMES,
        subresource: None,
        namespace: NS,
        name: meta::name(object),
        old: None,
        user: &user,
        dry_run: false,
        store: lab.store(Primary),
    };
    Claims.validate(&review, object)
}

#[tokio::test(start_paused = true)]
async fn an_existing_claim_is_refused_or_adopted_unseen() {
    let lab = Lab::start();
    lab.claim(Primary, "data", &json!({}));
    let (before, volume) = lab.bound(Primary, "data").await;
    let refused = dv("data", &registry(), &json!({}));
    let error = review(&lab, &refused).unwrap_err();
    assert_eq!(error.code, 422);
    assert!(
        error
            .message
            .ends_with("Destination PVC default/data already exists")
    );
    // A controller that writes past the webhook gets an event instead.
    lab.store(Primary).create(DATA_VOLUMES, refused).unwrap();
    lab.pass(60).await;
    assert!(
        lab.reasons(Primary, "data")
            .contains(&"ErrResourceExists".to_owned())
    );
    lab.delete(Primary, DATA_VOLUMES, "data");
    let adopt = json!({"cdi.kubevirt.io/allowClaimAdoption": "true"});
    let adopting = dv("data", &registry(), &adopt);
    review(&lab, &adopting).unwrap();
    lab.store(Primary).create(DATA_VOLUMES, adopting).unwrap();
    lab.until(Primary, DATA_VOLUMES, "data", succeeded).await;
    let after = lab.store(Primary).get(CLAIMS, NS, "data").unwrap();
    assert_eq!(meta::uid(&after), meta::uid(&before));
    assert_eq!(meta::owners(&after).len(), 1);
    assert_eq!(os(&lab, &volume), None, "nothing was imported");
}

#[tokio::test(start_paused = true)]
async fn a_static_volume_is_taken_instead_of_importing() {
    let lab = Lab::start();
    lab.store(Primary)
        .create(DATA_VOLUMES, dv("root", &registry(), &json!({})))
        .unwrap();
    let (_, volume) = lab.bound(Primary, "root").await;
    let mut spec = volume["spec"].clone();
    let handle = world::handle(Secondary, "elsewhere");
    spec["csi"]["volumeHandle"] = json!(handle);
    spec["claimRef"] = json!({"namespace": NS, "name": "root"});
    let restored = json!({"metadata": {"name": "restored"}, "spec": spec});
    let store = lab.store(Secondary);
    store.create(VOLUMES, restored).unwrap();
    lab.until(Secondary, VOLUMES, "restored", |v| {
        v["status"]["phase"] == "Available"
    })
    .await;
    let check = json!({"cdi.kubevirt.io/storage.checkStaticVolume": "true"});
    store
        .create(DATA_VOLUMES, dv("root", &registry(), &check))
        .unwrap();
    lab.until(Secondary, DATA_VOLUMES, "root", succeeded).await;
    let (claim, bound) = lab.bound(Secondary, "root").await;
    assert_eq!(meta::name(&bound), "restored");
    let populated = meta::annotation(&claim, "cdi.kubevirt.io/storage.populatedFor");
    assert_eq!(populated, Some("root"));
    assert!(!lab.array.exists(Secondary, &handle), "nothing was made");
}

#[tokio::test(start_paused = true)]
async fn a_prepopulated_volume_waits_for_its_claim() {
    let lab = Lab::start();
    let pre = json!({"cdi.kubevirt.io/storage.prePopulated": "root"});
    lab.store(Primary)
        .create(DATA_VOLUMES, dv("root", &registry(), &pre))
        .unwrap();
    lab.pass(60).await;
    assert!(lab.store(Primary).get(CLAIMS, NS, "root").is_none());
    lab.claim(Primary, "root", &json!({}));
    lab.until(Primary, DATA_VOLUMES, "root", succeeded).await;
}
