//! `metadata.managedFields`: entries, and how an update changes them.

use serde_json::{Value, json};

use super::set::FieldSet;
use super::{materialize, whole};
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;

/// Who writes, and through which door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lab::api) struct Writer {
    /// `fieldManager`, or the user agent up to the first slash.
    pub(in crate::lab::api) manager: String,
    /// The API version of the request.
    pub(in crate::lab::api) api_version: String,
    /// The subresource, such as `status`; empty for the object itself.
    pub(in crate::lab::api) subresource: String,
}

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: String,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) subresource: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    pub(super) fn new(writer: &Writer, operation: &str, fields: FieldSet) -> Self {
        Self {
            manager: writer.manager.clone(),
            operation: operation.to_owned(),
            api_version: writer.api_version.clone(),
            time: Some(meta::now()),
            subresource: writer.subresource.clone(),
            fields,
        }
    }

    /// Whether this is the entry of a writer for an operation.
    pub(super) fn is(&self, writer: &Writer, operation: &str) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
    }

    fn read(value: &Value) -> Self {
        let text = |field: &str| value[field].as_str().unwrap_or("").to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: value["time"].as_str().map(str::to_owned),
            subresource: text("subresource"),
            fields: FieldSet::from_json(&value["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
        });
        if let Some(time) = &self.time {
            entry["time"] = json!(time);
        }
        entry["fieldsType"] = json!("FieldsV1");
        entry["fieldsV1"] = self.fields.to_json();
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

/// The entries of an object.
pub(super) fn read(object: &Value) -> Vec<Entry> {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    entries.into_iter().flatten().map(Entry::read).collect()
}

/// Writes entries into an object: empty ones go, the rest is ordered as the server orders it.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.0.is_empty());
    entries.sort_by(|a, b| {
        let order = |e: &Entry| (e.operation.clone(), e.time.clone(), e.manager.clone());
        order(a).cmp(&order(b))
    });
    let metadata = meta::metadata(object);
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        let entries: Vec<Value> = entries.iter().map(Entry::write).collect();
        metadata.insert("managedFields".to_owned(), json!(entries));
    }
}

/// Notes an update in the new object's `managedFields`. An object that nobody tracks stays
/// untracked until somebody applies to it.
pub(in crate::lab::api) fn track(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer,
) {
    let schema = whole(kind);
    let cleared = new.pointer("/metadata/managedFields") == Some(&json!([]));
    let mut entries = old.map(read).unwrap_or_default();
    if cleared || old.is_some() && entries.is_empty() {
        meta::metadata(new).shift_remove("managedFields");
        return;
    }
    let mut before = old.cloned().unwrap_or_else(|| json!({"metadata": {}}));
    materialize(&schema, &mut before);
    let diff = FieldSet::diff(Some(&schema), &before, new);
    let changed = diff.added.or(&diff.modified).managed();
    for entry in &mut entries {
        entry.fields = entry.fields.without(&diff.removed);
        if !entry.is(writer, "Update") {
            entry.fields = entry.fields.without(&changed);
        }
    }
    if !changed.0.is_empty() {
        match entries.iter_mut().find(|entry| entry.is(writer, "Update")) {
            Some(entry) => {
                entry.fields = entry.fields.or(&changed);
                entry.time = Some(meta::now());
                entry.api_version.clone_from(&writer.api_version);
            }
            None => entries.push(Entry::new(writer, "Update", changed)),
        }
    }
    write(new, entries);
}
