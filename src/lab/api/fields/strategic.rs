//! Strategic merge patches: lists merge by key, with `$patch` and its kin.

use serde_json::{Map, Value};

use crate::lab::api::schema::{Merge, Schema};

/// Merges a patch into an object.
pub(in crate::lab::api) fn strategic(schema: Option<&Schema>, live: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *live = patch.clone();
        return;
    };
    if changes.get("$patch").and_then(Value::as_str) == Some("replace") {
        *live = Value::Object(without_directives(changes));
        return;
    }
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Some(fields) = live.as_object_mut() else {
        return;
    };
    if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| kept.iter().any(|keep| keep == name.as_str()));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = change.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if !name.starts_with('$') {
            merge_field(schema.and_then(|s| s.field(name)), fields, name, change);
        }
    }
    for (name, order) in changes {
        if let Some(list) = name.strip_prefix("$setElementOrder/")
            && let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut)
        {
            let key = key_of(schema.and_then(|schema| schema.field(list)));
            reorder(items, order, key.as_deref());
        }
    }
}

fn merge_field(
    schema: Option<&Schema>,
    fields: &mut Map<String, Value>,
    name: &str,
    change: &Value,
) {
    match change {
        Value::Null => {
            fields.shift_remove(name);
        }
        Value::Object(map) => {
            if map.get("$patch").and_then(Value::as_str) == Some("delete") {
                fields.shift_remove(name);
                return;
            }
            let slot = fields.entry(name.to_owned()).or_insert(Value::Null);
            strategic(schema, slot, change);
        }
        Value::Array(items) => {
            let slot = fields.entry(name.to_owned()).or_insert(Value::Null);
            let merged = schema.is_some_and(|s| matches!(s.merge, Merge::Keys(_) | Merge::Set));
            match slot {
                Value::Array(live) if merged => merge_list(schema, live, items),
                _ => {
                    let kept = items.iter().filter(|item| directive(item).is_none());
                    *slot = Value::Array(kept.cloned().collect());
                }
            }
        }
        scalar => {
            fields.insert(name.to_owned(), scalar.clone());
        }
    }
}

fn merge_list(schema: Option<&Schema>, live: &mut Vec<Value>, changes: &[Value]) {
    let items = schema.and_then(|schema| schema.items.as_deref());
    let key = key_of(schema);
    if changes
        .iter()
        .any(|item| directive(item) == Some("replace"))
    {
        let kept = changes.iter().filter(|item| directive(item).is_none());
        *live = kept.cloned().collect();
        return;
    }
    for change in changes {
        let Some(key) = key.as_deref() else {
            if !live.contains(change) {
                live.push(change.clone());
            }
            continue;
        };
        let at = live.iter().position(|item| item[key] == change[key]);
        match (at, directive(change)) {
            (Some(at), Some("delete")) => {
                live.remove(at);
            }
            (None, Some(_)) => {}
            (Some(at), _) => strategic(items, &mut live[at], change),
            (None, None) => live.push(change.clone()),
        }
    }
}

/// The field that list items are merged by: the first key.
fn key_of(schema: Option<&Schema>) -> Option<String> {
    match &schema?.merge {
        Merge::Keys(keys) => keys.first().cloned(),
        _ => None,
    }
}

fn directive(item: &Value) -> Option<&str> {
    item.get("$patch").and_then(Value::as_str)
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Puts items into the order that the patch asks for; others keep their place at the end.
fn reorder(items: &mut [Value], order: &Value, key: Option<&str>) {
    let order = order.as_array().map_or(&[][..], Vec::as_slice);
    let place = |item: &Value| {
        order
            .iter()
            .position(|wanted| match key {
                Some(key) => wanted[key] == item[key],
                None => wanted == item,
            })
            .unwrap_or(usize::MAX)
    };
    items.sort_by_key(place);
}
