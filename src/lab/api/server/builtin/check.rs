//! Validation of metadata and of built-in kinds.

use serde_json::{Value, json};

use crate::lab::api::errors::Cause;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;
use crate::lab::api::server::names;

fn forbidden(field: &str, why: &str) -> Cause {
    Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

/// What is wrong with names, labels and the like, in any kind.
pub(in crate::lab::api::server) fn check_metadata(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta::name(object);
    let generated = meta::text(object, "/metadata/generateName");
    if name.is_empty() && generated.is_empty() {
        let why = "name or generateName is required";
        causes.push(Cause::required("metadata.name", why));
    } else if !name.is_empty() {
        let complaint = match kind.key().as_str() {
            "namespaces" => names::label(name),
            key if key.ends_with("rbac.authorization.k8s.io") => name
                .contains(['/', '%'])
                .then(|| "may not contain '/' or '%'".to_owned()),
            _ => names::subdomain(name),
        };
        if let Some(why) = complaint {
            causes.push(Cause::invalid("metadata.name", &json!(name), why));
        }
    }
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        let short = key.rsplit('/').next().unwrap_or(key);
        if let Some(why) = names::label_name(short) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), why));
        }
        if let Some(why) = value.as_str().and_then(names::label_value) {
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
    }
    causes
}

/// Finalizers that are new although the object is being deleted.
pub(in crate::lab::api::server) fn new_finalizers(old: &Value, new: &Value) -> Vec<Cause> {
    let had = meta::finalizers(old);
    let more: Vec<String> = meta::finalizers(new)
        .into_iter()
        .filter(|finalizer| !had.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    if more.is_empty() {
        return Vec::new();
    }
    vec![forbidden(
        "metadata.finalizers",
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            more.join(", ")
        ),
    )]
}

/// What is wrong with an object of a built-in kind.
pub(in crate::lab::api::server) fn check(
    key: &str,
    object: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    match key {
        "configmaps" | "secrets" => data(object, old),
        "pods" => pod(object, old),
        "persistentvolumeclaims" => claim(object, old),
        "leases.coordination.k8s.io" => lease(object),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object),
        "storageclasses.storage.k8s.io" => class(object, old),
        _ => Vec::new(),
    }
}

fn data(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["data", "binaryData"] {
        for key in object[field]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            if let Some(why) = names::config_key(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), why));
            }
        }
    }
    if let Some(old) = old
        && old["immutable"] == json!(true)
    {
        let why = "field is immutable when `immutable` is set";
        for field in ["data", "binaryData", "immutable"] {
            if old.get(field) != object.get(field) {
                causes.push(forbidden(field, why));
            }
        }
    }
    causes
}

fn pod(pod: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(old) = old else {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        if containers.is_none_or(Vec::is_empty) {
            return vec![Cause::required("spec.containers", "")];
        }
        return Vec::new();
    };
    // What may change is made equal; the rest must be.
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if let Some(fields) = container.as_object_mut() {
                    fields.shift_remove("image");
                }
            }
        }
        if let Some(fields) = spec.as_object_mut() {
            for field in [
                "activeDeadlineSeconds",
                "tolerations",
                "terminationGracePeriodSeconds",
                "initContainers",
            ] {
                if fields
                    .get(field)
                    .is_none_or(|v| field != "initContainers" || v.is_null())
                {
                    fields.shift_remove(field);
                }
            }
        }
        spec
    };
    if frozen(pod) == frozen(old) {
        return Vec::new();
    }
    vec![forbidden(
        "spec",
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )]
}

fn claim(claim: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &claim["spec"];
    let Some(old) = old else {
        let mut causes = Vec::new();
        if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required(
                "spec.accessModes",
                "at least 1 access mode is required",
            ));
        }
        if spec.pointer("/resources/requests/storage").is_none() {
            causes.push(Cause::required("spec.resources[storage]", ""));
        }
        return causes;
    };
    let frozen = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            for field in ["resources", "volumeAttributesClassName"] {
                fields.shift_remove(field);
            }
            if old.pointer("/spec/volumeName").is_none() {
                // The binder names the volume, and defaults the class, once.
                fields.shift_remove("volumeName");
            }
            if old.pointer("/spec/storageClassName").is_none() {
                fields.shift_remove("storageClassName");
            }
        }
        spec
    };
    if frozen(spec) == frozen(&old["spec"]) {
        return Vec::new();
    }
    vec![forbidden(
        "spec",
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
    )]
}

fn lease(lease: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let duration = &lease["spec"]["leaseDurationSeconds"];
    if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = "spec.leaseDurationSeconds";
        causes.push(Cause::invalid(field, duration, "must be greater than 0"));
    }
    let transitions = &lease["spec"]["leaseTransitions"];
    if transitions.as_i64().is_some_and(|count| count < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", transitions, why));
    }
    causes
}

fn definition(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    for (at, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, ""));
        }
    }
    let wanted = format!(
        "{}.{}",
        meta::text(spec, "/names/plural"),
        meta::text(spec, "/group")
    );
    if meta::name(definition) != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid(
            "metadata.name",
            &json!(meta::name(definition)),
            why,
        ));
    }
    causes
}

fn class(class: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if meta::text(class, "/provisioner").is_empty() {
        causes.push(Cause::required("provisioner", ""));
    }
    if let Some(old) = old {
        for (field, message) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if old.get(field) != class.get(field) {
                causes.push(forbidden(field, message));
            }
        }
    }
    causes
}
