//! Patches: merge, JSON, strategic merge and apply.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use super::body;
use super::call::Call;
use super::options::WriteOptions;
use super::write::{check_patched, check_version, create_object, replace, writer};
use crate::lab::api::errors::ApiError;
use crate::lab::api::fields::{self, Apply, apply, strategic};
use crate::lab::api::hooks::Body;
use crate::lab::api::meta;
use crate::lab::api::schema;

/// How to patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Merge,
    Json,
    Strategic,
    Apply,
}

fn style(call: &Call) -> Result<Style, ApiError> {
    match body::media(&call.headers) {
        "application/merge-patch+json" => Ok(Style::Merge),
        "application/json-patch+json" => Ok(Style::Json),
        "application/apply-patch+yaml" => Ok(Style::Apply),
        "application/strategic-merge-patch+json" if !call.kind().custom() => Ok(Style::Strategic),
        "application/strategic-merge-patch+json" => Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        _ => Err(
            ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
                .with_details(json!({})),
        ),
    }
}

/// Answers a patch.
pub(super) fn patch(call: &mut Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    call.check_subresource()?;
    let style = style(call)?;
    WriteOptions::check_patch(&call.query, style == Style::Apply)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions", &call.agent)?;
    if style == Style::Apply {
        return apply_patch(call, bytes, &options);
    }
    let decoded = decode(style, bytes)?;
    loop {
        let old = call.stored()?;
        let mut new = call.shown(&old);
        change(call, style, &decoded, &mut new)?;
        check_identity(call, &old, &new)?;
        check_patched(call, &mut new, options.validation)?;
        if let Some(stored) = replace(call, &old, new, &options, false)? {
            return call.answer(200, &stored);
        }
    }
}

fn decode(style: Style, bytes: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!("error decoding patch: {}", body::go_error(&error)))
    })?;
    if style == Style::Json && !value.is_array() {
        return Err(ApiError::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ));
    }
    Ok(value)
}

/// A patch that cannot be applied; the server says no more than that.
fn rejected() -> ApiError {
    let message = "the server rejected our request due to an error in our request";
    ApiError::new(422, "Invalid", message).with_details(json!({}))
}

fn change(call: &Call, style: Style, patch: &Value, object: &mut Value) -> Result<(), ApiError> {
    match style {
        Style::Merge => json_patch::merge(object, patch),
        Style::Json => {
            let patch: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|_operation| rejected())?;
            json_patch::patch(object, &patch).map_err(|_failed| rejected())?;
        }
        Style::Strategic | Style::Apply => {
            strategic(Some(&fields::whole(call.kind())), object, patch);
        }
    }
    Ok(())
}

fn check_identity(call: &Call, old: &Value, new: &Value) -> Result<(), ApiError> {
    let (was, is) = (meta::name(old), meta::name(new));
    if was != is {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({is}) does not match the name on the URL ({was})"
        )));
    }
    check_version(call, old, new, false)
}

fn apply_patch(
    call: &mut Call,
    bytes: &[u8],
    options: &WriteOptions,
) -> Result<Response<Body>, ApiError> {
    let config = body::yaml(bytes)?;
    check_config(call, &config)?;
    loop {
        let found = call.stored();
        let live = match &found {
            Ok(live) => Some(live),
            Err(_) if call.target.subresource.is_empty() => None,
            Err(error) => return Err(error.clone()),
        };
        if let Some(live) = live {
            check_version(call, live, &config, false)?;
        }
        let config = own_part(call, &config);
        let writer = writer(call, options);
        let merged = apply(&Apply {
            kind: call.kind(),
            live: live.map(|live| &**live),
            config: &config,
            writer: &writer,
            force: options.force,
        })?;
        let Some(live) = live else {
            let stored = create_object(call, merged, options, true)?;
            return call.answer(201, &stored);
        };
        let live = Arc::clone(live);
        if let Some(stored) = replace(call, &live, merged, options, true)? {
            return call.answer(200, &stored);
        }
    }
}

fn check_config(call: &Call, config: &Value) -> Result<(), ApiError> {
    let (api_version, kind) = (
        meta::text(config, "/apiVersion"),
        meta::text(config, "/kind"),
    );
    if api_version.is_empty() || kind.is_empty() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    let managed = config.pointer("/metadata/managedFields");
    if managed.is_some_and(|managed| !managed.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let group_version = if call.kind().group.is_empty() {
        format!("/{}", call.target.version)
    } else {
        call.kinds.api_version.clone()
    };
    let unknown = schema::unknown_fields(&fields::whole(call.kind()), config);
    if let Some(field) = unknown.first() {
        return Err(ApiError::new(
            500,
            "",
            format!(
                "failed to create typed patch object ({}/{}; {group_version}, Kind={kind}): .{field}: field not declared in schema",
                meta::namespace(config),
                meta::name(config),
            ),
        ));
    }
    Ok(())
}

/// The part of a configuration that this door writes: all but status, or only status.
fn own_part(call: &Call, config: &Value) -> Value {
    let mut own = config.clone();
    let status_only = call.target.subresource == "status";
    if let Some(fields) = own.as_object_mut() {
        fields.retain(|field, _| match field.as_str() {
            "apiVersion" | "kind" | "metadata" => true,
            "status" => status_only || !call.kind().status,
            _ => !status_only,
        });
    }
    let metadata = meta::metadata(&mut own);
    metadata.shift_remove("managedFields");
    metadata.shift_remove("resourceVersion");
    if status_only {
        metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace"));
    }
    own
}
