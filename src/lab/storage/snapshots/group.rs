//! VolumeGroupSnapshots as external-snapshotter serves them since 8.6: the claims that a selector finds
//! are cut at one instant by the driver, and each member shows as a VolumeSnapshot of its own, which
//! claims are restored from. The common controller and the sidecar in one.
//!
//! Contract: which claims belong is settled when the driver is asked first. Members are named by a hash
//! of the group's UID and their volume's handle, and are taken away with their group only.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::super::engine::{After, Key, Sources, drive, key};
use super::super::objects::{event, handle, phase, settle, volume_name};
use super::super::{CLAIMS, Storage, VOLUMES};
use super::{CONTENT, CONTENTS, GROUP, SNAPSHOTS, ready};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::array::{Code, Snapshot};
use crate::lab::world;

/// Resource of VolumeGroupSnapshots.
pub(in crate::lab::storage) const GROUPS: &str =
    "volumegroupsnapshots.groupsnapshot.storage.k8s.io";
/// Resource of VolumeGroupSnapshotContents.
pub(in crate::lab::storage) const GROUP_CONTENTS: &str =
    "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io";
/// Resource of VolumeGroupSnapshotClasses.
pub(in crate::lab::storage) const GROUP_CLASSES: &str =
    "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io";
/// Marks the class for group snapshots that name none.
pub(in crate::lab::storage) const DEFAULT: &str =
    "groupsnapshot.storage.kubernetes.io/is-default-class";

/// Finalizer of a group snapshot that takes its content with it.
const BOUND: &str = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection";
/// Finalizer of a group content until its snapshots are gone from the storage.
const GROUP_CONTENT: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection";
/// Finalizer of a VolumeSnapshot that is a member of a group snapshot.
const IN_GROUP: &str = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection";
const COMPONENT: &str = "snapshot-controller";
/// Lab time between two looks at a group snapshot that is not ready.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Whether a VolumeSnapshot is a member of a group snapshot.
pub(super) fn is_member(snapshot: &Value) -> bool {
    let owners = snapshot.pointer("/metadata/ownerReferences");
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    owners.any(|owner| owner["kind"] == "VolumeGroupSnapshot")
}

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let (claims, classes) = (store.clone(), store.clone());
    let waiting = |store: &crate::lab::api::Store, namespace: Option<&str>| -> Vec<Key> {
        let all = store.list(GROUPS, namespace);
        let open = all.iter().filter(|g| !ready(g) || meta::deleting(g));
        open.map(|g| key(g)).collect()
    };
    let sources = Sources::new()
        .watch(store.watch(GROUPS), |c| vec![key(&c.object)])
        .watch(store.watch(SNAPSHOTS), |c| {
            let owners = c.object.pointer("/metadata/ownerReferences/0/name");
            let group = owners
                .and_then(Value::as_str)
                .filter(|_| is_member(&c.object));
            let namespace = meta::namespace(&c.object).to_owned();
            group
                .map(|name| (namespace, name.to_owned()))
                .into_iter()
                .collect()
        })
        .watch(store.watch(CLAIMS), move |c| {
            waiting(&claims, Some(meta::namespace(&c.object)))
        })
        .watch(store.watch(GROUP_CLASSES), move |_| waiting(&classes, None));
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(GROUPS, &namespace, &name) {
        Some(group) => settle(step(&s, &group), "group snapshot"),
        None => After::Done,
    }
}

fn content_name(group: &Value) -> String {
    format!("groupsnapcontent-{}", meta::uid(group))
}

fn step(s: &Storage, group: &Arc<Value>) -> Result<After, ApiError> {
    if meta::deleting(group) {
        return remove(s, group);
    }
    if ready(group) {
        return Ok(After::Done);
    }
    let (namespace, name) = key(group);
    let group = s.store.modify(GROUPS, &namespace, &name, Part::Any, |o| {
        meta::add_finalizer(o, BOUND);
    })?;
    let content = match s.store.get(GROUP_CONTENTS, "", &content_name(&group)) {
        Some(content) => content,
        None => match request(s, &group)? {
            Ok(content) => content,
            Err(why) => {
                let text = format!("Failed to create group snapshot content with error {why}");
                let reason = "GroupSnapshotContentCreationFailed";
                super::fail(s, (GROUPS, COMPONENT), &group, reason, &text)?;
                return Ok(After::Done);
            }
        },
    };
    take(s, &group, &content)
}

