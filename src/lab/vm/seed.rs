//! What a site has before anybody uses it: nodes, KubeVirt's namespace and its CR.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::keys::VERSION;
use super::subresources::GROUP;
use crate::history::event::Site;
use crate::lab::api::{ApiError, Store, meta};
use crate::lab::world;

/// Puts nodes, namespaces and the KubeVirt CR of a site into its store.
///
/// # Errors
/// Whatever the store refuses; on a fresh store nothing.
pub fn seed(store: &Store, site: Site) -> Result<(), ApiError> {
    for namespace in ["kubevirt", "cdi"] {
        let object = json!({"metadata": {"name": namespace}});
        if store.get("namespaces", "", namespace).is_none() {
            store.create("namespaces", object)?;
        }
    }
    for (n, name) in world::nodes(site).iter().enumerate() {
        store.create("nodes", node(site, name, world::node_ip(site, n)))?;
    }
    store.create("kubevirts.kubevirt.io", kubevirt())?;
    for version in ["v1", "v1alpha3"] {
        store.create("apiservices.apiregistration.k8s.io", aggregation(version))?;
    }
    Ok(())
}

fn node(site: Site, name: &str, ip: Ipv4Addr) -> Value {
    let resources = json!({
        "cpu": "64", "memory": "512Gi", "pods": "2500", "ephemeral-storage": "1Ti",
        "devices.kubevirt.io/kvm": "1k",
    });
    let ready = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": meta::now(), "lastTransitionTime": meta::now()})
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubevirt.io/schedulable": "true",
                "node-role.kubernetes.io/worker": "",
                "topology.kubernetes.io/region": world::short(site),
            },
        },
        "spec": {"podCIDR": "10.80.0.0/16"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": ip.to_string()},
                {"type": "Hostname", "address": name},
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                ready("MemoryPressure", "False", "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available"),
                ready("DiskPressure", "False", "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure"),
                ready("PIDPressure", "False", "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available"),
                ready("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.2",
                "kernelVersion": crate::lab::guest::KERNEL, "osImage": "lab",
                "containerRuntimeVersion": "lab://1", "kubeProxyVersion": "", "bootID": "",
                "machineID": "", "systemUUID": "",
            },
        },
    })
}

/// How the subresource API is registered with the aggregator.
fn aggregation(version: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": format!("{version}.{GROUP}"),
            "labels": {
                "app.kubernetes.io/component": "kubevirt",
                "app.kubernetes.io/managed-by": "virt-operator",
                "kubevirt.io": "virt-api-aggregator",
            },
            "annotations": {
                "certificates.kubevirt.io/secret": "kubevirt-virt-api-certs",
                "kubevirt.io/customizer-identifier": "lab",
                "kubevirt.io/generation": "1",
                "kubevirt.io/install-strategy-identifier": "lab",
                "kubevirt.io/install-strategy-registry": "registry.example/kubevirt",
                "kubevirt.io/install-strategy-version": VERSION,
            },
        },
        "spec": {
            "service": {"namespace": "kubevirt", "name": "virt-api", "port": 443},
            "group": GROUP,
            "version": version,
            "caBundle": "",
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
        },
        "status": {"conditions": [{
            "type": "Available", "status": "True", "lastTransitionTime": meta::now(),
            "reason": "Passed", "message": "all checks passed",
        }]},
    })
}

fn kubevirt() -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": meta::now(), "lastTransitionTime": meta::now()})
    };
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {
            "name": "kubevirt",
            "namespace": "kubevirt",
            "finalizers": ["kubevirt.io/foregroundDeleteKubeVirt"],
        },
        "spec": {
            "certificateRotateStrategy": {},
            "configuration": {"developerConfiguration": {
                "featureGates": ["Snapshot", "DeclarativeHotplugVolumes", "ExpandDisks"],
            }},
            "customizeComponents": {},
            "imagePullPolicy": "IfNotPresent",
            "workloadUpdateStrategy": {},
        },
        "status": {
            "phase": "Deployed",
            "conditions": [
                condition("Available", "True", "AllComponentsReady", "All components are ready."),
                condition("Progressing", "False", "AllComponentsReady", "All components are ready."),
                condition("Degraded", "False", "AllComponentsReady", "All components are ready."),
            ],
            "observedKubeVirtVersion": VERSION,
            "targetKubeVirtVersion": VERSION,
            "operatorVersion": VERSION,
            "defaultArchitecture": "amd64",
            "observedGeneration": 1,
        },
    })
}
