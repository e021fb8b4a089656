//! VolumeReplications that fail before any call, compared with what the real controller said.
//!
//! The expectations here are ours; where recordings of a real manager are at hand
//! (`$VIRTPROOF_RECORDINGS`, or `shared/recordings` beside the checkout), they are compared too.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Lab, NS};
use crate::history::event::Site::Primary;
use crate::lab::api::meta;
use crate::lab::storage::{CLAIMS, VOLUMES, VR_CLASSES, VRS};

const GROUP: &str = "replication.storage.openshift.io";

/// The scenario's world: a driver without a leader, classes good and bad, claims bound and not.
async fn world() -> Lab {
    let lab = Lab::start();
    let store = lab.store(Primary);
    let reserved = "replication.storage.openshift.io/";
    for (name, parameters) in [
        ("ok-noleader", json!({"schedulingInterval": "5m"})),
        ("badprefix", json!({format!("{reserved}foo"): "x"})),
        (
            "secrethalf",
            json!({format!("{reserved}replication-secret-name"): "x"}),
        ),
    ] {
        let spec = json!({"provisioner": "rbd.csi.example.com", "parameters": parameters});
        let class = json!({"metadata": {"name": name}, "spec": spec});
        store.create(VR_CLASSES, class).unwrap();
    }
    for name in ["p1", "p2", "p3"] {
        let volume = json!({
            "metadata": {"name": format!("pv-{name}")},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "rbd",
                "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": "rbd.csi.example.com", "volumeHandle": name},
                "claimRef": {"namespace": NS, "name": name},
            },
        });
        store.create(VOLUMES, volume).unwrap();
    }
    for name in ["p1", "p2", "p3", "unbound"] {
        let class = json!({
            "storageClassName": "rbd",
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
        });
        lab.claim(Primary, name, &class);
        if name != "unbound" {
            lab.bound(Primary, name).await;
        }
    }
    lab
}

fn vr(name: &str, class: &str, state: &str, kind: &str, source: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "volumeReplicationClass": class,
            "replicationState": state,
            "autoResync": false,
            "dataSource": {"kind": kind, "name": source},
        },
    })
}

fn cases() -> Vec<Value> {
    let claim = "PersistentVolumeClaim";
    vec![
        vr("missing-class-primary", "absent", "primary", claim, "p1"),
        vr(
            "missing-class-secondary",
            "absent",
            "secondary",
            claim,
            "p1",
        ),
        vr("missing-class-resync", "absent", "resync", claim, "p1"),
        vr("missing-pvc", "ok-noleader", "primary", claim, "absent"),
        vr("unbound-pvc", "ok-noleader", "primary", claim, "unbound"),
        vr("no-leader", "ok-noleader", "primary", claim, "p2"),
        vr(
            "no-leader-secondary",
            "ok-noleader",
            "secondary",
            claim,
            "p3",
        ),
        vr("bad-prefix", "badprefix", "primary", claim, "p1"),
        vr("secret-half", "secrethalf", "primary", claim, "p1"),
        vr("bad-kind", "ok-noleader", "primary", "Secret", "x"),
        vr(
            "missing-vgr",
            "ok-noleader",
            "primary",
            "VolumeGroupReplication",
            "absent",
        ),
    ]
}

/// A status without the times in it.
fn timeless(status: Option<&Value>) -> Value {
    let mut status = status.cloned().unwrap_or(Value::Null);
    let list = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in list.into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            assert!(condition.shift_remove("lastTransitionTime").is_some());
        }
    }
    status
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "message": message, "observedGeneration": 1, "reason": reason,
        "status": status, "type": kind,
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_before_the_driver_is_said_by_state_or_not_at_all() {
    let lab = world().await;
    for case in cases() {
        lab.store(Primary).create(VRS, case).unwrap();
    }
    lab.pass(60).await;
    let status =
        |name: &str| timeless(lab.store(Primary).get(VRS, NS, name).unwrap().get("status"));
    let error = format!("VolumeReplicationClass.{GROUP} \"absent\" not found");
    let expected = json!({
        "conditions": [
            condition("Completed", "False", "FailedToDemote", "failed to get volumeReplication class"),
            condition("Degraded", "True", "Error", &format!("volume failed to demote: {error}")),
            condition("Resyncing", "False", "NotResyncing", "volume is not resyncing"),
        ],
        "message": error,
        "observedGeneration": 1,
        "state": "Unknown",
    });
    assert_eq!(status("missing-class-secondary"), expected);
    let unbound = status("unbound-pvc");
    assert_eq!(unbound["message"], "PVC \"unbound\" is not bound to any PV");
    assert_eq!(unbound["conditions"][3]["reason"], "PrerequisiteMet");
    for silent in ["no-leader", "no-leader-secondary", "secret-half"] {
        assert_eq!(status(silent), Value::Null, "{silent}");
        let object = lab.store(Primary).get(VRS, NS, silent).unwrap();
        assert!(meta::finalizers(&object).is_empty());
    }
    let claim = lab.store(Primary).get(CLAIMS, NS, "p2").unwrap();
    assert_eq!(meta::finalizers(&claim), ["kubernetes.io/pvc-protection"]);
    // A new state does not clear what an old one said of the prerequisites.
    lab.modify(Primary, VRS, "missing-class-primary", |v| {
        v["spec"]["replicationState"] = json!("secondary");
    });
    let turned = |v: &Value| v["status"]["observedGeneration"] == 2;
    let turned = lab
        .until(Primary, VRS, "missing-class-primary", turned)
        .await;
    let generations: Vec<_> = (0..4)
        .map(|n| turned["status"]["conditions"][n]["observedGeneration"].clone())
        .collect();
    assert_eq!(generations, [2, 2, 2, 1]);
}

fn recording() -> Option<PathBuf> {
    let given = std::env::var_os("VIRTPROOF_RECORDINGS").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    let path = given.unwrap_or(beside).join("csi-addons.jsonl");
    path.exists().then_some(path)
}

#[tokio::test(start_paused = true)]
async fn every_status_is_the_one_that_the_real_controller_wrote() {
    let Some(path) = recording() else {
        println!("no recordings here: compared with our own expectations only");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let scenario = lines.find(|l| l["id"] == "vr.failures").unwrap();
    let events = scenario["events"].as_array().unwrap();
    let lab = world().await;
    for case in cases() {
        lab.store(Primary).create(VRS, case).unwrap();
    }
    lab.pass(60).await;
    let mut compared = 0;
    for case in cases() {
        let name = meta::name(&case);
        let mut of = events.iter().filter(|e| {
            e["watch"] == "vr"
                && e["type"] != "DELETED"
                && meta::name(&e["object"]) == name
                && meta::generation(&e["object"]) == 1
        });
        let last = of
            .next_back()
            .unwrap_or_else(|| panic!("{name} was not recorded"));
        let ours = lab.store(Primary).get(VRS, NS, name).unwrap();
        let expected = timeless(last["object"].get("status"));
        assert_eq!(timeless(ours.get("status")), expected, "{name}");
        let finalizers = meta::finalizers(&last["object"]);
        assert_eq!(meta::finalizers(&ours), finalizers, "{name}");
        compared += 1;
    }
    assert_eq!(compared, cases().len());
}
