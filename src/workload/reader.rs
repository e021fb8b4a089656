//! Another guest from the same template: it reads copies of a subject's ledger disks and is in every
//! other way a machine of its own.
//!
//! Contract: nothing of the subject is named but the copies; they are attached read-only, under the
//! serials by which the subject's own disks are found; no MAC address and no Service is shared.

use serde_json::{Value, json};

use super::blank::INTERFACES;
use super::claims::claim_name;
use super::disks::{DISKS, VOLUMES};
use super::rendered::{DataDisk, Instance, Rendered, Subject};

impl Rendered {
    /// A reader of copies of `disks`, which are a subject's of this template: `copies` holds the claim
    /// of each copy, by ordinal, and must be as long. `instance` is the reader's own.
    pub fn reader(&self, instance: &Instance, disks: &[DataDisk], copies: &[String]) -> Subject {
        let mut reader = self.bind(instance);
        let own: Vec<String> = reader.data_disks.iter().map(|d| d.pvc.clone()).collect();
        let is_own = |name: Option<&str>| name.is_some_and(|n| own.iter().any(|o| o == n));
        reader
            .objects
            .retain(|object| match object["kind"].as_str() {
                Some("PersistentVolumeClaim" | "DataVolume") => {
                    !is_own(object["metadata"]["name"].as_str())
                }
                Some("Service") => false,
                _ => true,
            });
        if let Some(vm) = reader.objects.last_mut() {
            without_templates(vm, &is_own);
            let pairs = disks.iter().zip(copies).zip(&own);
            for ((disk, copy), own) in pairs {
                read_only(vm, disk, own, copy);
            }
            for (index, interface) in items(vm, INTERFACES).enumerate() {
                interface["macAddress"] = json!(instance.identity.mac(index));
            }
        }
        reader.peer_objects.clear();
        reader.claims.retain(|claim| !is_own(Some(claim)));
        reader.claims.extend(copies.iter().cloned());
        let attached = disks.iter().zip(copies).map(|(disk, copy)| DataDisk {
            pvc: copy.clone(),
            ..disk.clone()
        });
        reader.data_disks = attached.collect();
        reader
    }
}

fn items<'a>(vm: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = vm.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Removes the makers of ledger volumes, which the copies replace.
fn without_templates(vm: &mut Value, is_own: &impl Fn(Option<&str>) -> bool) {
    let Some(spec) = vm["spec"].as_object_mut() else {
        return;
    };
    let Some(Value::Array(templates)) = spec.get_mut("dataVolumeTemplates") else {
        return;
    };
    templates.retain(|template| !is_own(template["metadata"]["name"].as_str()));
    if templates.is_empty() {
        spec.remove("dataVolumeTemplates");
    }
}

/// Puts a copy in the place of the reader's own volume, as a disk that cannot be written.
fn read_only(vm: &mut Value, disk: &DataDisk, own: &str, copy: &str) {
    for volume in items(vm, VOLUMES).filter(|volume| claim_name(volume) == Some(own)) {
        let name = volume["name"].clone();
        *volume = json!({"name": name, "persistentVolumeClaim": {"claimName": copy}});
    }
    for device in items(vm, DISKS).filter(|device| device["name"] == disk.name.as_str()) {
        device["serial"] = json!(disk.serial);
        device["disk"]["readonly"] = json!(true);
    }
}
