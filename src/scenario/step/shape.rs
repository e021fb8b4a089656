//! How a VM is defined and was started where it runs, as far as a move must keep it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::crd::core::{ConfigMap, Secret};
use crate::cluster::crd::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::cluster::{Cluster, ObjRef, Typed as _};
use crate::history::event::{Fact, ShapeFact};
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::references;

/// What the key of a run's digests is derived for.
const CONTEXT: &str = "virtproof 2026 digests of what a VM refers to";

/// Records the shape of the VM where the member is.
pub(super) async fn record(world: &World, member: &Member) -> anyhow::Result<()> {
    let (site, cluster) = (member.site, member.cluster(world));
    let (ns, name) = (&member.subject.namespace, &member.subject.vm);
    let vm = cluster
        .read(&ObjRef::of::<VirtualMachine>(ns, name))
        .await?;
    let vmi = ObjRef::of::<VirtualMachineInstance>(ns, name);
    let mut shape = of(&vm, &cluster.read(&vmi).await?);
    // Derived from the run, so that digests of guessable contents cannot be compared across runs.
    let key = blake3::derive_key(CONTEXT, &world.run_id);
    for (kind, name) in references(&vm["spec"]["template"]["spec"]) {
        let digest = content(cluster, ns, kind, &name).await?;
        let digest = digest.map(|object| digest_of(&key, &object));
        shape.references.insert(format!("{kind}/{name}"), digest);
    }
    member.tell(world, Fact::Shape { site, shape }).await
}

