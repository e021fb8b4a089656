//! Who manages which field: `managedFields`, server-side apply and strategic merge patches.
//!
//! Pure: objects and schemas in, objects out.

mod apply;
mod managed;
mod set;
mod strategic;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub(super) use apply::{Apply, apply};
pub(super) use managed::{Writer, track};
pub(super) use strategic::strategic;

use serde_json::{Value, json};

use super::registry::Kind;
use super::schema::{Merge, Schema, Shape};

/// The schema of whole objects of a kind: its own fields and `metadata`.
pub(super) fn whole(kind: &Kind) -> Schema {
    let mut schema = (*kind.schema).clone();
    schema.required.clear();
    schema.fields.push(("metadata".to_owned(), metadata()));
    for field in ["apiVersion", "kind"] {
        schema
            .fields
            .push((field.to_owned(), Schema::of(Shape::String)));
    }
    schema
}

/// The schema of `metadata`.
pub(super) fn metadata() -> Schema {
    static METADATA: LazyLock<Schema> = LazyLock::new(|| {
        let mut schema = Schema::of(Shape::Object);
        schema.always = true;
        let mut add = |name: &str, field: Schema| schema.fields.push((name.to_owned(), field));
        for name in [
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
        ] {
            add(name, Schema::of(Shape::String));
        }
        for name in ["creationTimestamp", "deletionTimestamp"] {
            let mut time = Schema::of(Shape::String);
            "date-time".clone_into(&mut time.format);
            time.nullable = true;
            add(name, time);
        }
        for name in ["generation", "deletionGracePeriodSeconds"] {
            add(name, Schema::of(Shape::Integer));
        }
        for name in ["labels", "annotations"] {
            let mut map = Schema::of(Shape::Object);
            map.values = Some(Box::new(Schema::of(Shape::String)));
            add(name, map);
        }
        let list = |items: Schema, merge| {
            let mut list = Schema::of(Shape::Array);
            list.items = Some(Box::new(items));
            list.merge = merge;
            list
        };
        add("finalizers", list(Schema::of(Shape::String), Merge::Set));
        let mut owner = Schema::of(Shape::Object);
        for name in ["apiVersion", "kind", "name", "uid"] {
            owner
                .fields
                .push((name.to_owned(), Schema::of(Shape::String)));
        }
        for name in ["controller", "blockOwnerDeletion"] {
            owner
                .fields
                .push((name.to_owned(), Schema::of(Shape::Boolean)));
        }
        owner.merge = Merge::Atomic;
        let keys = Merge::Keys(vec!["uid".to_owned()]);
        add("ownerReferences", list(owner, keys));
        add("managedFields", list(Schema::anything(), Merge::Atomic));
        schema
    });
    METADATA.clone()
}

/// Writes what the server always writes, even if it is empty.
pub(super) fn materialize(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.fields {
                if field.always && !map.contains_key(name) && name != "metadata" {
                    map.insert(name.clone(), empty(field));
                }
                if let Some(child) = map.get_mut(name) {
                    materialize(field, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    materialize(schema, item);
                }
            }
        }
        _ => {}
    }
}

fn empty(schema: &Schema) -> Value {
    match schema.shape {
        Shape::Object => json!({}),
        Shape::Array => json!([]),
        Shape::String if !schema.nullable => json!(""),
        Shape::Boolean => json!(false),
        Shape::Integer | Shape::Number => json!(0),
        _ => Value::Null,
    }
}
