//! What a node needs before a launcher pod's containers run: its images and its volumes.

use serde_json::{Value, json};

use super::domain::{Attached, Domain};
use super::keys::{POD, VMI, claim_of, items};
use super::schedule::handle_of;
use super::site::{Ctx, Work, key, settle};
use crate::history::event::Site;
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::faults::Fault;

/// The lab's registry has every image but those that say so.
pub(super) fn missing_image(pod: &Value) -> Option<String> {
    items(pod, "/spec/containers")
        .iter()
        .filter_map(|container| container["image"].as_str())
        .find(|image| image.contains("/absent"))
        .map(str::to_owned)
}

/// What kubelet says of a Secret that the VMI names and that is not there. With the fault
/// `secret-missing` somebody prunes them all on the secondary before the pod starts.
pub(super) fn missing_secret(ctx: &Ctx, pod: &Value, vmi: &str) -> Option<String> {
    let namespace = meta::namespace(pod);
    let vmi = ctx.store.get(VMI, namespace, vmi)?;
    let named = super::boot::secrets(&vmi);
    if ctx.site == Site::Secondary && ctx.board.armed(Fault::SecretMissing) {
        for name in &named {
            let gone = ctx
                .store
                .delete("secrets", namespace, name, &DeleteOptions::default());
            settle("pruning a Secret", gone);
        }
    }
    let absent = named
        .iter()
        .find(|name| ctx.store.get("secrets", namespace, name).is_none())?;
    Some(format!(
        "MountVolume.SetUp failed for volume \"{absent}\" : secret \"{absent}\" not found"
    ))
}

/// Waits for an image that cannot be pulled, as kubelet does.
pub(super) fn image_missing(ctx: &Ctx, pod: &Value, image: &str) -> Result<(), ApiError> {
    let (namespace, name) = key(pod);
    let pulled = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": not found"
    );
    let tried = items(pod, "/status/containerStatuses")
        .iter()
        .any(|status| status.pointer("/state/waiting/reason") == Some(&json!("ErrImagePull")));
    let (reason, message) = if tried {
        let text = format!("Back-off pulling image \"{image}\": ErrImagePull: {pulled}");
        ("ImagePullBackOff", text)
    } else {
        ("ErrImagePull", pulled)
    };
    ctx.store
        .modify(POD, &namespace, &name, Part::Status, |pod| {
            pod["status"]["containerStatuses"] = json!([{
                "name": "compute", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }]);
        })?;
    ctx.after(ctx.timing.attach_retry, Work::PodStarted((namespace, name)));
    Ok(())
}

/// Opens the volumes of a pod on its node; all or none. The error is what kubelet says.
pub(super) fn attach(ctx: &Ctx, pod: &Value, node: &str) -> Result<Vec<Attached>, String> {
    let namespace = meta::namespace(pod);
    let mut attached = Vec::new();
    for volume in items(pod, "/spec/volumes") {
        let Some(claim) = claim_of(volume) else {
            continue;
        };
        let name = volume["name"].as_str().unwrap_or_default().to_owned();
        let refused =
            |why: String| format!("MountVolume.MountDevice failed for volume \"{claim}\" : {why}");
        let Some(handle) = handle_of(ctx, namespace, claim) else {
            detach(ctx, &attached, node);
            return Err(refused("the claim has no volume".to_owned()));
        };
        match ctx.array.attach(ctx.site, &handle, node, true) {
            Ok(disk) => attached.push(Attached {
                volume: name,
                handle,
                bytes: disk.size(),
                disk,
            }),
            Err(error) => {
                detach(ctx, &attached, node);
                return Err(refused(format!(
                    "rpc error: code = Internal desc = rbd: map failed: {error}"
                )));
            }
        }
    }
    Ok(attached)
}

/// Closes all volumes of a domain wherever it has them open.
pub(super) fn detach_all(ctx: &Ctx, domain: &Domain) {
    for node in domain.nodes() {
        detach(ctx, &domain.attached(), &node);
        detach(ctx, &domain.plugged(), &node);
    }
}

/// Closes volumes on a node.
pub(super) fn detach(ctx: &Ctx, attached: &[Attached], node: &str) {
    for open in attached {
        ctx.array.detach(ctx.site, &open.handle, node);
    }
}
