//! Disks that move to other claims under the running guest: `updateVolumesStrategy: Migration`. What a
//! VM's template names follows into its VMI, a live migration copies the disks, and the guest goes on
//! upon the copies. Put back while that is under way, the move is given up.
//!
//! Contract: the objects change in the order of virt-controller and virt-handler. A move that cannot be
//! made asks for a restart instead, and one that fails is tried again, ever later, until it is taken
//! back. Of a real guest, too, it is the array that copies the disks: see [`begin`].

mod copying;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::keys::{MIGRATION_FINALIZER, PVC, VM, VMI, VMIM, claim_of, is_final, items, phase};
use super::site::{Ctx, Key, Work, key};
use super::vmi::modify;
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};

pub(super) use copying::{Copies, abandon, begin, copied, moved, pivot};
pub(super) use refusal::refusal;

/// Condition of a VMI whose volumes are to be others.
const CHANGE: &str = "VolumesChange";
/// Condition of a VM whose template names volumes that nothing was copied to.
pub(super) const RECOVERY: &str = "ManualRecoveryRequired";
/// Label of a migration that moves volumes: the VM.
const IN_PROGRESS: &str = "kubevirt.io/volume-update-in-progress";
const MOVING: &str = "/status/migratedVolumes";
/// How long the first attempt after one that failed waits; each further one twice as long.
const BACKOFF: Duration = Duration::from_secs(20);

/// A volume whose claim is another one in the VM's template than in its VMI.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    volume: &'a Value,
    from: &'a str,
    to: &'a str,
}

impl Change<'_> {
    fn name(&self) -> &str {
        self.volume["name"].as_str().unwrap_or_default()
    }
}

fn changes<'a>(vm: &'a Value, vmi: &'a Value) -> Vec<Change<'a>> {
    let old = items(vmi, "/spec/volumes");
    let wanted = items(vm, "/spec/template/spec/volumes").iter();
    let changed = wanted.filter_map(|volume| {
        let known = old.iter().find(|known| known["name"] == volume["name"])?;
        let (from, to) = (claim_of(known)?, claim_of(volume)?);
        (from != to).then_some(Change { volume, from, to })
    });
    changed.collect()
}

/// Whether the volumes of a VMI are being moved.
fn is_moving(vmi: &Value) -> bool {
    condition::is_true(vmi, CHANGE)
}

/// virt-controller: other claims in a VM's template become those of its VMI, or again the old ones.
pub(super) fn declare(ctx: &Ctx, vm: &Value, vmi: &Value) -> Result<(), ApiError> {
    let changes = changes(vm, vmi);
    if changes.is_empty() || meta::deleting(vmi) || is_final(vmi) || phase(vmi) != "Running" {
        return Ok(());
    }
    if is_moving(vmi) {
        return cancel(ctx, vmi, &changes);
    }
    let asked = meta::text(vm, "/spec/updateVolumesStrategy") == "Migration";
    if !asked || refusal(ctx, vm, vmi).is_some() {
        return Ok(());
    }
    let moved: Vec<Value> = changes
        .iter()
        .map(|change| {
            json!({
                "volumeName": change.name(),
                "sourcePVCInfo": claim_info(ctx, vmi, change.from),
                "destinationPVCInfo": claim_info(ctx, vmi, change.to),
            })
        })
        .collect();
    modify(ctx, vmi, |vmi| {
        if items(vmi, MOVING).is_empty() {
            vmi["status"]["migratedVolumes"] = json!(moved);
        }
    })?;
    modify(ctx, vmi, |vmi| take_over(vmi, &changes))?;
    let (namespace, name) = key(vm);
    ctx.store
        .modify(VM, &namespace, &name, Part::Status, |vm| {
            vm["status"]["volumeUpdateState"] =
                json!({"volumeMigrationState": {"migratedVolumes": moved}});
        })?;
    Ok(())
}

fn take_over(vmi: &mut Value, changes: &[Change<'_>]) {
    let volumes = vmi.pointer_mut("/spec/volumes");
    for volume in volumes.and_then(Value::as_array_mut).into_iter().flatten() {
        let mut of = changes.iter();
        if let Some(change) = of.find(|change| change.volume["name"] == volume["name"]) {
            *volume = change.volume.clone();
        }
    }
}

fn claim_info(ctx: &Ctx, vmi: &Value, claim: &str) -> Value {
    let mut info = json!({"claimName": claim});
    if let Some(pvc) = ctx.store.get(PVC, meta::namespace(vmi), claim) {
        for (field, at) in [
            ("volumeMode", "/spec/volumeMode"),
            ("accessModes", "/spec/accessModes"),
            ("requests", "/spec/resources/requests"),
            ("capacity", "/status/capacity"),
        ] {
            if let Some(found) = pvc.pointer(at) {
                info[field] = found.clone();
            }
        }
    }
    info
}

/// A move that is under way is given up if all its volumes, and no others, are the old ones again.
/// Nothing else may be changed meanwhile.
fn cancel(ctx: &Ctx, vmi: &Value, changes: &[Change<'_>]) -> Result<(), ApiError> {
    let moving = items(vmi, MOVING);
    let reverted = moving.iter().all(|moved| {
        let source = meta::text(moved, "/sourcePVCInfo/claimName");
        let mut of = changes.iter();
        of.any(|change| moved["volumeName"] == change.name() && change.to == source)
    });
    if !reverted || moving.len() != changes.len() {
        return Ok(());
    }
    modify(ctx, vmi, |vmi| take_over(vmi, changes))?;
    modify(ctx, vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: CHANGE,
                status: false,
                reason: "VolumesChangeCancellation",
                message: "",
                times: Times::Transition,
            },
        );
        forget(vmi);
    })?;
    Ok(())
}

