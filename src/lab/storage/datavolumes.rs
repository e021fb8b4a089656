//! CDI: DataVolumes, their claims and their content (kubevirt.md §3).
//!
//! Imports and clones go through populators, as on CSI storage: the claim waits, unbound, until its
//! volume is filled. The intermediate `prime` claim is not shown. Uploads are never served.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::claims::{Content, IMMEDIATE, provision, ready_for};
use super::engine::{After, Key, Sources, drive, key};
use super::objects::{annotate, class, default_class, event, phase, settle, volume_name};
use super::{CLAIMS, DATA_SOURCES, DATA_VOLUMES, PODS, STORAGE_CLASSES, Storage, VOLUMES};
use crate::lab::api::{ApiError, ChangeKind, DeleteOptions, Part, meta};
use crate::lab::guest::image::Os;

/// Annotation of a claim: filled for the DataVolume of this name.
pub(super) const POPULATED_FOR: &str = "cdi.kubevirt.io/storage.populatedFor";
/// Annotation of a DataVolume: its claim will come from elsewhere, filled.
pub(super) const PRE_POPULATED: &str = "cdi.kubevirt.io/storage.prePopulated";
/// Annotation of a DataVolume: whether it takes over a claim of its name. Nothing looks inside.
const ADOPT: &str = "cdi.kubevirt.io/allowClaimAdoption";
/// Annotation of a DataVolume: use a static volume that waits for the claim, if there is one.
const CHECK_STATIC: &str = "cdi.kubevirt.io/storage.checkStaticVolume";
/// Annotation of a claim: the static volumes that it may be bound to.
const EXPECTED: &str = "cdi.kubevirt.io/storage.persistentVolumeList";
const CREATED_FOR: &str = "cdi.kubevirt.io/createdForDataVolume";
const CONTROLLER: &str = "datavolume-controller";

const SCHEDULED: Duration = Duration::from_secs(2);
const TRANSFER: Duration = Duration::from_secs(4);

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let waiting = store.clone();
    let sources = Sources::new()
        .watch(store.watch(DATA_VOLUMES), |c| {
            // Its own status is written here and must not wake it.
            let quiet = |o: &Value| (o["spec"].clone(), o["metadata"]["annotations"].clone());
            let same = c.previous.as_ref().map(|p| quiet(p)) == Some(quiet(&c.object));
            if c.kind == ChangeKind::Deleted || same {
                Vec::new()
            } else {
                vec![key(&c.object)]
            }
        })
        .watch(store.watch(CLAIMS), |c| vec![key(&c.object)])
        .watch(store.watch(PODS), move |c| {
            let namespace = meta::namespace(&c.object);
            let volumes = waiting.list(DATA_VOLUMES, Some(namespace));
            let waiting = volumes.iter().filter(|v| phase(v) == "PendingPopulation");
            waiting.map(|v| key(v)).collect()
        });
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

/// Whether a DataVolume takes over an existing claim.
pub(super) fn may_adopt(dv: &Value) -> bool {
    meta::annotation(dv, ADOPT) == Some("true")
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(DATA_VOLUMES, &namespace, &name) {
        Some(dv) if !meta::deleting(&dv) => settle(step(&s, &dv), "data volume"),
        _ => After::Done,
    }
}

