//! Request bodies: media types, JSON and YAML, duplicate keys, and the types of built-in kinds.

use std::collections::HashSet;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::protobuf;
use crate::lab::api::errors::ApiError;
use crate::lab::api::fields;
use crate::lab::api::registry::Kind;
use crate::lab::api::schema::{Schema, Shape};

/// The media type of a request, without parameters.
pub(super) fn media(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|text| text.split(';').next())
        .map_or("", str::trim)
}

/// An object from a body, and the keys that were given twice.
pub(super) fn object(
    headers: &HeaderMap,
    bytes: &[u8],
    kind: &Kind,
) -> Result<(Value, Vec<String>), ApiError> {
    match media(headers) {
        "" | "application/json" => json(bytes, kind),
        "application/yaml" => Ok((yaml(bytes)?, Vec::new())),
        protobuf::MEDIA if protobuf::object(bytes).is_some() => {
            Ok((protobuf::object(bytes).unwrap_or_default(), Vec::new()))
        }
        _ => Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

fn json(bytes: &[u8], kind: &Kind) -> Result<(Value, Vec<String>), ApiError> {
    let value = serde_json::from_slice(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(bytes);
        let shown = if text.is_empty() { "<empty>" } else { &text };
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {} ({shown})",
            kind.kind,
            go_error(&error)
        ))
    })?;
    Ok((value, duplicates(bytes)))
}

/// A JSON error as Go words it.
pub(super) fn go_error(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        error.to_string()
    }
}

/// A YAML document.
pub(super) fn yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::bad_request(format!("error parsing YAML: {error}")))?;
    serde_saphyr::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error parsing YAML: {error}")))
}

/// Keys that an object gives twice, as dotted paths.
fn duplicates(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let finder = Finder {
        path: String::new(),
        found: &mut found,
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // The same bytes were parsed before; a second error would be the same one.
    if finder.deserialize(&mut reader).is_err() {
        return Vec::new();
    }
    found
}

struct Finder<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if !seen.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Finder {
                path,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut at = 0;
        while seq
            .next_element_seed(Finder {
                path: format!("{}[{at}]", self.path),
                found: &mut *self.found,
            })?
            .is_some()
        {
            at += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// What keeps a value from being decoded into a built-in kind, as Go's decoder words it.
pub(super) fn type_error(kind: &Kind, value: &Value) -> Option<String> {
    let mut schema = (*kind.schema).clone();
    schema
        .fields
        .push(("metadata".to_owned(), fields::metadata()));
    mismatch(&schema, value, &kind.kind)
}

fn mismatch(schema: &Schema, value: &Value, path: &str) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let fits = match schema.shape {
        Shape::Any => true,
        Shape::Object => value.is_object(),
        Shape::Array => value.is_array(),
        Shape::String => value.is_string(),
        Shape::Integer => value.is_i64() || value.is_u64(),
        Shape::Number => value.is_number(),
        Shape::Boolean => value.is_boolean(),
        Shape::IntOrString => value.is_string() || value.is_number(),
    };
    if !fits {
        let found = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) | Value::Null => "object",
        };
        return Some(format!(
            "json: cannot unmarshal {found} into Go struct field {path} of type {}",
            go_type(schema)
        ));
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, child)| {
            let below = if schema.values.is_some() && schema.fields.is_empty() {
                path.to_owned()
            } else {
                format!("{path}.{name}")
            };
            schema
                .field(name)
                .and_then(|field| mismatch(field, child, &below))
        }),
        Value::Array(items) => {
            let schema = schema.items.as_deref()?;
            items.iter().find_map(|item| mismatch(schema, item, path))
        }
        Value::String(text) => time_error(&schema.format, text),
        _ => None,
    }
}

fn go_type(schema: &Schema) -> String {
    match schema.shape {
        Shape::String => "string".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Integer if schema.format == "int32" => "int32".to_owned(),
        Shape::Integer => "int64".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Array => {
            let items = schema.items.as_deref().map(go_type);
            format!("[]{}", items.unwrap_or_default())
        }
        Shape::Object => match &schema.values {
            Some(values) => format!("map[string]{}", go_type(values)),
            None => "struct".to_owned(),
        },
        Shape::Any | Shape::IntOrString => "interface {}".to_owned(),
    }
}

/// Times must be RFC 3339; MicroTime must have exactly six fractional digits.
fn time_error(format: &str, text: &str) -> Option<String> {
    let layout = match format {
        "date-time" => "2006-01-02T15:04:05Z07:00",
        "micro-time" => "2006-01-02T15:04:05.000000Z07:00",
        _ => return None,
    };
    let wrong = |found: &str, wanted: &str| {
        Some(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {found:?} as {wanted:?}"
        ))
    };
    if text.parse::<jiff::Timestamp>().is_err() {
        return wrong(text, "2006");
    }
    if format == "micro-time" {
        let rest = text.get(19..).unwrap_or("");
        let digits = rest.strip_prefix('.').map_or(0, |rest| {
            rest.chars().take_while(char::is_ascii_digit).count()
        });
        if digits != 6 {
            return wrong(rest, ".000000");
        }
    }
    None
}

/// Brings times into the form that the server stores: UTC, whole seconds or six digits.
pub(super) fn normalize_times(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    normalize_times(field, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    normalize_times(schema, item);
                }
            }
        }
        Value::String(text) => {
            let Ok(at) = text.parse::<jiff::Timestamp>() else {
                return;
            };
            match schema.format.as_str() {
                "date-time" => *text = crate::lab::api::meta::stamp(at),
                "micro-time" => *text = crate::lab::api::meta::micro_stamp(at),
                _ => {}
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_given_twice_are_found_at_any_depth() {
        let text = br#"{"data":{"a":"1","a":"2"},"list":[{"x":1,"x":2}]}"#;
        assert_eq!(duplicates(text), ["data.a", "list[0].x"]);
    }

    #[test]
    fn micro_time_takes_six_digits_only() {
        for (text, fits) in [
            ("2026-11-22T19:23:36.5Z", false),
            ("2026-11-22T19:23:36Z", false),
            ("2026-11-22T19:23:36.123456Z", true),
            ("2026-11-22T21:23:36.123456+02:00", true),
        ] {
            assert_eq!(time_error("micro-time", text).is_none(), fits, "{text}");
        }
        assert_eq!(
            time_error("micro-time", "yesterday").unwrap(),
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"yesterday\" as \"2006\""
        );
    }
}