fn forget(vmi: &mut Value) {
    if let Some(status) = vmi["status"].as_object_mut() {
        status.shift_remove("migratedVolumes");
    }
}

/// The state of a move in a VM's status: over with the move; and a VM whose VMI went meanwhile must
/// not start upon volumes that nothing was copied to.
pub(super) fn settle_state(ctx: &Ctx, vm: &Value, vmi: Option<&Value>) -> Result<(), ApiError> {
    let at = "/status/volumeUpdateState/volumeMigrationState/migratedVolumes";
    let moved = items(vm, at);
    if moved.is_empty() {
        return Ok(());
    }
    let volumes = items(vm, "/spec/template/spec/volumes");
    let back = moved.iter().all(|moved| {
        let now = volumes.iter().find(|v| v["name"] == moved["volumeName"]);
        now.and_then(claim_of) == Some(meta::text(moved, "/sourcePVCInfo/claimName"))
    });
    let lives = vmi.filter(|vmi| !is_final(vmi) && !meta::deleting(vmi));
    let under_way = match lives {
        Some(vmi) => !items(vmi, MOVING).is_empty() || condition::get(vmi, CHANGE).is_some(),
        None => !back,
    };
    let lost = under_way && lives.is_none() && condition::is_true(vm, CHANGE);
    if under_way && !lost {
        return Ok(());
    }
    let (namespace, name) = key(vm);
    ctx.store
        .modify(VM, &namespace, &name, Part::Status, |vm| {
            if lost {
                condition::set(
                    vm,
                    &Condition {
                        kind: RECOVERY,
                        status: true,
                        reason: "VMI was removed or was final during the volume migration",
                        message: "",
                        times: Times::Transition,
                    },
                );
                return;
            }
            if let Some(status) = vm["status"].as_object_mut() {
                status.shift_remove("volumeUpdateState");
            }
            condition::remove(vm, RECOVERY);
            if lives.is_none() {
                condition::remove(vm, CHANGE);
            }
        })?;
    Ok(())
}

/// virt-controller and the workload updater: what a running VMI's volumes are to be brings about a
/// migration, and what they are no longer to be ends it.
pub(super) fn progress(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let Some(change) = condition::get(vmi, CHANGE) else {
        let named = |moved: &Value| {
            let to = meta::text(moved, "/destinationPVCInfo/claimName");
            let mut volumes = items(vmi, "/spec/volumes").iter();
            volumes.any(|volume| claim_of(volume) == Some(to))
        };
        let moving = items(vmi, MOVING);
        if !moving.is_empty() && moving.iter().all(named) {
            modify(ctx, vmi, |vmi| {
                condition::set(
                    vmi,
                    &Condition {
                        kind: CHANGE,
                        status: true,
                        reason: "",
                        message: "migrate volumes",
                        times: Times::Transition,
                    },
                );
            })?;
        }
        return Ok(());
    };
    let jobs = jobs(ctx, vmi);
    let ours = |job: &&Arc<Value>| meta::label(job, IN_PROGRESS).is_some();
    if change["status"] == "True" {
        if jobs.iter().any(|job| !is_final(job)) {
            return Ok(());
        }
        let failed = jobs
            .iter()
            .filter(ours)
            .filter(|job| phase(job) == "Failed");
        return match u32::try_from(failed.count()).unwrap_or(u32::MAX) {
            0 => again(ctx, &key(vmi)),
            failed => {
                if ctx.waits(&format!("{}/{failed}", meta::uid(vmi))) {
                    let wait = BACKOFF.saturating_mul(1 << (failed - 1).min(4));
                    ctx.after(wait, Work::MoveStorage(key(vmi)));
                }
                Ok(())
            }
        };
    }
    let running = jobs.iter().filter(ours).filter(|job| !is_final(job));
    let mut any = false;
    for job in running {
        any = true;
        if !meta::deleting(job) {
            let (namespace, name) = key(job);
            let gone = DeleteOptions::default();
            ctx.store.delete(VMIM, &namespace, &name, &gone)?;
        }
    }
    if !any {
        modify(ctx, vmi, |vmi| condition::remove(vmi, CHANGE))?;
    }
    Ok(())
}

fn jobs(ctx: &Ctx, vmi: &Value) -> Vec<Arc<Value>> {
    let mut jobs = ctx.store.list(VMIM, Some(meta::namespace(vmi)));
    jobs.retain(|job| meta::text(job, "/spec/vmiName") == meta::name(vmi));
    jobs
}

/// Makes the migration that moves the volumes of a VMI, if they still are to move and none is there.
pub(super) fn again(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let vmi = ctx.store.get(VMI, namespace, name);
    let Some(vmi) = vmi.filter(|vmi| is_moving(vmi) && !is_final(vmi) && !meta::deleting(vmi))
    else {
        return Ok(());
    };
    if jobs(ctx, &vmi).iter().any(|job| !is_final(job)) {
        return Ok(());
    }
    ctx.store.create(
        VMIM,
        json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {
                "generateName": "kubevirt-workload-update-",
                "namespace": namespace,
                "labels": {"kubevirt.io/vmi-name": name, IN_PROGRESS: name},
                "annotations": {"kubevirt.io/workloadUpdateMigration": ""},
                "finalizers": [MIGRATION_FINALIZER],
            },
            "spec": {"vmiName": name},
        }),
    )?;
    Ok(())
}
