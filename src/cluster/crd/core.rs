//! Built-in kinds, from k8s-openapi.

use crate::cluster::kind::{Kind, Typed};

pub use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
pub use k8s_openapi::api::storage::v1::StorageClass;

/// Namespaces, which are only created and deleted.
pub const NAMESPACE: Kind = Kind::cluster("", "v1", "Namespace", "namespaces");

macro_rules! builtin {
    ($($type:ty: $kind:expr;)*) => {
        $(impl Typed for $type { const KIND: Kind = $kind; })*
    };
}

builtin! {
    k8s_openapi::api::core::v1::Namespace: NAMESPACE;
    Pod: Kind::namespaced("", "v1", "Pod", "pods");
    Node: Kind::cluster("", "v1", "Node", "nodes");
    Secret: Kind::namespaced("", "v1", "Secret", "secrets");
    ConfigMap: Kind::namespaced("", "v1", "ConfigMap", "configmaps");
    Event: Kind::namespaced("", "v1", "Event", "events");
    PersistentVolumeClaim:
        Kind::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims");
    PersistentVolume: Kind::cluster("", "v1", "PersistentVolume", "persistentvolumes");
    StorageClass: Kind::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses");
}
