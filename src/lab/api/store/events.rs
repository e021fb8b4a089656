//! Events as controllers emit them.

use serde_json::{Value, json};

use super::Part;
use super::state::{Key, State};
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;

/// Creates the event, or counts up the same one: same object, type, reason, message and source.
pub(super) fn emit(
    state: &mut State,
    involved: &Value,
    kind: &str,
    reason: &str,
    message: &str,
    component: &str,
) -> Result<(), ApiError> {
    let namespace = match meta::namespace(involved) {
        "" => "default",
        namespace => namespace,
    };
    let identity = [meta::uid(involved), kind, reason, message, component].join("\u{0}");
    let digest = blake3::hash(identity.as_bytes()).to_hex();
    let name = format!("{}.{}", meta::name(involved), &digest[..16]);
    let key = Key::new("events", namespace, &name);
    let now = meta::now();
    if let Some(old) = state.get(&key) {
        let mut event = (*old).clone();
        let count = event["count"].as_i64().unwrap_or(1);
        event["count"] = json!(count + 1);
        event["lastTimestamp"] = json!(now);
        state.replace(&key, None, event, Part::Any, false)?;
        return Ok(());
    }
    let mut object = json!({
        "kind": involved["kind"],
        "namespace": meta::namespace(involved),
        "name": meta::name(involved),
        "uid": meta::uid(involved),
        "apiVersion": involved["apiVersion"],
        "resourceVersion": involved.pointer("/metadata/resourceVersion"),
    });
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && value != "");
    }
    let event = json!({
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": object,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": kind,
        "eventTime": null,
        "reportingComponent": component,
        "reportingInstance": "",
    });
    state.create("events", event, false).map(drop)
}
