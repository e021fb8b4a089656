//! Subresources of VirtualMachineInstances that answer at once: pause, freeze, reboot, what the
//! guest agent knows.
//!
//! A freeze goes through virt-handler and virt-launcher, whose refusals (400) virt-api wraps into
//! its own 500. A freeze that takes longer than virt-api waits fails for the caller and still
//! happens: after any failed freeze a client has to thaw.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::lifecycle::{Call, cancel_evacuation, dry, requires};
use super::reply;
use crate::lab::api::{ApiError, Body, meta};
use crate::lab::faults::Fault;
use crate::lab::vm::condition::{self, Condition, Times};
use crate::lab::vm::domain::Domain;
use crate::lab::vm::guest::{AgentReport, FileSystem, Guest};
use crate::lab::vm::keys::{VM, VMI, phase};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::{node, quiesce, vmi};

const SINGULAR: &str = "virtualmachineinstance.kubevirt.io";
const HANDLER: &str = "virt-handler";
/// How long virt-api waits for virt-handler.
const PATIENCE: Duration = Duration::from_secs(10);

fn found(call: &Call<'_>) -> Result<Arc<Value>, ApiError> {
    call.ctx
        .store
        .get(VMI, call.namespace, call.name)
        .ok_or_else(|| ApiError::not_found(SINGULAR, call.name))
}

fn conflict(call: &Call<'_>, why: &str) -> ApiError {
    ApiError::conflict(SINGULAR, call.name, why)
}

/// A running VMI with its domain and guest.
type Running = (Arc<Value>, Arc<Domain>, Arc<dyn Guest>);

fn running(call: &Call<'_>) -> Result<Running, ApiError> {
    let vmi = found(call)?;
    let not_running = || conflict(call, "VM is not running");
    if phase(&vmi) != "Running" {
        return Err(not_running());
    }
    let domain = call.ctx.domain(meta::uid(&vmi)).ok_or_else(not_running)?;
    let guest = domain.guest().ok_or_else(not_running)?;
    Ok((vmi, domain, guest))
}

/// Answers a PUT on a VMI.
pub(super) async fn put(call: &Call<'_>, sub: &str) -> Response<Body> {
    let result = match sub {
        "pause" => pause(call).await,
        "unpause" => unpause(call).await,
        "freeze" => freeze(call).await,
        "unfreeze" => unfreeze(call).await,
        "softreboot" => soft_reboot(call),
        "reset" => reset(call),
        "addvolume" | "removevolume" => Err(volumes(call, sub)),
        _ => cancel_evacuation(call, call.name),
    };
    match result {
        Ok(()) => reply::empty(200),
        Err(error) => reply::refused(&error),
    }
}

async fn pause(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, _, guest) = running(call)?;
    let probe = vmi.pointer("/spec/livenessProbe");
    if probe.is_some_and(|probe| probe.get("guestAgentPing").is_none()) {
        let why = "Pausing VMIs with LivenessProbe is currently not supported";
        return Err(ApiError::forbidden(SINGULAR, call.name, why));
    }
    if condition::is_true(&vmi, "Paused") {
        return Err(conflict(call, "VMI is already paused"));
    }
    if dry(call.options()?) {
        return Ok(());
    }
    let ctx = call.ctx;
    if !ctx.board.armed(Fault::PauseSwallowed) {
        let paused = guest.pause(true).await;
        paused.map_err(|why| handler_refused(&why))?;
    }
    ctx.event(
        &vmi,
        "Normal",
        "Paused",
        "VirtualMachineInstance paused",
        HANDLER,
    );
    vmi::modify(ctx, &vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: "Paused",
                status: true,
                reason: "PausedByUser",
                message: "VMI was paused by user",
                times: Times::Both,
            },
        );
    })?;
    Ok(())
}

