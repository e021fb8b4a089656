//! What is handed over, and what is not.

use std::collections::BTreeMap;

use serde_json::json;

use super::manifest::capture;
use super::map_handle;

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
