//! Validation of custom resources, with the wording of the real server.

use std::collections::HashSet;

use regex::Regex;
use serde_json::Value;

use super::{Merge, Schema, Shape, cel, join};
use crate::lab::api::errors::Cause;

/// Everything that is wrong with `object`; `old` is the stored object for updates. Rules in CEL are
/// only checked when the structure is right, and it says so when that kept them from being checked.
pub fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    structure(schema, object, "", &mut causes);
    if causes.is_empty() {
        check_rules(schema, object, old, "", &mut causes);
    } else if schema.has_rules() {
        causes.push(Cause::invalid(
            "<nil>",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
    }
    causes
}

fn structure(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !fits(schema.shape, value) {
        let found = name_of(value);
        let message = format!(
            "Invalid value: \"{found}\": {path} in body must be of type {}: \"{found}\"",
            schema.shape.name()
        );
        causes.push(Cause::new("FieldValueTypeInvalid", path, message));
        return;
    }
    if !schema.choices.is_empty() && !schema.choices.contains(value) {
        let choices: Vec<String> = schema.choices.iter().map(ToString::to_string).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            choices.join(", ")
        );
        causes.push(Cause::new("FieldValueNotSupported", path, message));
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                let own =
                    path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if let Some(field) = schema.field(name)
                    && !own
                {
                    structure(field, child, &join(path, name), causes);
                }
            }
            for name in &schema.required {
                if !map.contains_key(name) {
                    causes.push(Cause::required(join(path, name), ""));
                }
            }
        }
        Value::Array(items) => list(schema, items, path, causes),
        Value::String(text) => string(schema, text, path, causes),
        Value::Number(number) => bounded(schema, number.as_f64(), value, path, causes),
        _ => {}
    }
}

fn list(schema: &Schema, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let count = items.len() as u64;
    if let Some(most) = schema.bounds.max_items
        && count > most
    {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.push(Cause::new("FieldValueTooMany", path, message));
    }
    if let Some(least) = schema.bounds.min_items
        && count < least
    {
        let why = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, &Value::from(count), why));
    }
    let mut seen = HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if let Some(schema) = &schema.items {
            structure(schema, item, &path, causes);
        }
        let identity = match &schema.merge {
            Merge::Keys(keys) => {
                let key: serde_json::Map<String, Value> = keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                    .collect();
                Value::Object(key)
            }
            Merge::Set => item.clone(),
            Merge::Atomic | Merge::Default => continue,
        };
        if !seen.insert(identity.to_string()) {
            let message = format!("Duplicate value: {identity}");
            causes.push(Cause::new("FieldValueDuplicate", path, message));
        }
    }
}

fn string(schema: &Schema, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let value = Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(least) = schema.bounds.min_length
        && length < least
    {
        let why = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, &value, why));
    }
    if let Some(most) = schema.bounds.max_length
        && length > most
    {
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause::new("FieldValueTooLong", path, message));
    }
    if let Some(pattern) = &schema.bounds.pattern {
        // A pattern that is no regular expression refuses everything, which a test would notice.
        let matches = Regex::new(pattern).is_ok_and(|regex| regex.is_match(text));
        if !matches {
            let why = format!("{path} in body should match '{pattern}'");
            causes.push(Cause::invalid(path, &value, why));
        }
    }
    if schema.format == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        let why = format!("{path} in body must be of type date-time: {value}");
        causes.push(Cause::invalid(path, &value, why));
    }
}

fn bounded(
    schema: &Schema,
    number: Option<f64>,
    value: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let Some(number) = number else { return };
    if let Some(least) = schema.bounds.minimum
        && number < least
    {
        let why = format!("{path} in body should be greater than or equal to {least}");
        causes.push(Cause::invalid(path, value, why));
    }
    if let Some(most) = schema.bounds.maximum
        && number > most
    {
        let why = format!("{path} in body should be less than or equal to {most}");
        causes.push(Cause::invalid(path, value, why));
    }
}

fn fits(shape: Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Object => value.is_object(),
        Shape::Array => value.is_array(),
        Shape::String => value.is_string(),
        Shape::Integer => value.is_i64() || value.is_u64(),
        Shape::Number => value.is_number(),
        Shape::Boolean => value.is_boolean(),
        Shape::IntOrString => value.is_string() || value.is_i64() || value.is_u64(),
    }
}

/// What validation calls the type of a value.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_rules(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    for rule in &schema.rules {
        if cel::holds(&rule.rule, value, old) == Some(false) {
            let message = match value {
                Value::Object(_) | Value::Array(_) => format!("Invalid value: {}", rule.message),
                scalar => format!("Invalid value: {scalar}: {}", rule.message),
            };
            causes.push(Cause::new("FieldValueInvalid", path, message));
        }
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(field) = schema.field(name) {
                    let old = old.and_then(|old| old.get(name));
                    check_rules(field, child, old, &join(path, name), causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for (at, item) in items.iter().enumerate() {
                check_rules(schema, item, None, &format!("{path}[{at}]"), causes);
            }
        }
        _ => {}
    }
}
