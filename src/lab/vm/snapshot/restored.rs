//! What a restore makes: claims, DataVolumes and the VM.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::keys::{items, phase};
use super::super::site::Ctx;
use super::{DV, PVC, RESTORE, VM, VOLUME_SNAPSHOT, put};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::storage::quantity;

/// Annotation of what a restore made or changed: the restore that did it last.
const LAST: &str = "restore.kubevirt.io/lastRestoreUID";
/// Annotation of what a restore made: its name.
const NAME: &str = "restore.kubevirt.io/name";
/// Annotation of a claim: filled for the DataVolume of this name.
const POPULATED_FOR: &str = "cdi.kubevirt.io/storage.populatedFor";
/// Annotation of a DataVolume: its claim comes from elsewhere, filled.
const PRE_POPULATED: &str = "cdi.kubevirt.io/storage.prePopulated";
/// Annotations that belong to the old claim alone.
const NOT_KEPT: [&str; 6] = [
    "pv.kubernetes.io",
    "volume.beta.kubernetes.io",
    "cdi.kubevirt.io",
    "volume.kubernetes.io",
    "k8s.io/CloneRequest",
    "k8s.io/CloneOf",
];

/// The value of [`LAST`] that means a restore.
pub(super) fn mark(restore: &Value) -> String {
    format!("{}-{}", meta::name(restore), meta::uid(restore))
}

/// Whether an object bears the mark.
pub(super) fn marked(object: &Value, mark: &str) -> bool {
    meta::annotation(object, LAST) == Some(mark)
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    let annotations = meta::entry(object, "annotations", || json!({}));
    annotations[key] = json!(value);
}

/// Whether the claims keep their names.
pub(super) fn is_in_place(restore: &Value) -> bool {
    meta::text(restore, "/spec/volumeRestorePolicy") == "InPlace"
}

/// The name that a volume of this name and claim (or DataVolume) has after the restore.
pub(super) fn volume_name(restore: &Value, volume: &str, claim: &str) -> String {
    let overrides = items(restore, "/spec/volumeRestoreOverrides");
    let given = overrides.iter().find(|o| o["volumeName"] == volume);
    match given.map(|o| meta::text(o, "/restoreName")) {
        Some(name) if !name.is_empty() => return name.to_owned(),
        _ => {}
    }
    match meta::text(restore, "/spec/volumeRestorePolicy") {
        "InPlace" => claim.to_owned(),
        "PrefixTargetName" => {
            let target = meta::text(restore, "/spec/target/name");
            format!("{target}-{volume}")
        }
        _ => format!("restore-{}-{volume}", meta::uid(restore)),
    }
}

/// Whether a claim is bound only when something uses it.
pub(super) fn waits_for_consumer(ctx: &Ctx, claim: &Value) -> bool {
    let class = meta::text(claim, "/spec/storageClassName");
    let class = ctx.store.get("storageclasses.storage.k8s.io", "", class);
    class.is_some_and(|c| meta::text(&c, "/volumeBindingMode") == "WaitForFirstConsumer")
}

/// Keeps a DataVolume from filling its claim anew while that is replaced.
pub(super) fn prepopulate(ctx: &Ctx, restore: &Value, name: &str) -> Result<(), ApiError> {
    let by = meta::name(restore).to_owned();
    ctx.store
        .modify(DV, meta::namespace(restore), name, Part::Object, |dv| {
            annotate(dv, NAME, &by);
            annotate(dv, PRE_POPULATED, "true");
        })?;
    Ok(())
}

/// Makes the claim of one volume, filled from its snapshot and at least as large.
pub(super) fn claim(
    ctx: &Ctx,
    restore: &Value,
    content: &Value,
    restored: &Value,
    vm: Option<&Value>,
) -> Result<(), ApiError> {
    let namespace = meta::namespace(restore);
    let backups = items(content, "/spec/volumeBackups");
    let backup = backups
        .iter()
        .find(|b| b["volumeName"] == restored["volumeName"]);
    let backup = backup.ok_or_else(|| {
        let volume = meta::text(restored, "/volumeName");
        ApiError::internal(format!("volume backup for volume {volume} not found"))
    })?;
    let from = meta::text(backup, "/volumeSnapshotName");
    let snapshot = ctx.store.get(VOLUME_SNAPSHOT, namespace, from);
    let snapshot =
        snapshot.ok_or_else(|| ApiError::internal(format!("missing volumeSnapshot {from}")))?;
    let old = &backup["persistentVolumeClaim"];
    let source = json!({
        "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": from,
    });
    let mut spec = json!({"dataSource": source, "dataSourceRef": source});
    for field in ["accessModes", "resources", "storageClassName", "volumeMode"] {
        if let Some(value) = old["spec"].get(field) {
            spec[field] = value.clone();
        }
    }
    let size = |text: &str| quantity::bytes(text).unwrap_or(0);
    let whole = meta::text(&snapshot, "/status/restoreSize");
    if size(meta::text(&spec, "/resources/requests/storage")) < size(whole) {
        spec["resources"]["requests"]["storage"] = json!(whole);
    }
    let mut claim = json!({
        "metadata": {
            "name": restored["persistentVolumeClaim"],
            "namespace": namespace,
            "labels": old["metadata"]["labels"],
            "annotations": old["metadata"]["annotations"],
        },
        "spec": spec,
        "status": {"phase": "Pending"},
    });
    let annotations = claim.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.retain(|key, _| NOT_KEPT.iter().all(|prefix| !key.starts_with(prefix)));
    }
    let labels = meta::entry(&mut claim, "labels", || json!({}));
    let source = &content["spec"]["source"]["virtualMachine"];
    labels["restore.kubevirt.io/source-vm-name"] = json!(meta::name(source));
    labels["restore.kubevirt.io/source-vm-namespace"] = json!(meta::namespace(source));
    annotate(&mut claim, NAME, meta::name(restore));
    annotate(&mut claim, LAST, &mark(restore));
    overridden(restore, restored, &mut claim);
    let owner = meta::text(restored, "/dataVolumeName");
    if !owner.is_empty() {
        annotate(&mut claim, POPULATED_FOR, owner);
    } else if let Some(vm) = vm {
        claim["metadata"]["ownerReferences"] = json!([meta::owner_reference(vm)]);
    }
    ctx.store.create(PVC, claim)?;
    Ok(())
}

