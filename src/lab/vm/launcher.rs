//! The virt-launcher pod of a VMI, as an object.

use serde_json::{Map, Value, json};

use super::domain::Domain;
use super::hotplug::is_hotplugged;
use super::keys::{CREATED_BY, POD, VMI, claim_of, items};
use super::site::{Ctx, settle};
use crate::lab::api::meta;
use crate::lab::faults::Fault;

/// The image that the launcher runs; nothing pulls it.
pub(super) const IMAGE: &str = "registry.example/kubevirt/virt-launcher:v1.9.0";
/// What virt-launcher itself needs besides the guest's memory.
pub(super) const OVERHEAD: &str = "295168Ki";
/// Seconds that the pod has beyond the guest's grace period.
const EXTRA_GRACE: i64 = 30;

/// The launcher pod of a VMI.
pub(super) fn pod(vmi: &Value) -> Value {
    let name = meta::name(vmi);
    let namespace = meta::namespace(vmi);
    let mut labels = match vmi.pointer("/metadata/labels") {
        Some(Value::Object(labels)) => labels.clone(),
        _ => Map::new(),
    };
    labels.retain(|key, _| key != super::keys::NODE_LABEL);
    let hostname = match meta::text(vmi, "/spec/hostname") {
        "" => name,
        hostname => hostname,
    };
    let short = hostname.split('.').next().unwrap_or(hostname);
    for (key, value) in [
        ("kubevirt.io", "virt-launcher"),
        (CREATED_BY, meta::uid(vmi)),
        ("vm.kubevirt.io/name", short.get(..63).unwrap_or(short)),
        ("vmi.kubevirt.io/id", name),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    let grace = vmi
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(180);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("virt-launcher-{name}-"),
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations(vmi),
            "ownerReferences": [meta::owner_reference(vmi)],
        },
        "spec": {
            "containers": containers(vmi),
            "volumes": volumes(vmi),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace + EXTRA_GRACE,
            "automountServiceAccountToken": false,
            "hostname": short,
            "nodeSelector": selector(vmi),
            "readinessGates": [{"conditionType": super::keys::UNPAUSED}],
            "schedulerName": "default-scheduler",
            "securityContext": {"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107},
            "enableServiceLinks": false,
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    })
}

/// Fault `launcher-left-completed`: a launcher as a migration leaves it on the node that the guest came
/// from, of which no migration tells.
pub(super) fn leave_one(ctx: &Ctx, domain: &Domain) {
    let (namespace, name) = &domain.vmi;
    let vmi = ctx.store.get(VMI, namespace, name);
    let Some(vmi) = vmi.filter(|_| ctx.board.armed(Fault::LauncherLeft)) else {
        return;
    };
    let mut left = pod(&vmi);
    left["metadata"]["name"] = json!(format!("virt-launcher-{name}-00000"));
    left["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = json!(meta::uid(&vmi));
    left["spec"]["nodeName"] = json!(domain.place().node);
    left["status"] = json!({"phase": "Succeeded"});
    settle("a launcher that was left", ctx.store.create(POD, left));
}

fn annotations(vmi: &Value) -> Value {
    let mut annotations = json!({
        "descheduler.alpha.kubernetes.io/request-evict-only": "",
        "kubectl.kubernetes.io/default-container": "compute",
        "kubevirt.io/domain": meta::name(vmi),
        "kubevirt.io/migrationTransportUnix": "true",
    });
    for inherited in [
        "kubevirt.io/pci-topology-version",
        "kubevirt.io/vm-generation",
    ] {
        if let Some(value) = meta::annotation(vmi, inherited) {
            annotations[inherited] = json!(value);
        }
    }
    if meta::annotation(vmi, "kubevirt.io/skip-backup-hooks") != Some("true") {
        for (side, flag) in [("pre", "--freeze"), ("post", "--unfreeze")] {
            let command = json!([
                "/usr/bin/virt-freezer",
                flag,
                "--name",
                meta::name(vmi),
                "--namespace",
                meta::namespace(vmi)
            ]);
            annotations[format!("{side}.hook.backup.velero.io/container")] = json!("compute");
            annotations[format!("{side}.hook.backup.velero.io/command")] =
                json!(command.to_string());
        }
        annotations["pre.hook.backup.velero.io/timeout"] = json!("60s");
    }
    annotations
}

fn containers(vmi: &Value) -> Vec<Value> {
    let memory = vmi.pointer("/spec/domain/resources/requests/memory");
    let mut all = vec![json!({
        "name": "compute",
        "image": IMAGE,
        "command": ["/usr/bin/virt-launcher-monitor"],
        "resources": {"requests": {"cpu": "100m", "memory": memory}},
        "volumeDevices": items(vmi, "/spec/volumes").iter()
            .filter(|volume| claim_of(volume).is_some() && !is_hotplugged(volume))
            .map(|volume| {
                let name = volume["name"].as_str().unwrap_or_default();
                json!({"name": name, "devicePath": format!("/dev/{name}")})
            })
            .collect::<Vec<_>>(),
    })];
    for volume in items(vmi, "/spec/volumes") {
        if let Some(image) = volume.pointer("/containerDisk/image") {
            let name = volume["name"].as_str().unwrap_or_default();
            all.push(json!({
                "name": format!("volume{name}"),
                "image": image,
                "command": ["/usr/bin/container-disk"],
            }));
        }
    }
    all
}

fn volumes(vmi: &Value) -> Vec<Value> {
    let fixed = [
        "private",
        "public",
        "sockets",
        "libvirt-runtime",
        "ephemeral-disks",
    ];
    let mut all: Vec<Value> = fixed
        .iter()
        .map(|name| json!({"name": name, "emptyDir": {}}))
        .collect();
    let own = items(vmi, "/spec/volumes").iter();
    for volume in own.filter(|volume| !is_hotplugged(volume)) {
        if let Some(claim) = claim_of(volume) {
            all.push(json!({
                "name": volume["name"],
                "persistentVolumeClaim": {"claimName": claim},
            }));
        }
    }
    all
}

fn selector(vmi: &Value) -> Value {
    let mut selector = json!({
        "kubernetes.io/arch": vmi.pointer("/spec/architecture").cloned().unwrap_or_else(|| json!("amd64")),
        "kubevirt.io/schedulable": "true",
    });
    if let Some(Value::Object(asked)) = vmi.pointer("/spec/nodeSelector") {
        for (key, value) in asked {
            selector[key] = value.clone();
        }
    }
    selector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_hooks_are_those_that_selectors_look_for() {
        let vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "db.example", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"volumes": [
                {"name": "root", "containerDisk": {"image": "i"}},
                {"name": "data", "dataVolume": {"name": "dv"}}]},
        });
        let pod = pod(&vmi);
        assert_eq!(pod["metadata"]["labels"]["vm.kubevirt.io/name"], "db");
        assert_eq!(pod["metadata"]["labels"]["kubevirt.io/created-by"], "u");
        let hook = &pod["metadata"]["annotations"]["pre.hook.backup.velero.io/command"];
        assert!(
            hook.as_str()
                .unwrap()
                .contains("\"--freeze\",\"--name\",\"db.example\"")
        );
        let names: Vec<&str> = items(&pod, "/spec/containers")
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert_eq!(names, ["compute", "volumeroot"]);
        let claims = items(&pod, "/spec/volumes")
            .iter()
            .filter(|v| v.get("persistentVolumeClaim").is_some());
        assert_eq!(claims.count(), 1);
    }
}
