//! Disks that moved to other claims, and what they left behind.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Member;
use crate::workload::DataDisk;

/// What a move of a member's disks left behind.
#[derive(Debug, Clone)]
pub(in crate::scenario) struct Left {
    /// Its name in events.
    pub(in crate::scenario) name: String,
    /// The disks with the claims that they had.
    pub(in crate::scenario) disks: Vec<DataDisk>,
    /// How many loads there were.
    pub(in crate::scenario) loads: usize,
}

impl Member {
    /// Its disks are on other claims from now on: old name to new.
    pub(in crate::scenario) fn rename_claims(&mut self, to: &BTreeMap<String, String>) {
        let rename = |claim: &mut String| {
            if let Some(new) = to.get(claim) {
                claim.clone_from(new);
            }
        };
        let subject = &mut self.subject;
        subject
            .data_disks
            .iter_mut()
            .for_each(|disk| rename(&mut disk.pvc));
        subject.claims.iter_mut().for_each(rename);
        self.set.pvcs.iter_mut().for_each(rename);
        self.volumes
            .iter_mut()
            .for_each(|volume| rename(&mut volume.pvc));
        for object in &mut subject.peer_objects {
            let volumes = object.pointer_mut("/spec/template/spec/volumes");
            for volume in volumes.and_then(Value::as_array_mut).into_iter().flatten() {
                let claim = volume.pointer_mut("/persistentVolumeClaim/claimName");
                if let Some(Value::String(claim)) = claim {
                    rename(claim);
                }
            }
        }
    }
}
