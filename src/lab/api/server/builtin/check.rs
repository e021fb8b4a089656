//! Validation of metadata and of built-in kinds.

use serde_json::{Value, json};

use crate::lab::api::errors::Cause;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;
use crate::lab::api::server::names;
use crate::lab::storage::quantity;

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
        let bound = meta::text(old, "/status/phase") == "Bound";
        let requests = spec.pointer_mut("/resources/requests");
        if let Some(requests) = requests.and_then(Value::as_object_mut).filter(|_| bound) {
            requests.shift_remove("storage");
        }
        if let Some(fields) = spec.as_object_mut() {
            fields.shift_remove("volumeAttributesClassName");
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
    let mut causes = Vec::new();
    if frozen(spec) != frozen(&old["spec"]) {
        causes.push(forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let size = |object: &Value, at: &str| quantity::bytes(meta::text(object, at));
    let asked = |claim: &Value| size(claim, "/spec/resources/requests/storage");
    // One that never came true may be taken back, down to what the claim has.
    let has = size(old, "/status/capacity/storage");
    if asked(claim) < asked(old) && asked(claim) <= has {
        causes.push(forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        ));
    }
    causes
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(phase: &str, asked: &str, has: &str) -> Value {
        json!({
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": asked}, "limits": {"storage": "9Gi"}},
            },
            "status": {"phase": phase, "capacity": {"storage": has}},
        })
    }

    #[test]
    fn a_bound_claim_may_ask_for_more_and_never_for_less_than_it_has() {
        let key = "persistentvolumeclaims";
        let fields = |new: &Value, old: &Value| -> Vec<String> {
            let causes = check(key, new, Some(old)).into_iter();
            causes.map(|cause| cause.field.clone()).collect()
        };
        let bound = of("Bound", "3Gi", "2Gi");
        assert!(fields(&of("Bound", "4Gi", "2Gi"), &bound).is_empty());
        assert!(fields(&of("Bound", "2500Mi", "2Gi"), &bound).is_empty());
        for less in ["2Gi", "1Gi"] {
            let field = "spec.resources.requests.storage";
            assert_eq!(fields(&of("Bound", less, "2Gi"), &bound), [field]);
        }
        let pending = of("Pending", "3Gi", "");
        assert_eq!(fields(&of("Pending", "4Gi", ""), &pending), ["spec"]);
        let mut other = of("Bound", "3Gi", "2Gi");
        other["spec"]["resources"]["limits"]["storage"] = json!("8Gi");
        assert_eq!(fields(&other, &bound), ["spec"]);
    }
}
