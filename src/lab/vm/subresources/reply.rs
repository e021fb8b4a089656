//! The shapes of virt-api's answers.

use http::{Response, StatusCode, header};
use serde_json::Value;

use crate::lab::api::{ApiError, Body, full};

/// An answer with a content type; none for an empty body.
pub(super) fn answer(
    code: u16,
    kind: &'static str,
    body: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let body = body.into();
    let empty = body.is_empty();
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !empty {
        let value = header::HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// JSON.
pub(super) fn json(code: u16, body: &Value) -> Response<Body> {
    answer(code, "application/json", body.to_string())
}

/// Plain text.
pub(in crate::lab::vm) fn text(code: u16, body: impl Into<String>) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", body.into())
}

/// Nothing.
pub(super) fn empty(code: u16) -> Response<Body> {
    answer(code, "", "")
}

/// A `Status`.
pub(in crate::lab::vm) fn refused(error: &ApiError) -> Response<Body> {
    json(error.code, &error.to_status())
}

/// The container's own page for a path or method that it does not have.
pub(super) fn page(code: u16, what: &str) -> Response<Body> {
    text(code, format!("{code}: {what}"))
}

/// A duration as Go writes and reads it (`5m0s`, `1.5h`, `300ms`); `None` if it is none.
pub(in crate::lab::vm) fn duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let mut total = std::time::Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total += std::time::Duration::try_from_secs_f64(number * scale).ok()?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("5m0s"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for bad in ["soon", "5", "", "m", "-1s", "1x"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
