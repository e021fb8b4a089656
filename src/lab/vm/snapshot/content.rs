//! VirtualMachineSnapshotContents: the freeze, one VolumeSnapshot per claim, the thaw.
//!
//! The volumes are asked for one after the other and taken whenever their driver comes to it. The
//! guest is thawed once all have a creation time, which says nothing of whether it was still frozen.

use std::sync::Arc;

use serde_json::{Value, json};

use super::source::{Source, simplified};
use super::take::{self, COMPONENT, SELF_THAW};
use super::{CONTENT, PVC, RETRY, SNAPSHOT, VOLUME_SNAPSHOT, put, told};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::storage::engine::After;
use crate::lab::vm::keys::{items, phase};
use crate::lab::vm::site::Ctx;

/// Finalizer of a content while its snapshot is there.
const PROTECTED: &str = "snapshot.kubevirt.io/vmsnapshotcontent-protection";
/// Annotation of the class for snapshots that name none. KubeVirt looks only whether it is there.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// Makes the content of a snapshot whose VM is locked: every claim that can be snapshotted.
pub(super) fn create(ctx: &Ctx, snapshot: &Value, source: &Source) -> Result<(), ApiError> {
    let namespace = meta::namespace(snapshot);
    let mut backups = Vec::new();
    for (volume, claim) in source.claims() {
        let claim = ctx.store.get(PVC, namespace, &claim);
        let Some(claim) = claim.filter(|claim| phase(claim) == "Bound") else {
            continue;
        };
        if class(ctx, &claim)?.is_none() {
            continue;
        }
        backups.push(json!({
            "volumeName": volume,
            "persistentVolumeClaim": {"metadata": simplified(&claim), "spec": claim["spec"]},
            "volumeSnapshotName": format!("vmsnapshot-{}-volume-{volume}", meta::uid(snapshot)),
        }));
    }
    let name = take::content_name(snapshot);
    let content = json!({
        "metadata": {"name": name, "namespace": namespace, "finalizers": [PROTECTED]},
        "spec": {
            "virtualMachineSnapshotName": meta::name(snapshot),
            "source": {"virtualMachine": source.spec(ctx)?},
            "volumeBackups": backups,
        },
    });
    match ctx.store.create(CONTENT, content) {
        Err(error) if error.reason != "AlreadyExists" => return Err(error),
        _ => {}
    }
    let text = format!("Successfully created VirtualMachineSnapshotContent {name}");
    let reason = "SuccessfulVirtualMachineSnapshotContentCreate";
    ctx.event(snapshot, "Normal", reason, &text, COMPONENT);
    Ok(())
}

/// The class for snapshots of a claim: the one of its StorageProfile, the only one of its driver, or
/// the one marked as default.
fn class(ctx: &Ctx, claim: &Value) -> Result<Option<String>, ApiError> {
    let named = meta::text(claim, "/spec/storageClassName");
    let Some(storage) = ctx.store.get("storageclasses.storage.k8s.io", "", named) else {
        return Ok(None);
    };
    let classes = "volumesnapshotclasses.snapshot.storage.k8s.io";
    let profile = ctx.store.get("storageprofiles.cdi.kubevirt.io", "", named);
    if let Some(profile) = profile {
        let given = meta::text(&profile, "/status/snapshotClass");
        if !given.is_empty() {
            let there = ctx.store.get(classes, "", given).is_some();
            return Ok(there.then(|| given.to_owned()));
        }
    }
    let driver = meta::text(&storage, "/provisioner");
    let all = ctx.store.list(classes, None);
    let fit: Vec<_> = (all.iter())
        .filter(|class| meta::text(class, "/driver") == driver)
        .collect();
    match fit.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(meta::name(only).to_owned())),
        many => {
            let marked = many.iter().find(|c| meta::annotation(c, DEFAULT).is_some());
            let why = format!("{} matching VolumeSnapshotClasses for {named}", many.len());
            let marked = marked.ok_or_else(|| ApiError::internal(why))?;
            Ok(Some(meta::name(marked).to_owned()))
        }
    }
}

/// One step of a content.
pub(super) async fn step(ctx: &Ctx, content: &Arc<Value>) -> Result<After, ApiError> {
    let namespace = meta::namespace(content);
    let of = meta::text(content, "/spec/virtualMachineSnapshotName");
    let snapshot = ctx.store.get(SNAPSHOT, namespace, of);
    if snapshot.as_deref().is_none_or(take::ending) {
        if let Some(snapshot) = snapshot.as_deref()
            && let Some(source) = Source::of(ctx, snapshot)
            && let Err(error) = source.thaw(ctx, snapshot).await
        {
            tracing::debug!(%error, content = meta::name(content), "the source was not thawed");
        }
        let modified = ctx
            .store
            .modify(CONTENT, namespace, meta::name(content), Part::Any, |c| {
                meta::remove_finalizer(c, PROTECTED);
            });
        modified?;
        return Ok(After::Done);
    }
    if meta::deleting(content) {
        return Ok(After::Requeue(RETRY));
    }
    let Some(snapshot) = snapshot else {
        return Ok(After::Done);
    };
    let created = content.pointer("/status/creationTime").is_some();
    let mut frozen = false;
    let mut seen = Vec::new();
    let mut missing = Vec::new();
    for backup in items(content, "/spec/volumeBackups") {
        let name = meta::text(backup, "/volumeSnapshotName");
        let volume = match ctx.store.get(VOLUME_SNAPSHOT, namespace, name) {
            Some(there) => there,
            None if created => {
                missing.push(name);
                continue;
            }
            None => {
                if !frozen && let Err(error) = freeze(ctx, &snapshot).await {
                    return refused(ctx, content, &error.message);
                }
                frozen = true;
                request(ctx, content, backup)?
            }
        };
        seen.push(volume);
    }
    settle(ctx, content, &snapshot, &seen, &missing).await
}

