//! Deletion: preconditions, finalizers, grace periods and propagation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::state::{Key, State};
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it: it waits with the finalizer `foregroundDeletion`.
    Foreground,
    /// They stay and lose their owner reference.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds to leave a pod for its shutdown; `None` takes the pod's own.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of dependents; `None` is the kind's default, background.
    pub propagation: Option<Propagation>,
    /// Delete only this incarnation of the object.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    /// Check only.
    pub dry_run: bool,
}

/// What a delete did.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Arc<Value>),
    /// It waits for finalizers or for its grace period; this is its state now.
    Pending(Arc<Value>),
}

impl Deleted {
    /// The object, either way.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Self::Gone(object) | Self::Pending(object) => object,
        }
    }
}

/// The finalizer of foreground deletion.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of orphaning.
pub(crate) const ORPHAN: &str = "orphan";

impl State {
    /// Deletes and settles what follows from it. The answer shows the object as the request left it,
    /// before anything that follows.
    pub(crate) fn delete(
        &mut self,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let deleted = self.request_delete(key, options)?;
        if !options.dry_run {
            self.settle();
        }
        Ok(deleted)
    }

    /// Deletes without settling.
    pub(super) fn request_delete(
        &mut self,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let old = self
            .get(key)
            .ok_or_else(|| ApiError::not_found(&key.resource, &key.name))?;
        check_preconditions(key, &old, options)?;
        let grace = grace_period(key, &old, options);
        let mut new = (*old).clone();
        let mut finalizers: Vec<String> = meta::finalizers(&old)
            .into_iter()
            .map(str::to_owned)
            .collect();
        if let Some(propagation) = options.propagation {
            finalizers.retain(|f| f != FOREGROUND && f != ORPHAN);
            match propagation {
                Propagation::Background => {}
                Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
                Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
            }
        }
        let namespace_waits = key.resource == "namespaces"
            && old
                .pointer("/spec/finalizers")
                .is_some_and(|f| f != &json!([]));
        let at_once = finalizers.is_empty() && grace == 0 && !namespace_waits;
        if at_once && key.resource != "pods" {
            if options.dry_run {
                return Ok(Deleted::Gone(old));
            }
            return Ok(Deleted::Gone(self.remove(key, &old)));
        }
        let generation = meta::generation(&new);
        mark(&mut new, &finalizers, grace);
        if matches!(
            key.resource.as_str(),
            "namespaces" | "customresourcedefinitions.apiextensions.k8s.io"
        ) {
            // These two kinds have deletions of their own, without grace and without a count.
            let metadata = meta::metadata(&mut new);
            metadata.shift_remove("deletionGracePeriodSeconds");
            if generation > 0 {
                metadata.insert("generation".to_owned(), json!(generation));
            }
        }
        if at_once {
            // A pod's last state tells that it was deleted.
            let last = Arc::new(new);
            return Ok(Deleted::Gone(if options.dry_run {
                last
            } else {
                self.remove(key, &last)
            }));
        }
        if key.resource == "namespaces" {
            meta::map_at(&mut new, "status").insert("phase".to_owned(), json!("Terminating"));
        }
        if options.dry_run {
            return Ok(Deleted::Pending(Arc::new(new)));
        }
        let stored = self.write(key, Some(&old), new);
        self.queue_deleting(key);
        Ok(Deleted::Pending(stored))
    }
}

/// Marks for deletion. The first mark counts a generation; a later one can only shorten the grace.
fn mark(object: &mut Value, finalizers: &[String], grace: i64) {
    let generation = meta::generation(object);
    let first = !meta::deleting(object);
    let metadata = meta::metadata(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let left = metadata
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    if !first && left.is_some_and(|left| left <= grace) {
        return;
    }
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
    metadata.insert("deletionTimestamp".to_owned(), json!(meta::stamp(at)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if first && generation > 0 {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

/// Only pods have one: 0 while no node runs the pod, else what is asked for, else the pod's own.
fn grace_period(key: &Key, object: &Value, options: &DeleteOptions) -> i64 {
    if key.resource != "pods" {
        return 0;
    }
    let unbound = meta::text(object, "/spec/nodeName").is_empty();
    let finished = matches!(meta::text(object, "/status/phase"), "Succeeded" | "Failed");
    if unbound || finished {
        return 0;
    }
    options
        .grace_period_seconds
        .or_else(|| {
            object
                .pointer("/spec/terminationGracePeriodSeconds")
                .and_then(Value::as_i64)
        })
        .unwrap_or(30)
        .max(0)
}

fn check_preconditions(key: &Key, object: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let kind = meta::text(object, "/kind");
    let refuse = |what: &str, wanted: &str, found: &str, hint: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {hint}"
        );
        Err(ApiError::conflict(kind, &key.name, &why))
    };
    if let Some(wanted) = &options.uid
        && wanted != meta::uid(object)
    {
        return refuse(
            "UID",
            wanted,
            meta::uid(object),
            "deleted and then recreated",
        );
    }
    let found = meta::text(object, "/metadata/resourceVersion");
    if let Some(wanted) = &options.resource_version
        && wanted != found
    {
        return refuse("ResourceVersion", wanted, found, "modified");
    }
    Ok(())
}
