//! VirtualMachineRestores: waiting for the VM to stop, new claims from snapshots, the VM's definition
//! as it was.
//!
//! By default the restored claims have new names and the VM is pointed at them, so everything that
//! names the old ones, replication above all, goes on with the old data. `InPlace` deletes each claim
//! and makes it anew under its name; a claim that a finalizer keeps is waited for without an end.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::restored::{self, is_in_place};
use super::{CONTENT, DV, PVC, RESTORE, SNAPSHOT, VM, VMI, condition, put, take};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::faults::Fault;
use crate::lab::storage::engine::After;
use crate::lab::vm::condition as conditions;
use crate::lab::vm::keys::{claim_of, items, phase};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::subresources;

/// Finalizer of a restore until it let go of its VM.
const PROTECTED: &str = "snapshot.kubevirt.io/vmrestore-protection";
const COMPONENT: &str = "restore-controller";
/// How long the owner of the VM has to stop it.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

fn failed(restore: &Value) -> bool {
    conditions::get(restore, "Failure").is_some()
}

/// Whether it came to its end, well or not.
pub(super) fn is_over(restore: &Value) -> bool {
    restore.pointer("/status/complete") == Some(&json!(true)) || failed(restore)
}

/// One step of a restore.
pub(super) fn step(ctx: &Ctx, restore: &Arc<Value>) -> Result<After, ApiError> {
    let (namespace, name) = (meta::namespace(restore), meta::name(restore));
    if restore.get("status").is_none() {
        write(ctx, restore, |r| {
            put(r, "complete", json!(false));
            let said = "Initializing VirtualMachineRestore";
            condition(r, "Progressing", true, said);
            condition(r, "Ready", false, said);
        })?;
        return Ok(After::Done);
    }
    let target = meta::text(restore, "/spec/target/name");
    let vm = ctx.store.get(VM, namespace, target);
    if meta::deleting(restore) {
        return remove(ctx, restore, vm.as_deref());
    }
    if is_over(restore) {
        return Ok(After::Done);
    }
    let restore = ctx.store.modify(RESTORE, namespace, name, Part::Any, |r| {
        meta::add_finalizer(r, PROTECTED);
        if let Some(vm) = vm.as_deref().filter(|_| meta::owners(r).is_empty()) {
            r["metadata"]["ownerReferences"] = json!([meta::owner_reference(vm)]);
        }
    })?;
    if ctx.store.get(VMI, namespace, target).is_some() {
        return not_ready(ctx, &restore, target);
    }
    match advance(ctx, &restore, vm.as_ref()) {
        Ok(after) => Ok(after),
        Err(error) => {
            let text = format!("VirtualMachineRestore encountered error {}", error.message);
            let reason = "VirtualMachineRestoreError";
            ctx.event(&restore, "Warning", reason, &text, COMPONENT);
            says(ctx, &restore, false, &error.message, &error.message)?;
            Err(error)
        }
    }
}

fn write(
    ctx: &Ctx,
    restore: &Value,
    change: impl FnMut(&mut Value),
) -> Result<Arc<Value>, ApiError> {
    let (namespace, name) = (meta::namespace(restore), meta::name(restore));
    ctx.store
        .modify(RESTORE, namespace, name, Part::Status, change)
}

fn says(
    ctx: &Ctx,
    restore: &Value,
    progresses: bool,
    progressing: &str,
    ready: &str,
) -> Result<After, ApiError> {
    write(ctx, restore, |r| {
        condition(r, "Progressing", progresses, progressing);
        condition(r, "Ready", false, ready);
    })?;
    Ok(After::Done)
}

/// The VM still runs: what happens then is for the restore's policy to say.
fn not_ready(ctx: &Ctx, restore: &Value, target: &str) -> Result<After, ApiError> {
    let text = "Restore target VMI still exists";
    ctx.event(restore, "Normal", "RestoreTargetNotReady", text, COMPONENT);
    let reason = "Waiting for target to be ready";
    let fails = match meta::text(restore, "/spec/targetReadinessPolicy") {
        "WaitEventually" => None,
        "StopTarget" => {
            // A VM that is told to stop already refuses, and that is fine.
            if let Err(error) = subresources::stop(ctx, meta::namespace(restore), target)
                && error.code != 409
            {
                return Err(error);
            }
            None
        }
        "FailImmediate" => Some("Restore target not ready"),
        _ => {
            let since = meta::text(restore, "/metadata/creationTimestamp").parse::<Timestamp>();
            let passed = since.map_or(GRACE, |s| Timestamp::now().duration_since(s));
            if passed < GRACE {
                let left = (GRACE - passed).unsigned_abs();
                says(ctx, restore, false, reason, reason)?;
                return Ok(After::Requeue(ctx.clock.lab(left)));
            }
            Some("Restore target failed to be ready within 5m0s")
        }
    };
    let Some(why) = fails else {
        return says(ctx, restore, false, reason, reason);
    };
    write(ctx, restore, |r| {
        condition(r, "Progressing", false, "Operation failed");
        condition(r, "Failure", true, why);
        condition(r, "Ready", false, "Operation failed");
    })?;
    Ok(After::Done)
}

