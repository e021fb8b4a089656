//! What virtproof and the lab's controllers really wrote, taken from a run that was left in place,
//! against the published CRDs: no unknown field, no wrong type. Needs the CRDs and kubectl.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Lab, virtproof};
use serde_json::{Value, json};

/// Resource, CRD file, version.
const KINDS: &[(&str, &str, &str)] = &[
    (
        "virtualmachines.kubevirt.io",
        "kubevirt/virtualmachines.kubevirt.io.yaml",
        "v1",
    ),
    (
        "virtualmachineinstances.kubevirt.io",
        "kubevirt/virtualmachineinstances.kubevirt.io.yaml",
        "v1",
    ),
    (
        "kubevirts.kubevirt.io",
        "kubevirt/kubevirts.kubevirt.io.yaml",
        "v1",
    ),
    (
        "datavolumes.cdi.kubevirt.io",
        "cdi/datavolumes.cdi.kubevirt.io.yaml",
        "v1beta1",
    ),
    (
        "volumereplications.replication.storage.openshift.io",
        "csi-addons/replication.storage.openshift.io_volumereplications.yaml",
        "v1alpha1",
    ),
    (
        "volumereplicationclasses.replication.storage.openshift.io",
        "csi-addons/replication.storage.openshift.io_volumereplicationclasses.yaml",
        "v1alpha1",
    ),
    (
        "csiaddonsnodes.csiaddons.openshift.io",
        "csi-addons/csiaddons.openshift.io_csiaddonsnodes.yaml",
        "v1alpha1",
    ),
    (
        "networkfenceclasses.csiaddons.openshift.io",
        "csi-addons/csiaddons.openshift.io_networkfenceclasses.yaml",
        "v1alpha1",
    ),
    (
        "volumesnapshots.snapshot.storage.k8s.io",
        "external-snapshotter/snapshot.storage.k8s.io_volumesnapshots.yaml",
        "v1",
    ),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "external-snapshotter/snapshot.storage.k8s.io_volumesnapshotcontents.yaml",
        "v1",
    ),
    (
        "volumesnapshotclasses.snapshot.storage.k8s.io",
        "external-snapshotter/snapshot.storage.k8s.io_volumesnapshotclasses.yaml",
        "v1",
    ),
];

fn crds() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/crds");
    let dir = std::env::var_os("VIRTPROOF_CRDS").map_or(beside, PathBuf::from);
    dir.is_dir().then_some(dir)
}

/// A CRD's schema, closed against unknown fields as far as the API server prunes them.
fn schema(dir: &Path, file: &str, version: &str) -> Value {
    let text = std::fs::read_to_string(dir.join(file)).expect("a published CRD");
    let crd: Value = serde_saphyr::from_str(&text).expect("YAML");
    let versions = crd["spec"]["versions"].as_array().expect("versions");
    let found = versions
        .iter()
        .find(|v| v["name"] == version)
        .expect("the version");
    let mut schema = found["schema"]["openAPIV3Schema"].clone();
    close(&mut schema);
    // The CRD leaves metadata to the API server.
    schema["properties"]["metadata"] = json!({"type": "object"});
    schema
}

fn close(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
        if fields.contains_key("properties")
            && !open
            && !fields.contains_key("additionalProperties")
        {
            fields.insert("additionalProperties".to_owned(), json!(false));
        }
        // OpenAPI says `nullable` where JSON Schema has a list of types.
        if fields.get("nullable") == Some(&json!(true))
            && let Some(kind) = fields.get("type").cloned()
        {
            fields.insert("type".to_owned(), json!([kind, "null"]));
        }
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(close),
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Leaves two runs in place: one stopped under protection, one stopped after its promotion.
fn left_in_place(dir: &Path) -> Lab<'_> {
    let lab = Lab::up(dir, |plan| {
        plan.replace("boot: 20s", "boot: 8s")
            .replace("sync: 20s", "sync: 6s")
    });
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_virtproof"), dir.join("virtproof"))
        .expect("a link");
    for (fault, out) in [
        ("vm-left-halted", "halted"),
        ("unprotected-volume", "unprotected"),
    ] {
        assert_eq!(
            virtproof(dir, &["lab", "fault", fault, "--dir", "."]).0,
            Some(0)
        );
        let run = [
            "run",
            "plan.yaml",
            "--only",
            "relocate.zero-loss",
            "--keep-on-failure",
        ];
        let (code, said) = virtproof(dir, &[&run[..], &["--out", out][..]].concat());
        assert_eq!(code, Some(1), "{fault} must make the run fail: {said}");
        assert_eq!(
            virtproof(dir, &["lab", "fault", fault, "--heal", "--dir", "."]).0,
            Some(0)
        );
    }
    lab
}

/// Has a snapshot taken and restored, and leaves it there.
fn snapshotted(dir: &Path) {
    const MANIFEST: &str = r"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: kept, namespace: default}
spec: {source: {persistentVolumeClaimName: data}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: copy, namespace: default}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: kept}
";
    std::fs::write(dir.join("snapshot.yaml"), MANIFEST).expect("a manifest");
    for words in [
        &["apply", "-f", "snapshot.yaml"][..],
        &[
            "wait",
            "--for=jsonpath={.status.readyToUse}=true",
            "volumesnapshot/kept",
        ],
        &["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/copy"],
    ] {
        let done = Command::new("kubectl")
            .args(["--kubeconfig", "east.kubeconfig", "-n", "default"])
            .args(words)
            .current_dir(dir)
            .output()
            .expect("kubectl runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {said}");
    }
}

fn objects(dir: &Path, kubeconfig: &str, resource: &str) -> Vec<Value> {
    let done = Command::new("kubectl")
        .args([
            "--kubeconfig",
            kubeconfig,
            "get",
            resource,
            "-A",
            "-o",
            "json",
        ])
        .current_dir(dir)
        .output()
        .expect("kubectl runs");
    let list: Value = serde_json::from_slice(&done.stdout).expect("a list");
    list["items"].as_array().expect("items").clone()
}

#[test]
fn objects_of_a_run_fit_the_published_crds() {
    let Some(published) = crds() else {
        eprintln!("SKIPPED: no published CRDs at ../shared/crds and VIRTPROOF_CRDS is not set");
        return;
    };
    if Command::new("kubectl").arg("--help").output().is_err() {
        assert!(
            std::env::var_os("VIRTPROOF_CI").is_none(),
            "CI must have kubectl"
        );
        eprintln!("SKIPPED: no kubectl here, the lab's objects were not looked at");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let lab = left_in_place(dir.path());
    snapshotted(dir.path());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (resource, file, version) in KINDS {
        let schema = schema(&published, file, version);
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for kubeconfig in ["east.kubeconfig", "west.kubeconfig"] {
            for object in objects(dir.path(), kubeconfig, resource) {
                *seen.entry(resource).or_default() += 1;
                let name = object["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                wrong.extend(validator.iter_errors(&object).map(|error| {
                    format!(
                        "{kubeconfig} {resource} {name}{}: {error}",
                        error.instance_path()
                    )
                }));
            }
        }
    }
    drop(lab);
    for (resource, ..) in KINDS {
        assert!(
            seen.contains_key(resource),
            "no {resource} was there to look at"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
