//! What the hypervisor hands to a guest: read from the VMI's spec, its Secrets, its volumes.

use std::sync::Arc;

use base64::Engine;
use serde_json::Value;

use super::domain::{Attached, Domain};
use super::keys::{PVC, VMI, claim_of, items};
use super::site::Ctx;
use crate::history::event::Site;
use crate::lab::api::meta;
use crate::lab::faults::Fault;
use crate::lab::guest::cloudinit::Seed;
use crate::lab::guest::image::Os;
use crate::lab::guest::{ErrorPolicy, GuestDisk, Planted, Root, Spec};
use crate::probe::disk::Disk;

/// Free bytes on a root file system unless the VMI says otherwise.
const ROOT_SPACE: u64 = 2 << 30;
/// Annotation on a VMI template that fills the guest's root file system up to so many free bytes;
/// the lab's way to play a full disk.
pub(super) const ROOT_SPACE_ANNOTATION: &str = "lab.virtproof.dev/root-free-bytes";

/// What the guest of a domain is started with.
pub(super) fn spec(ctx: &Ctx, vmi: &Value, domain: &Domain) -> Spec {
    let boot = domain
        .boots
        .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    let attached = chosen(ctx, vmi, domain);
    let devices = items(vmi, "/spec/domain/devices/disks");
    let mut root = Root::Missing;
    let mut root_volume = None;
    let mut disks = Vec::new();
    let mut letter = b'a';
    for device in in_boot_order(devices) {
        let Some(volume) = items(vmi, "/spec/volumes")
            .iter()
            .find(|volume| volume["name"] == device["name"])
        else {
            continue;
        };
        let name = format!("vd{}", char::from(letter));
        letter = letter.saturating_add(1);
        let open = |volume: &Value| {
            attached
                .iter()
                .find(|open| open.volume == volume["name"].as_str().unwrap_or_default())
                .cloned()
        };
        if let Some(image) = volume
            .pointer("/containerDisk/image")
            .and_then(Value::as_str)
        {
            if matches!(root, Root::Missing) && !holds_nothing(image) {
                root = Root::Ephemeral(Os::from_reference(image));
            }
        } else if let Some(open) = open(volume) {
            if matches!(root, Root::Missing) {
                root_volume = Some(open.volume);
                root = Root::Volume(open.disk);
            } else {
                disks.push(data_disk(device, name, open));
            }
        }
    }
    if wrong_guest(ctx) && attached_as_specified(&attached, domain) {
        // No other VM to take the volumes of: a foreign machine comes up all the same.
        (root, root_volume) = (Root::Ephemeral(Os::from_reference("fedora")), None);
    }
    if ctx.site == Site::Secondary && ctx.board.armed(Fault::DisksRenamed) {
        renamed(&mut disks);
    }
    Spec {
        uid: domain.uid.clone(),
        memory: memory(vmi),
        hostname: hostname(vmi),
        seed: seed(ctx, vmi),
        root,
        root_volume,
        mac: mac(vmi),
        disks,
        root_space: meta::annotation(vmi, ROOT_SPACE_ANNOTATION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(ROOT_SPACE),
        entropy: ctx.seed.wrapping_add(boot),
        planted: Planted::new(Arc::clone(&ctx.board), ctx.site, boot),
    }
}

/// Lets the last two disks change names, which their kernel lists them by.
fn renamed(disks: &mut [GuestDisk]) {
    if let [.., first, second] = disks {
        std::mem::swap(&mut first.name, &mut second.name);
        std::mem::swap(first, second);
    }
}

/// The hardware address of the first network card: as the spec says, or a locally administered one
/// that stays with the VMI.
pub(super) fn mac(vmi: &Value) -> String {
    let given = vmi.pointer("/spec/domain/devices/interfaces/0/macAddress");
    if let Some(given) = given.and_then(Value::as_str) {
        // KubeVirt takes both notations, and a guest knows one.
        return given.replace('-', ":").to_lowercase();
    }
    let hash = blake3::hash(meta::uid(vmi).as_bytes());
    let b = hash.as_bytes();
    format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        b[0], b[1], b[2], b[3], b[4]
    )
}

