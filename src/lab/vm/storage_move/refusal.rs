//! What keeps a VM's volumes from being moved, in the words of virt-controller.

use serde_json::Value;

use super::{Change, changes, is_moving};
use crate::lab::api::meta;
use crate::lab::vm::condition;
use crate::lab::vm::hotplug::is_hotplugged;
use crate::lab::vm::keys::{DV, PVC, is_final, items, phase};
use crate::lab::vm::site::Ctx;

/// Why other claims in a VM's template take a restart, if they do.
pub(in crate::lab::vm) fn refusal(ctx: &Ctx, vm: &Value, vmi: &Value) -> Option<String> {
    let changes = changes(vm, vmi);
    if changes.is_empty() || is_moving(vmi) || meta::deleting(vmi) || is_final(vmi) {
        return None;
    }
    match meta::text(vm, "/spec/updateVolumesStrategy") {
        "Migration" => invalid(ctx, vmi, &changes).or_else(|| immovable(vmi, &changes)),
        _ => Some("the volumes replacement is effective only after restart".to_owned()),
    }
}

/// What about the volumes themselves keeps them from being copied.
fn invalid(ctx: &Ctx, vmi: &Value, changes: &[Change<'_>]) -> Option<String> {
    let devices = |list: &str| items(vmi, &format!("/spec/domain/devices/{list}"));
    let (mut fs, mut shareable, mut luns) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hotplugged, mut unpopulated) = (Vec::new(), Vec::new());
    for change in changes {
        let named = |one: &&Value| one["name"] == change.volume["name"];
        if devices("filesystems").iter().any(|one| named(&one)) {
            fs.push(change.name());
            continue;
        }
        let Some(disk) = devices("disks").iter().find(named) else {
            continue;
        };
        if is_hotplugged(change.volume) {
            hotplugged.push(change.name());
        } else if disk["shareable"] == true {
            shareable.push(change.name());
        } else if disk.get("lun").is_some() {
            luns.push(change.name());
        } else if let Some(name) = change.volume.pointer("/dataVolume/name") {
            let name = name.as_str().unwrap_or_default();
            let Some(dv) = ctx.store.get(DV, meta::namespace(vmi), name) else {
                return Some(format!("DataVolume {name} not found"));
            };
            let claim = ctx.store.get(PVC, meta::namespace(vmi), name);
            let populated = claim.is_some_and(|c| c.pointer("/spec/dataSourceRef").is_some());
            if phase(&dv) != "Succeeded" && !populated {
                unpopulated.push(change.name());
            }
        }
    }
    let csi = "DV storage class isn't a CSI or not using volume populators";
    let kinds = [
        ("hotplugged", hotplugged),
        ("filesystems", fs),
        ("shareable", shareable),
        ("luns", luns),
        (csi, unpopulated),
    ];
    let told = kinds.iter().filter(|(_, names)| !names.is_empty());
    let told: Vec<String> = told
        .map(|(kind, names)| format!("{kind}: [{}]", names.join(" ")))
        .collect();
    let told = told.join(" ");
    (!told.is_empty()).then(|| format!("invalid volumes to update with migration: {told}"))
}

/// What about the VMI keeps it from being migrated although its volumes are copied.
fn immovable(vmi: &Value, changes: &[Change<'_>]) -> Option<String> {
    if let Some(no) =
        condition::get(vmi, "StorageLiveMigratable").filter(|c| c["status"] == "False")
    {
        let why = no["message"].as_str().unwrap_or_default();
        return Some(format!(
            "cannot migrate the volumes as the VMI isn't migratable: {why}"
        ));
    }
    let stays = items(vmi, "/status/volumeStatus").iter().find(|entry| {
        let modes = items(entry, "/persistentVolumeClaimInfo/accessModes");
        modes.iter().any(|mode| mode == "ReadWriteOnce")
            && changes
                .iter()
                .all(|change| change.volume["name"] != entry["name"])
    })?;
    Some(format!(
        "cannot migrate the VM. The volume {} is RWO and not included in the migration volumes",
        stays["name"].as_str().unwrap_or_default()
    ))
}
