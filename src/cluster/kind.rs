//! Names of things on an API server: kinds with their paths, and references to objects.

use std::borrow::Cow;
use std::fmt;

use kube::core::ApiResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A resource kind and how its path is built.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kind {
    /// API group, empty for core.
    pub group: Cow<'static, str>,
    /// Version.
    pub version: Cow<'static, str>,
    /// Kind.
    pub kind: Cow<'static, str>,
    /// Plural resource name.
    pub plural: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// A namespaced kind known at compile time.
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced: true,
        }
    }

    /// A cluster-scoped kind known at compile time.
    pub const fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        let mut it = Self::namespaced(group, version, kind, plural);
        it.namespaced = false;
        it
    }

    /// As `kube` names it.
    pub(super) fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_string(),
            version: self.version.to_string(),
            api_version: self.api_version(),
            kind: self.kind.to_string(),
            plural: self.plural.to_string(),
        }
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `/api/v1` or `/apis/group/version`.
    pub fn base_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The collection's path, of one namespace or of all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(ns) => format!("{}/namespaces/{ns}/{}", self.base_path(), self.plural),
            None => format!("{}/{}", self.base_path(), self.plural),
        }
    }

    /// `apiVersion/Kind`, as residue and errors name it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.api_version(), self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)
    }
}

/// A typed object whose kind is known at compile time.
pub trait Typed:
    kube::Resource<DynamicType = ()>
    + serde::de::DeserializeOwned
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Its kind.
    const KIND: Kind;
}

/// One object on one site.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjRef {
    /// A reference; the namespace is dropped for cluster-scoped kinds.
    pub fn new(kind: Kind, namespace: &str, name: impl Into<String>) -> Self {
        let namespace = (kind.namespaced && !namespace.is_empty()).then(|| namespace.to_owned());
        Self {
            kind,
            namespace,
            name: name.into(),
        }
    }

    /// A reference to an object of a typed kind.
    pub fn of<T: Typed>(namespace: &str, name: impl Into<String>) -> Self {
        Self::new(T::KIND, namespace, name)
    }

    /// The object's path.
    pub fn path(&self) -> String {
        format!(
            "{}/{}",
            self.kind.path(self.namespace.as_deref()),
            self.name
        )
    }

    /// `namespace/name` or `name`.
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(ns) => format!("{ns}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Why this reference cannot be put in a path, if so: names come from plans and API answers and
    /// must not escape into other paths.
    pub(crate) fn flaw(&self) -> Option<String> {
        if self.kind.namespaced && self.namespace.is_none() {
            return Some(format!("{self} needs a namespace"));
        }
        let namespace = self.namespace.as_deref().unwrap_or("none");
        for text in [namespace, &self.name] {
            if !is_path_segment(text) {
                return Some(format!("{text:?} is not a valid object name"));
            }
        }
        None
    }
}

/// RFC 1123 subdomain characters and `:`, which RBAC names may contain; never `.` or `..` alone.
fn is_path_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':'))
        && text.bytes().any(|b| b.is_ascii_alphanumeric())
}

impl fmt::Display for ObjRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.place())
    }
}

/// `metadata.uid` of an object.
pub(crate) fn uid(object: &Value) -> Option<&str> {
    object.pointer("/metadata/uid")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Kind = Kind::namespaced("", "v1", "Pod", "pods");

    #[test]
    fn paths_follow_the_api_conventions() {
        assert_eq!(
            ObjRef::new(POD, "a", "b").path(),
            "/api/v1/namespaces/a/pods/b"
        );
        let fence = Kind::cluster("g.io", "v1alpha1", "NetworkFence", "networkfences");
        let it = ObjRef::new(fence, "ignored", "n");
        assert_eq!(it.path(), "/apis/g.io/v1alpha1/networkfences/n");
        assert_eq!(it.place(), "n");
    }

    #[test]
    fn names_cannot_leave_their_path() {
        for bad in ["..", "a/b", "a?x=1", "", "a%2f", ".", "a b"] {
            assert!(
                ObjRef::new(POD, "ns", bad).flaw().is_some(),
                "{bad:?} was taken"
            );
        }
        assert_eq!(ObjRef::new(POD, "ns", "vm-0.data").flaw(), None);
        assert!(ObjRef::new(POD, "", "x").flaw().is_some());
    }
}
