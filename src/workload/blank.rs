//! What virtproof adds to a manifest that lacks it: a pod network, and data volumes for the ledger.

use serde_json::{Value, json};

use super::disks::{DISKS, Data, Disks, VOLUMES, list};
use super::manifest::{Manifest, Object};
use super::{FILESYSTEM_LABEL, LEDGER_LABEL};
use crate::plan::model::{AccessMode, DataVolume, FileSystem, LedgerKind, VolumeMode};
use crate::plan::problem::{Problems, suggest};
use crate::plan::text::format_quantity;
use crate::plan::yaml::At;

/// Where the networks of a VM are.
const NETWORKS: &str = "/spec/template/spec/networks";
/// Where its interfaces are.
pub(super) const INTERFACES: &str = "/spec/template/spec/domain/devices/interfaces";
/// Size of a data volume when the plan gives none.
const SIZE: u64 = 1 << 30;

/// Appends to a list in a document, making the list and the objects on the way.
pub(super) fn push(document: &mut Value, pointer: &str, item: Value) {
    let mut here = document;
    for key in pointer.split('/').filter(|key| !key.is_empty()) {
        if !here.is_object() {
            *here = json!({});
        }
        here = &mut here[key];
    }
    match here {
        Value::Array(items) => items.push(item),
        _ => *here = json!([item]),
    }
}

/// Gives every volume its disk, in volume order, as KubeVirt does on admission: VMs made from
/// instance types often list volumes only.
pub(super) fn disks(vm: &mut Value) {
    const FILESYSTEMS: &str = "/spec/template/spec/domain/devices/filesystems";
    let taken: Vec<Value> = [DISKS, FILESYSTEMS]
        .iter()
        .flat_map(|pointer| list(vm, pointer).iter().map(|item| item["name"].clone()))
        .collect();
    let names = list(vm, VOLUMES)
        .iter()
        .map(|volume| volume["name"].clone());
    let bare: Vec<Value> = names
        .filter(|name| name.is_string() && !taken.contains(name))
        .collect();
    for name in bare {
        push(vm, DISKS, json!({"name": name}));
    }
}

/// SSH needs a network; without any, KubeVirt would attach the cluster's default binding, which may
/// not migrate.
pub(super) fn network(vm: &mut Object, notes: &mut Vec<String>, problems: &mut Problems<'_>) {
    let networks = list(&vm.value, NETWORKS).to_vec();
    let interfaces = list(&vm.value, INTERFACES).to_vec();
    if networks.is_empty() && interfaces.is_empty() {
        let devices = "/spec/template/spec/domain/devices/autoattachPodInterface";
        if vm.value.pointer(devices) == Some(&Value::Bool(false)) {
            problems.add(
                vm.at(devices),
                "the VM has no network",
                "a network that SSH can reach",
                "remove `autoattachPodInterface: false` or add `networks` and `interfaces`",
            );
        }
        push(
            &mut vm.value,
            NETWORKS,
            json!({"name": "default", "pod": {}}),
        );
        push(
            &mut vm.value,
            INTERFACES,
            json!({"name": "default", "masquerade": {}}),
        );
        notes.push("the pod network is attached with masquerade".to_owned());
        return;
    }
    for (what, other, pointer, items, partners) in [
        ("interface", "network", INTERFACES, &interfaces, &networks),
        ("network", "interface", NETWORKS, &networks, &interfaces),
    ] {
        for (index, item) in items.iter().enumerate() {
            let name = item["name"].as_str().unwrap_or_default();
            if partners.iter().any(|partner| partner["name"] == name) {
                continue;
            }
            let names: Vec<&str> = partners
                .iter()
                .filter_map(|partner| partner["name"].as_str())
                .collect();
            problems.add(
                vm.at(&format!("{pointer}/{index}")),
                format!("the {what} `{name}` has no {other}"),
                format!("one {other} of the same name per {what}"),
                suggest(name, names, &format!("add the {other}")),
            );
        }
    }
}

/// Adds the plan's data volumes, or one raw block device and one with a file system.
pub(super) fn data_volumes(
    manifest: &mut Manifest,
    mut disks: Disks,
    wanted: &[DataVolume],
    notes: &mut Vec<String>,
    problems: &mut Problems<'_>,
) -> Disks {
    let default = |volume_mode, access_mode, ledger| DataVolume {
        size: SIZE,
        storage_class: None,
        volume_mode,
        access_mode,
        ledger,
        filesystem: FileSystem::default(),
    };
    let pair = [
        default(
            VolumeMode::Block,
            AccessMode::ReadWriteMany,
            LedgerKind::Raw,
        ),
        default(
            VolumeMode::Filesystem,
            AccessMode::ReadWriteOnce,
            LedgerKind::File,
        ),
    ];
    let wanted = if wanted.is_empty() { &pair } else { wanted };
    let vm = &mut manifest.vm.value;
    for (ordinal, volume) in wanted.iter().enumerate() {
        let name = format!("virtproof-data-{ordinal}");
        if [DISKS, VOLUMES]
            .iter()
            .any(|at| list(vm, at).iter().any(|item| item["name"] == name))
        {
            let what = format!("the name `{name}` is taken");
            problems.add(At::default(), what, "names of your own", "rename yours");
        }
        push(
            vm,
            VOLUMES,
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}}),
        );
        push(vm, DISKS, json!({"name": name, "disk": {"bus": "virtio"}}));
        manifest.claims.push(Object::added(claim(volume, &name)));
        disks.claims.push(name.clone());
        disks.data.push(Data {
            volume: name.clone(),
            claim: name,
            serial: None,
            mode: Some(volume.volume_mode),
            ledger: volume.ledger,
            filesystem: volume.filesystem,
        });
    }
    notes.push(format!(
        "{} data volumes are added for the ledger",
        wanted.len()
    ));
    disks
}

/// The PVC of an added data volume.
fn claim(volume: &DataVolume, name: &str) -> Value {
    let mut spec = json!({
        "accessModes": [volume.access_mode.name()],
        "volumeMode": volume.volume_mode.name(),
        "resources": {"requests": {"storage": format_quantity(volume.size)}},
    });
    if let Some(class) = &volume.storage_class {
        spec["storageClassName"] = Value::from(class.as_str());
    }
    let mut labels = json!({LEDGER_LABEL: volume.ledger.name()});
    if volume.ledger == LedgerKind::File {
        labels[FILESYSTEM_LABEL] = Value::from(volume.filesystem.name());
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    })
}