/// Guest memory in MiB; what virt-api fills in is always there.
fn memory(vmi: &Value) -> u64 {
    let memory = vmi.pointer("/spec/domain/memory/guest");
    memory.map_or(0, super::schedule::bytes) >> 20
}

/// The devices of volumes that a node opened, by volume name.
pub(super) fn devices_of(attached: &[Attached]) -> Vec<(String, Arc<dyn Disk>)> {
    let opened = attached.iter();
    opened
        .map(|open| (open.volume.clone(), Arc::clone(&open.disk)))
        .collect()
}

/// Images named `blank` hold an empty disk, as the one of the recordings.
fn holds_nothing(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next() == Some("blank")
}

pub(super) fn data_disk(device: &Value, name: String, open: Attached) -> GuestDisk {
    let serial = device["serial"].as_str().unwrap_or_default();
    GuestDisk {
        name,
        volume: open.volume,
        // virtio-blk shows the first 20 bytes.
        serial: serial.chars().take(20).collect(),
        read_only: device.pointer("/disk/readonly") == Some(&Value::Bool(true)),
        errors: match device["errorPolicy"].as_str() {
            Some("report") => ErrorPolicy::Report,
            Some("ignore") => ErrorPolicy::Ignore,
            _ => ErrorPolicy::Stop,
        },
        disk: open.disk,
    }
}

/// Disks with a boot order first, in that order; then the rest as they stand.
fn in_boot_order(devices: &[Value]) -> Vec<&Value> {
    let mut ordered: Vec<&Value> = devices.iter().collect();
    ordered.sort_by_key(|device| device["bootOrder"].as_u64().unwrap_or(u64::MAX));
    ordered
}

fn hostname(vmi: &Value) -> String {
    let name = match meta::text(vmi, "/spec/hostname") {
        "" => meta::name(vmi),
        hostname => hostname,
    };
    name.split('.').next().unwrap_or(name).to_owned()
}

fn wrong_guest(ctx: &Ctx) -> bool {
    ctx.site == Site::Secondary && ctx.board.armed(Fault::WrongGuest)
}

fn attached_as_specified(attached: &[Attached], domain: &Domain) -> bool {
    let own = domain.attached();
    attached.len() == own.len() && attached.iter().zip(&own).all(|(a, b)| a.handle == b.handle)
}

/// The volumes that the guest really gets: its own, or with the fault `wrong-guest` those of
/// another VM of the site.
fn chosen(ctx: &Ctx, vmi: &Value, domain: &Domain) -> Vec<Attached> {
    let own = domain.attached();
    if !wrong_guest(ctx) {
        return [own, domain.plugged()].concat();
    }
    for other in ctx.store.list(VMI, None) {
        let same = meta::uid(&other) == domain.uid;
        if same || meta::uid(&other) == meta::uid(vmi) {
            continue;
        }
        let node = domain.place().node;
        let theirs: Vec<Attached> = own
            .iter()
            .zip(items(&other, "/spec/volumes").iter().filter_map(claim_of))
            .filter_map(|(own, claim)| {
                let handle = super::schedule::handle_of(ctx, meta::namespace(&other), claim)?;
                let disk = ctx.array.attach(ctx.site, &handle, &node, true).ok()?;
                Some(Attached {
                    volume: own.volume.clone(),
                    handle,
                    bytes: disk.size(),
                    disk,
                })
            })
            .collect();
        if theirs.len() == own.len() && !own.is_empty() {
            return theirs;
        }
    }
    own
}

