//! The common controller of external-snapshotter: VolumeSnapshots, their classes and finalizers, and
//! the content objects that they are bound to.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::engine::{After, Key, Sources, drive, key};
use super::super::objects::{annotate, event, handle, phase, settle, volume_name};
use super::super::{CLAIMS, Storage, VOLUMES, quantity};
use super::{
    AS_SOURCE, BEING_DELETED, BOUND, CLAIM, CLASSES, CONTENT, CONTENTS, GROUP, SNAPSHOTS, ready,
};
use crate::lab::api::{ApiError, DeleteOptions, Part, Store, meta};

const COMPONENT: &str = "snapshot-controller";
/// Marks the class for snapshots that name none.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// What errors begin with that the controller tries to get over by itself.
const UPDATE_FAILED: &str = "snapshot controller failed to update";

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let (claims, classes) = (store.clone(), store.clone());
    let sources = Sources::new()
        .watch(store.watch(SNAPSHOTS), |c| vec![key(&c.object)])
        .watch(store.watch(CONTENTS), |c| {
            let reference = |field: &str| {
                let at = format!("/spec/volumeSnapshotRef/{field}");
                meta::text(&c.object, &at).to_owned()
            };
            vec![(reference("namespace"), reference("name"))]
        })
        .watch(store.watch(CLAIMS), move |c| {
            let namespace = meta::namespace(&c.object);
            unsettled(&claims, Some(namespace))
        })
        .watch(store.watch(CLASSES), move |_| unsettled(&classes, None));
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

/// Snapshots that wait for something: not ready, or on their way out.
fn unsettled(store: &Store, namespace: Option<&str>) -> Vec<Key> {
    let all = store.list(SNAPSHOTS, namespace);
    let waiting = all.iter().filter(|s| !ready(s) || meta::deleting(s));
    waiting.map(|s| key(s)).collect()
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(SNAPSHOTS, &namespace, &name) {
        Some(snapshot) => settle(step(&s, &snapshot), "snapshot"),
        None => After::Done,
    }
}

fn step(s: &Storage, snapshot: &Arc<Value>) -> Result<After, ApiError> {
    release_claim(s, snapshot)?;
    if meta::deleting(snapshot) {
        return remove(s, snapshot);
    }
    let (namespace, name) = key(snapshot);
    let content = content(s, snapshot);
    let cascades = content
        .as_ref()
        .is_some_and(|c| meta::text(c, "/spec/deletionPolicy") == "Delete");
    let snapshot = s
        .store
        .modify(SNAPSHOTS, &namespace, &name, Part::Any, |o| {
            meta::add_finalizer(o, AS_SOURCE);
            if cascades {
                meta::add_finalizer(o, BOUND);
            }
        })?;
    if ready(&snapshot) {
        return check_bound(s, &snapshot, content.as_deref());
    }
    if !meta::text(&snapshot, "/spec/source/volumeSnapshotContentName").is_empty() {
        return bind_given(s, &snapshot, content.as_deref());
    }
    match content {
        Some(content) => tell(s, &snapshot, &content),
        // What is cut with a group is shown by the group's controller.
        None if super::group::is_member(&snapshot) => Ok(After::Done),
        // What failed for good is not tried again by itself.
        None if again(super::error(&snapshot)) => request(s, &snapshot),
        None => Ok(After::Done),
    }
}

/// Whether a snapshot is asked for after this error: for want of a class or of the claim itself it
/// is, as soon as they come; what else failed is left.
fn again(error: &str) -> bool {
    error.is_empty() || error.contains("snapshot class") || error.contains(UPDATE_FAILED)
}

fn fail(s: &Storage, snapshot: &Value, reason: &str, message: &str) -> Result<After, ApiError> {
    super::fail(s, (SNAPSHOTS, COMPONENT), snapshot, reason, message)?;
    Ok(After::Done)
}

/// The content of a snapshot: the one that it names, or the one made for it.
fn content(s: &Storage, snapshot: &Value) -> Option<Arc<Value>> {
    let given = meta::text(snapshot, "/spec/source/volumeSnapshotContentName");
    let bound = meta::text(snapshot, "/status/boundVolumeSnapshotContentName");
    let name = if !given.is_empty() {
        given.to_owned()
    } else if super::group::is_member(snapshot) {
        bound.to_owned()
    } else {
        format!("snapcontent-{}", meta::uid(snapshot))
    };
    s.store.get(CONTENTS, "", &name)
}

/// Whether a content object is meant for the snapshot, and bound to it or free.
fn refers(content: &Value, snapshot: &Value) -> bool {
    let at = |field: &str| meta::text(content, &format!("/spec/volumeSnapshotRef/{field}"));
    at("namespace") == meta::namespace(snapshot)
        && at("name") == meta::name(snapshot)
        && (at("uid").is_empty() || at("uid") == meta::uid(snapshot))
}