/// A referenced object, `None` if there is none.
async fn content(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
) -> anyhow::Result<Option<Value>> {
    let object = if kind == Secret::KIND.kind {
        ObjRef::of::<Secret>(namespace, name)
    } else {
        ObjRef::of::<ConfigMap>(namespace, name)
    };
    match cluster.read(&object).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A keyed digest of what a Secret or ConfigMap holds, in whatever order its keys stand.
fn digest_of(key: &[u8; 32], object: &Value) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for field in ["data", "binaryData"] {
        let entries = object[field].as_object();
        let sorted: BTreeMap<&String, &str> = entries
            .into_iter()
            .flatten()
            .map(|(name, value)| (name, value.as_str().unwrap_or_default()))
            .collect();
        for (name, value) in sorted {
            // Lengths first, so that no two contents look alike.
            for part in [field, name, value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The shape that a VM and its VMI tell.
fn of(vm: &Value, vmi: &Value) -> ShapeFact {
    let text = |object: &Value, path: &str| {
        let found = object.pointer(path).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let domain = &vmi["spec"]["domain"];
    let or = |first: String, second: String| if first.is_empty() { second } else { first };
    let count = |part: &str| domain["cpu"][part].as_u64().unwrap_or(1);
    ShapeFact {
        run_strategy: or(
            text(vm, "/spec/runStrategy"),
            match vm["spec"]["running"].as_bool() {
                Some(true) => "Always".into(),
                Some(false) => "Halted".into(),
                None => String::new(),
            },
        ),
        // An alias in the spec is resolved in the status.
        machine: or(
            text(vmi, "/status/machine/type"),
            text(domain, "/machine/type"),
        ),
        firmware_uuid: text(domain, "/firmware/uuid"),
        firmware_serial: text(domain, "/firmware/serial"),
        macs: macs(vmi),
        disks: disks(domain),
        references: BTreeMap::new(),
        cpu: format!(
            "{}:{}:{}",
            count("sockets"),
            count("cores"),
            count("threads")
        ),
        memory: or(
            text(domain, "/memory/guest"),
            text(domain, "/resources/requests/memory"),
        ),
    }
}

fn items<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    object
        .pointer(path)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// MAC addresses by interface: those that the VMI asks for, else those that it got.
fn macs(vmi: &Value) -> BTreeMap<String, String> {
    let told = |path: &str, key: &str| -> Vec<(String, String)> {
        items(vmi, path)
            .filter_map(|one| Some((one["name"].as_str()?, one[key].as_str()?)))
            .filter(|(name, mac)| !name.is_empty() && !mac.is_empty())
            .map(|(name, mac)| (name.to_owned(), mac.to_ascii_lowercase()))
            .collect()
    };
    let mut macs: BTreeMap<_, _> = told("/status/interfaces", "mac").into_iter().collect();
    macs.extend(told("/spec/domain/devices/interfaces", "macAddress"));
    macs
}

/// The disks in their order: name, bus and serial.
fn disks(domain: &Value) -> Vec<String> {
    let bus = |disk: &Value| {
        ["disk", "cdrom", "lun"].iter().find_map(|kind| {
            Some(
                disk.get(kind)?["bus"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            )
        })
    };
    items(domain, "/devices/disks")
        .map(|disk| {
            let word = |key: &str| disk[key].as_str().unwrap_or_default().to_owned();
            let line = [word("name"), bus(disk).unwrap_or_default(), word("serial")];
            line.join(" ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_shape_is_what_the_vmi_runs_with() {
        let vm = json!({"spec": {"runStrategy": "Always"}});
        let vmi = json!({
            "spec": {"domain": {
                "machine": {"type": "q35"}, "firmware": {"uuid": "u", "serial": "s"},
                "cpu": {"cores": 2}, "memory": {"guest": "1Gi"},
                "devices": {
                    "disks": [
                        {"name": "root", "disk": {"bus": "virtio"}},
                        {"name": "data", "disk": {"bus": "scsi"}, "serial": "D0"},
                    ],
                    "interfaces": [{"name": "default", "macAddress": "02:AA:00:00:00:01"}],
                },
            }},
            "status": {
                "machine": {"type": "pc-q35-9.2"},
                "interfaces": [
                    {"name": "default", "mac": "02:00:00:00:00:99"},
                    {"name": "second", "mac": "02:00:00:00:00:02"}, {"mac": "02:00:00:00:00:03"},
                ],
            },
        });
        let shape = of(&vm, &vmi);
        assert_eq!(
            (shape.machine.as_str(), shape.cpu.as_str()),
            ("pc-q35-9.2", "1:2:1")
        );
        assert_eq!(
            (shape.run_strategy.as_str(), shape.memory.as_str()),
            ("Always", "1Gi")
        );
        assert_eq!(shape.disks, ["root virtio", "data scsi D0"]);
        assert_eq!(
            (shape.firmware_uuid, shape.firmware_serial),
            ("u".into(), "s".into())
        );
        let macs: Vec<_> = shape.macs.values().map(String::as_str).collect();
        assert_eq!(macs, ["02:aa:00:00:00:01", "02:00:00:00:00:02"]);
        let running = of(&json!({"spec": {"running": true}}), &json!({}));
        assert_eq!(
            (running.run_strategy.as_str(), running.machine.as_str()),
            ("Always", "")
        );
    }

    #[test]
    fn digests_tell_contents_apart_and_nothing_else() {
        let key = blake3::derive_key(CONTEXT, b"run");
        let digest = |object: &Value| digest_of(&key, object);
        let one = digest(&json!({"data": {"a": "1", "b": "2"}, "metadata": {"uid": "x"}}));
        assert_eq!(
            one,
            digest(&json!({"data": {"b": "2", "a": "1"}, "metadata": {"uid": "y"}}))
        );
        for other in [
            json!({"data": {"a": "1", "b": "3"}}),
            json!({"data": {"a": "1"}}),
            json!({"data": {"a": "1b", "": "2"}}),
            json!({"binaryData": {"a": "1", "b": "2"}}),
        ] {
            assert_ne!(one, digest(&other), "{other}");
        }
        let another = blake3::derive_key(CONTEXT, b"another run");
        assert_ne!(
            one,
            digest_of(&another, &json!({"data": {"a": "1", "b": "2"}}))
        );
    }
}
