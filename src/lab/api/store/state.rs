//! The objects behind the lock, the one resource-version counter, and the history that watches
//! and lists at old versions are served from.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::collect::{Task, Tasks};
use super::rules::{check_identity, keep_part, spec_changed, unchanged};
use super::{Change, ChangeKind, Part};
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;
use crate::lab::api::registry::{Kind, Registry};
use crate::probe::layout::mix;

/// Changes that are kept per resource before the oldest are compacted.
const HISTORY: usize = 20_000;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Resource key: `plural.group` or `plural`.
    pub(crate) resource: String,
    /// Namespace, empty for objects of the cluster.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// A key from its parts.
    pub(crate) fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// All objects of one resource, their history and who watches.
#[derive(Debug, Default)]
pub(super) struct Collection {
    pub(super) objects: BTreeMap<(String, String), Arc<Value>>,
    pub(super) history: VecDeque<Change>,
    /// Versions up to here are no longer in the history.
    pub(super) compacted: u64,
    pub(super) watchers: Vec<mpsc::UnboundedSender<Change>>,
}

/// Everything that the store's lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    /// Resource keys whose kind is known but not established yet.
    pub(crate) setting_up: BTreeSet<String>,
    pub(super) collections: HashMap<String, Collection>,
    pub(super) uids: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    pub(super) tasks: Tasks,
    version: u64,
    seed: u64,
    drawn: u64,
}

impl State {
    pub(super) fn new(seed: u64, registry: Registry) -> Self {
        Self {
            registry,
            setting_up: BTreeSet::new(),
            collections: HashMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
            tasks: Tasks::new(),
            version: 1,
            seed,
            drawn: 0,
        }
    }

    /// The namespaces that a fresh cluster has.
    pub(super) fn bootstrap(&mut self) {
        for name in ["kube-system", "kube-public", "kube-node-lease", "default"] {
            let namespace = json!({"metadata": {"name": name}});
            if let Err(error) = self.create("namespaces", namespace, false) {
                tracing::error!(%error, name, "a fresh store refused a namespace");
            }
        }
    }

