//! Claims: protection, binding to static volumes, dynamic provisioning.
//!
//! The order is the real binder's: a volume that the claim names, a volume whose claimRef names
//! the claim, any fitting volume of the class, a new one.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::engine::{After, Key, Sources, drive, key};
use super::objects::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, PROVISIONED_BY, PROVISIONER,
    VOLUME_PROTECTION, annotate, claims_of, class, default_claim, event, handle, in_use, phase,
    settle, volume_name,
};
use super::{CLAIMS, PODS, STORAGE_CLASSES, Storage, VOLUMES, quantity, snapshots};
use crate::history::event::Site;
use crate::lab::api::{ApiError, Part, Store, meta};
use crate::lab::array::{Code, Status};
use crate::lab::faults::Fault;
use crate::lab::guest::image::{self, Os};
use crate::lab::world;

const BINDER: &str = "persistentvolume-controller";
/// Annotation of CDI: bind although the class waits for a consumer.
pub(super) const IMMEDIATE: &str = "cdi.kubevirt.io/storage.bind.immediate.requested";
/// Annotation of the scheduler: where the first consumer will run.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let (volumes, classes) = (store.clone(), store.clone());
    let sources = Sources::new()
        .watch(store.watch(CLAIMS), |c| vec![key(&c.object)])
        .watch(store.watch(VOLUMES), move |c| {
            claims_for(&volumes, &c.object)
        })
        .watch(store.watch(STORAGE_CLASSES), move |_| pending(&classes))
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

fn pending(store: &Store) -> Vec<Key> {
    let claims = store.list(CLAIMS, None);
    let waiting = claims.iter().filter(|c| phase(c) != "Bound");
    waiting.map(|c| key(c)).collect()
}

/// The claims that a change of a volume concerns.
fn claims_for(store: &Store, volume: &Value) -> Vec<Key> {
    match volume.pointer("/spec/claimRef") {
        Some(reference) => vec![(
            meta::text(reference, "/namespace").to_owned(),
            meta::text(reference, "/name").to_owned(),
        )],
        None => pending(store),
    }
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(CLAIMS, &namespace, &name) {
        Some(claim) => settle(step(&s, &claim), "claim"),
        None => After::Done,
    }
}

fn step(s: &Storage, claim: &Arc<Value>) -> Result<After, ApiError> {
    let (namespace, name) = key(claim);
    if meta::deleting(claim) {
        if !in_use(&s.store, &namespace, &name) {
            s.store.modify(CLAIMS, &namespace, &name, Part::Any, |c| {
                meta::remove_finalizer(c, CLAIM_PROTECTION);
            })?;
        }
        return Ok(After::Done);
    }
    let claim = s.store.modify(CLAIMS, &namespace, &name, Part::Any, |c| {
        default_claim(&s.store, c);
    })?;
    if meta::annotation(&claim, BIND_COMPLETED).is_some() {
        return check_bound(s, &claim);
    }
    if !volume_name(&claim).is_empty() {
        return bind_named(s, &claim);
    }
    match find(&s.store, &claim) {
        Some(volume) => bind(s, &volume, &claim),
        None => provision_if_wanted(s, &claim),
    }
}

