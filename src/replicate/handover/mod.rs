//! Handing PersistentVolumes and claims to the peer, so that a VM there starts on the replicas.
//!
//! The danger is a claim that binds anything else: an empty volume, or a golden image imported anew,
//! boots just as well. So claims name their volume, volumes name their claim, and after binding the
//! handle must be the expected one, before any VM starts.

mod manifest;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::manifest::map_handle;
use super::{Error, Observation, Set, VolumeState};
use crate::cluster::crd::core::{PersistentVolume, PersistentVolumeClaim};
use crate::cluster::{Cluster, Deadline, ObjRef, Owner, Patch, Scope, Seen};
use crate::history::event::Site;

/// A claim with its volume, as they stand on the site where the VM runs. Taken while that site still
/// answers; kept as evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// The PVC's name.
    pub pvc: String,
    /// The volume handle.
    pub handle: String,
    /// The reclaim policy that the volume has.
    pub reclaim_policy: String,
    /// The claim for the peer.
    pub claim: Value,
    /// The volume for the peer; its handle is still the original one.
    pub volume: Value,
    /// The handle on the peer, if the storage driver has told it.
    #[serde(default)]
    pub destination: Option<String>,
}

impl Captured {
    /// What the handle must be on `site`: the storage driver's word, else the plan's map.
    pub fn handle_on(&self, site: Site, map: &BTreeMap<String, String>) -> String {
        self.destination
            .clone()
            .unwrap_or_else(|| map_handle(&self.handle, &toward(site, map)))
    }
}

/// Takes over the destination handles that the primary's replication objects tell. Drivers whose
/// handles are the same on both sites tell none.
pub fn learn_destinations(captured: &mut [Captured], primary: &Observation) {
    for (pvc, state) in &primary.volumes {
        let VolumeState::Seen(vr) = state else {
            continue;
        };
        let told = vr.status.destination_volume_id.clone();
        if let (Some(one), Some(handle)) = (
            captured.iter_mut().find(|c| c.pvc == *pvc),
            told.filter(|h| !h.is_empty()),
        ) {
            one.destination = Some(handle);
        }
    }
}

/// A claim that stands on a site, bound to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// The PVC.
    pub pvc: String,
    /// Its PV.
    pub pv: String,
    /// The PV's handle.
    pub handle: String,
    /// What the handle must be, if it came from the peer.
    pub expected: Option<String>,
}

/// Reads a set's claims and volumes.
pub async fn capture(cluster: &Cluster, set: &Set) -> Result<Vec<Captured>, Error> {
    let mut captured = Vec::with_capacity(set.pvcs.len());
    for pvc in &set.pvcs {
        let claim = cluster
            .read(&ObjRef::of::<PersistentVolumeClaim>(&set.namespace, pvc))
            .await?;
        let bound = claim.pointer("/spec/volumeName").and_then(Value::as_str);
        let phase = claim.pointer("/status/phase").and_then(Value::as_str);
        let (Some(pv), Some("Bound")) = (bound, phase) else {
            return Err(Error::WrongVolume {
                pvc: pvc.clone(),
                why: format!("it is not bound (phase {})", phase.unwrap_or("unknown")),
            });
        };
        let volume = cluster
            .read(&ObjRef::of::<PersistentVolume>("", pv))
            .await?;
        captured.push(manifest::capture(pvc, &claim, &volume)?);
    }
    Ok(captured)
}

/// The plan's handle map for a hand-over to `site`: it is written from the primary to the secondary.
pub fn toward(site: Site, map: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    match site {
        Site::Secondary => map.clone(),
        Site::Primary => map
            .iter()
            .map(|(old, new)| (new.clone(), old.clone()))
            .collect(),
    }
}

