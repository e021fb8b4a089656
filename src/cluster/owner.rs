//! Who makes objects: the run. Nothing is created without an [`Owner`], so nothing is created that
//! is neither labelled nor written down in the undo log first.

use serde_json::{Value, json};

use super::undo::UndoLog;

/// Label with the run id on every object of a run.
pub const RUN_LABEL: &str = "virtproof.dev/run";
/// Label that names us on every object that we make.
pub const MANAGED_BY_LABEL: &str = "virtproof.dev/managed-by";
/// Field manager of every write.
pub const FIELD_MANAGER: &str = "virtproof";

/// The run on whose behalf objects are made.
#[derive(Debug, Clone)]
pub struct Owner {
    run: String,
    undo: UndoLog,
    lane: Option<String>,
}

impl Owner {
    /// The owner for a run; `run` is a valid label value.
    pub fn new(run: impl Into<String>, undo: UndoLog) -> Self {
        Self {
            run: run.into(),
            undo,
            lane: None,
        }
    }

    /// The same owner working on one subject. Undo entries of different lanes are independent of
    /// each other and may be undone at the same time; entries without a lane are barriers.
    #[must_use]
    pub fn lane(&self, subject: &str) -> Self {
        Self {
            lane: Some(subject.to_owned()),
            ..self.clone()
        }
    }

    /// The run id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The undo log.
    pub const fn undo(&self) -> &UndoLog {
        &self.undo
    }

    /// The subject whose lane this is.
    pub fn lane_name(&self) -> Option<&str> {
        self.lane.as_deref()
    }

    /// The label selector of everything that the run made.
    pub fn selector(&self) -> String {
        format!("{RUN_LABEL}={}", self.run)
    }

    /// Whether the object carries this run's label.
    pub fn owns(&self, object: &Value) -> bool {
        label(object, RUN_LABEL) == Some(self.run.as_str())
    }

    /// Puts the run's labels on an object, keeping its own.
    pub fn stamp(&self, object: &mut Value) {
        if !object["metadata"]["labels"].is_object() {
            object["metadata"]["labels"] = json!({});
        }
        object["metadata"]["labels"][RUN_LABEL] = json!(self.run);
        object["metadata"]["labels"][MANAGED_BY_LABEL] = json!(FIELD_MANAGER);
    }
}

/// One label of an object.
pub(crate) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(name)?.as_str()
}
