//! Volumes from snapshots: what the external-provisioner asks before it calls CreateVolume.

use serde_json::Value;

use super::super::Storage;
use super::super::quantity;
use super::{CONTENTS, GROUP, SNAPSHOTS, ready};
use crate::lab::api::meta;

/// The snapshot that a claim is to be filled from, if it is one.
pub(in crate::lab::storage) fn source(claim: &Value) -> Option<&str> {
    ["/spec/dataSourceRef", "/spec/dataSource"]
        .into_iter()
        .filter_map(|at| claim.pointer(at))
        .find(|source| source["apiGroup"] == GROUP && source["kind"] == "VolumeSnapshot")
        .map(|source| meta::text(source, "/name"))
}

/// Fills the new image `to` from a snapshot of the claim's namespace. Refusals are texts of an
/// event on the claim, as the provisioner words them.
pub(in crate::lab::storage) fn fill(
    s: &Storage,
    claim: &Value,
    name: &str,
    (to, bytes): (&str, u64),
) -> Result<(), String> {
    let about = |why: String| {
        format!("error getting handle for DataSource Type VolumeSnapshot by Name {name}: {why}")
    };
    let snapshot = s.store.get(SNAPSHOTS, meta::namespace(claim), name);
    let snapshot = snapshot.ok_or_else(|| {
        let why = format!("volumesnapshots.{GROUP} \"{name}\" not found");
        about(format!(
            "error getting snapshot {name} from api server: {why}"
        ))
    })?;
    if meta::deleting(&snapshot) {
        return Err(about(format!("snapshot {name} is currently being deleted")));
    }
    let bound = meta::text(&snapshot, "/status/boundVolumeSnapshotContentName");
    let content = s.store.get(CONTENTS, "", bound);
    let content = content.ok_or_else(|| about(format!("snapshot {name} not bound")))?;
    if meta::text(&content, "/spec/volumeSnapshotRef/uid") != meta::uid(&snapshot) {
        return Err(about(format!(
            "snapshot {name} is not bound to its content"
        )));
    }
    if !ready(&snapshot) {
        return Err(about(format!("snapshot {name} is not Ready")));
    }
    let size = quantity::bytes(meta::text(&snapshot, "/status/restoreSize")).unwrap_or(0);
    if bytes < size {
        return Err(about(format!(
            "requested volume size {bytes} is less than the size {size} for the source snapshot \
             {name}"
        )));
    }
    let handle = match meta::text(&content, "/status/snapshotHandle") {
        "" => meta::text(&content, "/spec/source/snapshotHandle"),
        handle => handle,
    };
    let restored = s.array.restore(s.site, handle, to, bytes);
    restored.map_err(|status| status.to_string())
}
