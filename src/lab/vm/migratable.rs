//! Whether a VMI could be live-migrated: the first failing check names the reason, disks last.

use serde_json::Value;

use super::keys::{claim_of, items};
use crate::lab::api::meta;

/// Why a VMI cannot move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Condition reason.
    pub(super) reason: &'static str,
    /// Condition message.
    pub(super) message: String,
}

/// Checks network first and disks last; `claim` finds a PVC of the VMI's namespace.
pub(super) fn check<C: AsRef<Value>>(
    vmi: &Value,
    claim: impl Fn(&str) -> Option<C>,
) -> Result<(), Refusal> {
    but_disks(vmi)?;
    disks(vmi, claim)
}

/// Checks everything but the disks, which a migration can copy: what StorageLiveMigratable says.
pub(super) fn but_disks(vmi: &Value) -> Result<(), Refusal> {
    let override_annotation = "kubevirt.io/allow-pod-bridge-network-live-migration";
    let pod_networks: Vec<&str> = items(vmi, "/spec/networks")
        .iter()
        .filter(|network| network.get("pod").is_some())
        .filter_map(|network| network["name"].as_str())
        .collect();
    for interface in items(vmi, "/spec/domain/devices/interfaces") {
        let on_pod = pod_networks.contains(&interface["name"].as_str().unwrap_or_default());
        let fits = interface.get("masquerade").is_some() || interface.get("binding").is_some();
        if on_pod && !fits && meta::annotation(vmi, override_annotation).is_none() {
            return Err(Refusal {
                reason: "InterfaceNotLiveMigratable",
                message:
                    "cannot migrate VMI which does not use masquerade or a migratable plugin to \
                          connect to the pod network"
                        .to_owned(),
            });
        }
    }
    if !items(vmi, "/spec/domain/devices/hostDevices").is_empty() {
        return Err(Refusal {
            reason: "HostDeviceNotLiveMigratable",
            message: "VMI uses a PCI host devices".to_owned(),
        });
    }
    Ok(())
}

fn disks<C: AsRef<Value>>(vmi: &Value, claim: impl Fn(&str) -> Option<C>) -> Result<(), Refusal> {
    for name in items(vmi, "/spec/volumes").iter().filter_map(claim_of) {
        let shared = claim(name).is_some_and(|claim| {
            items(claim.as_ref(), "/spec/accessModes")
                .iter()
                .any(|mode| mode == "ReadWriteMany")
        });
        if !shared {
            return Err(Refusal {
                reason: "DisksNotLiveMigratable",
                message: format!(
                    "cannot migrate VMI: PVC {name} is not shared, live migration requires that all \
                     PVCs must be shared (using ReadWriteMany access mode)"
                ),
            });
        }
    }
    Ok(())
}

/// BlockMigration when a disk lives on the node, LiveMigration when all are shared.
pub(super) fn method(vmi: &Value) -> &'static str {
    let local = items(vmi, "/spec/volumes").iter().any(|volume| {
        [
            "containerDisk",
            "emptyDisk",
            "cloudInitNoCloud",
            "cloudInitConfigDrive",
            "ephemeral",
        ]
        .iter()
        .any(|source| volume.get(source).is_some())
    });
    if local {
        "BlockMigration"
    } else {
        "LiveMigration"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn vmi(binding: &str, volume: &Value) -> Value {
        let mut interface = json!({"name": "default"});
        interface[binding] = json!({});
        json!({"metadata": {}, "spec": {
            "networks": [{"name": "default", "pod": {}}],
            "domain": {"devices": {"interfaces": [interface]}},
            "volumes": [volume]}})
    }

    fn claim(mode: &str) -> impl Fn(&str) -> Option<Arc<Value>> {
        let claim = Arc::new(json!({"spec": {"accessModes": [mode]}}));
        move |_| Some(Arc::clone(&claim))
    }

    #[test]
    fn bridge_comes_before_disks_and_disks_need_rwx() {
        let data = json!({"name": "d", "persistentVolumeClaim": {"claimName": "x"}});
        let reason = |vmi: &Value, mode| check(vmi, claim(mode)).map_err(|r| r.reason);
        let once = "ReadWriteOnce";
        assert_eq!(
            reason(&vmi("bridge", &data), once),
            Err("InterfaceNotLiveMigratable")
        );
        assert_eq!(
            reason(&vmi("masquerade", &data), once),
            Err("DisksNotLiveMigratable")
        );
        assert_eq!(reason(&vmi("masquerade", &data), "ReadWriteMany"), Ok(()));
        let dv = json!({"name": "d", "dataVolume": {"name": "x"}});
        let text = check(&vmi("masquerade", &dv), claim(once))
            .unwrap_err()
            .message;
        assert!(
            text.starts_with("cannot migrate VMI: PVC x is not shared"),
            "{text}"
        );
    }

    #[test]
    fn a_container_disk_is_copied() {
        assert_eq!(
            method(&vmi("masquerade", &json!({"containerDisk": {}}))),
            "BlockMigration"
        );
        assert_eq!(
            method(&vmi("masquerade", &json!({"dataVolume": {}}))),
            "LiveMigration"
        );
    }
}