    /// The latest resource version.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        let collection = self.collections.get(&key.resource)?;
        collection
            .objects
            .get(&(key.namespace.clone(), key.name.clone()))
            .cloned()
    }

    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(collection) = self.collections.get(resource) else {
            return Vec::new();
        };
        let all = collection.objects.iter();
        match namespace {
            None => all.map(|(_, object)| Arc::clone(object)).collect(),
            Some(wanted) => all
                .filter(|((namespace, _), _)| namespace == wanted)
                .map(|(_, object)| Arc::clone(object))
                .collect(),
        }
    }

    pub(crate) fn watch(&mut self, resource: &str) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let collection = self.collections.entry(resource.to_owned()).or_default();
        for object in collection.objects.values() {
            let change = Change {
                kind: ChangeKind::Added,
                object: Arc::clone(object),
                previous: None,
                version: meta::version(object),
            };
            if sender.send(change).is_err() {
                break;
            }
        }
        collection.watchers.push(sender);
        receiver
    }

    /// A kind that is served.
    pub(crate) fn kind(&self, resource: &str) -> Result<Arc<Kind>, ApiError> {
        self.registry.get(resource).cloned().ok_or_else(|| {
            ApiError::new(
                404,
                "NotFound",
                "the server could not find the requested resource",
            )
        })
    }

    /// Replaces an object and settles what follows. `None`: `expected` is not the stored object any
    /// more; without `expected`, the write is unconditional.
    pub(crate) fn replace(
        &mut self,
        key: &Key,
        expected: Option<&Arc<Value>>,
        mut new: Value,
        part: Part,
        dry_run: bool,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        let kind = self.kind(&key.resource)?;
        let old = self
            .get(key)
            .ok_or_else(|| ApiError::not_found(&key.resource, &key.name))?;
        if expected.is_some_and(|expected| !Arc::ptr_eq(expected, &old)) {
            return Ok(None);
        }
        keep_part(&kind, &old, &mut new, part);
        check_identity(&kind, &old, &new)?;
        if unchanged(&old, &new) {
            return Ok(Some(old));
        }
        if kind.generation && spec_changed(&kind, &old, &new) {
            let generation = meta::generation(&old) + 1;
            meta::metadata(&mut new).insert("generation".to_owned(), json!(generation));
        }
        if dry_run {
            return Ok(Some(Arc::new(new)));
        }
        let stored = self.write_or_remove(key, &old, new);
        self.settle();
        Ok(Some(stored))
    }

    /// Writes, or removes when the last finalizer of a deleted object went.
    pub(super) fn write_or_remove(
        &mut self,
        key: &Key,
        old: &Arc<Value>,
        new: Value,
    ) -> Arc<Value> {
        let grace = new
            .pointer("/metadata/deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let held = key.resource == "namespaces"
            && new
                .pointer("/spec/finalizers")
                .is_some_and(|f| f != &json!([]));
        if meta::deleting(&new) && meta::finalizers(&new).is_empty() && grace == 0 && !held {
            return self.remove(key, &Arc::new(new));
        }
        self.write(key, Some(old), new)
    }

    /// Stores an object at the next version and tells watchers.
    pub(super) fn write(
        &mut self,
        key: &Key,
        old: Option<&Arc<Value>>,
        mut new: Value,
    ) -> Arc<Value> {
        if let Some(old) = old
            && unchanged(old, &new)
        {
            return Arc::clone(old);
        }
        self.version += 1;
        let version = self.version;
        meta::metadata(&mut new).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let new = Arc::new(new);
        self.uids.insert(meta::uid(&new).to_owned(), key.clone());
        self.index_owners(key, old.map(|old| &**old), Some(&new));
        let change = Change {
            kind: if old.is_some() {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            },
            object: Arc::clone(&new),
            previous: old.cloned(),
            version,
        };
        self.publish(key, change);
        new
    }

    /// Removes an object. Watchers see what was stored, at the deletion's version; the caller gets
    /// `last`, the state that the deleting write left.
    pub(super) fn remove(&mut self, key: &Key, last: &Arc<Value>) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        let previous = self.get(key);
        let mut gone = (**previous.as_ref().unwrap_or(last)).clone();
        meta::metadata(&mut gone).insert("resourceVersion".to_owned(), json!(version.to_string()));
        if key.resource == "pods" {
            // The mark of deletion is stored before a pod goes.
            for field in [
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "generation",
            ] {
                if let Some(value) = last.get("metadata").and_then(|m| m.get(field)) {
                    meta::metadata(&mut gone).insert(field.to_owned(), value.clone());
                }
            }
        }
        let gone = Arc::new(gone);
        self.index_owners(key, previous.as_deref(), None);
        let change = Change {
            kind: ChangeKind::Deleted,
            object: Arc::clone(&gone),
            previous,
            version,
        };
        let uid = meta::uid(&gone).to_owned();
        self.uids.remove(&uid);
        self.publish(key, change);
        for owner in meta::owners(&gone) {
            if let Some(key) = self.uids.get(meta::text(owner, "/uid")) {
                self.tasks.push_back(Task::Deleting(key.clone()));
            }
        }
        self.tasks.push_back(Task::Removed(uid));
        if !key.namespace.is_empty() {
            self.tasks.push_back(Task::Emptier(key.namespace.clone()));
        }
        Arc::clone(last)
    }

    fn publish(&mut self, key: &Key, change: Change) {
        let collection = self.collections.entry(key.resource.clone()).or_default();
        let slot = (key.namespace.clone(), key.name.clone());
        if change.kind == ChangeKind::Deleted {
            collection.objects.remove(&slot);
        } else {
            collection.objects.insert(slot, Arc::clone(&change.object));
        }
        collection
            .watchers
            .retain(|watcher| watcher.send(change.clone()).is_ok());
        collection.history.push_back(change);
        if collection.history.len() > HISTORY
            && let Some(oldest) = collection.history.pop_front()
        {
            collection.compacted = oldest.version;
        }
    }

    fn index_owners(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        for owner in old.map_or(&[][..], meta::owners) {
            let uid = meta::text(owner, "/uid");
            if let Some(keys) = self.dependents.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        for owner in new.map_or(&[][..], meta::owners) {
            let uid = meta::text(owner, "/uid").to_owned();
            self.dependents.entry(uid).or_default().insert(key.clone());
        }
    }

    /// The objects that name this uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Key> {
        self.dependents
            .get(uid)
            .map(|keys| keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Everything in a namespace.
    pub(super) fn keys_in(&self, namespace: &str) -> Vec<Key> {
        let mut keys: Vec<Key> = self
            .collections
            .iter()
            .flat_map(|(resource, collection)| {
                collection
                    .objects
                    .keys()
                    .filter(|(home, _)| home == namespace && !home.is_empty())
                    .map(|(home, name)| Key::new(resource, home, name))
            })
            .collect();
        keys.sort();
        keys
    }

    /// Notes that an object was marked for deletion.
    pub(super) fn queue_deleting(&mut self, key: &Key) {
        self.tasks.push_back(Task::Deleting(key.clone()));
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed ^ mix(self.drawn))
    }

    pub(super) fn new_uid(&mut self) -> String {
        let (high, low) = (self.draw(), self.draw());
        let random = (u128::from(high) << 64) | u128::from(low);
        uuid::Builder::from_random_bytes(random.to_be_bytes())
            .into_uuid()
            .to_string()
    }
}
