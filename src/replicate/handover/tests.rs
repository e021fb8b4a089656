//! What is handed over, and what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::manifest::capture;
use super::{
    Error, bound, capture as capture_set, install, learn_destinations, map_handle, settle, toward,
};
use crate::cluster::testing::Fake;
use crate::cluster::undo::UndoLog;
use crate::cluster::{Deadline, Owner};
use crate::history::event::Site;
use crate::replicate::{Observation, Set, VolumeState};

const PV: &str = "/api/v1/persistentvolumes/pvc-1";
const PVC: &str = "/api/v1/namespaces/demo/persistentvolumeclaims/data-0";

fn set() -> Set {
    Set {
        namespace: "demo".into(),
        vm: "vm".into(),
        pvcs: vec!["data-0".into()],
    }
}

fn deadline(limit: Duration) -> Deadline {
    Deadline::after(limit, &CancellationToken::new())
}

fn owner(dir: &tempfile::TempDir) -> Owner {
    let log = UndoLog::create(&dir.path().join("undo.jsonl"), "run-1").expect("a log");
    Owner::new("run-1", log)
}

/// What the binder does: it fills in the claim's UID and tells that both are bound.
async fn binder(fake: &Fake) {
    while fake.get(PVC).is_none() {
        tokio::task::yield_now().await;
    }
    fake.change(PVC, &json!({"status": {"phase": "Bound"}}));
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn handles_are_mapped_once() {
    let swap = map(&[("pool-a", "pool-b"), ("pool-b", "pool-a")]);
    assert_eq!(map_handle("0001-pool-a-77", &swap), "0001-pool-b-77");
    assert_eq!(map_handle("0001-pool-b-77", &swap), "0001-pool-a-77");
    let longest = map(&[("pool", "x"), ("pool-east", "west")]);
    assert_eq!(map_handle("pool-east-é", &longest), "west-é");
    assert_eq!(map_handle("same", &map(&[])), "same");
    assert_eq!(map_handle("same", &map(&[("", "never")])), "same");
}

fn source() -> (serde_json::Value, serde_json::Value) {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "namespace": "demo", "name": "data-0", "uid": "claim-uid", "resourceVersion": "9",
            "finalizers": ["kubernetes.io/pvc-protection"],
            "ownerReferences": [{"kind": "DataVolume", "name": "data-0", "uid": "dv"}],
            "labels": {"app": "ledger", "kubevirt.io/created-by": "vm-uid"},
            "annotations": {
                "pv.kubernetes.io/bind-completed": "yes",
                "replication.storage.openshift.io/volume-replication-name": "data-0",
                "team": "storage",
            },
        },
        "spec": {
            "accessModes": ["ReadWriteMany"], "volumeMode": "Block", "storageClassName": "fast",
            "resources": {"requests": {"storage": "2Gi"}}, "volumeName": "pvc-1",
            "dataSource": {"kind": "DataVolume", "name": "golden"},
        },
        "status": {"phase": "Bound"},
    });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": "pvc-1", "uid": "pv-uid",
            "annotations": {"pv.kubernetes.io/provisioned-by": "rbd.csi.example"},
        },
        "spec": {
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany"],
            "volumeMode": "Block", "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": "rbd.csi.example", "volumeHandle": "h-1",
                    "volumeAttributes": {"imageName": "img"}},
            "claimRef": {"namespace": "demo", "name": "data-0", "uid": "claim-uid"},
            "nodeAffinity": {"required": {}},
        },
        "status": {"phase": "Bound"},
    });
    (claim, volume)
}

#[test]
fn claim_and_volume_name_each_other_and_nothing_local() {
    let (claim, volume) = source();
    let captured = capture("data-0", &claim, &volume).expect("captured");
    assert_eq!(captured.handle, "h-1");
    assert_eq!(captured.reclaim_policy, "Delete");

    let claim = &captured.claim;
    assert_eq!(claim["spec"]["volumeName"], "pvc-1");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert!(
        claim["spec"].get("dataSource").is_none(),
        "would be provisioned anew"
    );
    assert_eq!(claim["metadata"]["labels"], json!({"app": "ledger"}));
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(
        *annotations,
        json!({"team": "storage", "cdi.kubevirt.io/storage.populatedFor": "data-0"})
    );
    for field in ["uid", "resourceVersion", "finalizers", "ownerReferences"] {
        assert!(claim["metadata"].get(field).is_none(), "{field}");
    }

    let volume = &captured.volume;
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["spec"]["claimRef"]["name"], "data-0");
    assert!(volume["spec"]["claimRef"].get("uid").is_none());
    assert!(volume["spec"].get("nodeAffinity").is_none());
    assert_eq!(
        volume["spec"]["csi"]["volumeAttributes"]["imageName"],
        "img"
    );
    assert_eq!(
        volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"],
        "rbd.csi.example"
    );
}

#[test]
fn a_volume_that_belongs_to_another_claim_is_not_captured() {
    let (claim, mut volume) = source();
    volume["spec"]["claimRef"]["uid"] = json!("other");
    let error = capture("data-0", &claim, &volume).expect_err("another claim's volume");
    assert!(error.to_string().contains("another claim"), "{error}");
    let (claim, mut volume) = source();
    volume["spec"]["csi"] = json!(null);
    assert!(capture("data-0", &claim, &volume).is_err());
}

