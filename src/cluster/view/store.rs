//! What a watch has told so far. A relist replaces everything at once, so that nobody sees half a
//! list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope};
use kube::runtime::watcher::{self, Event};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Scope;
use crate::cluster::error::chain;
use crate::cluster::kind::Typed;

/// An object that is kept even if its typed form cannot be read: one odd object must not blind us to
/// the others.
#[derive(Debug, Clone)]
pub(super) struct Lenient<T> {
    metadata: ObjectMeta,
    typed: Result<Arc<T>, String>,
}

impl<T> Lenient<T> {
    pub(super) const fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn key(&self) -> Key {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        (text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// `resourceVersion` as a number; a server whose versions are not numbers gives `None`.
    fn version(&self) -> Option<u64> {
        self.metadata.resource_version.as_deref()?.parse().ok()
    }
}

impl<'de, T: Typed> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        let metadata = ObjectMeta::deserialize(metadata).map_err(serde::de::Error::custom)?;
        let typed = T::deserialize(value)
            .map(Arc::new)
            .map_err(|e| e.to_string());
        Ok(Self { metadata, typed })
    }
}

impl<T: Typed> kube::Resource for Lenient<T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }
    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }
    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }
    fn api_version(dt: &ApiResource) -> Cow<'_, str> {
        dt.api_version.as_str().into()
    }
    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Namespace (empty for cluster scope) and name.
type Key = (String, String);

struct Entry<T> {
    object: Lenient<T>,
    /// When we wrote it ourselves, until the watch confirms it.
    offered: Option<Instant>,
}

/// Everything seen, and how the watch fares.
pub(super) struct Store<T> {
    objects: BTreeMap<Key, Entry<T>>,
    /// A relist in progress and when it began.
    incoming: Option<(BTreeMap<Key, Entry<T>>, Instant)>,
    complete: bool,
    error: Option<String>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            incoming: None,
            complete: false,
            error: None,
        }
    }
}

impl<T: Typed> Store<T> {
    /// Takes in a watch event; tells whether waiters should look again. A list that shows what was
    /// known already is no news.
    pub(super) fn apply(&mut self, event: Result<Event<Lenient<T>>, watcher::Error>) -> bool {
        match event {
            Err(e) => {
                self.error = Some(chain(&e));
                return false;
            }
            Ok(Event::Init) => {
                self.incoming = Some((BTreeMap::new(), Instant::now()));
                return false;
            }
            Ok(Event::InitApply(object)) => {
                if let Some((incoming, _)) = &mut self.incoming {
                    incoming.insert(
                        object.key(),
                        Entry {
                            object,
                            offered: None,
                        },
                    );
                }
                return false;
            }
            Ok(Event::InitDone) => {
                self.error = None;
                return self.relisted();
            }
            Ok(Event::Apply(object)) => self.upsert(object, None),
            Ok(Event::Delete(object)) => self.remove(&object),
        }
        self.error = None;
        true
    }

    /// Takes in an object that we wrote; tells whether it is news.
    pub(super) fn offer(&mut self, object: Lenient<T>) -> bool {
        let news = self
            .objects
            .get(&object.key())
            .is_none_or(|held| is_newer(&object, &held.object));
        if news {
            self.upsert(object, Some(Instant::now()));
        }
        news && self.complete
    }

    /// Puts a whole list in place of what was known; tells whether that changed anything.
    fn relisted(&mut self) -> bool {
        let Some((mut incoming, began)) = self.incoming.take() else {
            return false;
        };
        let before = (self.complete, versions(&self.objects));
        for (key, held) in std::mem::take(&mut self.objects) {
            // The list may have been taken before our write; the watch will tell soon.
            let unconfirmed = held.offered.is_some_and(|at| at >= began);
            let newer = incoming
                .get(&key)
                .is_none_or(|listed| is_newer(&held.object, &listed.object));
            if unconfirmed && newer {
                incoming.insert(key, held);
            }
        }
        self.objects = incoming;
        self.complete = true;
        before != (true, versions(&self.objects))
    }

    fn upsert(&mut self, object: Lenient<T>, offered: Option<Instant>) {
        let key = object.key();
        if let Some(held) = self.objects.get_mut(&key)
            && is_newer(&held.object, &object)
        {
            // A late event about a state that our own write has overtaken.
            return;
        }
        self.objects.insert(key, Entry { object, offered });
    }

    fn remove(&mut self, object: &Lenient<T>) {
        let key = object.key();
        // Unless another object of that name was made since.
        let same = self.objects.get(&key).is_some_and(|held| {
            held.object.metadata.uid == object.metadata.uid || is_newer(object, &held.object)
        });
        if same {
            self.objects.remove(&key);
        }
    }

    /// The objects, once the first list is complete.
    pub(super) fn objects(&self) -> Option<Objects<'_, T>> {
        self.complete.then_some(Objects {
            objects: &self.objects,
        })
    }

    /// What goes wrong at the moment, if anything: nothing can be seen, or not everything.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.error.is_some() {
            return self.error.clone();
        }
        if !self.complete {
            return Some("no list was answered".into());
        }
        self.objects.iter().find_map(|((ns, name), entry)| {
            let why = entry.object.typed.as_ref().err()?;
            Some(format!("{} {ns}/{name} cannot be read: {why}", T::KIND))
        })
    }
}

/// Which object is there in which version.
fn versions<T>(objects: &BTreeMap<Key, Entry<T>>) -> Vec<(Key, [Option<String>; 2])> {
    let stamp = |meta: &ObjectMeta| [meta.uid.clone(), meta.resource_version.clone()];
    let all = objects.iter();
    all.map(|(key, entry)| (key.clone(), stamp(entry.object.metadata())))
        .collect()
}

fn is_newer<T>(a: &Lenient<T>, b: &Lenient<T>) -> bool {
    match (a.version(), b.version()) {
        (Some(a), Some(b)) => a > b,
        _ => false,
    }
}

/// Whether a view of this scope would list the object.
pub(super) fn in_scope(scope: &Scope, meta: &ObjectMeta) -> bool {
    match scope {
        Scope::All => true,
        Scope::Namespace(ns) => meta.namespace.as_ref().is_none_or(|n| n == ns),
        // Selectors are the server's business; only the plain form that we use is understood.
        Scope::Labelled(selector) => selector.split_once('=').is_some_and(|(name, value)| {
            let labels = meta.labels.as_ref();
            labels.and_then(|l| l.get(name)).is_some_and(|v| v == value)
        }),
    }
}

/// The objects of a view at one moment.
pub struct Objects<'a, T> {
    objects: &'a BTreeMap<Key, Entry<T>>,
}

impl<T> std::fmt::Debug for Objects<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.objects.keys()).finish()
    }
}

impl<T> Objects<'_, T> {
    /// One object; the namespace is empty for cluster-scoped kinds. Objects that cannot be read as
    /// `T` count as absent here and are named in timeouts.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.get(&key)?.object.typed.as_deref().ok()
    }

    /// All objects that can be read, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.objects
            .values()
            .filter_map(|entry| entry.object.typed.as_deref().ok())
    }

    /// How many objects there are, readable or not.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
