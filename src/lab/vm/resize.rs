//! Volumes that grow under a running VMI: virt-controller tells what their claims have by now, and
//! virt-handler, with the feature gate `ExpandDisks`, has the guest told.
//!
//! Contract: the guest gets the lesser of what the claim asks for and what it has; a disk never shrinks.

use std::sync::Arc;

use serde_json::Value;

use super::domain::Domain;
use super::keys::{PVC, claim_of, items};
use super::report::claim_info;
use super::site::{Ctx, Work, key};
use super::vmi::modify;
use crate::lab::api::{ApiError, meta};
use crate::lab::faults::Fault;
use crate::lab::storage::quantity;

/// The feature gate of the KubeVirt CR.
const GATE: &str = "ExpandDisks";

/// Looks at the volumes of a running VMI.
pub(super) fn reconcile(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let vmi = told(ctx, vmi)?;
    let Some(domain) = ctx.domain(meta::uid(&vmi)).filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    // Without the gate the volume grows, its claim and the VMI say so, and the guest knows nothing.
    if domain.guest().is_none() || !enabled(ctx) || ctx.board.armed(Fault::ResizeUnseen) {
        return Ok(());
    }
    for entry in items(&vmi, "/status/volumeStatus") {
        let name = entry["name"].as_str().unwrap_or_default();
        let info = &entry["persistentVolumeClaimInfo"];
        let bytes = |at: &str| quantity::bytes(meta::text(info, at));
        let (has, asks) = (bytes("/capacity/storage"), bytes("/requests/storage"));
        if let Some(size) = has.zip(asks).map(|(has, asks)| has.min(asks))
            && domain.grows(name, size)
        {
            tell(ctx, &vmi, &domain, name, size);
        }
    }
    Ok(())
}

/// virt-controller: the VMI says what its claims say.
fn told(ctx: &Ctx, vmi: &Value) -> Result<Arc<Value>, ApiError> {
    let infos: Vec<(Value, Value)> = items(&vmi["spec"], "/volumes")
        .iter()
        .filter_map(|volume| {
            let claim = claim_of(volume)?;
            let pvc = ctx.store.get(PVC, meta::namespace(vmi), claim)?;
            Some((volume["name"].clone(), claim_info(claim, &pvc)))
        })
        .collect();
    modify(ctx, vmi, |vmi| {
        let all = vmi.pointer_mut("/status/volumeStatus");
        for entry in all.and_then(Value::as_array_mut).into_iter().flatten() {
            let info = infos.iter().find(|(name, _)| *name == entry["name"]);
            // A hotplugged one has none before its claim is bound.
            if let Some((_, info)) = info
                && entry.get("persistentVolumeClaimInfo").is_some()
            {
                entry["persistentVolumeClaimInfo"] = info.clone();
            }
        }
    })
}

fn enabled(ctx: &Ctx) -> bool {
    let kubevirt = ctx
        .store
        .get("kubevirts.kubevirt.io", "kubevirt", "kubevirt");
    let gates = "/spec/configuration/developerConfiguration/featureGates";
    kubevirt.is_some_and(|kubevirt| items(&kubevirt, gates).iter().any(|gate| gate == GATE))
}

/// virt-handler: the guest learns how large the disk is.
fn tell(ctx: &Ctx, vmi: &Arc<Value>, domain: &Arc<Domain>, volume: &str, bytes: u64) {
    let (site, domain, volume) = (Arc::clone(ctx), Arc::clone(domain), volume.to_owned());
    let at = key(vmi);
    ctx.tracker.spawn(async move {
        let Some(guest) = domain.guest() else {
            return domain.not_grown(&volume);
        };
        if let Err(why) = guest.resize(volume.clone(), bytes).await {
            tracing::warn!(volume, why, "libvirt failed to expand disk image");
            domain.not_grown(&volume);
            site.after(site.timing.attach_retry, Work::Vmi(at));
        }
    });
}