/// Lets the VM and then the restore itself go.
fn remove(ctx: &Ctx, restore: &Value, vm: Option<&Value>) -> Result<After, ApiError> {
    if vm.is_some() {
        release(ctx, restore)?;
    }
    let (namespace, name) = (meta::namespace(restore), meta::name(restore));
    ctx.store.modify(RESTORE, namespace, name, Part::Any, |r| {
        meta::remove_finalizer(r, PROTECTED);
    })?;
    Ok(After::Done)
}

fn release(ctx: &Ctx, restore: &Value) -> Result<(), ApiError> {
    let namespace = meta::namespace(restore);
    let target = meta::text(restore, "/spec/target/name");
    ctx.store
        .modify(VM, namespace, target, Part::Status, |vm| {
            if meta::text(vm, "/status/restoreInProgress") == meta::name(restore) {
                put(vm, "restoreInProgress", Value::Null);
            }
        })?;
    Ok(())
}

fn failure(why: impl Into<String>) -> ApiError {
    ApiError::internal(why.into())
}

/// The content of the snapshot that a restore names, if both are whole.
fn content(ctx: &Ctx, restore: &Value) -> Result<(Arc<Value>, Arc<Value>), ApiError> {
    let namespace = meta::namespace(restore);
    let name = meta::text(restore, "/spec/virtualMachineSnapshotName");
    let full = format!("VMSnapshot {namespace}/{name}");
    let snapshot = ctx.store.get(SNAPSHOT, namespace, name);
    let snapshot = snapshot.ok_or_else(|| failure(format!("{full} does not exist")))?;
    if phase(&snapshot) == "Failed" {
        return Err(failure(format!("{full} failed and is invalid to use")));
    }
    if !take::ready(&snapshot) {
        return Err(failure(format!("{full} not ready")));
    }
    let of = take::content_name(&snapshot);
    let content = ctx.store.get(CONTENT, namespace, &of);
    let content =
        content.ok_or_else(|| failure(format!("VMSnapshotContent {of} does not exist")))?;
    if !take::ready(&content) {
        return Err(failure(format!("VMSnapshotContent {of} not ready")));
    }
    Ok((snapshot, content))
}

fn advance(ctx: &Ctx, restore: &Arc<Value>, vm: Option<&Arc<Value>>) -> Result<After, ApiError> {
    let (snapshot, content) = content(ctx, restore)?;
    let mark = restored::mark(restore);
    let done = vm.is_some_and(|vm| restored::marked(vm, &mark));
    if let Some(vm) = vm.filter(|_| !done) {
        if meta::text(&snapshot, "/status/sourceUID") != meta::uid(vm) {
            return Err(failure(
                "restore source and restore target are different but restore target already exists",
            ));
        }
        take_over(ctx, restore, vm)?;
    }
    if strikes(ctx, restore, vm) {
        return finish(ctx, restore, vm.map(|vm| &**vm));
    }
    if claims(ctx, restore, &content, vm.map(|vm| &**vm))? {
        return says(
            ctx,
            restore,
            true,
            "Creating new PVCs",
            "Waiting for new PVCs",
        );
    }
    if !done {
        if restored::data_volumes(ctx, restore, &content, vm.map(|vm| &**vm))? {
            let said = "Updating target spec";
            return says(ctx, restore, true, said, "Waiting for target update");
        }
        restored::machine(ctx, restore, &content, vm.map(|vm| &**vm))?;
        let said = "Updating target spec";
        return says(ctx, restore, true, said, "Waiting for target update");
    }
    for name in items(restore, "/status/deletedDataVolumes") {
        let name = name.as_str().unwrap_or_default();
        let namespace = meta::namespace(restore);
        let gone = ctx
            .store
            .delete(DV, namespace, name, &DeleteOptions::default());
        if let Err(error) = gone
            && error.reason != "NotFound"
        {
            return Err(error);
        }
    }
    finish(ctx, restore, vm.map(|vm| &**vm))
}