fn check_bound(s: &Storage, snapshot: &Value, content: Option<&Value>) -> Result<After, ApiError> {
    match content {
        None => {
            let text = "VolumeSnapshotContent is missing";
            fail(s, snapshot, "SnapshotContentMissing", text)
        }
        Some(content) if !refers(content, snapshot) => {
            let text = "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly";
            fail(s, snapshot, "SnapshotMisbound", text)
        }
        Some(_) => Ok(After::Done),
    }
}

/// Binds a snapshot to the content object that its author made.
fn bind_given(s: &Storage, snapshot: &Value, content: Option<&Value>) -> Result<After, ApiError> {
    let Some(content) = content else {
        let text = "VolumeSnapshotContent is missing";
        return fail(s, snapshot, "SnapshotContentMissing", text);
    };
    let name = meta::name(content);
    if meta::text(content, "/spec/source/snapshotHandle").is_empty() {
        let text = "VolumeSnapshotContent is dynamically provisioned while expecting a \
                    pre-provisioned one";
        return fail(s, snapshot, "SnapshotContentMismatch", text);
    }
    if !refers(content, snapshot) {
        let text = format!("VolumeSnapshotContent [{name}] is bound to a different snapshot");
        return fail(s, snapshot, "SnapshotContentMisbound", &text);
    }
    let class = meta::text(snapshot, "/spec/volumeSnapshotClassName");
    let content = s.store.modify(CONTENTS, "", name, Part::Object, |c| {
        c["spec"]["volumeSnapshotRef"]["uid"] = json!(meta::uid(snapshot));
        if !class.is_empty() {
            c["spec"]["volumeSnapshotClassName"] = json!(class);
        }
        meta::add_finalizer(c, CONTENT);
    })?;
    tell(s, snapshot, &content)
}

/// Copies what the content says of the storage to the snapshot.
fn tell(s: &Storage, snapshot: &Value, content: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(snapshot);
    let of = content.get("status").cloned().unwrap_or_default();
    let created = of["creationTime"]
        .as_i64()
        .and_then(|ns| jiff::Timestamp::from_nanosecond(i128::from(ns)).ok());
    let told = s
        .store
        .modify(SNAPSHOTS, &namespace, &name, Part::Status, |o| {
            let status = meta::map_at(o, "status");
            let bound = json!(meta::name(content));
            status.insert("boundVolumeSnapshotContentName".into(), bound);
            status.insert("readyToUse".into(), json!(of["readyToUse"] == true));
            if let Some(created) = created {
                status.insert("creationTime".into(), json!(meta::stamp(created)));
            }
            if let Some(bytes) = of["restoreSize"].as_u64() {
                status.insert("restoreSize".into(), json!(quantity::text(bytes)));
            }
            match &of["error"] {
                Value::Null => {
                    status.shift_remove("error");
                }
                error => {
                    status.insert("error".into(), error.clone());
                }
            }
        })?;
    let shown = format!("{namespace}/{name}");
    let newly = |field: &str| {
        let at = format!("/status/{field}");
        snapshot.pointer(&at) != told.pointer(&at)
    };
    if newly("creationTime") {
        let text = format!("Snapshot {shown} was successfully created by the CSI driver.");
        event(&s.store, &told, "SnapshotCreated", &text, COMPONENT);
    }
    if newly("readyToUse") && ready(&told) {
        let text = format!("Snapshot {shown} is ready to use.");
        event(&s.store, &told, "SnapshotReady", &text, COMPONENT);
    }
    Ok(After::Done)
}

/// The class of a snapshot: the one that it names, else the default one of the claim's driver.
fn class_of(s: &Storage, snapshot: &Value) -> Result<Arc<Value>, (&'static str, String)> {
    let named = meta::text(snapshot, "/spec/volumeSnapshotClassName");
    if !named.is_empty() {
        return s.store.get(CLASSES, "", named).ok_or_else(|| {
            let text = format!(
                "Failed to get snapshot class with error volumesnapshotclass.{GROUP} \"{named}\" \
                 not found"
            );
            ("GetSnapshotClassFailed", text)
        });
    }
    let failed = |why: String| {
        let text = format!("Failed to set default snapshot class with error {why}");
        ("SetDefaultSnapshotClassFailed", text)
    };
    let volume = source(s, snapshot).map_err(failed)?;
    let classes = s.store.list(CLASSES, None);
    let mut marked = classes.iter().filter(|c| {
        meta::annotation(c, DEFAULT) == Some("true")
            && meta::text(c, "/driver") == meta::text(&volume, "/spec/csi/driver")
    });
    let why = match (marked.next(), marked.count()) {
        (Some(class), 0) => return Ok(Arc::clone(class)),
        (Some(_), more) => format!("{} default snapshot classes were found", more + 1),
        (None, _) => "cannot find default snapshot class".to_owned(),
    };
    Err(failed(why))
}

/// The volume that a snapshot is to be taken of.
fn source(s: &Storage, snapshot: &Value) -> Result<Arc<Value>, String> {
    let namespace = meta::namespace(snapshot);
    let name = meta::text(snapshot, "/spec/source/persistentVolumeClaimName");
    let Some(claim) = s.store.get(CLAIMS, namespace, name) else {
        return Err(format!("{UPDATE_FAILED}: cannot get claim from snapshot"));
    };
    let volume = s.store.get(VOLUMES, "", volume_name(&claim));
    match volume {
        Some(volume) if phase(&claim) == "Bound" => Ok(volume),
        _ => Err(format!(
            "the PVC {name} is not yet bound to a PV, will not attempt to take a snapshot"
        )),
    }
}

