//! Reading one object and listing many, at any version that is still kept.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use super::call::Call;
use super::page::Token;
use super::respond::{View, answer};
use super::selector::Selector;
use super::table;
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::hooks::Body;
use crate::lab::api::meta;

/// Answers a get.
pub(super) fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    call.format()?;
    call.check_subresource()?;
    call.answer(200, &*call.stored()?)
}

/// A list's options that concern versions and pages.
struct Options {
    limit: usize,
    version: Option<u64>,
    exact: bool,
    token: Option<Token>,
}

/// 422 for options that do not go together.
pub(super) fn bad_options(causes: &[Cause]) -> ApiError {
    ApiError::invalid("ListOptions.meta.k8s.io", "", causes)
}

/// A cause for an option that must not be there.
pub(super) fn forbidden_option(field: &str, why: &str) -> Cause {
    Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

/// Numbers in queries, with Go's words for what is none.
pub(super) fn number(call: &Call, name: &str) -> Result<Option<i64>, ApiError> {
    match call.query.get(name) {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_parse| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

impl Options {
    fn parse(call: &Call) -> Result<Self, ApiError> {
        let query = &call.query;
        let limit = number(call, "limit")?.unwrap_or(0);
        number(call, "timeoutSeconds")?;
        let wanted = query.get("resourceVersionMatch");
        let text = query.get("resourceVersion");
        let mut causes = Vec::new();
        if !wanted.is_empty() && text.is_empty() {
            causes.push(forbidden_option(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !matches!(wanted, "" | "Exact" | "NotOlderThan") {
            let message = format!(
                "Unsupported value: {wanted:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            );
            causes.push(Cause::new(
                "FieldValueNotSupported",
                "resourceVersionMatch",
                message,
            ));
        }
        if query.flag("sendInitialEvents") {
            causes.push(forbidden_option(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        if !causes.is_empty() {
            return Err(bad_options(&causes));
        }
        let token = match query.get("continue") {
            "" => None,
            _ if !matches!(text, "" | "0") => {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            token => Some(Token::parse(token)?),
        };
        let version = match text {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_parse| {
                ApiError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })?),
        };
        let limit = usize::try_from(limit).unwrap_or(0);
        Ok(Self {
            // At version 0 the list comes from the cache, which knows no pages.
            limit: if version == Some(0) { 0 } else { limit },
            exact: wanted == "Exact" || wanted.is_empty() && limit > 0,
            version,
            token,
        })
    }
}

/// Answers a list.
pub(super) fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let format = call.format()?;
    let selector = Selector::parse(
        call.kind(),
        call.query.get("labelSelector"),
        call.query.get("fieldSelector"),
    )?;
    let options = Options::parse(call)?;
    let (version, objects) = read(call, &options)?;
    let after = options.token.as_ref().map_or("", |token| &token.after);
    let mut shown: Vec<Arc<Value>> = objects
        .into_iter()
        .filter(|object| after.is_empty() || *place(call, object) > *after)
        .filter(|object| selector.matches(object))
        .collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if options.limit > 0 && shown.len() > options.limit {
        let left = shown.len() - options.limit;
        shown.truncate(options.limit);
        let token = Token {
            version: Some(version),
            after: shown
                .last()
                .map(|object| place(call, object))
                .unwrap_or_default(),
        };
        metadata["continue"] = json!(token.encode());
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    if call.kind().custom() && format.view == View::Object && metadata.get("continue").is_none() {
        // Lists of custom resources write it even if it is empty.
        metadata["continue"] = json!("");
    }
    let value = match format.view {
        View::Object => objects_list(call, &metadata, &shown),
        View::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": shown.iter().map(|object| table::partial(object)).collect::<Vec<_>>(),
        }),
        View::Table => {
            let include = table::include(&call.query)?;
            let rows: Vec<Value> = shown
                .iter()
                .map(|object| table::row(call.kind(), object, include))
                .collect();
            table::table(&metadata, &table::columns(call.kind()), &rows)
        }
    };
    Ok(answer(200, &value, format, &call.warnings))
}

/// A typed list. Items of built-in kinds go without `apiVersion` and `kind`.
pub(super) fn objects_list(call: &Call, metadata: &Value, objects: &[Arc<Value>]) -> Value {
    let items: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut item = call.shown(object);
            if let Some(fields) = item.as_object_mut()
                && !call.kind().custom()
            {
                fields.shift_remove("apiVersion");
                fields.shift_remove("kind");
            }
            item
        })
        .collect();
    json!({
        "kind": call.kind().list_kind,
        "apiVersion": call.kinds.api_version,
        "metadata": metadata,
        "items": items,
    })
}

/// Where an object is in its list.
fn place(call: &Call, object: &Value) -> String {
    if call.kind().namespaced && call.target.namespace.is_empty() {
        format!("/{}/{}", meta::namespace(object), meta::name(object))
    } else {
        format!("/{}", meta::name(object))
    }
}

/// The objects in the order of their places, and the version they are at.
fn read(call: &Call, options: &Options) -> Result<(u64, Vec<Arc<Value>>), ApiError> {
    let namespace = Some(call.target.namespace.as_str())
        .filter(|namespace| call.kind().namespaced && !namespace.is_empty());
    let state = call.shared.store.lock();
    let now = state.version();
    let exact = match &options.token {
        Some(token) => token.version,
        None => options
            .version
            .filter(|version| options.exact && *version > 0),
    };
    if let Some(version) = options.version.or(exact)
        && version > now
    {
        return Err(too_large(version, now));
    }
    let Some(version) = exact else {
        return Ok((now, state.list(&call.kinds.key, namespace)));
    };
    match state.list_at(&call.kinds.key, namespace, version) {
        Some(objects) => Ok((version, objects)),
        None => Err(match &options.token {
            Some(token) => expired_token(token),
            None => ApiError::expired("The resourceVersion for the provided list is too old."),
        }),
    }
}

fn too_large(version: u64, now: u64) -> ApiError {
    let message = format!("Too large resource version: {version}, current: {now}");
    let mut error = ApiError::new(504, "Timeout", format!("Timeout: {message}")).with_details(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }));
    error.retry_after = Some(1);
    error
}

fn expired_token(token: &Token) -> ApiError {
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let token = Token {
        version: None,
        after: token.after.clone(),
    };
    error.resume = Some(token.encode());
    error
}
