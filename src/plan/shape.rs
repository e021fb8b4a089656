//! Holds a plan's tree against the JSON Schema of [`super::file::PlanFile`], the same that editors
//! use, and reports everything that does not fit, with places and the closest valid name.

use serde_json::Value;

use super::problem::{Problems, suggest};
use super::text::EXPECTS;
use super::yaml::{Kind, Node};

/// The JSON Schema of plans.
pub fn schema() -> Value {
    schemars::schema_for!(super::file::PlanFile).to_value()
}

/// Reports every way in which `node` does not fit the schema.
pub(super) fn check(node: &Node, schema: &Value, problems: &mut Problems<'_>) {
    Walk {
        root: schema,
        problems,
    }
    .value(node, schema, "the plan");
}

struct Walk<'a, 'p> {
    root: &'a Value,
    problems: &'a mut Problems<'p>,
}

impl Walk<'_, '_> {
    fn value(&mut self, node: &Node, schema: &Value, name: &str) {
        let schema = resolve(self.root, schema);
        if let Some(names) = names(schema) {
            self.name(node, &names, name);
            return;
        }
        if !allowed(schema).contains(&type_of(node)) {
            let expected = expects(schema);
            let fix = match &node.kind {
                Kind::Null => "give it a value or leave the key out",
                Kind::Number(_) | Kind::Bool(_) if allowed(schema).contains(&"string") => {
                    "put it into quotes, with a unit if it needs one"
                }
                _ => "see docs/plan.md",
            };
            let what = format!("{name} cannot be {}", node.describe());
            self.problems.add(node.at, what, expected, fix);
            return;
        }
        match &node.kind {
            Kind::Map(_) => self.map(node, schema, name),
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(
                        item,
                        &schema["items"],
                        &format!("`{}[{index}]`", bare(name)),
                    );
                }
            }
            Kind::Number(number) => {
                let least = schema["minimum"].as_u64().unwrap_or(0);
                let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
                let fits = |value: u64| (least..=most).contains(&value);
                if schema["type"] == "integer" && !number.as_u64().is_some_and(fits) {
                    let what = format!("{name} cannot be {number}");
                    let expected = format!("a whole number from {least} to {most}");
                    self.problems
                        .add(node.at, what, expected, "correct the number");
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, node: &Node, schema: &Value, name: &str) {
        let Kind::Map(entries) = &node.kind else {
            return;
        };
        let known = schema["properties"].as_object();
        for (key, value) in entries {
            let inner = match bare(name) {
                "the plan" => format!("`{}`", key.text),
                outer => format!("`{outer}.{}`", key.text),
            };
            if let Some(field) = known.and_then(|known| known.get(&key.text)) {
                self.value(value, field, &inner);
            } else if schema["additionalProperties"].is_object() {
                self.value(value, &schema["additionalProperties"], &inner);
            } else {
                let valid: Vec<&str> = known
                    .into_iter()
                    .flat_map(|known| known.keys().map(String::as_str))
                    .collect();
                self.problems.add(
                    key.at,
                    format!("{name} has no field `{}`", key.text),
                    format!("one of {}", valid.join(", ")),
                    suggest(&key.text, valid.iter().copied(), "remove the field"),
                );
            }
        }
        let required = schema["required"].as_array().into_iter().flatten();
        for field in required.filter_map(Value::as_str) {
            if node.get(field).is_none() {
                let expected = known
                    .and_then(|known| known.get(field))
                    .map_or_else(String::new, |field| expects(resolve(self.root, field)));
                self.problems.add(
                    node.at,
                    format!("{name} lacks `{field}`"),
                    expected,
                    format!("add `{field}:`"),
                );
            }
        }
    }

    fn name(&mut self, node: &Node, names: &[&str], name: &str) {
        let found = match &node.kind {
            Kind::Text(text) if names.contains(&text.as_str()) => return,
            Kind::Text(text) => format!("`{text}`"),
            _ => node.describe().to_owned(),
        };
        let word = found.trim_matches('`');
        self.problems.add(
            node.at,
            format!("{name} cannot be {found}"),
            format!("one of {}", names.join(", ")),
            suggest(word, names.iter().copied(), "take one of these"),
        );
    }
}

fn bare(name: &str) -> &str {
    name.trim_matches('`')
}

/// Follows `$ref`, and the branch of `anyOf` that is not null.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|r| r.strip_prefix("#/$defs/"))
    {
        return resolve(root, &root["$defs"][name]);
    }
    schema["anyOf"]
        .as_array()
        .and_then(|branches| branches.iter().find(|branch| branch["type"] != "null"))
        .map_or(schema, |branch| resolve(root, branch))
}

/// The names of an enum, which `schemars` writes as `enum` or, with docs, as `oneOf` of `const`.
pub(super) fn names(schema: &Value) -> Option<Vec<&str>> {
    let list = |value: &'_ Value| value.as_array().is_some();
    if list(&schema["enum"]) {
        return schema["enum"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect());
    }
    list(&schema["oneOf"]).then(|| {
        let branches = schema["oneOf"].as_array().into_iter().flatten();
        branches
            .flat_map(|branch| {
                let more = branch["enum"].as_array().into_iter().flatten();
                branch["const"]
                    .as_str()
                    .into_iter()
                    .chain(more.filter_map(Value::as_str))
            })
            .collect()
    })
}

fn allowed(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        // `null` only says that the field may be left out.
        Value::Array(many) => many
            .iter()
            .filter_map(Value::as_str)
            .filter(|t| *t != "null")
            .collect(),
        _ => vec!["object", "array", "string", "integer", "number", "boolean"],
    }
}

fn type_of(node: &Node) -> &'static str {
    match &node.kind {
        Kind::Null => "null",
        Kind::Bool(_) => "boolean",
        Kind::Number(number) if number.is_f64() => "number",
        Kind::Number(_) => "integer",
        Kind::Text(_) => "string",
        Kind::List(_) => "array",
        Kind::Map(_) => "object",
    }
}

fn expects(schema: &Value) -> String {
    if let Some(text) = schema[EXPECTS].as_str() {
        return text.to_owned();
    }
    if let Some(names) = names(schema) {
        return format!("one of {}", names.join(", "));
    }
    let words: Vec<&str> = allowed(schema)
        .into_iter()
        .map(|name| match name {
            "object" => "a mapping",
            "array" => "a list",
            "integer" => "a whole number",
            "boolean" => "true or false",
            "number" => "a number",
            _ => "text",
        })
        .collect();
    words.join(" or ")
}

/// The tree as JSON without the fields that the schema does not know, so that the rest can still
/// be judged.
pub(super) fn prune(node: &Node, schema: &Value) -> Value {
    prune_at(schema, node, schema)
}

fn prune_at(root: &Value, node: &Node, schema: &Value) -> Value {
    let schema = resolve(root, schema);
    match &node.kind {
        Kind::Map(entries) if schema["additionalProperties"] == false => entries
            .iter()
            .filter_map(|(key, value)| {
                let field = schema["properties"].get(&key.text)?;
                Some((key.text.clone(), prune_at(root, value, field)))
            })
            .collect(),
        Kind::List(items) => items
            .iter()
            .map(|item| prune_at(root, item, &schema["items"]))
            .collect(),
        _ => node.to_value(),
    }
}
