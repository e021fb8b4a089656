//! Reading and writing `metadata` of objects that are plain JSON.

use serde_json::{Map, Value, json};

/// Text at a JSON pointer, empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// `metadata.name`, empty when there is none.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, empty for objects of the cluster.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`, empty when there is none.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion` as the store counts it; 0 when there is none.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion")
        .parse()
        .unwrap_or(0)
}

/// `metadata.generation`, 0 when there is none.
pub fn generation(object: &Value) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

/// Whether somebody asked for its deletion.
pub fn deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !finalizers(object).contains(&finalizer) {
        let list = entry(object, "finalizers", || json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!(finalizer));
        }
    }
}

/// Takes a finalizer away; the field goes with the last one.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(list) = meta.get_mut("finalizers").and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(|entry| entry != finalizer);
    if list.is_empty() {
        meta.shift_remove("finalizers");
    }
}

/// `metadata.ownerReferences`.
pub fn owners(object: &Value) -> &[Value] {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The owner reference with `controller: true`.
pub fn controller(object: &Value) -> Option<&Value> {
    owners(object)
        .iter()
        .find(|owner| owner["controller"] == json!(true))
}

/// A controlling, blocking owner reference to `owner`.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// `metadata` as a map; made when missing or not a map.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

/// A field of `metadata`, made by `default` when missing.
pub fn entry<'a>(
    object: &'a mut Value,
    field: &str,
    default: impl FnOnce() -> Value,
) -> &'a mut Value {
    metadata(object)
        .entry(field.to_owned())
        .or_insert_with(default)
}

/// A field as a map; made when missing or not a map.
pub fn map_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was made an object above"),
    }
}

/// Now, as `metadata.creationTimestamp` writes it: RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    stamp(jiff::Timestamp::now())
}

/// A time with whole seconds, as `metav1.Time` writes it.
pub fn stamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time with exactly six fractional digits, the only form that `metav1.MicroTime` takes.
pub fn micro_stamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_come_and_go() {
        let mut object = json!({});
        add_finalizer(&mut object, "a/b");
        add_finalizer(&mut object, "a/b");
        assert_eq!(finalizers(&object), ["a/b"]);
        remove_finalizer(&mut object, "a/b");
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn micro_time_has_six_digits() {
        let at = jiff::Timestamp::from_second(1).unwrap();
        assert_eq!(micro_stamp(at), "1970-01-01T00:00:01.000000Z");
        assert_eq!(stamp(at), "1970-01-01T00:00:01Z");
    }
}
