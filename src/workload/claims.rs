//! The claims of a manifest: who makes them, what they ask for, and what is put on them.

use serde_json::Value;

use super::disks::list;
use super::manifest::{Manifest, Object};
use super::{FILESYSTEM_LABEL, LEDGER_LABEL};
use crate::plan::model::VolumeMode;
use crate::plan::yaml::At;

/// A claim that the VM uses, by its name in the manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim<'a> {
    /// Its name.
    pub(super) name: String,
    /// Object that makes the claim: a PVC, a DataVolume or an entry of `dataVolumeTemplates`.
    pub(super) maker: &'a Value,
    pub(super) at: At,
    /// Whether it is a PVC.
    pub(super) is_pvc: bool,
}

impl Claim<'_> {
    /// The value of the ledger label.
    pub(super) fn ledger(&self) -> Option<&str> {
        self.maker["metadata"]["labels"][LEDGER_LABEL].as_str()
    }

    /// The value of the file system label.
    pub(super) fn filesystem(&self) -> &Value {
        &self.maker["metadata"]["labels"][FILESYSTEM_LABEL]
    }

    /// The part that asks for storage: a PVC's spec, or `pvc` or `storage` of a DataVolume.
    pub(super) fn request(&self) -> &Value {
        let spec = &self.maker["spec"];
        match (self.is_pvc, spec["storage"].is_object()) {
            (true, _) => spec,
            (false, true) => &spec["storage"],
            (false, false) => &spec["pvc"],
        }
    }

    /// Whether something is put on the volume before the VM sees it.
    pub(super) fn has_content(&self) -> bool {
        let spec = &self.maker["spec"];
        if self.is_pvc {
            let annotations = &self.maker["metadata"]["annotations"];
            return spec["dataSource"].is_object()
                || spec["dataSourceRef"].is_object()
                || annotations["cdi.kubevirt.io/storage.import.endpoint"].is_string();
        }
        spec["sourceRef"].is_object()
            || spec["source"]
                .as_object()
                .is_some_and(|source| !source.contains_key("blank"))
    }

    /// Its volume mode, as far as the manifest says.
    pub(super) fn volume_mode(&self) -> Option<VolumeMode> {
        let request = self.request();
        match request["volumeMode"].as_str() {
            Some("Block") => Some(VolumeMode::Block),
            Some("Filesystem") => Some(VolumeMode::Filesystem),
            // With `storage` CDI takes the StorageProfile's mode; elsewhere Filesystem is the default.
            _ if !self.is_pvc && self.maker["spec"]["storage"].is_object() => None,
            _ => Some(VolumeMode::Filesystem),
        }
    }
}

/// All claims of a manifest.
pub(super) fn claims(manifest: &Manifest) -> Vec<Claim<'_>> {
    let templates = list(&manifest.vm.value, "/spec/dataVolumeTemplates");
    let templates = templates.iter().enumerate().map(|(index, maker)| Claim {
        name: maker["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        maker,
        at: manifest.vm.at(&format!("spec/dataVolumeTemplates/{index}")),
        is_pvc: false,
    });
    let object =
        |object: &'_ Object, is_pvc| (object.name().to_owned(), object.at("metadata"), is_pvc);
    let beside = manifest.data_volumes.iter().map(|dv| (dv, false));
    let beside = beside.chain(manifest.claims.iter().map(|pvc| (pvc, true)));
    let beside = beside.map(|(found, is_pvc)| {
        let (name, at, is_pvc) = object(found, is_pvc);
        Claim {
            name,
            maker: &found.value,
            at,
            is_pvc,
        }
    });
    templates.chain(beside).collect()
}

/// The claim that a volume uses, also through a DataVolume: its claim has the same name.
pub(super) fn claim_name(volume: &Value) -> Option<&str> {
    volume["persistentVolumeClaim"]["claimName"]
        .as_str()
        .or_else(|| volume["dataVolume"]["name"].as_str())
}
