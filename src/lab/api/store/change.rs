//! What a write did, as watchers get it.

use std::sync::Arc;

use serde_json::Value;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new (to this watcher).
    Added,
    /// It was changed.
    Modified,
    /// It is gone; the change carries its last state.
    Deleted,
}

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it (its last state, at the deletion's version, if deleted).
    pub object: Arc<Value>,
    /// The object before it, if it was there.
    pub previous: Option<Arc<Value>>,
    /// Resource version of the change.
    pub version: u64,
}
