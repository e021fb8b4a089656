//! Options of writes and deletes, from query and body.

use serde_json::Value;

use super::query::Query;
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::store::{DeleteOptions, Propagation};

/// What to do about fields that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of a create, update or patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteOptions {
    pub(super) dry_run: bool,
    pub(super) validation: FieldValidation,
    pub(super) manager: String,
    pub(super) force: bool,
}

fn invalid(options: &str, cause: Cause) -> ApiError {
    ApiError::invalid(&format!("{options}.meta.k8s.io"), "", &[cause])
}

fn unsupported(field: &str, shown: &str, choices: &str) -> Cause {
    let message = format!("Unsupported value: {shown}: supported values: {choices}");
    Cause::new("FieldValueNotSupported", field, message)
}

fn dry_run(query: &Query, options: &str) -> Result<bool, ApiError> {
    let values: Vec<&str> = query.all("dryRun").collect();
    if values.iter().any(|value| *value != "All") {
        let shown = serde_json::to_string(&values).unwrap_or_default();
        return Err(invalid(options, unsupported("dryRun", &shown, "\"All\"")));
    }
    Ok(!values.is_empty())
}

impl WriteOptions {
    /// Reads them; `options` is the name of the kind of options, such as `CreateOptions`.
    pub(super) fn parse(query: &Query, options: &str, agent: &str) -> Result<Self, ApiError> {
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let choices = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
                let cause = unsupported("fieldValidation", &format!("{other:?}"), choices);
                return Err(invalid(options, cause));
            }
        };
        let manager = match query.get("fieldManager") {
            "" => agent.split('/').next().unwrap_or("").to_owned(),
            manager => manager.to_owned(),
        };
        Ok(Self {
            dry_run: dry_run(query, options)?,
            validation,
            manager: if manager.is_empty() {
                "unknown".to_owned()
            } else {
                manager
            },
            force: query.flag("force"),
        })
    }

    /// The rules that tie patch types and options.
    pub(super) fn check_patch(query: &Query, apply: bool) -> Result<(), ApiError> {
        if apply && query.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(invalid("PatchOptions", cause));
        }
        if !apply && !query.get("force").is_empty() {
            let message = "Forbidden: may not be specified for non-apply patch";
            let cause = Cause::new("FieldValueForbidden", "force", message);
            return Err(invalid("PatchOptions", cause));
        }
        Ok(())
    }
}

/// Options of a delete: the body's where it has them, else the query's.
pub(super) fn delete_options(query: &Query, body: &Value) -> Result<DeleteOptions, ApiError> {
    let text = |field: &str| {
        let inner = body.pointer(field).and_then(Value::as_str);
        inner.map(str::to_owned)
    };
    let policy =
        text("/propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_owned());
    let orphan = query.flag("orphanDependents") || body["orphanDependents"] == Value::Bool(true);
    let propagation = match policy.as_str() {
        "" if orphan => Some(Propagation::Orphan),
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            let choices = "\"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            let cause = unsupported("propagationPolicy", &format!("{other:?}"), choices);
            return Err(invalid("DeleteOptions", cause));
        }
    };
    let grace = body["gracePeriodSeconds"]
        .as_i64()
        .or_else(|| query.get("gracePeriodSeconds").parse().ok());
    let dry = body["dryRun"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation,
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: dry || dry_run(query, "DeleteOptions")?,
    })
}