/// Makes the content object by which the driver is asked for the group.
fn request(s: &Storage, group: &Value) -> Result<Result<Arc<Value>, String>, ApiError> {
    let (namespace, name) = key(group);
    let volumes = match volumes(s, group) {
        Ok(volumes) => volumes,
        Err(why) => return Ok(Err(why)),
    };
    let driver = meta::text(&volumes[0], "/spec/csi/driver").to_owned();
    let class = match class(s, group, &driver) {
        Ok(class) => class,
        Err(why) => return Ok(Err(why)),
    };
    let handles: Vec<&str> = volumes.iter().map(|volume| handle(volume)).collect();
    let content = json!({
        "metadata": {"name": content_name(group), "finalizers": [GROUP_CONTENT]},
        "spec": {
            "deletionPolicy": meta::text(&class, "/deletionPolicy"),
            "driver": driver,
            "source": {"volumeHandles": handles},
            "volumeGroupSnapshotClassName": meta::name(&class),
            "volumeGroupSnapshotRef": {
                "apiVersion": "groupsnapshot.storage.k8s.io/v1",
                "kind": "VolumeGroupSnapshot",
                "namespace": namespace,
                "name": name,
                "uid": meta::uid(group),
                "resourceVersion": meta::text(group, "/metadata/resourceVersion"),
            },
        },
    });
    s.store
        .modify(GROUPS, &namespace, &name, Part::Object, |o| {
            o["spec"]["volumeGroupSnapshotClassName"] = json!(meta::name(&class));
        })?;
    let content = s.store.create(GROUP_CONTENTS, content)?;
    let text =
        format!("Waiting for a group snapshot {namespace}/{name} to be created by the CSI driver.");
    event(&s.store, group, "CreatingGroupSnapshot", &text, COMPONENT);
    Ok(Ok(content))
}

fn class(s: &Storage, group: &Value, driver: &str) -> Result<Arc<Value>, String> {
    let named = meta::text(group, "/spec/volumeGroupSnapshotClassName");
    if !named.is_empty() {
        let found = s.store.get(GROUP_CLASSES, "", named);
        let found = found.filter(|class| meta::text(class, "/driver") == driver);
        return found.ok_or_else(|| {
            format!("volumegroupsnapshotclass \"{named}\" of driver {driver} not found")
        });
    }
    let classes = s.store.list(GROUP_CLASSES, None);
    let mut marked = classes.iter().filter(|class| {
        meta::annotation(class, DEFAULT) == Some("true") && meta::text(class, "/driver") == driver
    });
    match (marked.next(), marked.count()) {
        (Some(class), 0) => Ok(Arc::clone(class)),
        (Some(_), more) => Err(format!("{} default snapshot classes were found", more + 1)),
        (None, _) => Err("cannot find default group snapshot class".to_owned()),
    }
}

/// The volumes of the claims that the group's selector finds: at least one, all bound, of one driver.
fn volumes(s: &Storage, group: &Value) -> Result<Vec<Arc<Value>>, String> {
    let namespace = meta::namespace(group);
    let Some(selector) = group.pointer("/spec/source/selector") else {
        return Err("only group snapshots by a selector are taken here".to_owned());
    };
    let mut found = s.store.list(CLAIMS, Some(namespace));
    found.retain(|claim| selects(selector, claim));
    let volumes = found.iter().map(|claim| {
        let volume = s.store.get(VOLUMES, "", volume_name(claim));
        volume.filter(|_| phase(claim) == "Bound").ok_or_else(|| {
            let name = meta::name(claim);
            format!(
                "the PVC {name} is not yet bound to a PV, will not attempt to take a group snapshot"
            )
        })
    });
    let volumes = volumes.collect::<Result<Vec<_>, String>>()?;
    let driver = |volume: &Arc<Value>| meta::text(volume, "/spec/csi/driver").to_owned();
    match volumes.first().map(driver) {
        None => Err("label selector for group snapshot not applied to any PVC".to_owned()),
        Some(first) if volumes.iter().any(|volume| driver(volume) != first) => {
            Err("the PVCs of the group are of different CSI drivers".to_owned())
        }
        Some(_) => Ok(volumes),
    }
}

