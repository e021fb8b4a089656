//! Which parts of a claim and a volume go to the peer. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Captured;
use crate::cluster::Typed as _;
use crate::cluster::crd::core::{PersistentVolume, PersistentVolumeClaim};
use crate::replicate::Error;

/// Labels and annotations with these prefixes speak of one site only: controllers there wrote them,
/// and believing them on the peer would make it skip binding, adopt wrongly or refuse.
const LOCAL: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "replication.storage.openshift.io/",
    "csiaddons.openshift.io/",
    "reclaimspace.csiaddons.openshift.io/",
    "cdi.kubevirt.io/",
    "restore.kubevirt.io/",
    "kubevirt.io/created-by",
    "virtproof.dev/run",
    "virtproof.dev/managed-by",
    "kubectl.kubernetes.io/",
];

/// CDI's word that a claim holds its DataVolume's content already; without it CDI might import
/// again.
const POPULATED_FOR: &str = "cdi.kubevirt.io/storage.populatedFor";

pub(super) fn capture(pvc: &str, claim: &Value, volume: &Value) -> Result<Captured, Error> {
    let wrong = |why: &str| Error::WrongVolume {
        pvc: pvc.to_owned(),
        why: why.to_owned(),
    };
    let text = |object: &Value, path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let handle = text(volume, "/spec/csi/volumeHandle");
    if handle.is_empty() {
        return Err(wrong(
            "its volume is not a CSI volume, so it has no replica to hand over",
        ));
    }
    let namespace = text(claim, "/metadata/namespace");
    let pv = text(volume, "/metadata/name");
    if text(volume, "/spec/claimRef/uid") != text(claim, "/metadata/uid") {
        return Err(wrong("its volume is claimed by another claim"));
    }
    Ok(Captured {
        pvc: pvc.to_owned(),
        handle,
        reclaim_policy: text(volume, "/spec/persistentVolumeReclaimPolicy"),
        claim: peer_claim(pvc, &namespace, &pv, claim),
        volume: peer_volume(pvc, &namespace, &pv, volume),
        destination: None,
    })
}

fn peer_claim(pvc: &str, namespace: &str, pv: &str, claim: &Value) -> Value {
    let keep = ["accessModes", "resources", "storageClassName", "volumeMode"];
    let mut spec = pick(&claim["spec"], &keep);
    spec.insert("volumeName".into(), json!(pv));
    let mut annotations = portable(&claim["metadata"]["annotations"]);
    let of_data_volume = claim["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|o| o["kind"] == "DataVolume"));
    if of_data_volume {
        annotations.insert(POPULATED_FOR.into(), json!(pvc));
    }
    json!({
        "apiVersion": "v1",
        "kind": PersistentVolumeClaim::KIND.kind,
        "metadata": {
            "namespace": namespace,
            "name": pvc,
            "labels": portable(&claim["metadata"]["labels"]),
            "annotations": annotations,
        },
        "spec": spec,
    })
}

fn peer_volume(pvc: &str, namespace: &str, pv: &str, volume: &Value) -> Value {
    // Not nodeAffinity: it names the nodes of this site.
    let keep = [
        "capacity",
        "accessModes",
        "volumeMode",
        "storageClassName",
        "csi",
        "mountOptions",
    ];
    let mut spec = pick(&volume["spec"], &keep);
    spec.insert("persistentVolumeReclaimPolicy".into(), json!("Retain"));
    // Without a UID: the claim on the peer has one of its own, and the binder fills it in.
    spec.insert(
        "claimRef".into(),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": namespace, "name": pvc,
        }),
    );
    json!({
        "apiVersion": "v1",
        "kind": PersistentVolume::KIND.kind,
        "metadata": {
            "name": pv,
            "labels": portable(&volume["metadata"]["labels"]),
            // Keeps provisioned-by, by which the driver knows that it may delete the volume.
            "annotations": portable(&volume["metadata"]["annotations"]),
        },
        "spec": spec,
    })
}

fn pick(object: &Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter()
        .filter_map(|key| Some(((*key).to_owned(), object.get(key)?.clone())))
        .collect()
}

fn portable(map: &Value) -> Map<String, Value> {
    let entries = map.as_object().into_iter().flatten();
    entries
        .filter(|(key, _)| !LOCAL.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A volume handle as the peer knows it: every occurrence of an old text becomes its new one, the
/// longest old text first, and what was replaced is not replaced again.
pub fn map_handle(handle: &str, map: &BTreeMap<String, String>) -> String {
    let mut mapped = String::with_capacity(handle.len());
    let mut rest = handle;
    while let Some(first) = rest.chars().next() {
        let hit = map
            .iter()
            .filter(|(old, _)| !old.is_empty() && rest.starts_with(old.as_str()))
            .max_by_key(|(old, _)| old.len());
        if let Some((old, new)) = hit {
            mapped.push_str(new);
            rest = &rest[old.len()..];
        } else {
            mapped.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    mapped
}
