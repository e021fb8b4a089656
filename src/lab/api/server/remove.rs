//! Deletes, of one object and of collections, and evictions.

use std::sync::Arc;

use http::Response;
use serde_json::{Map, Value, json};

use super::body;
use super::call::Call;
use super::crd;
use super::list::objects_list;
use super::options::delete_options;
use super::respond::{JSON, answer};
use super::selector::Selector;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::{Body, Operation, Review};
use crate::lab::api::meta;
use crate::lab::api::store::{DeleteOptions, Deleted};

fn options(call: &Call, bytes: &[u8]) -> Result<DeleteOptions, ApiError> {
    let body = if bytes.is_empty() {
        Value::Null
    } else if body::media(&call.headers) == "application/yaml" {
        body::yaml(bytes)?
    } else {
        serde_json::from_slice(bytes).map_err(|error| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type DeleteOptions): {}",
                body::go_error(&error)
            ))
        })?
    };
    delete_options(&call.query, &body)
}

/// Answers the delete of one object: its state when it stays for a while, else a success.
pub(super) fn one(call: &Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = options(call, bytes)?;
    let object = call.stored()?;
    let deleted = delete(call, &object, &options)?;
    match deleted {
        Deleted::Pending(object) => call.answer(200, &object),
        Deleted::Gone(object) if call.kinds.key == "pods" => call.answer(200, &object),
        Deleted::Gone(object) => {
            let kind = call.kind();
            let mut details = Map::new();
            details.insert("name".to_owned(), json!(meta::name(&object)));
            if !kind.group.is_empty() {
                details.insert("group".to_owned(), json!(kind.group));
            }
            details.insert("kind".to_owned(), json!(kind.plural));
            details.insert("uid".to_owned(), json!(meta::uid(&object)));
            let status = json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            });
            Ok(answer(200, &status, JSON, &call.warnings))
        }
    }
}

fn delete(call: &Call, object: &Arc<Value>, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let review = Review {
        operation: Operation::Delete,
        resource: &call.kinds.key,
        subresource: None,
        namespace: meta::namespace(object),
        name: meta::name(object),
        old: Some(object),
        user: &call.user,
        dry_run: options.dry_run,
        store: &call.shared.store,
    };
    for webhook in &call.shared.admission {
        webhook.validate(&review, object)?;
    }
    if call.kinds.key == crd::KEY && !options.dry_run {
        return crd::delete(&call.shared.store, meta::name(object), options);
    }
    let key = crate::lab::api::store::Key::new(
        &call.kinds.key,
        meta::namespace(object),
        meta::name(object),
    );
    call.shared.store.lock().delete(&key, options)
}

/// Answers the delete of a selection: the objects as they were.
pub(super) fn collection(call: &Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let format = call.format()?;
    let options = options(call, bytes)?;
    let selector = Selector::parse(
        call.kind(),
        call.query.get("labelSelector"),
        call.query.get("fieldSelector"),
    )?;
    let namespace = Some(call.target.namespace.as_str()).filter(|name| !name.is_empty());
    let version = call.shared.store.version();
    let mut objects = call.shared.store.list(&call.kinds.key, namespace);
    objects.retain(|object| selector.matches(object));
    for object in &objects {
        match delete(call, object, &options) {
            // Somebody else was faster, or it went with its owner.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    let metadata = json!({"resourceVersion": version.to_string()});
    let list = objects_list(call, &metadata, &objects);
    Ok(answer(200, &list, format, &call.warnings))
}

/// Answers an eviction: webhooks may refuse it (429 while a migration is arranged), else the pod is
/// deleted.
pub(super) fn evict(call: &Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let pod = call.stored()?;
    let (eviction, _) = body::object(&call.headers, bytes, call.kind())?;
    let wanted = eviction.get("deleteOptions").cloned().unwrap_or_default();
    let options = delete_options(&call.query, &wanted)?;
    let review = Review {
        operation: Operation::Create,
        resource: "pods",
        subresource: Some("eviction"),
        namespace: meta::namespace(&pod),
        name: meta::name(&pod),
        old: Some(&pod),
        user: &call.user,
        dry_run: options.dry_run,
        store: &call.shared.store,
    };
    for webhook in &call.shared.admission {
        webhook.validate(&review, &eviction)?;
    }
    let key = call.key(&call.target.name);
    call.shared.store.lock().delete(&key, &options)?;
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    });
    Ok(answer(201, &status, JSON, &call.warnings))
}
