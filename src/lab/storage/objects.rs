//! Reading claims, volumes and pods, and what every controller does with refusals.

use serde_json::{Value, json};

use super::engine::After;
use super::{CLAIMS, PODS, STORAGE_CLASSES};
use crate::lab::api::{ApiError, Store, meta};

/// Annotation: the claim is bound and stays so.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation: the controller chose the other half of the binding, not the user.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of a dynamically provisioned volume.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Finalizer that keeps a claim while a pod uses it.
pub(super) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Finalizer that keeps a volume while it is bound.
pub(super) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Finalizer by which the provisioner honours `reclaimPolicy: Delete` when the PV is deleted.
pub(super) const PROVISIONER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// The CSI handle of a PV, empty if it is not a CSI volume.
pub(super) fn handle(volume: &Value) -> &str {
    meta::text(volume, "/spec/csi/volumeHandle")
}

/// The PV that a claim names, empty while it names none.
pub(super) fn volume_name(claim: &Value) -> &str {
    meta::text(claim, "/spec/volumeName")
}

/// `status.phase`.
pub(super) fn phase(object: &Value) -> &str {
    meta::text(object, "/status/phase")
}

/// The claims that a pod uses.
pub(super) fn claims_of(pod: &Value) -> Vec<String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let volumes = volumes.into_iter().flatten();
    volumes
        .map(|v| meta::text(v, "/persistentVolumeClaim/claimName").to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a pod that has not ended uses the claim.
pub(super) fn in_use(store: &Store, namespace: &str, claim: &str) -> bool {
    store.list(PODS, Some(namespace)).iter().any(|pod| {
        !matches!(phase(pod), "Succeeded" | "Failed") && claims_of(pod).iter().any(|c| c == claim)
    })
}

/// The class of a claim or volume; the old annotation counts too.
pub(super) fn class(object: &Value) -> &str {
    meta::text(object, "/spec/storageClassName")
}

/// The class that a claim without one gets: the newest default one.
pub(super) fn default_class(store: &Store, annotation: &str) -> Option<String> {
    let classes = store.list(STORAGE_CLASSES, None);
    let marked = classes
        .iter()
        .filter(|c| meta::annotation(c, annotation) == Some("true"));
    marked
        .max_by_key(|c| meta::text(c, "/metadata/creationTimestamp").to_owned())
        .map(|c| meta::name(c).to_owned())
}

/// What admission makes of a new claim: its class, its mode and its protection.
pub(super) fn default_claim(store: &Store, claim: &mut Value) {
    let named = claim.pointer("/spec/storageClassName").is_some();
    let class = default_class(store, "storageclass.kubernetes.io/is-default-class");
    let spec = meta::map_at(claim, "spec");
    if !named && let Some(class) = class {
        spec.insert("storageClassName".into(), json!(class));
    }
    spec.entry("volumeMode")
        .or_insert_with(|| json!("Filesystem"));
    // A source that both fields can name stands in both (Kubernetes 1.24 and later).
    let named = ["PersistentVolumeClaim", "VolumeSnapshot"];
    for (from, to) in [
        ("dataSource", "dataSourceRef"),
        ("dataSourceRef", "dataSource"),
    ] {
        let source = spec
            .get(from)
            .filter(|s| named.iter().any(|k| s["kind"] == *k));
        if let Some(source) = source.cloned().filter(|_| !spec.contains_key(to)) {
            spec.insert(to.into(), source);
        }
    }
    meta::add_finalizer(claim, CLAIM_PROTECTION);
    let status = meta::map_at(claim, "status");
    status.entry("phase").or_insert_with(|| json!("Pending"));
}

/// Sets an annotation.
pub(super) fn annotate(object: &mut Value, key: &str, value: &str) {
    let map = meta::metadata(object);
    let annotations = map.entry("annotations").or_insert_with(|| json!({}));
    annotations[key] = json!(value);
}

/// Emits an event. Refused where the namespace is going away, which nobody would read anyway.
pub(super) fn event(store: &Store, about: &Value, reason: &str, message: &str, from: &str) {
    let kind = match reason {
        "ProvisioningFailed"
        | "VolumeMismatch"
        | "ClaimLost"
        | "VolumeFailedDelete"
        | "VolumeResizeFailed"
        | "ErrResourceExists"
        | "ErrClaimLost"
        | "GetSnapshotClassFailed"
        | "SetDefaultSnapshotClassFailed"
        | "SnapshotContentCreationFailed"
        | "SnapshotContentMissing"
        | "SnapshotContentMismatch"
        | "SnapshotContentMisbound"
        | "SnapshotMisbound"
        | "SnapshotDeletePending"
        | "SnapshotCreationFailed"
        | "SnapshotContentCheckandUpdateFailed"
        | "SnapshotDeleteError" => "Warning",
        _ => "Normal",
    };
    if let Err(error) = store.emit_event(about, kind, reason, message, from) {
        tracing::debug!(%error, reason, "event refused");
    }
}

/// What follows from a controller's step: an object that is gone needs nothing more, anything else
/// that was refused is tried again.
pub(super) fn settle(step: Result<After, ApiError>, what: &str) -> After {
    match step {
        Ok(after) => after,
        Err(error) if error.reason == "NotFound" => After::Done,
        Err(error) => {
            tracing::debug!(%error, what, "refused, will be tried again");
            After::Retry
        }
    }
}

/// The VM that uses a claim, by its disks or by its DataVolumes; the namespace's name if none
/// does (yet). Names the consistency group of the claim's image.
pub(super) fn group(store: &Store, namespace: &str, claim: &str) -> String {
    let vms = store.list("virtualmachines.kubevirt.io", Some(namespace));
    let user = vms.iter().find(|vm| {
        let volumes = vm.pointer("/spec/template/spec/volumes");
        let volumes = volumes.and_then(Value::as_array);
        volumes.into_iter().flatten().any(|v| {
            meta::text(v, "/persistentVolumeClaim/claimName") == claim
                || meta::text(v, "/dataVolume/name") == claim
        })
    });
    match user {
        Some(vm) => format!("{namespace}/{}", meta::name(vm)),
        None => format!("{namespace}/"),
    }
}

/// The claim of this key, if it is there with this uid.
pub(super) fn claim_with_uid(
    store: &Store,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Option<std::sync::Arc<Value>> {
    let claim = store.get(CLAIMS, namespace, name)?;
    (meta::uid(&claim) == uid).then_some(claim)
}