/// Fault `restore-is-a-no-op`: the restore says that it is complete, names the claims that the VM has,
/// and leaves them as they are.
fn strikes(ctx: &Ctx, restore: &Value, vm: Option<&Arc<Value>>) -> bool {
    let Some(vm) = vm.filter(|_| ctx.board.armed(Fault::RestoreIsNoOp)) else {
        return false;
    };
    let volumes = items(vm, "/spec/template/spec/volumes").iter();
    let kept: Vec<Value> = volumes
        .filter_map(|volume| {
            Some(json!({
                "volumeName": volume["name"],
                "persistentVolumeClaim": claim_of(volume)?,
                "volumeSnapshotName": "",
            }))
        })
        .collect();
    let written = write(ctx, restore, |r| put(r, "restores", json!(kept)));
    let struck = written.is_ok();
    if struck {
        let name = meta::name(restore);
        ctx.array.record(
            Fault::RestoreIsNoOp,
            ctx.site,
            name,
            "the claims stay as they are",
        );
    }
    struck
}

/// The VM is this restore's until it is done.
fn take_over(ctx: &Ctx, restore: &Value, vm: &Value) -> Result<(), ApiError> {
    let holder = meta::text(vm, "/status/restoreInProgress");
    let name = meta::name(restore);
    if !holder.is_empty() && holder != name {
        return Err(failure(format!("vm restore {holder} in progress")));
    }
    let holder = json!(name);
    ctx.store.modify(
        VM,
        meta::namespace(vm),
        meta::name(vm),
        Part::Status,
        |vm| {
            put(vm, "restoreInProgress", holder.clone());
        },
    )?;
    Ok(())
}

fn finish(ctx: &Ctx, restore: &Value, vm: Option<&Value>) -> Result<After, ApiError> {
    vm.ok_or_else(|| failure("At this point target should exist"))?;
    release(ctx, restore)?;
    let text = format!(
        "Successfully completed VirtualMachineRestore {}",
        meta::name(restore)
    );
    let reason = "VirtualMachineRestoreComplete";
    ctx.event(restore, "Normal", reason, &text, COMPONENT);
    write(ctx, restore, |r| {
        put(r, "complete", json!(true));
        put(r, "restoreTime", json!(meta::now()));
        condition(r, "Progressing", false, "Operation complete");
        condition(r, "Ready", true, "Operation complete");
    })?;
    Ok(After::Done)
}

/// Brings the claims a step on; true while there is something left to wait for.
fn claims(
    ctx: &Ctx,
    restore: &Value,
    content: &Value,
    vm: Option<&Value>,
) -> Result<bool, ApiError> {
    let namespace = meta::namespace(restore);
    let mut restores = items(restore, "/status/restores").to_vec();
    if restores.is_empty() {
        for backup in items(content, "/spec/volumeBackups") {
            let volume = meta::text(backup, "/volumeName");
            let claim = meta::text(backup, "/persistentVolumeClaim/metadata/name");
            restores.push(json!({
                "volumeName": volume,
                "persistentVolumeClaim": restored::volume_name(restore, volume, claim),
                "volumeSnapshotName": backup["volumeSnapshotName"],
            }));
        }
        write(ctx, restore, |r| put(r, "restores", json!(restores)))?;
        return Ok(true);
    }
    let mark = restored::mark(restore);
    let mut waits = false;
    for restored in &mut restores {
        let name = meta::text(restored, "/persistentVolumeClaim").to_owned();
        let Some(claim) = ctx.store.get(PVC, namespace, &name) else {
            restored::claim(ctx, restore, content, restored, vm)?;
            waits = true;
            continue;
        };
        if is_in_place(restore) && !restored::marked(&claim, &mark) {
            waits = true;
            if meta::deleting(&claim) {
                continue;
            }
            let owner = meta::controller(&claim).filter(|o| o["kind"] == "DataVolume");
            if let Some(owner) = owner {
                restored["dataVolumeName"] = owner["name"].clone();
                restored::prepopulate(ctx, restore, meta::text(owner, "/name"))?;
            }
            let options = DeleteOptions::default();
            ctx.store.delete(PVC, namespace, &name, &options)?;
        } else if phase(&claim) == "Pending" {
            waits |= !restored::waits_for_consumer(ctx, &claim);
        } else if phase(&claim) != "Bound" {
            let status = phase(&claim);
            return Err(failure(format!(
                "PVC {namespace}/{name} in status {status:?}"
            )));
        }
    }
    write(ctx, restore, |r| put(r, "restores", json!(restores)))?;
    Ok(waits)
}