/// The cloud-init seed: user data from the spec or its Secret, and the keys of access credentials.
fn seed(ctx: &Ctx, vmi: &Value) -> Seed {
    let volumes = items(vmi, "/spec/volumes");
    let source = volumes.iter().find_map(|volume| {
        let no_cloud = volume.get("cloudInitNoCloud").map(|source| (true, source));
        no_cloud.or_else(|| {
            volume
                .get("cloudInitConfigDrive")
                .map(|source| (false, source))
        })
    });
    let Some((no_cloud, source)) = source else {
        return Seed::default();
    };
    let instance_id = if no_cloud {
        meta::text(vmi, "/spec/domain/firmware/uuid").to_owned()
    } else {
        format!("{}.{}", meta::name(vmi), meta::namespace(vmi))
    };
    Seed {
        instance_id: Some(instance_id),
        user_data: user_data(ctx, vmi, source),
        public_keys: access_keys(ctx, vmi),
    }
}

fn user_data(ctx: &Ctx, vmi: &Value, source: &Value) -> String {
    if let Some(text) = source["userData"].as_str() {
        return text.to_owned();
    }
    if let Some(encoded) = source["userDataBase64"].as_str() {
        return decoded(encoded);
    }
    let secret = ["secretRef", "userDataSecretRef"]
        .iter()
        .find_map(|field| source[*field]["name"].as_str());
    let Some(secret) = secret.and_then(|name| ctx.store.get("secrets", meta::namespace(vmi), name))
    else {
        return String::new();
    };
    ["userdata", "userData"]
        .iter()
        .find_map(|key| secret_text(&secret, key))
        .unwrap_or_default()
}

fn access_keys(ctx: &Ctx, vmi: &Value) -> Vec<String> {
    items(vmi, "/spec/accessCredentials")
        .iter()
        .filter(|credential| {
            let method = &credential["sshPublicKey"]["propagationMethod"];
            method.get("noCloud").is_some() || method.get("configDrive").is_some()
        })
        .filter_map(|credential| {
            let name = credential.pointer("/sshPublicKey/source/secret/secretName")?;
            ctx.store
                .get("secrets", meta::namespace(vmi), name.as_str()?)
        })
        .flat_map(|secret| {
            let keys = secret["data"].as_object().into_iter().flatten();
            let keys: Vec<String> = keys.map(|(key, _)| key.clone()).collect();
            keys.into_iter()
                .filter_map(|key| secret_text(&secret, &key))
                .map(|text| text.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn secret_text(secret: &Value, key: &str) -> Option<String> {
    if let Some(text) = secret["stringData"][key].as_str() {
        return Some(text.to_owned());
    }
    secret["data"][key].as_str().map(decoded)
}

fn decoded(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    match base64::engine::general_purpose::STANDARD.decode(clean) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The Secrets that a VMI names: its launcher mounts them all, and cannot start without.
pub(super) fn secrets(vmi: &Value) -> Vec<String> {
    let of = |value: &Value, pointers: &[&str]| -> Vec<String> {
        let found = pointers.iter().filter_map(|at| value.pointer(at)?.as_str());
        found.map(str::to_owned).collect()
    };
    let volumes = items(vmi, "/spec/volumes").iter().flat_map(|volume| {
        of(
            volume,
            &[
                "/secret/secretName",
                "/cloudInitNoCloud/secretRef/name",
                "/cloudInitNoCloud/networkDataSecretRef/name",
                "/cloudInitConfigDrive/secretRef/name",
                "/cloudInitConfigDrive/networkDataSecretRef/name",
            ],
        )
    });
    let credentials = items(vmi, "/spec/accessCredentials")
        .iter()
        .flat_map(|credential| {
            let source = "source/secret/secretName";
            of(
                credential,
                &[
                    &format!("/sshPublicKey/{source}"),
                    &format!("/userPassword/{source}"),
                ],
            )
        });
    volumes.chain(credentials).collect()
}

/// Whether a claim of the VMI is missing, and which.
pub(super) fn missing_claim(ctx: &Ctx, vmi: &Value) -> Option<String> {
    items(vmi, "/spec/volumes")
        .iter()
        .filter_map(claim_of)
        .find(|claim| ctx.store.get(PVC, meta::namespace(vmi), claim).is_none())
        .map(str::to_owned)
}