/// A bound claim loses its volume only by losing the object or its claimRef.
fn check_bound(s: &Storage, claim: &Value) -> Result<After, ApiError> {
    let volume = s.store.get(VOLUMES, "", volume_name(claim));
    let ours = |v: &Arc<Value>| meta::text(v, "/spec/claimRef/uid") == meta::uid(claim);
    let (namespace, name) = key(claim);
    match volume {
        Some(volume) if ours(&volume) => bind(s, &volume, claim),
        found => {
            if phase(claim) != "Lost" {
                let text = if found.is_some() {
                    "Bound claim has lost reference to PersistentVolume. \
                     Data on the volume is lost! Cluster administrator needs to fix the \
                     reference or delete the claim"
                } else {
                    "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                };
                event(&s.store, claim, "ClaimLost", text, BINDER);
            }
            s.store.modify(CLAIMS, &namespace, &name, Part::Any, |c| {
                c["status"] = json!({"phase": "Lost"});
            })?;
            Ok(After::Done)
        }
    }
}

fn bind_named(s: &Storage, claim: &Value) -> Result<After, ApiError> {
    let Some(volume) = s.store.get(VOLUMES, "", volume_name(claim)) else {
        return Ok(After::Done);
    };
    if mistaken(s, &volume)? {
        return Ok(After::Done);
    }
    match volume.pointer("/spec/claimRef") {
        Some(reference) if !refers(reference, claim) => Ok(After::Done),
        _ => match misfit(&volume, claim) {
            Some(why) => {
                let text = format!(
                    "Cannot bind to requested volume \"{}\": {why}",
                    meta::name(&volume)
                );
                event(&s.store, claim, "VolumeMismatch", &text, BINDER);
                Ok(After::Done)
            }
            None => bind(s, &volume, claim),
        },
    }
}

/// Fault `claimref-mismatch`: a volume that was brought to the secondary keeps the UID that its claim
/// had on the old cluster. Whether it does now.
fn mistaken(s: &Storage, volume: &Value) -> Result<bool, ApiError> {
    let fault = Fault::ClaimrefMismatch;
    let brought = volume.pointer("/spec/claimRef").is_some()
        && meta::text(volume, "/spec/claimRef/uid").is_empty();
    if s.site != Site::Secondary || !brought || !s.array.board().armed(fault) {
        return Ok(false);
    }
    let name = meta::name(volume);
    s.array.record(fault, s.site, name, "keeps an old claimRef");
    s.store.modify(VOLUMES, "", name, Part::Any, |v| {
        v["spec"]["claimRef"]["uid"] = json!("0c1a8f6e-0000-4000-8000-000000000000");
    })?;
    Ok(true)
}

/// Whether a claimRef means this claim: by uid if it has one, by name otherwise.
fn refers(reference: &Value, claim: &Value) -> bool {
    let uid = meta::text(reference, "/uid");
    meta::text(reference, "/namespace") == meta::namespace(claim)
        && meta::text(reference, "/name") == meta::name(claim)
        && (uid.is_empty() || uid == meta::uid(claim))
}

/// Why a volume cannot serve a claim.
fn misfit(volume: &Value, claim: &Value) -> Option<&'static str> {
    let size = |at: &str, object: &Value| quantity::bytes(meta::text(object, at)).unwrap_or(0);
    let wanted = size("/spec/resources/requests/storage", claim);
    let modes = |object: &Value| {
        let list = object
            .pointer("/spec/accessModes")
            .and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let offered = modes(volume);
    let mode = |object: &Value| match meta::text(object, "/spec/volumeMode") {
        "" => "Filesystem".to_owned(),
        mode => mode.to_owned(),
    };
    if size("/spec/capacity/storage", volume) < wanted {
        Some("requested PV is too small")
    } else if class(volume) != class(claim) {
        Some("storageClassName does not match")
    } else if mode(volume) != mode(claim) {
        Some("incompatible volumeMode")
    } else if !modes(claim).iter().all(|m| offered.contains(m)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// A volume that waits for this claim, or else the smallest free one that fits.
fn find(store: &Store, claim: &Value) -> Option<Arc<Value>> {
    let volumes = store.list(VOLUMES, None);
    let fits = |v: &&Arc<Value>| !meta::deleting(v) && misfit(v, claim).is_none();
    let reference = |v: &Arc<Value>| v.pointer("/spec/claimRef").cloned();
    let waiting = volumes
        .iter()
        .filter(fits)
        .find(|v| reference(v).is_some_and(|r| refers(&r, claim)));
    let free = volumes
        .iter()
        .filter(fits)
        .filter(|v| reference(v).is_none())
        .min_by_key(|v| quantity::bytes(meta::text(v, "/spec/capacity/storage")));
    waiting.or(free).cloned()
}

/// Writes both halves of a binding; repeats harmlessly.
fn bind(s: &Storage, volume: &Value, claim: &Value) -> Result<After, ApiError> {
    let (namespace, name) = key(claim);
    let reference = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace,
        "name": name,
        "uid": meta::uid(claim),
        "resourceVersion": meta::text(claim, "/metadata/resourceVersion"),
    });
    let bound = s
        .store
        .try_modify(VOLUMES, "", meta::name(volume), Part::Any, |v| {
            match v.pointer("/spec/claimRef").cloned() {
                Some(held) if !refers(&held, claim) => {
                    let name = meta::name(v).to_owned();
                    return Err(ApiError::conflict(VOLUMES, &name, "bound to another claim"));
                }
                Some(held) if meta::text(&held, "/uid") == meta::uid(claim) => {}
                Some(_) => v["spec"]["claimRef"] = reference.clone(),
                None => {
                    v["spec"]["claimRef"] = reference.clone();
                    annotate(v, BOUND_BY_CONTROLLER, "yes");
                }
            }
            meta::map_at(v, "status").insert("phase".into(), json!("Bound"));
            Ok(())
        })?;
    s.store.modify(CLAIMS, &namespace, &name, Part::Any, |c| {
        if volume_name(c).is_empty() {
            annotate(c, BOUND_BY_CONTROLLER, "yes");
        }
        annotate(c, BIND_COMPLETED, "yes");
        c["spec"]["volumeName"] = json!(meta::name(&bound));
        // What a bound claim has is for the resizer and the kubelet to say.
        if phase(c) != "Bound" {
            c["status"]["capacity"] = bound["spec"]["capacity"].clone();
        }
        c["status"]["phase"] = json!("Bound");
        c["status"]["accessModes"] = bound["spec"]["accessModes"].clone();
    })?;
    Ok(After::Done)
}

/// What a new volume holds.
pub(super) enum Content {
    /// Zeros.
    Blank,
    /// A disk image with an operating system.
    System(Os),
    /// The content of the volume behind another claim.
    CloneOf {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The content of a snapshot in the claim's namespace.
    Restored(String),
}

fn provision_if_wanted(s: &Storage, claim: &Value) -> Result<After, ApiError> {
    let source = |at: &str| meta::text(claim, at);
    let kinds = (
        source("/spec/dataSourceRef/kind"),
        source("/spec/dataSource/kind"),
    );
    let content = match (snapshots::source(claim), kinds) {
        (Some(snapshot), _) => Content::Restored(snapshot.to_owned()),
        (
            _,
            ("" | "PersistentVolumeClaim", "PersistentVolumeClaim") | ("PersistentVolumeClaim", _),
        ) => {
            let name = match source("/spec/dataSource/name") {
                "" => source("/spec/dataSourceRef/name"),
                name => name,
            };
            Content::CloneOf {
                namespace: meta::namespace(claim).to_owned(),
                name: name.to_owned(),
            }
        }
        (_, ("", "")) => Content::Blank,
        // A populator will provide the volume.
        _ => return Ok(After::Done),
    };
    if ready_for(s, claim)? {
        provision(s, claim, &content)
    } else {
        Ok(After::Done)
    }
}

/// Whether a claim's class exists, is one of ours, and need not wait for a consumer.
pub(super) fn ready_for(s: &Storage, claim: &Value) -> Result<bool, ApiError> {
    let (namespace, name) = key(claim);
    let named = class(claim);
    if named.is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set";
        event(&s.store, claim, "FailedBinding", text, BINDER);
        return Ok(false);
    }
    let Some(class) = s.store.get(STORAGE_CLASSES, "", named) else {
        let text = format!("storageclass.storage.k8s.io \"{named}\" not found");
        event(&s.store, claim, "ProvisioningFailed", &text, BINDER);
        return Ok(false);
    };
    let driver = meta::text(&class, "/provisioner").to_owned();
    if ![world::DRIVER, world::LOCAL_DRIVER].contains(&driver.as_str()) {
        return Ok(false);
    }
    let waits = meta::text(&class, "/volumeBindingMode") == "WaitForFirstConsumer";
    let wanted = meta::annotation(claim, SELECTED_NODE).is_some()
        || meta::annotation(claim, IMMEDIATE) == Some("true")
        || in_use(&s.store, &namespace, &name);
    if waits && !wanted {
        let text = "waiting for first consumer to be created before binding";
        event(&s.store, claim, "WaitForFirstConsumer", text, BINDER);
        return Ok(false);
    }
    s.store.modify(CLAIMS, &namespace, &name, Part::Any, |c| {
        for prefix in ["volume.beta.kubernetes.io", "volume.kubernetes.io"] {
            annotate(c, &format!("{prefix}/storage-provisioner"), &driver);
        }
    })?;
    Ok(true)
}

/// Makes an image with the content and a volume over it, reserved for the claim.
pub(super) fn provision(s: &Storage, claim: &Value, content: &Content) -> Result<After, ApiError> {
    let Some(class) = s.store.get(STORAGE_CLASSES, "", class(claim)) else {
        return Ok(After::Done);
    };
    let driver = meta::text(&class, "/provisioner");
    let size = quantity::bytes(meta::text(claim, "/spec/resources/requests/storage"));
    let size = quantity::provisioned(size.unwrap_or(0));
    let handle = world::handle(s.site, meta::uid(claim));
    if let Err(why) = fill(s, claim, (&handle, size), content) {
        let named = meta::name(&class);
        let text = format!("failed to provision volume with StorageClass \"{named}\": {why}");
        event(&s.store, claim, "ProvisioningFailed", &text, driver);
        return Ok(After::Retry);
    }
    let name = format!("pvc-{}", meta::uid(claim));
    let volume = volume(s, claim, &class, &name, &handle, size);
    match s.store.create(VOLUMES, volume) {
        Err(e) if e.reason != "AlreadyExists" => return Err(e),
        _ => {}
    }
    let text = format!("Successfully provisioned volume {name}");
    event(&s.store, claim, "ProvisioningSucceeded", &text, driver);
    match s.store.get(VOLUMES, "", &name) {
        Some(volume) => bind(s, &volume, claim),
        None => Ok(After::Retry),
    }
}

fn fill(
    s: &Storage,
    claim: &Value,
    (to, size): (&str, u64),
    content: &Content,
) -> Result<(), String> {
    let failed = |e: std::io::Error| Status::new(Code::Internal, e.to_string());
    let filled = match content {
        Content::Blank => s.array.create(s.site, to, size),
        Content::System(os) => s.array.create(s.site, to, size).and_then(|()| {
            let disk = s
                .array
                .attach(s.site, to, "importer", true)
                .map_err(failed)?;
            image::install(disk.as_ref(), os).map_err(failed)
        }),
        Content::CloneOf { namespace, name } => {
            let source = s.store.get(CLAIMS, namespace, name);
            let source = source.and_then(|c| s.store.get(VOLUMES, "", volume_name(&c)));
            if let Some(source) = source {
                s.array.copy(s.site, handle(&source), to, size)
            } else {
                let text = format!("claim {namespace}/{name} to clone is not bound");
                Err(Status::new(Code::Unavailable, text))
            }
        }
        Content::Restored(snapshot) => return snapshots::fill(s, claim, snapshot, (to, size)),
    };
    filled.map_err(|status| status.to_string())
}

fn volume(s: &Storage, claim: &Value, class: &Value, name: &str, handle: &str, size: u64) -> Value {
    let driver = meta::text(class, "/provisioner");
    let policy = match meta::text(class, "/reclaimPolicy") {
        "" => "Delete",
        policy => policy,
    };
    let mut finalizers = vec![VOLUME_PROTECTION];
    if policy == "Delete" {
        finalizers.push(PROVISIONER);
    }
    json!({
        "metadata": {
            "name": name,
            "annotations": {PROVISIONED_BY: driver},
            "finalizers": finalizers,
        },
        "spec": {
            "capacity": {"storage": quantity::text(size)},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": claim["spec"]["volumeMode"],
            "storageClassName": meta::name(class),
            "persistentVolumeReclaimPolicy": policy,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta::namespace(claim),
                "name": meta::name(claim),
                "uid": meta::uid(claim),
            },
            "csi": {
                "driver": driver,
                "volumeHandle": handle,
                "volumeAttributes": {
                    "clusterID": world::short(s.site),
                    "pool": world::short(s.site),
                    "imageName": format!("csi-vol-{}", meta::uid(claim)),
                    "storage.kubernetes.io/csiProvisionerIdentity":
                        format!("{driver}-{}", world::short(s.site)),
                },
            },
        },
        "status": {"phase": "Pending"},
    })
}
