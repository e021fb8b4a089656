//! One site's objects: atomic writes, watches and the side effects that every write can have
//! (finalizers, owner garbage collection, namespace termination).
//!
//! A write and all its side effects happen under one lock, so that watchers see them in one order
//! and no background task is needed. Nothing here validates content; the HTTP side does that.

mod change;
mod collect;
mod create;
mod delete;
mod events;
mod history;
mod rules;
mod state;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

pub use change::{Change, ChangeKind};
pub use delete::{DeleteOptions, Deleted, Propagation};
pub(crate) use rules::keep_part;
pub(crate) use state::{Key, State};

use super::errors::ApiError;
use super::registry::Registry;

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but status (for kinds with a status subresource), as a write to the object does.
    Object,
    /// Only status, as a write to `/status` does.
    Status,
    /// Everything at once; no client can do that, but a simulated component may.
    Any,
}

/// One site's objects. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

impl Store {
    /// A fresh cluster with KubeVirt, CDI, csi-addons and snapshot kinds installed. `seed` fixes
    /// every uid and generated name.
    pub fn new(seed: u64) -> Self {
        Self::with_kinds(seed, Registry::full())
    }

    /// A fresh cluster with these kinds.
    pub fn with_kinds(seed: u64, registry: Registry) -> Self {
        let mut state = State::new(seed, registry);
        state.bootstrap();
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The state, locked. Never held across a callback.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object; `namespace` is empty for objects of the cluster.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().get(&Key::new(resource, namespace, name))
    }

    /// All objects of a resource by namespace and name, or those of one namespace.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        self.lock().list(resource, namespace)
    }

    /// Stores a new object. Fills metadata; resolves `generateName`; `apiVersion` and `kind` may be
    /// left out. A status in it is kept.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for a missing namespace or an unknown resource; `Forbidden` in a
    /// namespace that is terminating.
    pub fn create(&self, resource: &str, object: Value) -> Result<Arc<Value>, ApiError> {
        self.lock().create(resource, object, false)
    }

    /// Reads, changes and writes an object atomically: `change` is repeated when somebody else
    /// wrote in between. A change without effect writes nothing. Removing the last finalizer of an
    /// object that is being deleted removes the object.
    ///
    /// # Errors
    /// `NotFound`, and `Invalid` when identity was changed.
    pub fn modify(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        part: Part,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Arc<Value>, ApiError> {
        self.try_modify(resource, namespace, name, part, |object| {
            change(object);
            Ok(())
        })
    }

    /// [`Store::modify`] with a change that can refuse.
    ///
    /// # Errors
    /// As [`Store::modify`], and what `change` returns.
    pub fn try_modify(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        part: Part,
        mut change: impl FnMut(&mut Value) -> Result<(), ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let key = Key::new(resource, namespace, name);
        loop {
            let old = self
                .get(resource, namespace, name)
                .ok_or_else(|| ApiError::not_found(resource, name))?;
            let mut new = (*old).clone();
            change(&mut new)?;
            if let Some(stored) = self.lock().replace(&key, Some(&old), new, part, false)? {
                return Ok(stored);
            }
        }
    }

    /// Asks for an object's deletion, with the rules of finalizers, grace periods and propagation.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` when a precondition does not hold.
    pub fn delete(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        self.lock()
            .delete(&Key::new(resource, namespace, name), options)
    }

    /// Every change of a resource from now on, beginning with `Added` for what is there.
    pub fn watch(&self, resource: &str) -> mpsc::UnboundedReceiver<Change> {
        self.lock().watch(resource)
    }

    /// Emits an Event about an object; a repeated one counts up, as client-go's recorder does.
    ///
    /// # Errors
    /// When the namespace is gone or terminating.
    pub fn emit_event(
        &self,
        involved: &Value,
        kind: &str,
        reason: &str,
        message: &str,
        component: &str,
    ) -> Result<(), ApiError> {
        events::emit(&mut self.lock(), involved, kind, reason, message, component)
    }

    /// Forgets all history, as a compaction and a restart of the server do: watches and lists at
    /// older versions are answered 410 from now on.
    pub fn compact(&self) {
        self.lock().compact();
    }

    /// The latest resource version.
    pub fn version(&self) -> u64 {
        self.lock().version()
    }
}
