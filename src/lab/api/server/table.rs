//! Server-side printing: what `kubectl get` shows.

use serde_json::{Value, json};

use super::print::{self, Cell};
use super::query::Query;
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::registry::Kind;

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// What a table's rows carry besides cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Metadata,
    Object,
    Nothing,
}

/// Reads `includeObject`.
pub(super) fn include(query: &Query) -> Result<Include, ApiError> {
    match query.get("includeObject") {
        "" | "Metadata" => Ok(Include::Metadata),
        "Object" => Ok(Include::Object),
        "None" => Ok(Include::Nothing),
        other => {
            let cause = Cause::invalid(
                "includeObject",
                &json!(other),
                "must be 'Metadata', 'Object', 'None', or empty",
            );
            Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: {}: {}",
                cause.field, cause.message
            )))
        }
    }
}

/// The column definitions of a kind.
pub(super) fn columns(kind: &Kind) -> Value {
    let mut columns = vec![column("Name", "string", "name", NAME, 0)];
    if kind.custom() {
        let own = kind.columns.iter().map(|c| {
            let about = format!(
                "Custom resource definition column (in JSONPath format): {}",
                c.path
            );
            column(&c.name, &c.kind, "", &about, c.priority)
        });
        columns.extend(own);
        if kind.columns.is_empty() {
            columns.push(column("Age", "date", "", print::AGE, 0));
        }
    } else {
        let own = print::columns(&kind.key());
        columns.extend(
            own.iter()
                .map(|c| column(c.name, c.kind, "", c.about, c.priority)),
        );
    }
    Value::Array(columns)
}

fn column(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({
        "name": name,
        "type": kind,
        "format": format,
        "description": description,
        "priority": priority,
    })
}

/// A row of an object.
pub(super) fn row(kind: &Kind, object: &Value, include: Include) -> Value {
    let mut cells = vec![print::name(object)];
    if kind.custom() {
        for column in &kind.columns {
            cells.push(print::custom(column, object));
        }
        if kind.columns.is_empty() {
            cells.push(print::age(object));
        }
    } else {
        let own = print::columns(&kind.key());
        cells.extend(own.iter().map(|column: &Cell| (column.print)(object)));
    }
    let shown = match include {
        Include::Metadata => partial(object),
        Include::Object => object.clone(),
        Include::Nothing => Value::Null,
    };
    json!({"cells": cells, "object": shown})
}

/// A table of rows; `columns` are null in all but the first event of a watch.
pub(super) fn table(metadata: &Value, columns: &Value, rows: &[Value]) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// An object's metadata only.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
