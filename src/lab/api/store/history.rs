//! Reading the past: watches from a version and lists at a version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::change::WatchStart;
use super::state::State;
use super::{Change, ChangeKind};
use crate::lab::api::meta;

impl State {
    /// A watch from a version; `None` begins with everything that is there.
    pub(crate) fn watch_from(&mut self, resource: &str, from: Option<u64>) -> WatchStart {
        let now = self.version();
        let (sender, changes) = mpsc::unbounded_channel();
        let collection = self.collections.entry(resource.to_owned()).or_default();
        collection.watchers.push(sender);
        let Some(from) = from else {
            let present = collection.objects.values().map(|object| Change {
                kind: ChangeKind::Added,
                object: Arc::clone(object),
                previous: None,
                version: meta::version(object),
            });
            return WatchStart {
                first: present.collect(),
                changes,
                seen: now,
                too_old: None,
            };
        };
        if from < collection.compacted {
            return WatchStart {
                first: Vec::new(),
                changes,
                seen: from,
                too_old: Some(collection.compacted),
            };
        }
        let since = collection
            .history
            .iter()
            .filter(|change| change.version > from);
        WatchStart {
            first: since.cloned().collect(),
            changes,
            seen: now.max(from),
            too_old: None,
        }
    }

    /// What was there at a version; `None` when that is no longer known.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        version: u64,
    ) -> Option<Vec<Arc<Value>>> {
        let Some(collection) = self.collections.get(resource) else {
            return Some(Vec::new());
        };
        if version < collection.compacted {
            return None;
        }
        let mut objects: BTreeMap<(String, String), Arc<Value>> = collection.objects.clone();
        let later = collection.history.iter().rev();
        for change in later.take_while(|change| change.version > version) {
            let object = &change.object;
            let slot = (
                meta::namespace(object).to_owned(),
                meta::name(object).to_owned(),
            );
            match &change.previous {
                Some(previous) => objects.insert(slot, Arc::clone(previous)),
                None => objects.remove(&slot),
            };
        }
        let wanted = objects
            .into_iter()
            .filter(|((home, _), _)| namespace.is_none_or(|namespace| home == namespace));
        Some(wanted.map(|(_, object)| object).collect())
    }

    /// Forgets all history, as after a compaction and a restart: older versions are gone.
    pub(crate) fn compact(&mut self) {
        let now = self.version();
        for collection in self.collections.values_mut() {
            collection.history.clear();
            collection.compacted = now;
        }
    }
}
