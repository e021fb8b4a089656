//! VolumeSnapshots as external-snapshotter serves them: the common controller, which binds a
//! snapshot to a content object and tells its status on, and the sidecar beside the CSI driver,
//! which takes and deletes the snapshot on the array; and group snapshots, cut at one instant.

mod common;
pub(super) mod group;
mod restore;
mod sidecar;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Storage;
use crate::lab::api::{ApiError, Part, meta};

pub(super) use restore::{fill, source};

/// Resource of VolumeSnapshots.
pub(super) const SNAPSHOTS: &str = "volumesnapshots.snapshot.storage.k8s.io";
/// Resource of VolumeSnapshotContents.
pub(super) const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
/// Resource of VolumeSnapshotClasses.
pub(super) const CLASSES: &str = "volumesnapshotclasses.snapshot.storage.k8s.io";
const GROUP: &str = "snapshot.storage.k8s.io";

/// Finalizer of a snapshot while claims may be restored from it.
const AS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// Finalizer of a snapshot that takes its content with it.
const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// Finalizer of a content object until its snapshot is gone from the storage.
const CONTENT: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// Finalizer of a claim while a snapshot of it is being taken.
const CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// Annotation of a content object: its snapshot may be deleted.
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// Annotation of a content object: the driver was asked and has not answered finally.
const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";

/// Starts the controllers of a site.
pub(super) fn run(storage: &Storage, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(common::run(storage.clone(), stop.clone()));
    tasks.spawn(sidecar::run(storage.clone(), stop.clone()));
    tasks.spawn(group::run(storage.clone(), stop.clone()));
}

/// Whether a snapshot or content can be restored.
fn ready(object: &Value) -> bool {
    object.pointer("/status/readyToUse") == Some(&json!(true))
}

/// What stands in `status.error`, empty if nothing does.
fn error(object: &Value) -> &str {
    meta::text(object, "/status/error/message")
}

/// Writes an error into the status of a snapshot or content, and tells it as an event the first
/// time.
fn fail(
    s: &Storage,
    (resource, component): (&str, &str),
    object: &Value,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    if error(object) == message {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(object), meta::name(object));
    s.store
        .modify(resource, namespace, name, Part::Status, |o| {
            let status = meta::map_at(o, "status");
            status.insert(
                "error".into(),
                json!({"message": message, "time": meta::now()}),
            );
            status.insert("readyToUse".into(), json!(false));
        })?;
    super::objects::event(&s.store, object, reason, message, component);
    Ok(())
}
