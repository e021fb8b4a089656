//! Defaults.

use serde_json::Value;

use super::Schema;

/// Fills in defaults of missing fields, also within defaults. Null where null is no value and a
/// default exists counts as missing, as on a real server.
pub fn fill(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.fields {
                let missing = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !field.nullable,
                    Some(_) => false,
                };
                if let Some(default) = &field.default
                    && missing
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, child) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    fill(field, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    fill(schema, item);
                }
            }
        }
        _ => {}
    }
}