/// Labels and annotations that the restore gives to a volume.
fn overridden(restore: &Value, restored: &Value, claim: &mut Value) {
    let overrides = items(restore, "/spec/volumeRestoreOverrides");
    let given = overrides
        .iter()
        .find(|o| o["volumeName"] == restored["volumeName"]);
    for field in ["labels", "annotations"] {
        let given = given.and_then(|o| o[field].as_object());
        for (key, value) in given.into_iter().flatten() {
            claim["metadata"][field][key] = value.clone();
        }
    }
}

/// The template of a DataVolume in the VM that was snapshotted.
fn template<'a>(content: &'a Value, name: &str) -> Option<&'a Value> {
    let at = "/spec/source/virtualMachine/spec/dataVolumeTemplates";
    items(content, at).iter().find(|t| meta::name(t) == name)
}

/// Makes the DataVolumes of the restored VM's templates, which take over the new claims; true while
/// there is something left to wait for.
pub(super) fn data_volumes(
    ctx: &Ctx,
    restore: &Value,
    content: &Value,
    vm: Option<&Value>,
) -> Result<bool, ApiError> {
    let namespace = meta::namespace(restore);
    let mut restores = items(restore, "/status/restores").to_vec();
    let volumes = items(
        content,
        "/spec/source/virtualMachine/spec/template/spec/volumes",
    );
    let mut waits = false;
    let mut kept = Vec::new();
    for restored in &mut restores {
        let volume = volumes.iter().find(|v| v["name"] == restored["volumeName"]);
        let old = volume
            .map(|v| meta::text(v, "/dataVolume/name"))
            .unwrap_or_default();
        let Some(template) = template(content, old) else {
            continue;
        };
        let name = volume_name(restore, meta::text(restored, "/volumeName"), old);
        restored["dataVolumeName"] = json!(name);
        kept.push(name.clone());
        let claim = meta::text(restored, "/persistentVolumeClaim");
        ctx.store.modify(PVC, namespace, claim, Part::Object, |c| {
            if meta::annotation(c, POPULATED_FOR) != Some(&name) {
                annotate(c, POPULATED_FOR, &name);
                // The DataVolume takes it over.
                meta::metadata(c).shift_remove("ownerReferences");
            }
        })?;
        if let Some(dv) = ctx.store.get(DV, namespace, &name) {
            let phase = phase(&dv);
            waits |= !matches!(
                phase,
                "Succeeded" | "WaitForFirstConsumer" | "PendingPopulation"
            );
        } else {
            data_volume(ctx, restore, template, &name)?;
            waits = true;
        }
    }
    let old = vm.map_or(&[][..], |vm| items(vm, "/spec/dataVolumeTemplates"));
    let left: Vec<&str> = old
        .iter()
        .map(meta::name)
        .filter(|name| !kept.iter().any(|kept| kept == name))
        .collect();
    ctx.store
        .modify(RESTORE, namespace, meta::name(restore), Part::Status, |r| {
            put(r, "restores", json!(restores));
            if !left.is_empty() {
                put(r, "deletedDataVolumes", json!(left));
            }
        })?;
    Ok(waits)
}

fn data_volume(ctx: &Ctx, restore: &Value, template: &Value, name: &str) -> Result<(), ApiError> {
    let mut dv = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": {
            "name": name,
            "namespace": meta::namespace(restore),
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
        },
        "spec": template["spec"],
    });
    annotate(&mut dv, NAME, meta::name(restore));
    annotate(&mut dv, PRE_POPULATED, "true");
    ctx.store.create(DV, dv)?;
    Ok(())
}

