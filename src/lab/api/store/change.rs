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

/// Where an HTTP watch begins.
#[derive(Debug)]
pub(crate) struct WatchStart {
    /// What is there already, or the history since the version asked for.
    pub(crate) first: Vec<Change>,
    /// Changes from now on.
    pub(crate) changes: tokio::sync::mpsc::UnboundedReceiver<Change>,
    /// Changes up to here are in `first`, or are not wanted.
    pub(crate) seen: u64,
    /// The oldest version that is still kept, when the one asked for is older.
    pub(crate) too_old: Option<u64>,
}
