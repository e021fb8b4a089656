//! What virt-handler writes into a VMI when its domain starts and ends, and when its disks fail.

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::domain::Domain;
use super::instance::advance;
use super::keys::{PVC, VMI, claim_of, is_final, items, phase};
use super::site::Ctx;
use super::vmi::modify;
use crate::lab::api::{ApiError, meta};

const HANDLER: &str = "virt-handler";

/// `status.volumeStatus` of a VMI; targets are known once the domain is started.
pub(super) fn volume_statuses(ctx: &Ctx, vmi: &Value, known: bool) -> Value {
    let namespace = meta::namespace(vmi);
    let volumes = items(vmi, "/spec/volumes");
    let disks = items(vmi, "/spec/domain/devices/disks");
    // Hotplugged ones come in their own time.
    volumes
        .iter()
        .filter(|volume| !super::hotplug::is_hotplugged(volume))
        .map(|volume| {
            let at = disks.iter().position(|disk| disk["name"] == volume["name"]);
            let letter = at.and_then(|at| u8::try_from(at).ok()).map(|at| b'a' + at);
            let target = match letter {
                Some(letter) if known => format!("vd{}", char::from(letter)),
                _ => String::new(),
            };
            let mut status = json!({"name": volume["name"], "target": target});
            if let Some(claim) = claim_of(volume)
                && let Some(pvc) = ctx.store.get(PVC, namespace, claim)
            {
                status["persistentVolumeClaimInfo"] = claim_info(claim, &pvc);
            }
            status
        })
        .collect()
}

/// What a VMI's status tells of a volume's claim.
pub(super) fn claim_info(claim: &str, pvc: &Value) -> Value {
    json!({
        "claimName": claim,
        "accessModes": pvc["spec"]["accessModes"],
        "volumeMode": pvc["spec"]["volumeMode"],
        "capacity": pvc["status"]["capacity"],
        "requests": pvc["spec"]["resources"]["requests"],
    })
}

/// The domain of a VMI started: virt-handler reports it.
pub(super) fn started(ctx: &Ctx, vmi: &Value, domain: &Domain) -> Result<(), ApiError> {
    ctx.event(
        vmi,
        "Normal",
        "Created",
        "VirtualMachineInstance defined.",
        HANDLER,
    );
    let statuses = volume_statuses(ctx, vmi, true);
    let ip = domain.place().ip.to_string();
    let mac = super::boot::mac(vmi);
    modify(ctx, vmi, |vmi| {
        if phase(vmi) != "Scheduled" {
            return;
        }
        if let Some(first) = vmi.pointer_mut("/status/interfaces/0") {
            first["infoSource"] = json!("domain");
            first["ipAddress"] = json!(ip);
            first["ipAddresses"] = json!([ip]);
            first["linkState"] = json!("up");
            first["mac"] = json!(mac);
            first["queueCount"] = json!(1);
        }
        vmi["status"]["machine"] = json!({"type": "pc-q35-10.0"});
        vmi["status"]["volumeStatus"] = statuses.clone();
        advance(vmi, "Running");
    })?;
    ctx.event(
        vmi,
        "Normal",
        "Started",
        "VirtualMachineInstance started.",
        HANDLER,
    );
    Ok(())
}

/// A domain ended; `clean` if its guest switched itself off.
pub(super) fn stopped(ctx: &Ctx, vmi: &Value, clean: bool) -> Result<(), ApiError> {
    modify(ctx, vmi, |vmi| {
        if is_final(vmi) {
            return;
        }
        if let Some(first) = vmi
            .pointer_mut("/status/interfaces/0")
            .and_then(Value::as_object_mut)
        {
            first.shift_remove("ipAddress");
            first.shift_remove("ipAddresses");
        }
        condition::remove(vmi, "AgentConnected");
        advance(vmi, if clean { "Succeeded" } else { "Failed" });
    })?;
    let (kind, text) = if clean {
        ("Normal", "The VirtualMachineInstance was shut down.")
    } else {
        ("Warning", "The VirtualMachineInstance crashed.")
    };
    ctx.event(vmi, kind, "Stopped", text, HANDLER);
    Ok(())
}

/// QEMU stopped the virtual CPUs because a disk failed and its error policy says so.
pub(super) fn paused_by_error(ctx: &Ctx, domain: &Domain) -> Result<(), ApiError> {
    let (namespace, name) = &domain.vmi;
    let Some(vmi) = ctx.store.get(VMI, namespace, name) else {
        return Ok(());
    };
    modify(ctx, &vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: "Paused",
                status: true,
                reason: "PausedIOError",
                message: "VMI was paused, low-level IO error detected",
                times: Times::Both,
            },
        );
    })?;
    ctx.event(
        &vmi,
        "Warning",
        "IOerror",
        "VM Paused due to IO error at the volume",
        HANDLER,
    );
    Ok(())
}
