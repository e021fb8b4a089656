//! Server-side apply: merge, ownership and conflicts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::managed::{Entry, Writer, read, write};
use super::set::{FieldSet, Path, child, granular, item_step};
use super::{materialize, whole};
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;
use crate::lab::api::schema::Schema;

/// One apply request.
#[derive(Debug)]
pub(in crate::lab::api) struct Apply<'a> {
    pub(in crate::lab::api) kind: &'a Kind,
    /// The stored object, if any.
    pub(in crate::lab::api) live: Option<&'a Value>,
    /// What is applied, without the parts that this door does not write.
    pub(in crate::lab::api) config: &'a Value,
    pub(in crate::lab::api) writer: &'a Writer,
    /// Take over what others own.
    pub(in crate::lab::api) force: bool,
}

/// The object after the apply, `managedFields` included.
///
/// # Errors
/// 409 when others own fields that would change, unless forced.
pub(in crate::lab::api) fn apply(request: &Apply<'_>) -> Result<Value, ApiError> {
    let schema = whole(request.kind);
    let applied = FieldSet::of_applied(Some(&schema), request.config).managed();
    let Some(live) = request.live else {
        let mut new = request.config.clone();
        write(&mut new, vec![Entry::new(request.writer, "Apply", applied)]);
        return Ok(new);
    };
    let mut entries = read(live);
    if entries.is_empty() {
        entries.push(before_first_apply(request, &schema, live));
    }
    let mut merged = merge(Some(&schema), live, request.config);
    let own = entries
        .iter()
        .position(|entry| entry.is(request.writer, "Apply"))
        .map(|at| entries.remove(at));
    let mut removed = FieldSet::default();
    if let Some(own) = &own {
        removed = own.fields.without(&applied);
        for entry in &entries {
            removed = removed.without(&entry.fields);
        }
        remove_all(&schema, &mut merged, &removed, &entries);
    }
    let diff = FieldSet::diff(Some(&schema), live, &merged);
    let changed = diff.added.or(&diff.modified);
    settle_conflicts(request, &mut entries, &changed)?;
    for entry in &mut entries {
        entry.fields = entry.fields.without(&diff.removed);
    }
    let same_object = changed.0.is_empty() && diff.removed.0.is_empty() && removed.0.is_empty();
    let mut entry = Entry::new(request.writer, "Apply", applied);
    if same_object {
        // Nothing but ownership changed: the server leaves the time as it was, or unset.
        entry.time = own.as_ref().and_then(|own| own.time.clone());
    }
    entries.push(entry);
    write(&mut merged, entries);
    Ok(merged)
}

/// What was there before anybody applied belongs to a manager of that name.
fn before_first_apply(request: &Apply<'_>, schema: &Schema, live: &Value) -> Entry {
    let writer = Writer {
        manager: "before-first-apply".to_owned(),
        api_version: request.writer.api_version.clone(),
        subresource: String::new(),
    };
    let mut empty = json!({"metadata": {}});
    materialize(schema, &mut empty);
    let fields = FieldSet::diff(Some(schema), &empty, live).added;
    Entry::new(&writer, "Update", fields.managed())
}

