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
use crate::lab::faults::Moment;
use crate::lab::guest::Guest;
use crate::lab::vm::agent::{ask_later, os_info};
use crate::lab::vm::condition::{self, Condition, Times};
use crate::lab::vm::domain::Domain;
use crate::lab::vm::keys::{VM, VMI, items, phase};
use crate::lab::vm::{node, vmi};

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
type Running = (Arc<Value>, Arc<Domain>, Arc<Guest>);

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
        "pause" => pause(call),
        "unpause" => unpause(call),
        "freeze" => freeze(call).await,
        "unfreeze" => unfreeze(call),
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

fn pause(call: &Call<'_>) -> Result<(), ApiError> {
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
    guest.pause(true);
    let ctx = call.ctx;
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

fn unpause(call: &Call<'_>) -> Result<(), ApiError> {
    let (vmi, _, guest) = running(call)?;
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
    guest.pause(false);
    let ctx = call.ctx;
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

/// virt-handler said no.
fn handler_refused(why: &str) -> ApiError {
    ApiError::internal(format!(
        "unexpected return code 400 (400 Bad Request), message: {why}"
    ))
}

fn no_agent(command: &str) -> String {
    format!(
        "server error. command {command} failed: \"LibvirtError(Code=86, Domain=10, Message='Guest \
         agent is not responding: QEMU guest agent is not connected')\""
    )
}

async fn freeze(call: &Call<'_>) -> Result<(), ApiError> {
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
    let moving = vmi
        .pointer("/status/migrationState/startTimestamp")
        .is_some()
        && vmi.pointer("/status/migrationState/endTimestamp").is_none();
    if moving {
        let why = "server error. command Freeze failed: \"failed to freeze VMI, VMI is currently \
                   during migration\"";
        return Err(refuse(why.to_owned()));
    }
    if !guest.agent() {
        return Err(refuse(no_agent("Freeze")));
    }
    if guest.freezer().frozen() {
        return Ok(());
    }
    let slow = ctx.timing.freeze;
    if slow > PATIENCE {
        let (site, domain, guest) = (Arc::clone(ctx), Arc::clone(&domain), Arc::clone(&guest));
        ctx.tracker.spawn(async move {
            site.clock.pass(slow).await;
            hold(&site, &domain, &guest, timeout);
        });
        ctx.clock.pass(PATIENCE).await;
        return Err(ApiError::internal(
            "Put \"https://virt-handler:8186/v1/freeze\": context deadline exceeded \
             (Client.Timeout exceeded while awaiting headers)",
        ));
    }
    ctx.clock.pass(slow).await;
    hold(ctx, &domain, &guest, timeout);
    Ok(())
}

/// Freezes, arms the safety timer (0 means never) and lets the agent's next report show it.
fn hold(
    ctx: &crate::lab::vm::site::Ctx,
    domain: &Arc<Domain>,
    guest: &Arc<Guest>,
    timeout: Duration,
) {
    let Some(generation) = guest.freezer().freeze() else {
        return;
    };
    ctx.board.moment(Moment::Freeze);
    ask_later(ctx, &domain.uid);
    if timeout.is_zero() {
        return;
    }
    let (site, guest, uid) = (Arc::clone(ctx), Arc::clone(guest), domain.uid.clone());
    ctx.tracker.spawn(async move {
        tokio::select! {
            () = site.token.cancelled() => {}
            () = site.clock.pass(timeout) => {
                if guest.freezer().expire(generation) {
                    site.board.moment(Moment::Thaw);
                }
                ask_later(&site, &uid);
            }
        }
    });
}

fn unfreeze(call: &Call<'_>) -> Result<(), ApiError> {
    let (_, domain, guest) = running(call)?;
    if !guest.agent() {
        return Err(handler_refused(&no_agent("Unfreeze")));
    }
    if guest.freezer().thaw() {
        call.ctx.board.moment(Moment::Thaw);
    }
    ask_later(call.ctx, &domain.uid);
    Ok(())
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
    if guest.reacts() {
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
pub(super) fn get(call: &Call<'_>, sub: &str) -> Response<Body> {
    match ask(call, sub) {
        Ok(body) => reply::json(200, &body),
        Err(error) => reply::text(500, error.message.clone()),
    }
}

fn ask(call: &Call<'_>, sub: &str) -> Result<Value, ApiError> {
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
        .filter(|_| domain.agent())
        .ok_or_else(silent)?;
    let disks = file_systems(&vmi);
    Ok(match sub {
        "userlist" => json!({"metadata": {}, "items": []}),
        "filesystemlist" => json!({"metadata": {}, "items": disks}),
        _ => json!({
            "guestAgentVersion": "9.2.0",
            "supportedCommands": [
                {"name": "guest-fsfreeze-status", "enabled": true},
                {"name": "guest-fsfreeze-freeze", "enabled": true},
                {"name": "guest-fsfreeze-thaw", "enabled": true},
                {"name": "guest-shutdown", "enabled": true},
            ],
            "hostname": guest.hostname(),
            "os": os_info(&domain),
            "timezone": "UTC, 0",
            "userList": [],
            "fsInfo": {"disks": disks},
            "fsFreezeStatus": if guest.freezer().frozen() { "frozen" } else { "thawed" },
        }),
    })
}

/// The agent reports the mounted file systems; on a lab guest that is the root alone.
fn file_systems(vmi: &Value) -> Value {
    let serial = items(vmi, "/spec/domain/devices/disks")
        .first()
        .map_or(Value::Null, |disk| disk["serial"].clone());
    json!([{
        "diskName": "vda1", "mountPoint": "/", "fileSystemType": "ext4",
        "usedBytes": 1u64 << 30, "totalBytes": 4u64 << 30,
        "disk": [{"serial": serial, "busType": "virtio"}],
    }])
}