fn selects(selector: &Value, object: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut labels = labels;
    let mut expressions = expressions;
    labels.all(|(key, value)| meta::label(object, key) == value.as_str())
        && expressions.all(|one| {
            let label = meta::label(object, one["key"].as_str().unwrap_or_default());
            let values = one["values"].as_array().into_iter().flatten();
            let listed = values
                .filter_map(Value::as_str)
                .any(|value| label == Some(value));
            match one["operator"].as_str().unwrap_or_default() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

/// The last part of the names of a member and its content.
fn hash(group: &Value, volume: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(meta::uid(group).as_bytes());
    hasher.update(volume.as_bytes());
    let mut text = String::new();
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("writing to a String");
    }
    text
}

/// Asks the driver for the group, or how it fares, and shows the members once they are cut.
fn take(s: &Storage, group: &Value, content: &Value) -> Result<After, ApiError> {
    let handles = content.pointer("/spec/source/volumeHandles");
    let handles = handles.and_then(Value::as_array).into_iter().flatten();
    let members: Vec<(&str, String)> = handles
        .filter_map(Value::as_str)
        .map(|volume| (volume, format!("snapshot-{}", hash(group, volume))))
        .collect();
    let cut = match s.array.snapshot_group(s.site, &members) {
        Ok(cut) => cut,
        // The driver is at it: it is asked again, and the same snapshots are meant.
        Err(status) if status.code == Code::Aborted => return Ok(After::Requeue(AGAIN)),
        Err(status) => {
            let text = format!("failed to take group snapshot of the volumes: {status}");
            let reason = "GroupSnapshotCreationFailed";
            super::fail(s, (GROUP_CONTENTS, COMPONENT), content, reason, &text)?;
            super::fail(s, (GROUPS, COMPONENT), group, reason, &text)?;
            return Ok(After::Retry);
        }
    };
    let group_handle = world::handle(s.site, &format!("group-{}", meta::uid(group)));
    let whole = cut.iter().all(|snapshot| snapshot.ready);
    let first = cut.iter().map(|snapshot| snapshot.created).min();
    let created = first.map(meta::stamp).unwrap_or_default();
    let infos: Vec<Value> = members
        .iter()
        .zip(&cut)
        .map(|((volume, _), snapshot)| {
            json!({
                "volumeHandle": volume, "snapshotHandle": snapshot.handle,
                "creationTime": nanoseconds(snapshot), "readyToUse": snapshot.ready,
                "restoreSize": snapshot.bytes,
            })
        })
        .collect();
    let content = s
        .store
        .modify(GROUP_CONTENTS, "", meta::name(content), Part::Status, |o| {
            o["status"] = json!({
                "creationTime": created, "readyToUse": whole,
                "volumeGroupSnapshotHandle": group_handle, "volumeSnapshotInfoList": infos,
            });
        })?;
    for ((volume, name), snapshot) in members.iter().zip(&cut) {
        show(s, (group, &content), (volume, name), snapshot)?;
    }
    let (namespace, name) = key(group);
    s.store
        .modify(GROUPS, &namespace, &name, Part::Status, |o| {
            o["status"] = json!({
                "boundVolumeGroupSnapshotContentName": meta::name(&content),
                "creationTime": created, "readyToUse": whole,
            });
        })?;
    Ok(if whole {
        After::Done
    } else {
        After::Requeue(AGAIN)
    })
}

fn nanoseconds(snapshot: &Snapshot) -> i64 {
    i64::try_from(snapshot.created.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Makes the VolumeSnapshot of a member and its content, bound to each other, if they are not there.
/// From then on they fare like any other: the content's sidecar asks how the snapshot does.
fn show(
    s: &Storage,
    (group, content): (&Value, &Value),
    (volume, name): (&str, &str),
    snapshot: &Snapshot,
) -> Result<(), ApiError> {
    let namespace = meta::namespace(group);
    if s.store.get(SNAPSHOTS, namespace, name).is_some() {
        return Ok(());
    }
    let volumes = s.store.list(VOLUMES, None);
    let of = volumes.iter().find(|known| handle(known) == volume);
    let claim = of.map_or("", |of| meta::text(of, "/spec/claimRef/name"));
    let bound = format!("snapcontent-{}", hash(group, volume));
    let mut owner = meta::owner_reference(group);
    if let Some(owner) = owner.as_object_mut() {
        owner.shift_remove("blockOwnerDeletion");
    }
    let member = s.store.create(
        SNAPSHOTS,
        json!({
            "metadata": {
                "name": name, "namespace": namespace,
                "ownerReferences": [owner], "finalizers": [IN_GROUP],
            },
            "spec": {"source": {"persistentVolumeClaimName": claim}},
            "status": {
                "boundVolumeSnapshotContentName": bound,
                "volumeGroupSnapshotName": meta::name(group),
            },
        }),
    )?;
    let group_handle = meta::text(content, "/status/volumeGroupSnapshotHandle");
    let annotation = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-handle";
    let content = json!({
        "metadata": {
            "name": bound, "finalizers": [CONTENT], "annotations": {annotation: group_handle},
        },
        "spec": {
            "deletionPolicy": meta::text(content, "/spec/deletionPolicy"),
            "driver": meta::text(content, "/spec/driver"),
            "source": {"volumeHandle": volume},
            "sourceVolumeMode": of.map(|of| of["spec"]["volumeMode"].clone()),
            "volumeSnapshotRef": {
                "apiVersion": format!("{GROUP}/v1"), "kind": "VolumeSnapshot",
                "namespace": namespace, "name": name, "uid": meta::uid(&member),
            },
        },
        "status": {
            "creationTime": nanoseconds(snapshot), "readyToUse": snapshot.ready,
            "restoreSize": snapshot.bytes, "snapshotHandle": snapshot.handle,
            "volumeGroupSnapshotHandle": group_handle,
        },
    });
    s.store.create(CONTENTS, content)?;
    Ok(())
}

/// Takes a group snapshot away: its members first, then its content.
fn remove(s: &Storage, group: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(group);
    let mut members = s.store.list(SNAPSHOTS, Some(&namespace));
    members.retain(|member| {
        is_member(member)
            && meta::text(member, "/metadata/ownerReferences/0/uid") == meta::uid(group)
    });
    for member in &members {
        let of = meta::name(member);
        s.store.modify(SNAPSHOTS, &namespace, of, Part::Any, |o| {
            meta::remove_finalizer(o, IN_GROUP);
        })?;
        if !meta::deleting(member) {
            let options = DeleteOptions::default();
            s.store.delete(SNAPSHOTS, &namespace, of, &options)?;
        }
    }
    if !members.is_empty() {
        return Ok(After::Done);
    }
    if let Some(content) = s.store.get(GROUP_CONTENTS, "", &content_name(group)) {
        let of = meta::name(&content);
        if !meta::deleting(&content) {
            s.store
                .delete(GROUP_CONTENTS, "", of, &DeleteOptions::default())?;
        }
        s.store.modify(GROUP_CONTENTS, "", of, Part::Any, |o| {
            meta::remove_finalizer(o, GROUP_CONTENT);
        })?;
    }
    s.store.modify(GROUPS, &namespace, &name, Part::Any, |o| {
        meta::remove_finalizer(o, BOUND);
    })?;
    Ok(After::Done)
}
