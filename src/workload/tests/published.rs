//! The objects against the published CRDs, where these are at hand, and against the core API types.

use std::path::PathBuf;

use serde_json::json;

use super::*;

/// Where the published CRDs are: `VIRTPROOF_CRDS`, or beside the checkout.
fn crds() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/crds");
    let dir = std::env::var_os("VIRTPROOF_CRDS").map_or(beside, PathBuf::from);
    dir.is_dir().then_some(dir)
}

/// The schema of a CRD's version, closed against unknown fields as far as the API server prunes them.
fn schema(dir: &Path, file: &str, version: &str) -> Value {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    let crd: Value = serde_saphyr::from_str(&text).unwrap();
    let versions = crd["spec"]["versions"].as_array().unwrap();
    let found = versions
        .iter()
        .find(|entry| entry["name"] == version)
        .unwrap();
    let mut schema = found["schema"]["openAPIV3Schema"].clone();
    close(&mut schema);
    // The CRD leaves metadata to the API server.
    schema["properties"]["metadata"] = json!({"type": "object"});
    schema
}

fn close(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        if fields.contains_key("properties")
            && !open
            && !fields.contains_key("additionalProperties")
        {
            fields.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(close),
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn objects_fit_the_published_crds() {
    let Some(dir) = crds() else {
        eprintln!("SKIPPED: no published CRDs at ../shared/crds and VIRTPROOF_CRDS is not set");
        return;
    };
    let vm = schema(&dir, "kubevirt/virtualmachines.kubevirt.io.yaml", "v1");
    let dv = schema(&dir, "cdi/datavolumes.cdi.kubevirt.io.yaml", "v1beta1");
    let vm = jsonschema::validator_for(&vm).unwrap();
    let dv = jsonschema::validator_for(&dv).unwrap();
    let mut seen = 0;
    for name in names() {
        let subject = embedded_subject(name);
        for object in subject.objects.iter().chain(&subject.peer_objects) {
            let validator = match object["kind"].as_str().unwrap() {
                "VirtualMachine" => &vm,
                "DataVolume" => &dv,
                _ => continue,
            };
            seen += 1;
            let errors: Vec<String> = validator
                .iter_errors(object)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert_eq!(errors, [""; 0], "{name}");
        }
    }
    assert_eq!(seen, 2 * names().len() + 1);
    let mut wrong = embedded_subject("cirros").objects.pop().unwrap();
    wrong["spec"]["template"]["spec"]["domain"]["devices"]["discs"] = json!([]);
    assert!(!vm.is_valid(&wrong), "the check must see an unknown field");
}

/// Reads an object as its type and writes it back: a field that the type does not know would be lost.
fn survives<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    let back = serde_json::to_value(&typed).unwrap();
    assert_eq!(sorted(&back), sorted(object));
}

/// With sorted keys, so that their order does not matter.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> = fields
                .iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            fields
                .into_iter()
                .map(|(key, value)| (key.clone(), value))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn core_objects_fit_their_types() {
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
    let mut seen = 0;
    for name in names() {
        let subject = embedded_subject(name);
        for object in subject.objects.iter().chain(&subject.peer_objects) {
            seen += 1;
            match object["kind"].as_str().unwrap() {
                "PersistentVolumeClaim" => survives::<PersistentVolumeClaim>(object),
                "Secret" => survives::<Secret>(object),
                _ => seen -= 1,
            }
        }
    }
    assert_eq!(
        seen,
        2 * names().len() + 4,
        "a Secret on each site, and the plain PVCs"
    );
}
