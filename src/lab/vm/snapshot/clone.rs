//! VirtualMachineClones: a snapshot, a restore of it under another name, and both are taken away.

use serde_json::{Value, json};

use super::restore::is_over;
use super::{CLONE, RESTORE, SNAPSHOT, VM, condition, put, take};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::storage::engine::After;
use crate::lab::vm::keys::{items, phase};
use crate::lab::vm::site::Ctx;

const COMPONENT: &str = "clone-controller";

/// One step of a clone.
pub(super) fn step(ctx: &Ctx, clone: &Value) -> Result<After, ApiError> {
    if meta::deleting(clone) || matches!(phase(clone), "Succeeded" | "Failed") {
        return Ok(After::Done);
    }
    let namespace = meta::namespace(clone);
    let source = meta::text(clone, "/spec/source/name");
    let Some(vm) = ctx.store.get(VM, namespace, source) else {
        let why = format!("VirtualMachine {source} does not exist in namespace {namespace}");
        return fail(ctx, clone, "SnapshotNotCreated", &why);
    };
    match phase(clone) {
        "" | "SnapshotInProgress" => snapshot(ctx, clone),
        "RestoreInProgress" => restore(ctx, clone, &vm),
        _ => created(ctx, clone),
    }
}

fn write(ctx: &Ctx, clone: &Value, change: impl Fn(&mut Value)) -> Result<After, ApiError> {
    let (namespace, name) = (meta::namespace(clone), meta::name(clone));
    ctx.store
        .modify(CLONE, namespace, name, Part::Status, |c| {
            condition(c, "Progressing", true, "Still processing");
            condition(c, "Ready", false, "Still processing");
            change(c);
        })?;
    Ok(After::Done)
}

fn fail(ctx: &Ctx, clone: &Value, reason: &str, why: &str) -> Result<After, ApiError> {
    ctx.event(clone, "Normal", reason, why, COMPONENT);
    write(ctx, clone, |c| {
        put(c, "phase", json!("Failed"));
        condition(c, "Progressing", false, "Failed");
        condition(c, "Ready", false, "Failed");
    })
}

/// Makes something for the clone; fine if it is there already.
fn make(
    ctx: &Ctx,
    clone: &Value,
    resource: &str,
    name: &str,
    spec: &Value,
) -> Result<(), ApiError> {
    let object = json!({
        "metadata": {
            "name": name,
            "namespace": meta::namespace(clone),
            "ownerReferences": [meta::owner_reference(clone)],
        },
        "spec": spec,
    });
    match ctx.store.create(resource, object) {
        Err(error) if error.reason != "AlreadyExists" => Err(error),
        _ => Ok(()),
    }
}

fn snapshot(ctx: &Ctx, clone: &Value) -> Result<After, ApiError> {
    let namespace = meta::namespace(clone);
    let name = meta::text(clone, "/status/snapshotName");
    if name.is_empty() {
        let name = format!("tmp-snapshot-{}", meta::uid(clone));
        let source = json!({
            "apiGroup": "kubevirt.io", "kind": "VirtualMachine",
            "name": meta::text(clone, "/spec/source/name"),
        });
        make(ctx, clone, SNAPSHOT, &name, &json!({"source": source}))?;
        let text = format!("created snapshot {name} for clone {}", meta::name(clone));
        ctx.event(clone, "Normal", "SnapshotCreated", &text, COMPONENT);
        return write(ctx, clone, |c| {
            put(c, "phase", json!("SnapshotInProgress"));
            put(c, "snapshotName", json!(name));
        });
    }
    match ctx.store.get(SNAPSHOT, namespace, name) {
        Some(found) if take::ready(&found) => {
            let text = format!(
                "snapshot {name} for clone {} is ready to use",
                meta::name(clone)
            );
            ctx.event(clone, "Normal", "SnapshotReady", &text, COMPONENT);
            write(ctx, clone, |c| put(c, "phase", json!("RestoreInProgress")))
        }
        // One that failed is waited for all the same.
        _ => Ok(After::Done),
    }
}