#[tokio::test]
async fn a_set_goes_over_and_stands_on_the_replica() {
    let (east, west) = (Fake::start().await, Fake::start().await);
    let dir = tempfile::tempdir().expect("a directory");
    let owner = owner(&dir);
    let (claim, volume) = source();
    east.put(PVC, claim);
    east.put(PV, volume);
    let captured = capture_set(&east.cluster(Site::Primary), &set())
        .await
        .expect("captured");
    let target = west.cluster(Site::Secondary);
    let handles = map(&[("h-", "west-")]);
    let limit = deadline(Duration::from_secs(20));
    let set = set();
    let (stands, ()) = tokio::join!(
        install(&target, &owner, &set, &captured, &handles, &limit),
        binder(&west)
    );
    let stands = stands.expect("handed over");
    assert_eq!(stands[0].handle, "west-1");
    assert_eq!(stands[0].expected.as_deref(), Some("west-1"));
    let posts: Vec<String> = west
        .requests()
        .into_iter()
        .filter(|r| r.starts_with("POST"))
        .collect();
    assert!(
        posts[0].ends_with("persistentvolumes"),
        "the volume comes first: {posts:?}"
    );
    assert_eq!(
        west.get(PV).expect("there")["spec"]["persistentVolumeReclaimPolicy"],
        "Retain"
    );
    settle(&target, &captured).await.expect("settled");
    assert_eq!(
        west.get(PV).expect("there")["spec"]["persistentVolumeReclaimPolicy"],
        "Delete"
    );
    assert_eq!(owner.undo().pending().len(), 2);
    // And back again the map is read the other way round.
    assert_eq!(
        map_handle("west-1", &toward(Site::Primary, &handles)),
        "h-1"
    );
}

#[tokio::test]
async fn a_claim_on_an_empty_volume_is_found_out_before_any_vm_starts() {
    let west = Fake::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (claim, volume) = source();
    let captured = vec![capture("data-0", &claim, &volume).expect("captured")];
    // A VM was applied too early: its claim was provisioned anew.
    west.put(
        PVC,
        json!({"metadata": {"namespace": "demo", "name": "data-0"},
        "spec": {"volumeName": "pvc-new"}, "status": {"phase": "Bound"}}),
    );
    let target = west.cluster(Site::Secondary);
    let limit = deadline(Duration::from_secs(20));
    let error = install(&target, &owner(&dir), &set(), &captured, &map(&[]), &limit)
        .await
        .expect_err("something else stands there");
    assert!(
        matches!(&error, Error::WrongVolume { pvc, .. } if pvc == "data-0"),
        "{error}"
    );

    let mut fresh = volume;
    fresh["metadata"]["name"] = json!("pvc-new");
    fresh["spec"]["csi"]["volumeHandle"] = json!("empty-9");
    west.put("/api/v1/persistentvolumes/pvc-new", fresh);
    let error = bound(&target, &set(), "data-0", Some("h-1".into()), &limit)
        .await
        .expect_err("the wrong handle");
    assert!(error.to_string().contains("empty-9"), "{error}");
    let first = bound(&target, &set(), "data-0", None, &limit)
        .await
        .expect("nothing expected");
    assert_eq!((first.handle.as_str(), first.expected), ("empty-9", None));
}

#[tokio::test]
async fn a_claim_that_never_binds_or_is_lost_says_so() {
    let west = Fake::start().await;
    let target = west.cluster(Site::Secondary);
    let claim = |phase: &str| {
        json!({"metadata": {"namespace": "demo", "name": "data-0"},
            "spec": {"volumeName": "pvc-1"}, "status": {"phase": phase}})
    };
    west.put(PVC, claim("Pending"));
    let short = deadline(Duration::from_millis(100));
    let error = bound(&target, &set(), "data-0", None, &short)
        .await
        .expect_err("pending");
    assert!(error.to_string().contains("phase Pending"), "{error}");
    west.put(PVC, claim("Lost"));
    let limit = deadline(Duration::from_secs(20));
    let error = bound(&target, &set(), "data-0", None, &limit)
        .await
        .expect_err("lost");
    assert!(error.to_string().contains("pvc-1 is lost"), "{error}");
    let error = capture_set(&target, &set()).await.expect_err("not bound");
    assert!(matches!(error, Error::WrongVolume { .. }), "{error}");
}

#[test]
fn the_storage_drivers_word_on_the_handle_outranks_the_map() {
    let (claim, volume) = source();
    let mut captured = vec![capture("data-0", &claim, &volume).expect("captured")];
    let handles = map(&[("h-", "west-")]);
    let told = |id: &str| {
        let vr = serde_json::from_value(json!({"status": {"destinationVolumeID": id}}));
        Observation {
            site: Site::Primary,
            volumes: vec![(
                "data-0".into(),
                VolumeState::Seen(Box::new(vr.expect("an object"))),
            )],
        }
    };
    learn_destinations(&mut captured, &told(""));
    assert_eq!(captured[0].handle_on(Site::Secondary, &handles), "west-1");
    learn_destinations(&mut captured, &told("told-7"));
    assert_eq!(captured[0].handle_on(Site::Secondary, &handles), "told-7");
}
