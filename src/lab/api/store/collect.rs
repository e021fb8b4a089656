//! What follows from a write: owner garbage collection and namespace termination.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted, FOREGROUND, ORPHAN, Propagation};
use super::state::{Key, State};
use crate::lab::api::fields::{Writer, track};
use crate::lab::api::meta;

/// Something to look at after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// An object was marked for deletion.
    Deleting(Key),
    /// An object with this uid is gone.
    Removed(String),
    /// An object has owners that may never have been there.
    Owned(Key),
    /// Something left a namespace.
    Emptier(String),
}

/// Names and how often each was met, in the order of the first.
type Counts = Vec<(String, usize)>;

/// Tasks in the order of their writes.
pub(super) type Tasks = VecDeque<Task>;

impl State {
    /// Handles everything that follows from the writes so far.
    pub(super) fn settle(&mut self) {
        while let Some(task) = self.tasks.pop_front() {
            match task {
                Task::Deleting(key) => self.advance_deletion(&key),
                Task::Removed(uid) => {
                    for dependent in self.dependents(&uid) {
                        self.collect(&dependent);
                    }
                }
                Task::Owned(key) => self.collect(&key),
                Task::Emptier(namespace) => self.advance_namespace(&namespace),
            }
        }
    }

    /// Drives the garbage collector's own finalizers and a namespace's content.
    fn advance_deletion(&mut self, key: &Key) {
        let Some(object) = self.get(key) else { return };
        if key.resource == "namespaces" {
            self.empty_namespace(&key.name);
            self.advance_namespace(&key.name);
        }
        let finalizers = meta::finalizers(&object);
        let uid = meta::uid(&object).to_owned();
        if finalizers.contains(&ORPHAN) {
            for dependent in self.dependents(&uid) {
                self.disown(&dependent, &uid);
            }
            self.drop_finalizer(key, ORPHAN);
        } else if finalizers.contains(&FOREGROUND) {
            let mut blocked = false;
            for dependent in self.dependents(&uid) {
                blocked |= self.blocks(&dependent, &uid);
                self.delete_dependent(&dependent, Propagation::Foreground);
            }
            if !blocked || !self.any_blocking(&uid) {
                self.drop_finalizer(key, FOREGROUND);
            }
        }
    }

    /// Whether any dependent still blocks its owner's foreground deletion.
    fn any_blocking(&self, uid: &str) -> bool {
        self.dependents(uid).iter().any(|key| self.blocks(key, uid))
    }

    fn blocks(&self, dependent: &Key, uid: &str) -> bool {
        self.get(dependent).is_some_and(|object| {
            meta::owners(&object)
                .iter()
                .any(|o| o["uid"] == uid && o["blockOwnerDeletion"] == json!(true))
        })
    }

    /// Deletes an object when none of its owners is there any more. Owners of kinds that are not
    /// served cannot be looked up, and then nothing is deleted, as in the real collector.
    fn collect(&mut self, key: &Key) {
        let Some(object) = self.get(key) else { return };
        let owners = meta::owners(&object);
        if owners.is_empty() {
            return;
        }
        let mut solid = Vec::new();
        for owner in owners {
            let api_version = meta::text(owner, "/apiVersion");
            let kind = meta::text(owner, "/kind");
            if self.registry.by_kind(api_version, kind).is_none() {
                return;
            }
            if self.uids.contains_key(meta::text(owner, "/uid")) {
                solid.push(owner.clone());
            }
        }
        if solid.is_empty() {
            self.delete_dependent(key, Propagation::Background);
        } else if solid.len() < owners.len() {
            let mut new = (*object).clone();
            meta::metadata(&mut new).insert("ownerReferences".to_owned(), json!(solid));
            self.write(key, Some(&object), new);
        }
    }

