//! Sets of field paths, as `fieldsV1` writes them, and what two objects differ in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::lab::api::schema::{Merge, Schema, Shape};

/// A path: `f:NAME`, `k:{…}` and `v:…` steps.
pub(super) type Path = Vec<String>;

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet(pub(super) BTreeSet<Path>);

/// What changed between two objects.
#[derive(Debug, Default)]
pub(super) struct Diff {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

/// Fields of `metadata` that nobody manages.
const UNMANAGED: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
];

impl FieldSet {
    /// Reads `fieldsV1`.
    pub(super) fn from_json(value: &Value) -> Self {
        fn walk(value: &Value, path: &mut Path, set: &mut BTreeSet<Path>) {
            for (step, below) in value.as_object().into_iter().flatten() {
                if step == "." {
                    set.insert(path.clone());
                    continue;
                }
                path.push(step.clone());
                if below.as_object().is_none_or(Map::is_empty) {
                    set.insert(path.clone());
                } else {
                    walk(below, path, set);
                }
                path.pop();
            }
        }
        let mut set = BTreeSet::new();
        walk(value, &mut Vec::new(), &mut set);
        Self(set)
    }

    /// Writes `fieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let mut root = json!({});
        for path in &self.0 {
            let mut at = &mut root;
            for step in path {
                at = &mut at[step.as_str()];
                if at.is_null() {
                    *at = json!({});
                }
            }
        }
        // A path with paths below it is told apart by a dot.
        for path in &self.0 {
            let mut at = &mut root;
            for step in path {
                at = &mut at[step.as_str()];
            }
            if let Some(map) = at.as_object_mut()
                && !map.is_empty()
            {
                map.shift_insert(0, ".".to_owned(), json!({}));
            }
        }
        root
    }

    /// Without what nobody manages.
    pub(super) fn managed(mut self) -> Self {
        self.0.retain(|path| {
            !matches!(path.as_slice(), [one] if matches!(one.as_str(), "f:apiVersion" | "f:kind" | "f:metadata"))
                && !matches!(path.as_slice(), [first, second, ..] if first == "f:metadata" && UNMANAGED.contains(&second.as_str()))
        });
        self
    }

    /// Everything that is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// Everything that is in either.
    pub(super) fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Everything that is not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Every leaf of an applied configuration, and the items of lists that merge by key.
    pub(super) fn of_applied(schema: Option<&Schema>, value: &Value) -> Self {
        let mut set = Self::default();
        add(schema, value, &mut Vec::new(), &mut set.0, false);
        set.0.remove(&Vec::new());
        set
    }

    /// What differs between two values.
    pub(super) fn diff(schema: Option<&Schema>, old: &Value, new: &Value) -> Diff {
        let mut diff = Diff::default();
        compare(schema, Some(old), Some(new), &mut Vec::new(), &mut diff);
        diff
    }
}

/// The schema of a child; a container without a schema has children without one.
pub(super) fn child<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema.and_then(|schema| schema.field(name))
}

/// Whether a value is merged field by field or item by item, rather than replaced.
pub(super) fn granular(schema: Option<&Schema>, value: &Value) -> bool {
    match value {
        Value::Object(_) => schema.is_none_or(|schema| schema.merge != Merge::Atomic),
        Value::Array(_) => {
            schema.is_some_and(|schema| matches!(schema.merge, Merge::Keys(_) | Merge::Set))
        }
        _ => false,
    }
}

/// The steps to a value's parts, with their schemas.
pub(super) fn parts<'a>(
    schema: Option<&'a Schema>,
    value: &'a Value,
) -> BTreeMap<String, (Option<&'a Schema>, &'a Value)> {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (format!("f:{name}"), (child(schema, name), value)))
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let items = schema.and_then(|schema| schema.items.as_deref());
                (item_step(schema, item), (items, item))
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// The step to a list item: by its keys, or by value.
pub(super) fn item_step(schema: Option<&Schema>, item: &Value) -> String {
    if let Some(Schema {
        merge: Merge::Keys(keys),
        items,
        ..
    }) = schema
    {
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        let key: Map<String, Value> = sorted
            .into_iter()
            .filter_map(|key| {
                let value = item.get(key).cloned().or_else(|| {
                    let field = items.as_ref()?.field(key)?;
                    field.default.clone()
                })?;
                Some((key.clone(), value))
            })
            .collect();
        return format!("k:{}", Value::Object(key));
    }
    format!("v:{item}")
}

fn add(
    schema: Option<&Schema>,
    value: &Value,
    path: &mut Path,
    set: &mut BTreeSet<Path>,
    containers: bool,
) {
    let parts = if granular(schema, value) {
        parts(schema, value)
    } else {
        BTreeMap::new()
    };
    let item = path.last().is_some_and(|step| !step.starts_with("f:"));
    if containers || item || parts.is_empty() {
        set.insert(path.clone());
    }
    for (step, (schema, value)) in parts {
        path.push(step);
        add(schema, value, path, set, containers);
        path.pop();
    }
}

fn compare(
    schema: Option<&Schema>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    diff: &mut Diff,
) {
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => add(schema, new, path, &mut diff.added.0, true),
        (Some(old), None) => add(schema, old, path, &mut diff.removed.0, true),
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => {
            let alike =
                old.is_object() && new.is_object() && schema.map(|s| s.shape) != Some(Shape::Array)
                    || old.is_array() && new.is_array();
            if !alike || !granular(schema, new) {
                diff.modified.0.insert(path.clone());
                return;
            }
            let (before, after) = (parts(schema, old), parts(schema, new));
            let steps: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for step in steps {
                let (was, is) = (before.get(step), after.get(step));
                let schema = was.or(is).and_then(|(schema, _)| *schema);
                path.push(step.clone());
                compare(schema, was.map(|p| p.1), is.map(|p| p.1), path, diff);
                path.pop();
            }
        }
    }
}