/// Gives the VM the definition that was snapshotted, on the restored volumes, and keeps its run
/// strategy; a VM that is not there is made, halted and patched.
pub(super) fn machine(
    ctx: &Ctx,
    restore: &Value,
    content: &Value,
    vm: Option<&Value>,
) -> Result<(), ApiError> {
    let namespace = meta::namespace(restore);
    let source = &content["spec"]["source"]["virtualMachine"];
    let restored = ctx.store.get(RESTORE, namespace, meta::name(restore));
    let restored = restored.ok_or_else(|| ApiError::not_found(RESTORE, meta::name(restore)))?;
    let spec = defined(source, content, items(&restored, "/status/restores"));
    let mark = mark(restore);
    if let Some(vm) = vm {
        let strategy = ["running", "runStrategy"].map(|f| (f, vm["spec"].get(f).cloned()));
        let change = |vm: &mut Value| {
            vm["spec"] = spec.clone();
            for (field, held) in &strategy {
                match held {
                    // A VM with the older field is left halted.
                    Some(_) if *field == "running" => vm["spec"]["running"] = json!(false),
                    Some(held) => vm["spec"][*field] = held.clone(),
                    None => {
                        meta::map_at(vm, "spec").shift_remove(*field);
                    }
                }
            }
            annotate(vm, LAST, &mark);
        };
        ctx.store
            .modify(VM, namespace, meta::name(vm), Part::Object, change)?;
        return Ok(());
    }
    let mut made = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": meta::text(restore, "/spec/target/name"),
            "namespace": namespace,
            "labels": source["metadata"]["labels"],
            "annotations": source["metadata"]["annotations"],
        },
        "spec": spec,
    });
    if made["spec"].get("running").is_some() {
        made["spec"]["running"] = json!(false);
    } else {
        made["spec"]["runStrategy"] = json!("Halted");
    }
    annotate(&mut made, LAST, &mark);
    let patches: Result<Vec<Value>, _> = items(restore, "/spec/patches")
        .iter()
        .map(|patch| serde_json::from_str(patch.as_str().unwrap_or_default()))
        .collect();
    let patches =
        patches.map_err(|why| ApiError::internal(format!("cannot decode vm patches: {why}")))?;
    let patch: json_patch::Patch = serde_json::from_value(json!(patches))
        .map_err(|why| ApiError::internal(format!("cannot decode vm patches: {why}")))?;
    json_patch::patch(&mut made, &patch)
        .map_err(|why| ApiError::internal(format!("failed to apply patch for VM: {why}")))?;
    identify(&mut made, restore);
    let made = ctx.store.create(VM, made)?;
    let owned = json!([meta::owner_reference(&made)]);
    for restored in items(&restored, "/status/restores") {
        if meta::text(restored, "/dataVolumeName").is_empty() {
            let claim = meta::text(restored, "/persistentVolumeClaim");
            ctx.store.modify(PVC, namespace, claim, Part::Object, |c| {
                c["metadata"]["ownerReferences"] = owned.clone();
            })?;
        }
    }
    Ok(())
}

/// What virt-api's webhook fills in: a firmware UUID and serial that no other VM has.
fn identify(vm: &mut Value, restore: &Value) {
    let firmware = &mut vm["spec"]["template"]["spec"]["domain"]["firmware"];
    for field in ["uuid", "serial"] {
        if firmware[field].as_str().is_none_or(str::is_empty) {
            let hash = blake3::hash(format!("{field}/{}", meta::uid(restore)).as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash.as_bytes()[..16]);
            let fresh = uuid::Builder::from_random_bytes(bytes).into_uuid();
            firmware[field] = json!(Uuid::to_string(&fresh));
        }
    }
}

/// The definition of the VM that was snapshotted, its volumes and templates pointed at what was
/// restored.
fn defined(source: &Value, content: &Value, restores: &[Value]) -> Value {
    let mut spec = source["spec"].clone();
    let of = |name: &Value| restores.iter().find(|r| r["volumeName"] == *name);
    let is_templated = |name: &str| template(content, name).is_some();
    let mut renamed = Vec::new();
    let volumes = spec.pointer_mut("/template/spec/volumes");
    for volume in volumes.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(made) = of(&volume["name"]) else {
            continue;
        };
        let claim = made["persistentVolumeClaim"].clone();
        if volume.get("persistentVolumeClaim").is_some() {
            volume["persistentVolumeClaim"]["claimName"] = claim;
        } else if is_templated(meta::text(volume, "/dataVolume/name")) {
            let new = made["dataVolumeName"].clone();
            renamed.push((volume["dataVolume"]["name"].clone(), new.clone()));
            volume["dataVolume"]["name"] = new;
        } else {
            let claim = json!({"claimName": claim});
            *volume = json!({"name": volume["name"], "persistentVolumeClaim": claim});
        }
    }
    let templates = spec.get_mut("dataVolumeTemplates");
    for template in templates
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let name = &mut template["metadata"]["name"];
        if let Some((_, new)) = renamed.iter().find(|(old, _)| old == name) {
            *name = new.clone();
        }
    }
    spec
}
