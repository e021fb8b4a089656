//! One request for resources, with everything that answers need.

use std::sync::Arc;

use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::handler::Shared;
use super::query::Query;
use super::respond::{Format, View, answer, negotiate};
use super::route::Target;
use super::{builtin, table};
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::{Body, User};
use crate::lab::api::meta;
use crate::lab::api::registry::{Kind, api_version};
use crate::lab::api::store::{Key, Store};

/// The most that a request body may hold, as on a real server.
const LIMIT: usize = 3 * 1024 * 1024;

/// A kind in the version that was asked for.
pub(super) struct Kinds {
    pub(super) kind: Arc<Kind>,
    /// Where its objects are stored.
    pub(super) key: String,
    /// `apiVersion` of the request.
    pub(super) api_version: String,
}

impl Kinds {
    /// Finds what a path names.
    ///
    /// # Errors
    /// 404 in the words that the real server has for each case, 429 while a kind is being set up.
    pub(super) fn resolve(store: &Store, target: &Target) -> Result<Self, ApiError> {
        let state = store.lock();
        let key = target.key();
        let mut members = state
            .registry
            .iter()
            .filter(|kind| kind.group == target.group);
        let first = members
            .find(|kind| kind.versions.contains(&target.version))
            .ok_or_else(ApiError::no_path)?;
        let custom = first.custom();
        let kind = state
            .registry
            .get(&key)
            .filter(|kind| kind.versions.contains(&target.version))
            .cloned();
        let missing = || {
            if custom {
                ApiError::no_path()
            } else {
                ApiError::no_resource()
            }
        };
        let kind = kind.ok_or_else(missing)?;
        let placed = !target.namespace.is_empty() && target.resource != "namespaces";
        if placed && !kind.namespaced || kind.namespaced && !placed && !target.name.is_empty() {
            return Err(missing());
        }
        if state.setting_up.contains(&key) {
            let mut error = ApiError::new(429, "TooManyRequests", "storage is (re)initializing")
                .with_details(json!({"retryAfterSeconds": 1}));
            error.retry_after = Some(1);
            return Err(error);
        }
        // Both faces of events are one resource.
        let key = if kind.group == builtin::EVENTS_GROUP {
            "events".to_owned()
        } else {
            key
        };
        Ok(Self {
            api_version: api_version(&target.group, &target.version),
            kind,
            key,
        })
    }
}

/// One request for resources.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) user: User,
    pub(super) query: Query,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) agent: String,
    pub(super) kinds: Kinds,
    /// What the client is warned of.
    pub(super) warnings: Vec<String>,
}

impl Call {
    /// The kind.
    pub(super) fn kind(&self) -> &Kind {
        &self.kinds.kind
    }

    /// The key of a named object.
    pub(super) fn key(&self, name: &str) -> Key {
        let namespace = if self.kind().namespaced {
            self.target.namespace.as_str()
        } else {
            ""
        };
        Key::new(&self.kinds.key, namespace, name)
    }

    /// The named object.
    pub(super) fn stored(&self) -> Result<Arc<Value>, ApiError> {
        let key = self.key(&self.target.name);
        let found = self.shared.store.lock().get(&key);
        found.ok_or_else(|| self.missing(&self.target.name))
    }

    /// 404 for an object.
    pub(super) fn missing(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.kind().key(), name)
    }

    /// The subresource must be one that the kind has. (Custom resources have no others, and then
    /// the object is what is not found.)
    pub(super) fn check_subresource(&self) -> Result<(), ApiError> {
        let known = match self.target.subresource.as_str() {
            "" => true,
            "status" => self.kind().status,
            "finalize" => self.kinds.key == "namespaces",
            "binding" | "eviction" => self.kinds.key == "pods",
            _ => false,
        };
        if known {
            return Ok(());
        }
        Err(if self.kind().custom() {
            self.missing(&self.target.name)
        } else {
            ApiError::no_resource()
        })
    }

    /// The body, whole.
    pub(super) async fn read(&self, body: Incoming) -> Result<bytes::Bytes, ApiError> {
        let read = Limited::new(body, LIMIT).collect().await;
        read.map(http_body_util::Collected::to_bytes)
            .map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    let message = format!("Request entity too large: limit is {LIMIT}");
                    return ApiError::new(413, "RequestEntityTooLarge", message);
                }
                ApiError::bad_request(format!("the body could not be read: {error}"))
            })
    }

    /// An object in the version of the request.
    pub(super) fn shown(&self, object: &Value) -> Value {
        if self.kind().group == builtin::EVENTS_GROUP {
            return builtin::to_new_event(object);
        }
        let mut object = object.clone();
        if object["apiVersion"] != self.kinds.api_version.as_str() {
            object["apiVersion"] = json!(self.kinds.api_version);
        }
        object
    }

    /// How to answer.
    pub(super) fn format(&self) -> Result<Format, ApiError> {
        negotiate(&self.headers, &self.query)
    }

    /// Answers with one object, in the view that was asked for.
    pub(super) fn answer(&self, code: u16, object: &Value) -> Result<Response<Body>, ApiError> {
        let format = self.format()?;
        let value = match format.view {
            View::Object => self.shown(object),
            View::Metadata => table::partial(object),
            View::Table => {
                let include = table::include(&self.query)?;
                let version = meta::text(object, "/metadata/resourceVersion");
                table::table(
                    &json!({"resourceVersion": version}),
                    &table::columns(self.kind()),
                    &[table::row(self.kind(), object, include)],
                )
            }
        };
        Ok(answer(code, &value, format, &self.warnings))
    }
}
