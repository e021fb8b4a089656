//! What the server itself knows of built-in kinds: defaults, validation and conversions.

mod check;
mod defaults;
mod events;

use http::Response;
use serde_json::{Value, json};

use super::body;
use super::call::Call;
use super::respond::{JSON, answer};
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::Body;
use crate::lab::api::meta;
use crate::lab::api::store::Part;

pub(super) use check::{check, check_metadata, new_finalizers};
pub(super) use defaults::{defaults, start};
pub(super) use events::{EVENTS_GROUP, check_new_event, from_new_event, to_new_event};

/// Answers a binding: the pod gets its node.
pub(super) fn bind(call: &Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let (binding, _) = body::object(&call.headers, bytes, call.kind())?;
    let node = meta::text(&binding, "/target/name").to_owned();
    let name = call.target.name.as_str();
    let taken = |pod: &Value| {
        let why = format!(
            "pod {name} is already assigned to node {:?}",
            meta::text(pod, "/spec/nodeName")
        );
        ApiError::conflict("pods/binding", name, &why)
    };
    let store = &call.shared.store;
    store.try_modify("pods", &call.target.namespace, name, Part::Any, |pod| {
        if !meta::text(pod, "/spec/nodeName").is_empty() {
            return Err(taken(pod));
        }
        pod["spec"]["nodeName"] = json!(node);
        Ok(())
    })?;
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    });
    Ok(answer(201, &status, JSON, &call.warnings))
}