fn restore(ctx: &Ctx, clone: &Value, vm: &Value) -> Result<After, ApiError> {
    let namespace = meta::namespace(clone);
    let snapshot = meta::text(clone, "/status/snapshotName");
    if ctx.store.get(SNAPSHOT, namespace, snapshot).is_none() {
        let why = format!("snapshot {snapshot} does not exist anymore");
        return fail(ctx, clone, "SnapshotDeleted", &why);
    }
    let name = meta::text(clone, "/status/restoreName");
    if name.is_empty() {
        let name = format!("tmp-restore-{}", meta::uid(clone));
        let given = meta::text(clone, "/spec/target/name");
        let target = match given {
            "" => format!("{}-clone-{:05x}", meta::name(vm), ctx.next()),
            given => given.to_owned(),
        };
        let mut spec = json!({
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target},
            "virtualMachineSnapshotName": snapshot,
            "targetReadinessPolicy": "WaitGracePeriod",
            "patches": patches(vm, &clone["spec"]),
        });
        if let Some(policy) = clone.pointer("/spec/volumeNamePolicy") {
            spec["volumeRestorePolicy"] = policy.clone();
        }
        make(ctx, clone, RESTORE, &name, &spec)?;
        let text = format!("created restore {name} for clone {}", meta::name(clone));
        ctx.event(clone, "Normal", "RestoreCreated", &text, COMPONENT);
        return write(ctx, clone, |c| put(c, "restoreName", json!(name)));
    }
    match ctx.store.get(RESTORE, namespace, name) {
        Some(found) if is_over(&found) => {
            let text = format!(
                "restore {name} for clone {} is ready to use",
                meta::name(clone)
            );
            ctx.event(clone, "Normal", "RestoreReady", &text, COMPONENT);
            let target = found["spec"]["target"]["name"].clone();
            write(ctx, clone, |c| {
                put(c, "phase", json!("CreatingTargetVM"));
                put(c, "targetName", target.clone());
            })
        }
        _ => Ok(After::Done),
    }
}

fn created(ctx: &Ctx, clone: &Value) -> Result<After, ApiError> {
    let namespace = meta::namespace(clone);
    let target = meta::text(clone, "/status/targetName");
    if ctx.store.get(VM, namespace, target).is_none() {
        return Ok(After::Retry);
    }
    for (resource, field) in [
        (SNAPSHOT, "/status/snapshotName"),
        (RESTORE, "/status/restoreName"),
    ] {
        let name = meta::text(clone, field);
        let gone = ctx
            .store
            .delete(resource, namespace, name, &DeleteOptions::default());
        if let Err(error) = gone
            && error.reason != "NotFound"
        {
            return Err(error);
        }
    }
    let text = format!("created target VM {target} for clone {}", meta::name(clone));
    ctx.event(clone, "Normal", "TargetVMCreated", &text, COMPONENT);
    write(ctx, clone, |c| {
        put(c, "snapshotName", Value::Null);
        put(c, "restoreName", Value::Null);
        put(c, "phase", json!("Succeeded"));
        condition(c, "Progressing", false, "Ready");
        condition(c, "Ready", true, "Ready");
    })
}

/// What makes the clone another machine: MAC addresses, SMBIOS serial and firmware UUID. Where no new
/// one is given they are emptied, and something else fills them in, or nothing does.
fn patches(vm: &Value, spec: &Value) -> Vec<String> {
    let domain = "/spec/template/spec/domain";
    let replace = |path: String, value: &str| {
        json!({"op": "replace", "path": path, "value": value}).to_string()
    };
    let interfaces = items(vm, &format!("{domain}/devices/interfaces"));
    let mut patches: Vec<String> = (interfaces.iter().enumerate())
        .map(|(at, interface)| {
            let name = interface["name"].as_str().unwrap_or_default();
            let mac = spec["newMacAddresses"][name].as_str().unwrap_or_default();
            // A patch that replaces what is not there is refused by the server's own rules.
            let op = if interface.get("macAddress").is_some() {
                "replace"
            } else {
                "add"
            };
            let path = format!("{domain}/devices/interfaces/{at}/macAddress");
            json!({"op": op, "path": path, "value": mac}).to_string()
        })
        .collect();
    if vm.pointer(&format!("{domain}/firmware")).is_some() {
        let serial = meta::text(spec, "/newSMBiosSerial");
        patches.push(replace(format!("{domain}/firmware/serial"), serial));
        patches.push(replace(format!("{domain}/firmware/uuid"), ""));
    }
    patches
}
