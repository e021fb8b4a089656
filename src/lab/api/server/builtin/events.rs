//! The two faces of Events: `v1` and `events.k8s.io/v1`. They are stored as `v1`.

use serde_json::{Map, Value, json};

use crate::lab::api::errors::Cause;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;

/// The group of the new face.
pub(in crate::lab::api::server) const EVENTS_GROUP: &str = "events.k8s.io";

/// Names of fields: stored, and in the new face.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An event as the new group shows it.
pub(in crate::lab::api::server) fn to_new_event(event: &Value) -> Value {
    let mut shown = rename(event, |name| {
        NAMES
            .iter()
            .find(|(old, _)| *old == name)
            .map(|(_, new)| *new)
    });
    // The new face leaves these out when they are empty.
    for field in ["reportingController", "reportingInstance"] {
        if shown.get(field) == Some(&json!("")) {
            shown.shift_remove(field);
        }
    }
    shown.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
    Value::Object(shown)
}

/// An event as it is stored.
pub(in crate::lab::api::server) fn from_new_event(event: &Value) -> Value {
    let mut stored = rename(event, |name| {
        NAMES
            .iter()
            .find(|(_, new)| *new == name)
            .map(|(old, _)| *old)
    });
    for (field, empty) in [
        ("source", json!({})),
        ("firstTimestamp", Value::Null),
        ("lastTimestamp", Value::Null),
        ("reportingComponent", json!("")),
        ("reportingInstance", json!("")),
    ] {
        stored.entry(field.to_owned()).or_insert(empty);
    }
    stored.insert("apiVersion".to_owned(), json!("v1"));
    Value::Object(stored)
}

fn rename(event: &Value, name: impl Fn(&str) -> Option<&'static str>) -> Map<String, Value> {
    let fields = event.as_object().into_iter().flatten();
    fields
        .map(|(field, value)| {
            let field = name(field).unwrap_or(field).to_owned();
            (field, value.clone())
        })
        .collect()
}

/// What the new group asks of its events beyond the old one.
pub(in crate::lab::api::server) fn check_new_event(kind: &Kind, event: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if kind.group != EVENTS_GROUP {
        return causes;
    }
    if event.get("eventTime").is_none_or(Value::is_null) {
        causes.push(Cause::required("eventTime", ""));
        let kind = meta::text(event, "/type");
        if !matches!(kind, "Normal" | "Warning") {
            let why = format!("has invalid value: {kind}");
            causes.push(Cause::invalid("type", &json!(""), why));
        }
        return causes;
    }
    for (field, pointer) in [
        ("reportingController", "/reportingController"),
        ("reportingInstance", "/reportingInstance"),
        ("action", "/action"),
        ("reason", "/reason"),
    ] {
        if meta::text(event, pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    causes
}