fn step(s: &Storage, dv: &Arc<Value>) -> Result<After, ApiError> {
    let (namespace, name) = key(dv);
    if let Some(claim) = s.store.get(CLAIMS, &namespace, &name) {
        take_over(s, dv, &claim)?;
    }
    if matches!(phase(dv), "Succeeded" | "Failed") {
        return Ok(After::Done);
    }
    let Some(claim) = s.store.get(CLAIMS, &namespace, &name) else {
        if meta::annotation(dv, PRE_POPULATED).is_some() {
            set(s, dv, "Pending", "N/A")?;
            return Ok(After::Done);
        }
        return make_claim(s, dv);
    };
    if meta::deleting(&claim) {
        return Ok(After::Done);
    }
    let ours = meta::controller(&claim).is_some_and(|o| o["uid"] == meta::uid(dv));
    let populated = meta::annotation(&claim, POPULATED_FOR) == Some(name.as_str());
    if populated || meta::annotation(dv, PRE_POPULATED) == Some(name.as_str()) {
        return finish(s, dv, &claim);
    }
    if ours {
        return advance(s, dv, &claim);
    }
    if may_adopt(dv) && meta::controller(&claim).is_none() {
        s.store
            .modify(CLAIMS, &namespace, &name, Part::Object, |c| {
                meta::entry(c, "ownerReferences", || json!([]));
                if let Some(owners) = c["metadata"]["ownerReferences"].as_array_mut() {
                    owners.push(meta::owner_reference(dv));
                }
                annotate(c, POPULATED_FOR, &name);
            })?;
        return finish(s, dv, &claim);
    }
    let text = format!("Resource \"{name}\" already exists and is not managed by DataVolume");
    event(&s.store, dv, "ErrResourceExists", &text, CONTROLLER);
    Ok(After::Done)
}

/// A claim that was filled for a DataVolume by somebody else, a restore for one, is its own from then
/// on.
fn take_over(s: &Storage, dv: &Value, claim: &Value) -> Result<(), ApiError> {
    let (namespace, name) = key(dv);
    let filled = meta::annotation(claim, POPULATED_FOR) == Some(name.as_str());
    if !filled || meta::deleting(claim) || !meta::owners(claim).is_empty() {
        return Ok(());
    }
    s.store
        .modify(CLAIMS, &namespace, &name, Part::Object, |c| {
            c["metadata"]["ownerReferences"] = json!([meta::owner_reference(dv)]);
        })?;
    Ok(())
}

/// A claim whose content is taken as it is: done once it is bound.
fn finish(s: &Storage, dv: &Value, claim: &Value) -> Result<After, ApiError> {
    if phase(claim) == "Bound" {
        set(s, dv, "Succeeded", "100.0%")?;
    } else {
        set(s, dv, "Pending", "N/A")?;
    }
    Ok(After::Done)
}

/// Where a DataVolume's content comes from.
enum Origin {
    Import(Content),
    Clone(Content),
    Upload,
    Unknown(String),
}

fn origin(s: &Storage, dv: &Value) -> Origin {
    let own = meta::namespace(dv);
    let (source, base) = match dv.pointer("/spec/sourceRef") {
        Some(reference) => {
            let namespace = match meta::text(reference, "/namespace") {
                "" => own,
                named => named,
            };
            let name = meta::text(reference, "/name");
            match s.store.get(DATA_SOURCES, namespace, name) {
                Some(found) => (found["spec"]["source"].clone(), namespace.to_owned()),
                None => return Origin::Unknown(format!("DataSource {namespace}/{name} not found")),
            }
        }
        None => (dv["spec"]["source"].clone(), own.to_owned()),
    };
    let Some((kind, detail)) = source.as_object().and_then(|m| m.iter().next()) else {
        return Origin::Unknown("no source".to_owned());
    };
    let url = match meta::text(detail, "/url") {
        "" => meta::text(detail, "/imageStream"),
        url => url,
    };
    match kind.as_str() {
        "blank" => Origin::Import(Content::Blank),
        "registry" | "http" | "s3" | "gcs" | "imageio" | "vddk" => {
            Origin::Import(Content::System(Os::from_reference(url)))
        }
        "pvc" => {
            let namespace = match meta::text(detail, "/namespace") {
                "" => base,
                named => named.to_owned(),
            };
            Origin::Clone(Content::CloneOf {
                namespace,
                name: meta::text(detail, "/name").to_owned(),
            })
        }
        "upload" => Origin::Upload,
        other => Origin::Unknown(format!("source {other} is not supported")),
    }
}