async fn unpause(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, domain, guest) = running(call)?;
    let vm = call.ctx.store.get(VM, call.namespace, call.name);
    if vm.is_some_and(|vm| vm.pointer("/status/snapshotInProgress").is_some()) {
        return Err(conflict(call, "VM snapshot is in progress"));
    }
    if !condition::is_true(&vmi, "Paused") {
        return Err(conflict(call, "VMI is not paused"));
    }
    if dry(call.options()?) {
        return Ok(());
    }
    let ctx = call.ctx;
    resume(ctx, &domain, guest)
        .await
        .map_err(|why| handler_refused(&why))?;
    ctx.event(
        &vmi,
        "Normal",
        "Unpaused",
        "VirtualMachineInstance unpaused",
        HANDLER,
    );
    vmi::modify(ctx, &vmi, |vmi| condition::remove(vmi, "Paused"))?;
    Ok(())
}

/// Lets a paused guest go on: late or as another boot, if such a fault is planted.
async fn resume(ctx: &Ctx, domain: &Arc<Domain>, guest: Arc<dyn Guest>) -> Result<(), String> {
    let Some(ms) = ctx.board.param(Fault::UnpauseLate, "ms") else {
        guest.pause(false).await?;
        if ctx.board.armed(Fault::ResetForUnpause) {
            node::reboot(ctx, domain, true);
        }
        return Ok(());
    };
    let late = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let site = Arc::clone(ctx);
    ctx.tracker.spawn(async move {
        tokio::select! {
            () = site.token.cancelled() => return,
            () = site.clock.pass(site.clock.lab(late)) => {}
        }
        if let Err(error) = guest.pause(false).await {
            tracing::debug!(%error, "a guest does not go on");
        }
    });
    Ok(())
}

/// virt-handler said no.
fn handler_refused(why: &str) -> ApiError {
    ApiError::internal(format!(
        "unexpected return code 400 (400 Bad Request), message: {why}"
    ))
}

pub(super) async fn freeze(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, domain, guest) = running(call)?;
    let timeout = match &call.body {
        Ok(body) => &body["unfreezeTimeout"],
        Err(_) => &Value::Null,
    };
    let timeout = match timeout {
        Value::Null => {
            return Err(handler_refused(
                "Unfreeze timeout in freeze request is not set",
            ));
        }
        Value::String(text) => reply::duration(text),
        _ => None,
    };
    let Some(timeout) = timeout else {
        return Err(handler_refused("failed to unmarshal unfreeze timeout"));
    };
    let ctx = call.ctx;
    let refuse = |why: String| {
        let text = format!("Failed to freeze VMI: {why}");
        ctx.event(&vmi, "Warning", "FreezeError", &text, HANDLER);
        handler_refused(&why)
    };
    // A freeze that the lab draws out is given up as the lab counts time; one that the guest draws out,
    // in true time.
    let patience = async {
        if quiesce::takes(ctx) > PATIENCE {
            ctx.clock.pass(PATIENCE).await;
        } else {
            ctx.clock.keep(PATIENCE).await;
        }
    };
    let mut freezing = {
        let (site, vmi) = (Arc::clone(ctx), Arc::clone(&vmi));
        ctx.tracker
            .spawn(async move { quiesce::freeze(&site, &vmi, &domain, &guest, timeout).await })
    };
    tokio::select! {
        biased;
        held = &mut freezing => match held {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(refuse(why)),
            Err(error) => Err(ApiError::internal(error.to_string())),
        },
        // The caller is told that it failed; the freeze goes on.
        () = patience => Err(ApiError::internal(
            "Put \"https://virt-handler:8186/v1/freeze\": context deadline exceeded \
             (Client.Timeout exceeded while awaiting headers)",
        )),
    }
}

pub(super) async fn unfreeze(call: &Call<'_>) -> Result<(), ApiError> {
    let (_, domain, guest) = running(call)?;
    let thawed = quiesce::thaw(call.ctx, &domain, &guest).await;
    thawed.map_err(|why| handler_refused(&why))
}

