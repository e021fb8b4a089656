//! What an administrator would have installed: storage, snapshot and replication classes, and the
//! objects by which the csi-addons sidecars of the driver make themselves known.

use serde_json::{Value, json};

use crate::history::event::Site;
use crate::lab::api::{ApiError, Store};
use crate::lab::world;

fn class(name: &str, driver: &str, site: Site, binding: &str, default: bool) -> Value {
    let annotations = if default {
        json!({
            "storageclass.kubernetes.io/is-default-class": "true",
            "storageclass.kubevirt.io/is-default-virt-class": "true",
        })
    } else {
        json!({})
    };
    json!({
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": driver,
        "parameters": {"clusterID": world::short(site), "pool": world::short(site)},
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
        "volumeBindingMode": binding,
    })
}

fn replication_class(name: &str, interval: &str, group: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "provisioner": world::DRIVER,
            "parameters": {
                "mirroringMode": "snapshot",
                "schedulingInterval": interval,
                world::GROUP_PARAMETER: group,
            },
        },
    })
}

/// The class of group snapshots.
fn group_class(site: Site) -> Value {
    json!({
        "metadata": {
            "name": world::GROUP_SNAPSHOT_CLASS,
            "annotations": {super::snapshots::group::DEFAULT: "true"},
        },
        "driver": world::DRIVER,
        "deletionPolicy": "Delete",
        "parameters": {"clusterID": world::short(site)},
    })
}

/// The modes that a class offers, best first, as its StorageProfile lists them.
fn profile(name: &str, driver: &str) -> Value {
    let mut profile = json!({
        "metadata": {"name": name},
        "spec": {},
        "status": {
            "storageClass": name,
            "provisioner": driver,
            "cloneStrategy": "csi-clone",
            "dataImportCronSourceFormat": "pvc",
            "claimPropertySets": [
                {"accessModes": ["ReadWriteMany"], "volumeMode": "Block"},
                {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"},
                {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
            ],
        },
    });
    if driver == world::DRIVER {
        // With several classes of one driver KubeVirt cannot tell which to take.
        for part in ["spec", "status"] {
            profile[part]["snapshotClass"] = json!(world::SNAPSHOT_CLASS);
        }
    }
    profile
}

/// The csi-addons sidecar beside the node plugin of one node, or beside the provisioner.
fn sidecar(name: &str, node: &str, status: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": world::DRIVER_NAMESPACE},
        "spec": {"driver": {
            "name": world::DRIVER,
            "endpoint": format!("pod://{name}.{}:9070", world::DRIVER_NAMESPACE),
            "nodeID": node,
        }},
        "status": status,
    })
}

/// Who leads the driver's controllers.
pub(super) const LEADER: &str = "lab-provisioner";

fn sidecars(site: Site) -> Vec<Value> {
    let nodes = world::nodes(site);
    let leader = sidecar(
        LEADER,
        LEADER,
        &json!({
            "state": "Connected",
            "message": "Successfully established connection with sidecar",
            "capabilities": [
                "service.CONTROLLER_SERVICE",
                "network_fence.NETWORK_FENCE",
                "network_fence.GET_CLIENTS_TO_FENCE",
                "volume_replication.VOLUME_REPLICATION",
            ],
        }),
    );
    let plugins = nodes.iter().enumerate().map(|(n, node)| {
        let cidr = format!("{}/32", world::node_ip(site, n));
        let status = json!({
            "state": "Connected",
            "message": "Successfully established connection with sidecar",
            "capabilities": ["service.NODE_SERVICE", "network_fence.GET_CLIENTS_TO_FENCE"],
            "networkFenceClientStatus": [{
                "networkFenceClassName": world::FENCE_CLASS,
                "ClientDetails": [{"id": world::short(site), "cidrs": [cidr]}],
            }],
        });
        sidecar(&format!("lab-nodeplugin-{n}"), node, &status)
    });
    std::iter::once(leader).chain(plugins).collect()
}

/// Installs storage on a site. Safe to repeat.
///
/// # Errors
/// What the store refuses, other than that an object is there already.
pub fn seed(store: &Store, site: Site) -> Result<(), ApiError> {
    let mut objects = vec![
        (
            "namespaces",
            json!({"metadata": {"name": world::DRIVER_NAMESPACE}}),
        ),
        (
            "networkfenceclasses.csiaddons.openshift.io",
            json!({
                "metadata": {"name": world::FENCE_CLASS},
                "spec": {
                    "provisioner": world::DRIVER,
                    "parameters": {"clusterID": world::short(site)},
                },
            }),
        ),
        (
            "leases.coordination.k8s.io",
            json!({
                "metadata": {"name": world::DRIVER_LEASE, "namespace": world::DRIVER_NAMESPACE},
                "spec": {"holderIdentity": LEADER, "leaseDurationSeconds": 15},
            }),
        ),
    ];
    for (name, driver, binding, default) in [
        (world::CLASS_BLOCK, world::DRIVER, "Immediate", true),
        (
            world::CLASS_WAIT,
            world::DRIVER,
            "WaitForFirstConsumer",
            false,
        ),
        (world::CLASS_LOCAL, world::LOCAL_DRIVER, "Immediate", false),
    ] {
        let object = class(name, driver, site, binding, default);
        objects.push(("storageclasses.storage.k8s.io", object));
        objects.push(("storageprofiles.cdi.kubevirt.io", profile(name, driver)));
    }
    for driver in [world::DRIVER, world::LOCAL_DRIVER] {
        let spec = json!({"attachRequired": true, "podInfoOnMount": false});
        let object = json!({"metadata": {"name": driver}, "spec": spec});
        objects.push(("csidrivers.storage.k8s.io", object));
    }
    for (name, policy, default) in [
        (world::SNAPSHOT_CLASS, "Delete", "true"),
        (world::SNAPSHOT_RETAINED, "Retain", "false"),
    ] {
        let mark = "snapshot.storage.kubernetes.io/is-default-class";
        let object = json!({
            "metadata": {"name": name, "annotations": {mark: default}},
            "driver": world::DRIVER,
            "deletionPolicy": policy,
            "parameters": {"clusterID": world::short(site)},
        });
        objects.push((super::snapshots::CLASSES, object));
    }
    objects.push((super::snapshots::group::GROUP_CLASSES, group_class(site)));
    for (name, interval, group) in [
        (world::MIRROR, "1m", "vm"),
        (world::MIRROR_5M, "5m", "vm"),
        (world::MIRROR_INDEPENDENT, "1m", "none"),
    ] {
        let object = replication_class(name, interval, group);
        objects.push((super::VR_CLASSES, object));
    }
    for object in sidecars(site) {
        objects.push(("csiaddonsnodes.csiaddons.openshift.io", object));
    }
    for (resource, object) in objects {
        match store.create(resource, object) {
            Err(e) if e.reason != "AlreadyExists" => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
