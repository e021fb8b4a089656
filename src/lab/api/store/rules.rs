//! What a write may change, and what counts as a change.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Part;
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;

/// Takes back what the write must not change.
pub(crate) fn keep_part(kind: &Kind, old: &Value, new: &mut Value, part: Part) {
    match part {
        Part::Object if kind.status => keep_field(old, new, "status"),
        Part::Any | Part::Object => {}
        Part::Status => {
            let status = new.get("status").cloned();
            let managed = new.pointer("/metadata/managedFields").cloned();
            *new = old.clone();
            if let Some(fields) = new.as_object_mut() {
                match status {
                    Some(status) => fields.insert("status".to_owned(), status),
                    None => fields.shift_remove("status"),
                };
            }
            if let Some(managed) = managed {
                meta::metadata(new).insert("managedFields".to_owned(), managed);
            }
        }
    }
    let metadata = meta::metadata(new);
    for field in [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "namespace",
        "resourceVersion",
    ] {
        let kept = old.get("metadata").and_then(|m| m.get(field));
        match kept {
            Some(value) => {
                if metadata.get(field) != Some(value) {
                    metadata.insert(field.to_owned(), value.clone());
                }
            }
            None => {
                metadata.shift_remove(field);
            }
        }
    }
}

fn keep_field(old: &Value, new: &mut Value, field: &str) {
    if let Some(fields) = new.as_object_mut() {
        match old.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.shift_remove(field),
        };
    }
}

/// A name cannot change, and an object that is being deleted gets no new finalizers.
pub(super) fn check_identity(kind: &Kind, old: &Value, new: &Value) -> Result<(), ApiError> {
    let name = meta::name(old);
    if meta::name(new) != name {
        let cause = Cause::invalid(
            "metadata.name",
            &json!(meta::name(new)),
            "field is immutable",
        );
        return Err(ApiError::invalid(&kind.qualified(), name, &[cause]));
    }
    if meta::deleting(old) {
        let had = meta::finalizers(old);
        let more: Vec<&str> = meta::finalizers(new)
            .into_iter()
            .filter(|finalizer| !had.contains(finalizer))
            .collect();
        if !more.is_empty() {
            let message = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                more.iter()
                    .map(|f| format!("{f:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let cause = Cause::new("FieldValueForbidden", "metadata.finalizers", message);
            return Err(ApiError::invalid(&kind.qualified(), name, &[cause]));
        }
    }
    Ok(())
}

/// Equal but for the times in `managedFields`.
pub(super) fn unchanged(old: &Value, new: &Value) -> bool {
    fn fields(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(field, _)| *field != "metadata")
    }
    fn metadata(object: &Value) -> BTreeMap<&String, &Value> {
        let fields = object.get("metadata").and_then(Value::as_object);
        let fields = fields.into_iter().flatten();
        fields
            .filter(|(field, _)| *field != "managedFields" && *field != "resourceVersion")
            .collect()
    }
    fn managed(object: &Value) -> Vec<[&Value; 4]> {
        let entries = object
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array);
        let entries = entries.map_or(&[][..], Vec::as_slice).iter();
        entries
            .map(|entry| {
                [
                    &entry["manager"],
                    &entry["operation"],
                    &entry["subresource"],
                    &entry["fieldsV1"],
                ]
            })
            .collect()
    }
    fields(old).collect::<BTreeMap<_, _>>() == fields(new).collect::<BTreeMap<_, _>>()
        && metadata(old) == metadata(new)
        && managed(old) == managed(new)
}

/// Whether a change counts a generation: anything but metadata, and but status where status has its
/// own subresource.
pub(super) fn spec_changed(kind: &Kind, old: &Value, new: &Value) -> bool {
    let desired = |object: &Value| -> BTreeMap<String, Value> {
        let fields = object.as_object().into_iter().flatten();
        fields
            .filter(|(field, _)| {
                !(*field == "metadata" || *field == "status" && kind.status)
                    && (kind.custom() || *field == "spec")
            })
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    desired(old) != desired(new)
}