fn settle_conflicts(
    request: &Apply<'_>,
    entries: &mut [Entry],
    changed: &FieldSet,
) -> Result<(), ApiError> {
    let mut conflicts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries.iter_mut() {
        let taken = entry.fields.and(changed);
        if taken.0.is_empty() {
            continue;
        }
        if request.force {
            entry.fields = entry.fields.without(&taken);
            continue;
        }
        let mut who = format!("{:?}", entry.manager);
        if entry.operation == "Update" {
            who.push_str(" using ");
            who.push_str(&entry.api_version);
        }
        if !entry.subresource.is_empty() {
            who = format!("{who} with subresource {:?}", entry.subresource);
        }
        let paths = taken.0.iter().map(spell);
        conflicts.entry(who).or_default().extend(paths);
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(conflict(&conflicts))
}

fn conflict(conflicts: &BTreeMap<String, Vec<String>>) -> ApiError {
    let count: usize = conflicts.values().map(Vec::len).sum();
    let message = match conflicts.iter().next() {
        Some((who, paths)) if count == 1 => {
            format!(
                "Apply failed with 1 conflict: conflict with {who}: {}",
                paths[0]
            )
        }
        _ => {
            let lines: Vec<String> = conflicts
                .iter()
                .map(|(who, paths)| format!("conflicts with {who}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
        }
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .flat_map(|(who, paths)| {
            paths.iter().map(move |path| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {who}"),
                    "field": path,
                })
            })
        })
        .collect();
    ApiError::new(409, "Conflict", message).with_details(json!({"causes": causes}))
}

/// A path as conflicts write it.
fn spell(path: &Path) -> String {
    path.iter()
        .map(|step| match step.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("k", key)) => {
                let key: Value = serde_json::from_str(key).unwrap_or_default();
                let keys: Vec<String> = key
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("[{}]", keys.join(","))
            }
            Some((_, value)) => format!("[={value}]"),
            None => step.clone(),
        })
        .collect()
}

/// Merges a configuration into an object by schema.
fn merge(schema: Option<&Schema>, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (Value::Object(before), Value::Object(after)) if granular(schema, config) => {
            let mut merged = before.clone();
            for (name, value) in after {
                let schema = child(schema, name);
                let value = match before.get(name) {
                    Some(old) => merge(schema, old, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(before), Value::Array(after)) if granular(schema, config) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            let mut merged = before.clone();
            for item in after {
                let step = item_step(schema, item);
                match merged.iter_mut().find(|old| item_step(schema, old) == step) {
                    Some(old) => *old = merge(items, old, item),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        _ => config.clone(),
    }
}

/// Takes fields away that the writer owned alone and no longer applies, and what is then empty.
fn remove_all(schema: &Schema, object: &mut Value, paths: &FieldSet, others: &[Entry]) {
    for path in paths.0.iter().rev() {
        remove(Some(schema), object, path);
        let mut parent = path.clone();
        while parent.pop().is_some() && !parent.is_empty() {
            let owned = others.iter().any(|entry| entry.fields.0.contains(&parent));
            if owned || !is_empty(Some(schema), object, &parent) {
                break;
            }
            remove(Some(schema), object, &parent);
        }
    }
    if !object["metadata"].is_object() {
        meta::metadata(object);
    }
}

fn step_into<'a>(
    schema: Option<&'a Schema>,
    value: &'a mut Value,
    step: &str,
) -> Option<(Option<&'a Schema>, &'a mut Value)> {
    if let Some(name) = step.strip_prefix("f:") {
        return Some((child(schema, name), value.get_mut(name)?));
    }
    let items = schema.and_then(|schema| schema.items.as_deref());
    let item = value
        .as_array_mut()?
        .iter_mut()
        .find(|item| item_step(schema, item) == step)?;
    Some((items, item))
}

fn remove(schema: Option<&Schema>, value: &mut Value, path: &[String]) {
    match path {
        [] => {}
        [last] => match (value, last.strip_prefix("f:")) {
            (Value::Object(map), Some(name)) => {
                map.shift_remove(name);
            }
            (Value::Array(items), None) => items.retain(|item| item_step(schema, item) != *last),
            _ => {}
        },
        [first, rest @ ..] => {
            if let Some((schema, below)) = step_into(schema, value, first) {
                remove(schema, below, rest);
            }
        }
    }
}

fn is_empty(schema: Option<&Schema>, value: &mut Value, path: &[String]) -> bool {
    match path {
        [] => match value {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        },
        [first, rest @ ..] => step_into(schema, value, first)
            .is_some_and(|(schema, below)| is_empty(schema, below, rest)),
    }
}
