//! Volumes: phases, protection and reclaiming.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::engine::{After, Key, Sources, drive, key};
use super::objects::{
    PROVISIONED_BY, PROVISIONER, VOLUME_PROTECTION, claim_with_uid, event, handle, settle,
    volume_name,
};
use super::{CLAIMS, Storage, VOLUMES};
use crate::lab::api::{ApiError, DeleteOptions, Part, Store, meta};
use crate::lab::world;

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let volumes = store.clone();
    let sources = Sources::new()
        .watch(store.watch(VOLUMES), |c| vec![key(&c.object)])
        .watch(store.watch(CLAIMS), move |c| {
            volumes_for(&volumes, &c.object)
        });
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

/// The volumes that a change of a claim concerns.
fn volumes_for(store: &Store, claim: &Value) -> Vec<Key> {
    let (namespace, name) = key(claim);
    let of = store.list(VOLUMES, None);
    let named = of.iter().filter(|v| {
        meta::name(v) == volume_name(claim)
            || (meta::text(v, "/spec/claimRef/namespace") == namespace
                && meta::text(v, "/spec/claimRef/name") == name)
    });
    named.map(|v| key(v)).collect()
}

async fn reconcile(s: Storage, (_, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(VOLUMES, "", &name) {
        Some(volume) => settle(step(&s, &volume), "volume"),
        None => After::Done,
    }
}

fn step(s: &Storage, volume: &Arc<Value>) -> Result<After, ApiError> {
    let name = meta::name(volume);
    if !meta::deleting(volume) {
        s.store.modify(VOLUMES, "", name, Part::Any, |v| {
            meta::add_finalizer(v, VOLUME_PROTECTION);
        })?;
    }
    let uid = meta::text(volume, "/spec/claimRef/uid");
    let phase = if uid.is_empty() {
        "Available"
    } else {
        let namespace = meta::text(volume, "/spec/claimRef/namespace");
        let claim = meta::text(volume, "/spec/claimRef/name");
        match claim_with_uid(&s.store, namespace, claim, uid) {
            None => "Released",
            Some(claim) if volume_name(&claim) == name => "Bound",
            // The claim's controller is about to bind it.
            Some(claim) if volume_name(&claim).is_empty() => return Ok(After::Done),
            Some(_) => return unbind(s, name),
        }
    };
    s.store.modify(VOLUMES, "", name, Part::Any, |v| {
        meta::map_at(v, "status").insert("phase".into(), json!(phase));
        if meta::deleting(v) && phase != "Bound" {
            meta::remove_finalizer(v, VOLUME_PROTECTION);
        }
    })?;
    if phase == "Released" && meta::text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete"
    {
        return reclaim(s, volume);
    }
    Ok(After::Done)
}

/// The claim is bound to another volume, so this one is free again.
fn unbind(s: &Storage, name: &str) -> Result<After, ApiError> {
    s.store.modify(VOLUMES, "", name, Part::Any, |v| {
        if let Some(spec) = v.get_mut("spec").and_then(Value::as_object_mut) {
            spec.shift_remove("claimRef");
        }
        meta::map_at(v, "status").insert("phase".into(), json!("Available"));
    })?;
    Ok(After::Done)
}

/// Deletes the image, then the volume. A volume that no provisioner made is deleted by its CSI
/// driver all the same: the driver is found by the name in the volume.
fn reclaim(s: &Storage, volume: &Value) -> Result<After, ApiError> {
    let name = meta::name(volume);
    let driver = meta::text(volume, "/spec/csi/driver");
    let ours = [world::DRIVER, world::LOCAL_DRIVER].contains(&driver);
    if !ours && meta::annotation(volume, PROVISIONED_BY).is_none() {
        return Ok(After::Done);
    }
    if let Err(status) = s.array.delete(s.site, handle(volume)) {
        let text = status.to_string();
        event(&s.store, volume, "VolumeFailedDelete", &text, driver);
        s.store.modify(VOLUMES, "", name, Part::Any, |v| {
            meta::map_at(v, "status").insert("message".into(), json!(text));
        })?;
        return Ok(After::Retry);
    }
    s.store.modify(VOLUMES, "", name, Part::Any, |v| {
        meta::remove_finalizer(v, PROVISIONER);
    })?;
    if !meta::deleting(volume) {
        s.store
            .delete(VOLUMES, "", name, &DeleteOptions::default())?;
    }
    Ok(After::Done)
}