/// The next step of a DataVolume whose claim is its own.
fn advance(s: &Storage, dv: &Value, claim: &Value) -> Result<After, ApiError> {
    if phase(claim) == "Bound" {
        return check_static(s, dv, claim);
    }
    if meta::annotation(claim, EXPECTED).is_some() {
        set(s, dv, "Pending", "N/A")?;
        return Ok(After::Done);
    }
    let origin = origin(s, dv);
    let (scheduled, running, content) = match origin {
        Origin::Import(content) => ("ImportScheduled", "ImportInProgress", content),
        Origin::Clone(content) => ("CloneScheduled", "CSICloneInProgress", content),
        Origin::Upload => {
            set(s, dv, "UploadScheduled", "N/A")?;
            return Ok(After::Done);
        }
        Origin::Unknown(why) => {
            tracing::debug!(dv = meta::name(dv), why, "data volume waits");
            set(s, dv, "Pending", "N/A")?;
            return Ok(After::Retry);
        }
    };
    match phase(dv) {
        "" => {
            set(s, dv, "Pending", "N/A")?;
            Ok(After::Requeue(Duration::ZERO))
        }
        "Pending" | "PendingPopulation" => {
            if ready_for(s, claim)? {
                set(s, dv, scheduled, "N/A")?;
                Ok(After::Requeue(SCHEDULED))
            } else {
                set(s, dv, "PendingPopulation", "N/A")?;
                Ok(After::Done)
            }
        }
        held if held == scheduled => {
            set(s, dv, running, "N/A")?;
            Ok(After::Requeue(TRANSFER))
        }
        // Binding the claim wakes this again.
        _ => provision(s, claim, &content),
    }
}

/// A bound claim ends its DataVolume, unless it should have been bound to a static volume.
fn check_static(s: &Storage, dv: &Value, claim: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(claim);
    if let Some(expected) = meta::annotation(claim, EXPECTED) {
        let expected: Vec<String> = serde_json::from_str(expected).unwrap_or_default();
        if !expected.iter().any(|v| v == volume_name(claim)) {
            let text = "DataVolume bound to unexpected PV";
            event(&s.store, dv, "ErrClaimLost", text, CONTROLLER);
            let options = DeleteOptions::default();
            s.store.delete(CLAIMS, &namespace, &name, &options)?;
            return Ok(After::Done);
        }
        s.store
            .modify(CLAIMS, &namespace, &name, Part::Object, |c| {
                annotate(c, POPULATED_FOR, &name);
            })?;
    }
    set(s, dv, "Succeeded", "100.0%")?;
    Ok(After::Done)
}

/// Volumes that are free and wait for a claim of this name.
fn static_volumes(s: &Storage, namespace: &str, name: &str) -> Vec<String> {
    let volumes = s.store.list(VOLUMES, None);
    let waiting = volumes.iter().filter(|v| {
        phase(v) == "Available"
            && meta::text(v, "/spec/claimRef/namespace") == namespace
            && meta::text(v, "/spec/claimRef/name") == name
    });
    waiting.map(|v| meta::name(v).to_owned()).collect()
}

fn make_claim(s: &Storage, dv: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(dv);
    let statics = if meta::annotation(dv, CHECK_STATIC) == Some("true") {
        static_volumes(s, &namespace, &name)
    } else {
        Vec::new()
    };
    let mut annotations = Map::new();
    annotations.insert(CREATED_FOR.into(), json!(meta::uid(dv)));
    if let Some(immediate) = meta::annotation(dv, IMMEDIATE) {
        annotations.insert(IMMEDIATE.into(), json!(immediate));
    }
    let mut spec = claim_spec(s, dv);
    if statics.is_empty() {
        let clone = matches!(origin(s, dv), Origin::Clone(_));
        let kind = if clone {
            annotations.insert("cdi.kubevirt.io/cloneType".into(), json!("csi-clone"));
            "VolumeCloneSource"
        } else {
            "VolumeImportSource"
        };
        spec["dataSourceRef"] = json!({
            "apiGroup": "cdi.kubevirt.io",
            "kind": kind,
            "name": format!("volume-{}-{}", kind.to_lowercase(), meta::uid(dv)),
        });
    } else {
        annotations.insert(EXPECTED.into(), json!(json!(statics).to_string()));
    }
    let mut labels = json!({"app": "containerized-data-importer"});
    let own = dv.pointer("/metadata/labels").and_then(Value::as_object);
    for (key, value) in own.into_iter().flatten() {
        labels[key.as_str()] = value.clone();
    }
    let claim = json!({
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [meta::owner_reference(dv)],
        },
        "spec": spec,
        "status": {"phase": "Pending"},
    });
    set(s, dv, "Pending", "N/A")?;
    match s.store.create(CLAIMS, claim) {
        Err(e) if e.reason != "AlreadyExists" => Err(e),
        _ => Ok(After::Done),
    }
}

