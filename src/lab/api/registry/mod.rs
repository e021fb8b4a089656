//! The kinds that a site serves: names, scope and rules that differ between kinds.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::Version;

use super::schema::Schema;

/// One kind of object.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// Served versions, the stored one first.
    pub versions: Vec<String>,
    /// Those of them that clients are warned of.
    pub deprecated: Vec<String>,
    /// CamelCase name.
    pub kind: String,
    /// Lower-case plural, as in paths.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Short names for `kubectl`.
    pub short: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether status is written through `/status` only.
    pub status: bool,
    /// Whether spec changes count `metadata.generation`.
    pub generation: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// CamelCase name of its lists.
    pub list_kind: String,
    /// What its objects look like, without `apiVersion`, `kind` and `metadata`.
    pub schema: Arc<Schema>,
    /// Columns of its table, after the name.
    pub columns: Vec<Column>,
}

/// A printer column of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: String,
    /// JSON path of the value.
    pub path: String,
    /// Shown by default when 0, else only wide.
    pub priority: i64,
}

/// Where a kind comes from; the rules differ in places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Compiled into the API server.
    Builtin,
    /// From a CustomResourceDefinition.
    Custom,
}

impl Kind {
    /// The resource key: `plural.group`, or `plural` in the core group.
    pub fn key(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// How validation errors name it: `Kind.group`, or `Kind` in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Whether it comes from a CustomResourceDefinition.
    pub fn custom(&self) -> bool {
        self.origin == Origin::Custom
    }

    /// What a client is warned of who asks for a version, as the API server says it where the
    /// definition has no words of its own.
    pub fn warning(&self, version: &str) -> Option<String> {
        if !self.deprecated.iter().any(|old| old == version) {
            return None;
        }
        let (group, kind) = (&self.group, &self.kind);
        let old = format!("{group}/{version} {kind} is deprecated");
        let better = self
            .versions
            .iter()
            .filter(|version| !self.deprecated.contains(version));
        let better = better.max_by_key(|version| Version::parse(version).priority());
        Some(better.map_or_else(
            || old.clone(),
            |better| format!("{old}; use {group}/{better} {kind}"),
        ))
    }

    /// `apiVersion` of stored objects.
    pub fn api_version(&self) -> String {
        api_version(
            &self.group,
            self.versions.first().map_or("v1", String::as_str),
        )
    }
}

/// `group/version`, or only the version in the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// All kinds of a site by resource key.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<String, Arc<Kind>>,
}

impl Registry {
    /// The kinds that every Kubernetes has.
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for kind in text::kinds().iter().filter(|kind| !kind.custom()) {
            registry.add(kind.clone());
        }
        registry
    }

    /// The built-in kinds and the domain's: KubeVirt, CDI, csi-addons, snapshots.
    pub fn full() -> Self {
        let mut registry = Self::default();
        for kind in text::kinds() {
            registry.add(kind.clone());
        }
        registry
    }

    /// Adds a kind, or replaces it.
    pub fn add(&mut self, kind: Kind) {
        self.kinds.insert(kind.key(), Arc::new(kind));
    }

    /// Removes a kind.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Kind>> {
        self.kinds.remove(key)
    }

    /// A kind by resource key.
    pub fn get(&self, key: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(key)
    }

    /// All kinds by resource key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// The kind that an `apiVersion` and `kind` name, in any served version.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.kinds
            .values()
            .find(|k| k.group == group && k.kind == kind)
    }
}