/// Makes the claims and volumes on the peer and waits until they are bound to each other. The
/// volumes are `Retain` for now: until the promotion, deleting one must not delete the replica.
pub async fn install(
    cluster: &Cluster,
    owner: &Owner,
    set: &Set,
    captured: &[Captured],
    handle_map: &BTreeMap<String, String>,
    deadline: &Deadline,
) -> Result<Vec<Stands>, Error> {
    let mut standing = Vec::with_capacity(captured.len());
    for one in captured {
        let expected = one.handle_on(cluster.site(), handle_map);
        let mut volume = one.volume.clone();
        volume["spec"]["csi"]["volumeHandle"] = json!(expected);
        // The volume first: a claim without its volume could be provisioned anew.
        create(cluster, owner, &one.pvc, volume).await?;
        create(cluster, owner, &one.pvc, one.claim.clone()).await?;
        standing.push((one.pvc.clone(), expected));
    }
    let mut stands = Vec::with_capacity(standing.len());
    for (pvc, expected) in standing {
        stands.push(bound(cluster, set, &pvc, Some(expected), deadline).await?);
    }
    Ok(stands)
}

async fn create(cluster: &Cluster, owner: &Owner, pvc: &str, object: Value) -> Result<(), Error> {
    match cluster.create(owner, object).await {
        Ok(_) => Ok(()),
        Err(crate::cluster::Error::AlreadyExists { tried, message }) => Err(Error::WrongVolume {
            pvc: pvc.to_owned(),
            why: format!(
                "{tried}: something else stands in its place, so the replica cannot be handed over: {message}. Delete what made it (a VM or DataVolume that was applied too early?)"
            ),
        }),
        Err(e) => Err(e.into()),
    }
}

/// Waits until a claim is bound, and makes sure that its volume is the expected one. Without an
/// expected handle (on the first site) it only tells.
pub async fn bound(
    cluster: &Cluster,
    set: &Set,
    pvc: &str,
    expected: Option<String>,
    deadline: &Deadline,
) -> Result<Stands, Error> {
    let waiting_for = format!("PVC {pvc} to be bound");
    let view = cluster.view::<PersistentVolumeClaim>(&Scope::Namespace(set.namespace.clone()));
    let pv = view
        .until_object(deadline, &set.namespace, pvc, &waiting_for, |claim| {
            let phase = claim.and_then(|c| c.status.as_ref()?.phase.clone());
            let volume = claim.and_then(|c| c.spec.as_ref()?.volume_name.clone());
            match (phase.as_deref(), volume) {
                (Some("Bound"), Some(volume)) => Seen::Met(Ok(volume)),
                (Some("Lost"), volume) => Seen::Met(Err(format!(
                    "its volume {} is lost",
                    volume.unwrap_or_default()
                ))),
                (Some(phase), _) => Seen::Not(format!("phase {phase}")),
                (None, _) => Seen::Not("no such claim".into()),
            }
        })
        .await?
        .map_err(|why| Error::WrongVolume {
            pvc: pvc.to_owned(),
            why,
        })?;
    let volume = cluster.get::<PersistentVolume>("", &pv).await?;
    let handle = volume
        .spec
        .and_then(|spec| spec.csi)
        .map(|csi| csi.volume_handle)
        .unwrap_or_default();
    if let Some(expected) = expected.as_ref().filter(|e| **e != handle) {
        return Err(Error::WrongVolume {
            pvc: pvc.to_owned(),
            why: format!(
                "it is bound to volume {pv} with handle {handle}, not to the replica {expected}; a VM started now would not see the replicated data"
            ),
        });
    }
    Ok(Stands {
        pvc: pvc.to_owned(),
        pv,
        handle,
        expected,
    })
}

/// Gives the volumes their original reclaim policy back, once they are promoted, so that deleting
/// the claims deletes the storage too.
pub async fn settle(cluster: &Cluster, captured: &[Captured]) -> Result<(), Error> {
    for one in captured {
        let name = one
            .volume
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let policy = json!({"spec": {"persistentVolumeReclaimPolicy": one.reclaim_policy}});
        cluster
            .patch(
                &ObjRef::of::<PersistentVolume>("", name),
                &Patch::Merge(policy),
            )
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
