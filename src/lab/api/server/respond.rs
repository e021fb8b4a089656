//! Content negotiation and answers.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::query::Query;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::{Body, full};

/// How an object is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Itself.
    Object,
    /// As a server-printed table.
    Table,
    /// Metadata only.
    Metadata,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) view: View,
    yaml: bool,
    pretty: bool,
}

/// JSON, as errors are always written.
pub(super) const JSON: Format = Format {
    view: View::Object,
    yaml: false,
    pretty: false,
};

/// One entry of an Accept header: the type and its parameters.
pub(super) struct Accepted {
    pub(super) media: String,
    parameters: Vec<(String, String)>,
}

impl Accepted {
    /// A parameter's value, empty when there is none.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }
}

/// What a client accepts, in its order; everything when it does not say.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<Accepted> {
    let text = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.trim().is_empty())
        .unwrap_or("*/*");
    text.split(',')
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            Accepted {
                media: parts.next().unwrap_or("").to_owned(),
                parameters: parts
                    .filter_map(|part| part.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            }
        })
        .collect()
}

/// Chooses how to answer a request for objects.
///
/// # Errors
/// 406 when nothing that the client accepts can be written.
pub(super) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Format, ApiError> {
    for entry in accepted(headers) {
        let yaml = entry.media == "application/yaml";
        let json = matches!(
            entry.media.as_str(),
            "application/json" | "application/*" | "*/*"
        );
        if !yaml && !json {
            continue;
        }
        let view = match (entry.parameter("as"), entry.parameter("v")) {
            ("", _) => View::Object,
            ("Table", "v1") => View::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => View::Metadata,
            _ => continue,
        };
        return Ok(Format {
            view,
            yaml,
            pretty: query.flag("pretty"),
        });
    }
    Err(ApiError::new(
        406,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
    .with_details(json!({})))
}

/// Writes an answer.
pub(super) fn answer(
    code: u16,
    value: &Value,
    format: Format,
    warnings: &[String],
) -> Response<Body> {
    let (media, text) = if format.yaml {
        match serde_saphyr::to_string(value) {
            Ok(text) => ("application/yaml", text),
            Err(error) => return failure(&ApiError::internal(error.to_string()), &[]),
        }
    } else if format.pretty {
        ("application/json", format!("{value:#}"))
    } else {
        ("application/json", value.to_string())
    };
    with_type(code, media, text, warnings)
}

/// Writes a refusal.
pub(super) fn failure(error: &ApiError, warnings: &[String]) -> Response<Body> {
    if error.plain {
        return with_type(
            error.code,
            "text/plain; charset=utf-8",
            error.message.clone(),
            &[],
        );
    }
    let text = error.to_status().to_string();
    let mut response = with_type(error.code, "application/json", text, warnings);
    if let Some(seconds) = error.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An answer of a media type, with the server's audit header and warnings.
pub(super) fn with_type(
    code: u16,
    media: &str,
    body: impl Into<bytes::Bytes>,
    warnings: &[String],
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(media) = HeaderValue::from_str(media) {
        headers.insert(CONTENT_TYPE, media);
    }
    headers.insert(
        "cache-control",
        HeaderValue::from_static("no-cache, private"),
    );
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(WARNING, value);
        }
    }
    response
}
