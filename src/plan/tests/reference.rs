//! The field tables of `docs/plan.md`, made from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use crate::plan::schema;

/// One table per mapping of the plan, in reading order.
pub(super) fn tables() -> String {
    let root = schema();
    let mut queue = vec![("the plan".to_owned(), &root)];
    let mut out = String::new();
    while !queue.is_empty() {
        let (path, node) = queue.remove(0);
        let title = if path == "the plan" {
            "Top level".to_owned()
        } else {
            format!("`{path}`")
        };
        write!(
            out,
            "\n### {title}\n\n| field | type | default | meaning |\n|---|---|---|---|\n"
        )
        .unwrap();
        let required: Vec<&str> = node["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, field) in node["properties"].as_object().unwrap() {
            let target = follow(&root, field);
            let default = match &field["default"] {
                _ if required.contains(&name.as_str()) => "required".to_owned(),
                Value::Null => "–".to_owned(),
                Value::Object(_) if target["properties"].is_object() => "see below".to_owned(),
                Value::Object(_) | Value::Array(_) => "none".to_owned(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            };
            let meaning = field["description"]
                .as_str()
                .or_else(|| target["description"].as_str());
            let meaning = meaning.unwrap_or_default().replace('\n', " ");
            writeln!(
                out,
                "| `{name}` | {} | {default} | {meaning} |",
                kind(&root, target)
            )
            .unwrap();
            let inner = if target["items"].is_object() {
                follow(&root, &target["items"])
            } else {
                target
            };
            if inner["properties"].is_object() {
                let many = if target["items"].is_object() {
                    "[]"
                } else {
                    ""
                };
                let prefix = if path == "the plan" {
                    String::new()
                } else {
                    format!("{path}.")
                };
                queue.push((format!("{prefix}{name}{many}"), inner));
            }
        }
    }
    out.push('\n');
    out
}

fn follow<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|name| name.strip_prefix("#/$defs/"))
    {
        return follow(root, &root["$defs"][name]);
    }
    let branches = schema["anyOf"].as_array().into_iter().flatten();
    match branches.into_iter().find(|branch| branch["type"] != "null") {
        Some(branch) => follow(root, branch),
        None => schema,
    }
}

fn kind(root: &Value, schema: &Value) -> String {
    if let Some(names) = crate::plan::shape::names(schema) {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        return names.join(", ");
    }
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    let first = match &schema["type"] {
        Value::Array(many) => many
            .iter()
            .find(|name| *name != "null")
            .and_then(Value::as_str),
        one => one.as_str(),
    };
    match first {
        Some("array") => format!("list of {}", kind(root, follow(root, &schema["items"]))),
        Some("object") if schema["additionalProperties"].is_object() => {
            let value = kind(root, follow(root, &schema["additionalProperties"]));
            format!("map of {value}")
        }
        Some("object") => "mapping".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        _ => "text".to_owned(),
    }
}
