//! Claims that grow: external-resizer, and for volumes with a file system the kubelet.
//!
//! Contract: the image first, then its PV, then what the claim says that it has. A block volume needs
//! nothing of its node; a file system has grown only once a node has done it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::engine::{After, Key, Sources, drive, key};
use super::objects::{claims_of, class, event, handle, in_use, phase, settle, volume_name};
use super::{CLAIMS, PODS, STORAGE_CLASSES, Storage, VOLUMES, quantity};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::world;

/// The claim's image is being made larger.
const RESIZING: &str = "Resizing";
/// The claim's file system has to be made larger by a node.
const PENDING: &str = "FileSystemResizePending";
/// Lab time that a storage array takes to make an image larger, and a node its file system.
const WORK: Duration = Duration::from_secs(1);

/// Runs the controllers.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let sources = Sources::new()
        .watch(store.watch(CLAIMS), |c| vec![key(&c.object)])
        .watch(store.watch(PODS), |c| {
            let namespace = meta::namespace(&c.object).to_owned();
            let of = claims_of(&c.object).into_iter();
            of.map(|name| (namespace.clone(), name)).collect()
        });
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    let found = |s: &Storage| {
        let claim = s.store.get(CLAIMS, &namespace, &name)?;
        (phase(&claim) == "Bound" && !meta::deleting(&claim)).then_some(claim)
    };
    s.array.powered(s.site).await;
    // What was begun takes its time; each step writes a condition, which leads here again.
    if found(&s).is_some_and(|claim| has(&claim, RESIZING) || has(&claim, PENDING)) {
        s.clock.pass(WORK).await;
        s.array.powered(s.site).await;
    }
    match found(&s) {
        Some(claim) => settle(step(&s, &claim), "a growing claim"),
        None => After::Done,
    }
}

/// The bytes at a pointer, none if there are none.
fn bytes(object: &Value, at: &str) -> u64 {
    quantity::bytes(meta::text(object, at)).unwrap_or(0)
}

fn has(claim: &Value, kind: &str) -> bool {
    let all = claim
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    all.is_some_and(|all| all.iter().any(|one| one["type"] == kind))
}

fn step(s: &Storage, claim: &Arc<Value>) -> Result<After, ApiError> {
    let wanted = bytes(claim, "/spec/resources/requests/storage");
    if wanted <= bytes(claim, "/status/capacity/storage") {
        return Ok(After::Done);
    }
    let Some(volume) = s.store.get(VOLUMES, "", volume_name(claim)) else {
        return Ok(After::Done);
    };
    let Some(driver) = expandable(s, claim) else {
        return Ok(After::Done);
    };
    if has(claim, PENDING) {
        return on_node(s, claim, &volume);
    }
    let from = format!("external-resizer {driver}");
    if !has(claim, RESIZING) {
        let text = format!(
            "External resizer is resizing volume {}",
            meta::name(&volume)
        );
        event(&s.store, claim, "Resizing", &text, &from);
        say(s, claim, Some((RESIZING, "")), None)?;
        return Ok(After::Done);
    }
    let size = quantity::provisioned(wanted);
    if let Err(why) = s.array.resize(s.site, handle(&volume), size) {
        let text = format!(
            "resize volume \"{}\" by resizer \"{driver}\" failed: {why}",
            meta::name(&volume)
        );
        event(&s.store, claim, "VolumeResizeFailed", &text, &from);
        return Ok(After::Retry);
    }
    let size = quantity::text(size);
    s.store
        .modify(VOLUMES, "", meta::name(&volume), Part::Any, |v| {
            v["spec"]["capacity"]["storage"] = json!(size);
        })?;
    if meta::text(claim, "/spec/volumeMode") == "Block" {
        say(s, claim, None, Some(&size))?;
        event(
            &s.store,
            claim,
            "VolumeResizeSuccessful",
            "Resize volume succeeded",
            &from,
        );
        return Ok(After::Done);
    }
    let text =
        "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    say(s, claim, Some((PENDING, text)), None)?;
    let text = "Require file system resize of volume on node";
    event(&s.store, claim, "FileSystemResizeRequired", text, &from);
    Ok(After::Done)
}

/// The driver of a claim whose class lets it grow, if it is one of ours.
fn expandable(s: &Storage, claim: &Value) -> Option<String> {
    let class = s.store.get(STORAGE_CLASSES, "", class(claim))?;
    let driver = meta::text(&class, "/provisioner");
    let ours = [world::DRIVER, world::LOCAL_DRIVER].contains(&driver);
    (ours && class["allowVolumeExpansion"] == true).then(|| driver.to_owned())
}

/// The kubelet of a node on which a pod uses the claim makes its file system larger.
fn on_node(s: &Storage, claim: &Value, volume: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(claim);
    if !in_use(&s.store, &namespace, &name) {
        return Ok(After::Done);
    }
    let size = meta::text(volume, "/spec/capacity/storage").to_owned();
    say(s, claim, None, Some(&size))?;
    let text = format!(
        "MountVolume.NodeExpandVolume succeeded for volume \"{}\"",
        meta::name(volume)
    );
    event(
        &s.store,
        claim,
        "FileSystemResizeSuccessful",
        &text,
        "kubelet",
    );
    Ok(After::Done)
}

/// Writes into a claim's status how far it is: one condition or none, and its size once it has it.
fn say(
    s: &Storage,
    claim: &Value,
    condition: Option<(&str, &str)>,
    size: Option<&str>,
) -> Result<(), ApiError> {
    let (namespace, name) = key(claim);
    let now = meta::now();
    s.store
        .modify(CLAIMS, &namespace, &name, Part::Status, |claim| {
            let status = meta::map_at(claim, "status");
            match condition {
                Some((kind, message)) => {
                    let mut entry = json!({
                        "type": kind, "status": "True",
                        "lastProbeTime": null, "lastTransitionTime": now,
                    });
                    if !message.is_empty() {
                        entry["message"] = json!(message);
                    }
                    status.insert("conditions".into(), json!([entry]));
                }
                None => {
                    status.shift_remove("conditions");
                }
            }
            if let Some(size) = size {
                status.insert("capacity".into(), json!({ "storage": size }));
            }
        })
        .map(drop)
}