    /// The collector's own delete. It keeps finalizers that are there already.
    fn delete_dependent(&mut self, key: &Key, propagation: Propagation) {
        let Some(object) = self.get(key) else { return };
        if meta::deleting(&object) {
            return;
        }
        let has_dependents = !self.dependents(meta::uid(&object)).is_empty();
        let foreground = propagation == Propagation::Foreground && has_dependents;
        let options = DeleteOptions {
            propagation: foreground.then_some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        // The object is there and no precondition is set, so that this cannot be refused.
        if let Ok(Deleted::Pending(_) | Deleted::Gone(_)) = self.request_delete(key, &options) {
            tracing::trace!(resource = %key.resource, name = %key.name, "collected");
        }
    }

    /// Takes one owner away from an object.
    fn disown(&mut self, key: &Key, uid: &str) {
        let Some(object) = self.get(key) else { return };
        let rest: Vec<Value> = meta::owners(&object)
            .iter()
            .filter(|owner| owner["uid"] != uid)
            .cloned()
            .collect();
        let mut new = (*object).clone();
        let metadata = meta::metadata(&mut new);
        if rest.is_empty() {
            metadata.shift_remove("ownerReferences");
        } else {
            metadata.insert("ownerReferences".to_owned(), json!(rest));
        }
        self.write(key, Some(&object), new);
    }

    /// Takes a finalizer away, and the object with the last one.
    fn drop_finalizer(&mut self, key: &Key, finalizer: &str) {
        let Some(object) = self.get(key) else { return };
        let mut new = (*object).clone();
        meta::remove_finalizer(&mut new, finalizer);
        self.write_or_remove(key, &object, new);
    }

    /// Asks for the deletion of everything in a namespace.
    fn empty_namespace(&mut self, namespace: &str) {
        for key in self.keys_in(namespace) {
            let deleting = self.get(&key).is_some_and(|object| meta::deleting(&object));
            if !deleting {
                self.delete_dependent(&key, Propagation::Background);
            }
        }
    }

    /// Writes a terminating namespace's conditions, and removes it once it is empty.
    fn advance_namespace(&mut self, namespace: &str) {
        let key = Key::new("namespaces", "", namespace);
        let Some(object) = self.get(&key) else { return };
        if !meta::deleting(&object) {
            return;
        }
        let left = self.keys_in(namespace);
        let reported = object.pointer("/status/conditions").is_some();
        if !left.is_empty() || reported {
            let mut new = (*object).clone();
            let conditions = self.namespace_conditions(&object, &left);
            meta::map_at(&mut new, "status").insert("conditions".to_owned(), conditions);
            if let Ok(kind) = self.kind("namespaces") {
                track(
                    &kind,
                    Some(&object),
                    &mut new,
                    &controller_manager("status"),
                );
            }
            self.write(&key, Some(&object), new);
        }
        if left.is_empty() {
            let Some(object) = self.get(&key) else { return };
            let mut new = (*object).clone();
            meta::map_at(&mut new, "spec").shift_remove("finalizers");
            self.write_or_remove(&key, &object, new);
        }
    }

    /// How many objects of each resource are left, and how many each finalizer holds.
    fn count_left(&self, left: &[Key]) -> (Counts, Counts) {
        let mut holders: Counts = Vec::new();
        let mut kinds: Counts = Vec::new();
        for key in left {
            let resource = if key.resource.contains('.') {
                key.resource.clone()
            } else {
                format!("{}.", key.resource)
            };
            count(&mut kinds, &resource);
            if let Some(object) = self.get(key) {
                for finalizer in meta::finalizers(&object) {
                    count(&mut holders, finalizer);
                }
            }
        }
        (kinds, holders)
    }

    /// The five conditions by which the namespace controller reports what is left.
    fn namespace_conditions(&self, namespace: &Value, left: &[Key]) -> Value {
        let (kinds, holders) = self.count_left(left);
        let remaining: Vec<String> = kinds
            .iter()
            .map(|(kind, n)| format!("{kind} has {n} resource instances"))
            .collect();
        let held: Vec<String> = holders
            .iter()
            .map(|(finalizer, n)| format!("{finalizer} in {n} resource instances"))
            .collect();
        let finalizing = if held.is_empty() {
            (
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            )
        } else {
            (
                "True",
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    held.join(", ")
                ),
            )
        };
        let remaining = if left.is_empty() {
            (
                "False",
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            )
        } else {
            let list = remaining.join(", ");
            (
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {list}"),
            )
        };
        let rows = [
            (
                "NamespaceDeletionDiscoveryFailure",
                "False",
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "False",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
            (
                "NamespaceContentRemaining",
                remaining.0,
                remaining.1,
                remaining.2,
            ),
            (
                "NamespaceFinalizersRemaining",
                finalizing.0,
                finalizing.1,
                finalizing.2,
            ),
        ];
        rows.into_iter()
            .map(|(kind, status, reason, message)| {
                condition(namespace, kind, status, reason, &message)
            })
            .collect()
    }
}

/// The controller manager, as it appears in `managedFields`.
pub(super) fn controller_manager(subresource: &str) -> Writer {
    Writer {
        manager: "kube-controller-manager".to_owned(),
        api_version: "v1".to_owned(),
        subresource: subresource.to_owned(),
    }
}

/// A condition that keeps its transition time while its status stays.
fn condition(namespace: &Value, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let since = namespace
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .and_then(|list| {
            list.iter()
                .find(|c| c["type"] == kind && c["status"] == status)
        })
        .map_or_else(|| json!(meta::now()), |c| c["lastTransitionTime"].clone());
    json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    })
}

fn count(counts: &mut Vec<(String, usize)>, what: &str) {
    match counts.iter_mut().find(|(name, _)| name == what) {
        Some((_, n)) => *n += 1,
        None => counts.push((what.to_owned(), 1)),
    }
}