/// Makes the content object by which the driver's sidecar is asked for the snapshot.
fn request(s: &Storage, snapshot: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(snapshot);
    let class = match class_of(s, snapshot) {
        Ok(class) => class,
        Err((reason, text)) => return fail(s, snapshot, reason, &text),
    };
    let volume = match source(s, snapshot) {
        Ok(volume) => volume,
        Err(why) => {
            let text = format!("Failed to create snapshot content with error {why}");
            return fail(s, snapshot, "SnapshotContentCreationFailed", &text);
        }
    };
    let claim = meta::text(snapshot, "/spec/source/persistentVolumeClaimName");
    s.store.modify(CLAIMS, &namespace, claim, Part::Any, |c| {
        meta::add_finalizer(c, CLAIM);
    })?;
    let mode = match meta::text(&volume, "/spec/volumeMode") {
        "" => "Filesystem",
        mode => mode,
    };
    let content = json!({
        "metadata": {
            "name": format!("snapcontent-{}", meta::uid(snapshot)),
            "finalizers": [CONTENT],
        },
        "spec": {
            "deletionPolicy": meta::text(&class, "/deletionPolicy"),
            "driver": meta::text(&class, "/driver"),
            "source": {"volumeHandle": handle(&volume)},
            "sourceVolumeMode": mode,
            "volumeSnapshotClassName": meta::name(&class),
            "volumeSnapshotRef": {
                "apiVersion": format!("{GROUP}/v1"),
                "kind": "VolumeSnapshot",
                "namespace": namespace,
                "name": name,
                "uid": meta::uid(snapshot),
                "resourceVersion": meta::text(snapshot, "/metadata/resourceVersion"),
            },
        },
    });
    let snapshot = s
        .store
        .modify(SNAPSHOTS, &namespace, &name, Part::Object, |o| {
            o["spec"]["volumeSnapshotClassName"] = json!(meta::name(&class));
        })?;
    let content = s.store.create(CONTENTS, content)?;
    let text =
        format!("Waiting for a snapshot {namespace}/{name} to be created by the CSI driver.");
    event(&s.store, &snapshot, "CreatingSnapshot", &text, COMPONENT);
    tell(s, &snapshot, &content)
}

/// Lets the source claim go once no snapshot of it is being taken; one that is being deleted is
/// waited for no longer.
fn release_claim(s: &Storage, snapshot: &Value) -> Result<(), ApiError> {
    let (namespace, _) = key(snapshot);
    let at = "/spec/source/persistentVolumeClaimName";
    let claim = meta::text(snapshot, at);
    let Some(found) = s.store.get(CLAIMS, &namespace, claim) else {
        return Ok(());
    };
    let taking = |other: &Arc<Value>| {
        meta::text(other, at) == claim && !ready(other) && !meta::deleting(other)
    };
    let taken = s.store.list(SNAPSHOTS, Some(&namespace));
    if meta::finalizers(&found).contains(&CLAIM) && !taken.iter().any(taking) {
        s.store.modify(CLAIMS, &namespace, claim, Part::Any, |c| {
            meta::remove_finalizer(c, CLAIM);
        })?;
    }
    Ok(())
}

/// Whether a claim is being filled from the snapshot.
fn restoring(s: &Storage, snapshot: &Value) -> bool {
    let claims = s.store.list(CLAIMS, Some(meta::namespace(snapshot)));
    claims.iter().any(|claim| {
        phase(claim) == "Pending" && super::source(claim) == Some(meta::name(snapshot))
    })
}

/// Takes a snapshot away, and its content with it unless the policy keeps that.
fn remove(s: &Storage, snapshot: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(snapshot);
    let content = content(s, snapshot).filter(|content| refers(content, snapshot));
    if content.is_some() && restoring(s, snapshot) {
        let text = "Snapshot is being used to restore a PVC";
        event(&s.store, snapshot, "SnapshotDeletePending", text, COMPONENT);
        return Ok(After::Done);
    }
    let mut waits = false;
    if let Some(content) = content {
        let of = meta::name(&content);
        let content = s.store.modify(CONTENTS, "", of, Part::Object, |c| {
            annotate(c, BEING_DELETED, "yes");
        })?;
        if meta::text(&content, "/spec/deletionPolicy") == "Delete" {
            waits = true;
            if !meta::deleting(&content) {
                let options = DeleteOptions::default();
                s.store.delete(CONTENTS, "", of, &options)?;
            }
        }
    }
    s.store
        .modify(SNAPSHOTS, &namespace, &name, Part::Any, |o| {
            meta::remove_finalizer(o, AS_SOURCE);
            if !waits {
                meta::remove_finalizer(o, BOUND);
            }
        })?;
    Ok(After::Done)
}