fn soft_reboot(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, domain, guest) = running(call)?;
    if condition::is_true(&vmi, "Paused") {
        return Err(conflict(call, "VMI is paused"));
    }
    let acpi = vmi.pointer("/spec/domain/features/acpi/enabled") != Some(&json!(false));
    if !acpi && !guest.agent() {
        return Err(conflict(
            call,
            "VMI neither have the agent connected nor the ACPI feature enabled",
        ));
    }
    let text = "VirtualMachineInstance soft rebooted";
    call.ctx
        .event(&vmi, "Normal", "SoftRebooted", text, HANDLER);
    if guest.reacts() && !call.ctx.board.armed(Fault::SoftRebootSwallowed) {
        node::reboot(call.ctx, &domain, false);
    }
    Ok(())
}

fn reset(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, domain, _) = running(call)?;
    let text = "VirtualMachineInstance reset";
    call.ctx.event(&vmi, "Normal", "Reset", text, HANDLER);
    node::reboot(call.ctx, &domain, true);
    Ok(())
}

/// Since 1.9 volumes are hotplugged through the VM only.
fn volumes(call: &Call<'_>, sub: &str) -> ApiError {
    let vmi = match found(call) {
        Ok(vmi) => vmi,
        Err(error) => return error,
    };
    if meta::controller(&vmi).is_some_and(|owner| owner["kind"] == "VirtualMachine") {
        let why = format!("VMI {}/{} is owned by a VM", call.namespace, call.name);
        return ApiError::bad_request(why);
    }
    let options = call.options().cloned();
    match options {
        Err(error) => error,
        Ok(options) if sub == "addvolume" && requires(&options).is_err() => requires(&options)
            .err()
            .unwrap_or_else(|| ApiError::bad_request("")),
        Ok(_) => ApiError::bad_request(
            "Enable DeclarativeHotplugVolumes or HotplugVolumes feature gate to use this API.",
        ),
    }
}

/// Answers a GET that asks the guest agent; every failure is a 500 in plain text.
pub(super) async fn get(call: &Call<'_>, sub: &str) -> Response<Body> {
    match ask(call, sub).await {
        Ok(body) => reply::json(200, &body),
        Err(error) => reply::text(500, error.message.clone()),
    }
}

async fn ask(call: &Call<'_>, sub: &str) -> Result<Value, ApiError> {
    let vmi = found(call)?;
    if phase(&vmi) != "Running" {
        return Err(conflict(call, "VM is not running"));
    }
    let silent = || conflict(call, "VMI does not have guest agent connected");
    if !condition::is_true(&vmi, "AgentConnected") {
        return Err(silent());
    }
    let domain = call.ctx.domain(meta::uid(&vmi)).ok_or_else(silent)?;
    let guest = domain
        .guest()
        .filter(|_| domain.agent() && !call.ctx.board.armed(Fault::FreezeSwallowed))
        .ok_or_else(silent)?;
    let said = guest.report().await.ok_or_else(silent)?;
    let disks: Value = said.file_systems.iter().map(file_system).collect();
    Ok(match sub {
        "userlist" => json!({"metadata": {}, "items": said.users}),
        "filesystemlist" => json!({"metadata": {}, "items": disks}),
        _ => info(&said, &disks),
    })
}

/// `guestosinfo`.
fn info(said: &AgentReport, disks: &Value) -> Value {
    let commands = said.commands.iter();
    let commands: Value = commands
        .map(|(name, enabled)| json!({"name": name, "enabled": enabled}))
        .collect();
    json!({
        "guestAgentVersion": said.version,
        "supportedCommands": commands,
        "hostname": said.hostname,
        "os": said.os,
        "timezone": said.timezone,
        "userList": said.users,
        "fsInfo": {"disks": disks},
        "fsFreezeStatus": if said.frozen { "frozen" } else { "thawed" },
    })
}

fn file_system(mounted: &FileSystem) -> Value {
    let serials = mounted.serials.iter();
    let disks: Value = serials
        .map(|serial| json!({"serial": serial, "busType": "virtio"}))
        .collect();
    json!({
        "diskName": mounted.disk_name, "mountPoint": mounted.mount_point,
        "fileSystemType": mounted.kind, "usedBytes": mounted.used, "totalBytes": mounted.total,
        "disk": disks,
    })
}
