//! Fields that a schema does not know: found, or taken away.

use serde_json::Value;

use super::{Schema, Shape, join};

/// The fields of `object` that `schema` does not know, as dotted paths, in order.
pub fn unknown_fields(schema: &Schema, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut object = object.clone();
    walk(schema, &mut object, "", true, &mut found);
    found
}

/// Takes away what `schema` does not know, and tells what that was.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, object, "", true, &mut found);
    found
}

fn walk(schema: &Schema, value: &mut Value, path: &str, root: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let unknown: Vec<String> = map
                .keys()
                .filter(|name| !knows(schema, name, root))
                .cloned()
                .collect();
            for name in unknown {
                map.shift_remove(&name);
                found.push(join(path, &name));
            }
            for (name, child) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    walk(field, child, &join(path, name), false, found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (at, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{at}]"), false, found);
                }
            }
        }
        _ => {}
    }
}

fn knows(schema: &Schema, name: &str, root: bool) -> bool {
    let own = (root || schema.embedded) && matches!(name, "apiVersion" | "kind" | "metadata");
    own || schema.open || schema.shape != Shape::Object || schema.field(name).is_some()
}