/// An error of the freeze stands in the status and is tried again.
fn refused(ctx: &Ctx, content: &Value, message: &str) -> Result<After, ApiError> {
    let (namespace, name) = (meta::namespace(content), meta::name(content));
    ctx.store
        .modify(CONTENT, namespace, name, Part::Status, |c| {
            put(c, "error", told(message));
            put(c, "readyToUse", json!(false));
        })?;
    Ok(After::Requeue(RETRY))
}

async fn freeze(ctx: &Ctx, snapshot: &Value) -> Result<(), ApiError> {
    let source = Source::of(ctx, snapshot);
    let source = source.ok_or_else(|| ApiError::internal("unable to get snapshot source"))?;
    if !source.locked_by(snapshot) {
        return Err(ApiError::internal("attempting to freeze unlocked VM"));
    }
    source.freeze(ctx, take::deadline(snapshot)).await
}

/// Asks for the snapshot of one claim.
fn request(ctx: &Ctx, content: &Value, backup: &Value) -> Result<Arc<Value>, ApiError> {
    let claim = &backup["persistentVolumeClaim"];
    let class = class(ctx, claim)?;
    let class = class.ok_or_else(|| {
        let of = meta::text(claim, "/spec/storageClassName");
        ApiError::internal(format!("Couldn't find VolumeSnapshotClass for {of}"))
    })?;
    let vm = &content["spec"]["source"]["virtualMachine"];
    let name = meta::text(backup, "/volumeSnapshotName");
    let made = ctx.store.create(
        VOLUME_SNAPSHOT,
        json!({
            "metadata": {
                "name": name,
                "namespace": meta::namespace(content),
                "labels": {
                    "snapshot.kubevirt.io/source-vm-name": meta::name(vm),
                    "snapshot.kubevirt.io/source-vm-namespace": meta::namespace(vm),
                },
                "ownerReferences": [meta::owner_reference(content)],
            },
            "spec": {
                "source": {"persistentVolumeClaimName": meta::name(claim)},
                "volumeSnapshotClassName": class,
            },
        }),
    )?;
    let text = format!("Successfully created VolumeSnapshot {name}");
    let reason = "SuccessfulVolumeSnapshotCreate";
    ctx.event(content, "Normal", reason, &text, COMPONENT);
    Ok(made)
}

/// Writes what the VolumeSnapshots say, and thaws the guest once all are taken.
async fn settle(
    ctx: &Ctx,
    content: &Value,
    snapshot: &Value,
    seen: &[Arc<Value>],
    missing: &[&str],
) -> Result<After, ApiError> {
    let field = |volume: &Value, name: &str| volume["status"][name].clone();
    let has = |name: &str, value: Option<&Value>| {
        seen.iter().all(|volume| match value {
            Some(value) => field(volume, name) == *value,
            None => !field(volume, name).is_null(),
        })
    };
    let whole = missing.is_empty();
    let created = whole && has("creationTime", None);
    let ready = whole && has("readyToUse", Some(&json!(true)));
    let failed = seen.iter().find_map(|volume| {
        let why = volume.pointer("/status/error/message")?.as_str()?;
        Some(format!(
            "VolumeSnapshot {} error: {why}",
            meta::name(volume)
        ))
    });
    let error = if whole {
        failed
    } else {
        Some(format!("VolumeSnapshots ({}) missing", missing.join(",")))
    };
    let first = created && content.pointer("/status/creationTime").is_none();
    if first
        && let Some(source) = Source::of(ctx, snapshot)
        && let Err(error) = source.thaw(ctx, snapshot).await
    {
        if error.message.contains(SELF_THAW) {
            return refused(ctx, content, &error.message);
        }
        return Err(error);
    }
    let told_of: Vec<Value> = (seen.iter())
        .map(|volume| {
            let mut told = json!({"volumeSnapshotName": meta::name(volume)});
            for name in ["creationTime", "readyToUse", "error"] {
                if !field(volume, name).is_null() {
                    told[name] = field(volume, name);
                }
            }
            told
        })
        .collect();
    let (namespace, name) = (meta::namespace(content), meta::name(content));
    ctx.store
        .modify(CONTENT, namespace, name, Part::Status, |c| {
            if first {
                put(c, "creationTime", json!(meta::now()));
            }
            match &error {
                Some(message) if !ready => {
                    if meta::text(c, "/status/error/message") != message {
                        put(c, "error", told(message));
                    }
                }
                Some(_) => {}
                None => put(c, "error", Value::Null),
            }
            put(c, "readyToUse", json!(ready));
            put(c, "volumeSnapshotStatus", json!(told_of));
        })?;
    Ok(After::Done)
}