/// The claim's spec: `spec.pvc` as it is, `spec.storage` completed from the StorageProfile.
fn claim_spec(s: &Storage, dv: &Value) -> Value {
    if let Some(given) = dv.pointer("/spec/pvc") {
        return given.clone();
    }
    let mut spec = dv["spec"]["storage"].clone();
    if class(&json!({"spec": spec})).is_empty() {
        let virt = default_class(&s.store, "storageclass.kubevirt.io/is-default-virt-class");
        let any = || default_class(&s.store, "storageclass.kubernetes.io/is-default-class");
        if let Some(class) = virt.or_else(any) {
            spec["storageClassName"] = json!(class);
        }
    }
    let named = meta::text(&spec, "/storageClassName").to_owned();
    let profile = s.store.get("storageprofiles.cdi.kubevirt.io", "", &named);
    let sets = profile
        .as_ref()
        .and_then(|p| p.pointer("/status/claimPropertySets"));
    let sets = sets.and_then(Value::as_array).cloned().unwrap_or_default();
    let fits = |set: &&Value, field: &str| spec.get(field).is_none_or(|v| *v == set[field]);
    let best = sets
        .iter()
        .find(|set| fits(set, "accessModes") && fits(set, "volumeMode"));
    if let Some(best) = best.cloned() {
        for field in ["accessModes", "volumeMode"] {
            spec[field] = best[field].clone();
        }
    } else if spec.get("accessModes").is_none() {
        spec["accessModes"] = json!(["ReadWriteOnce"]);
    }
    if s.store.get(STORAGE_CLASSES, "", &named).is_none() {
        tracing::debug!(class = named, "data volume names a class that is not there");
    }
    spec
}

/// Writes phase, progress and the three conditions that follow from the phase.
fn set(s: &Storage, dv: &Value, phase: &str, progress: &str) -> Result<(), ApiError> {
    let (namespace, name) = key(dv);
    let done = phase == "Succeeded";
    let running = phase.ends_with("InProgress");
    s.store
        .modify(DATA_VOLUMES, &namespace, &name, Part::Status, |dv| {
            let status = meta::map_at(dv, "status");
            status.insert("claimName".into(), json!(name));
            status.insert("phase".into(), json!(phase));
            status.insert("progress".into(), json!(progress));
            let bound = if done { "Bound" } else { "Pending" };
            condition(status, "Bound", done, bound);
            condition(status, "Ready", done, "");
            let reason = if done { "Completed" } else { "Pod is running" };
            condition(
                status,
                "Running",
                running,
                if running || done { reason } else { "" },
            );
        })
        .map(drop)
}

fn condition(status: &mut Map<String, Value>, kind: &str, holds: bool, reason: &str) {
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let word = if holds { "True" } else { "False" };
    let held = list.iter_mut().find(|c| c["type"] == kind);
    if held.as_ref().is_some_and(|c| c["status"] == word) {
        return;
    }
    let now = meta::now();
    let condition = json!({
        "type": kind,
        "status": word,
        "reason": reason,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    match held {
        Some(held) => *held = condition,
        None => list.push(condition),
    }
}
