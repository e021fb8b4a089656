//! The kinds of a bare Kubernetes that the lab serves.

use super::{Kind, Origin};

/// Flags of a row: namespaced, has `/status`, counts generations.
const N: u8 = 1;
const S: u8 = 2;
const G: u8 = 4;

/// group, version, kind, plural, short names, categories, flags.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    u8,
);

const ROWS: &[Row] = &[
    ("", "v1", "Namespace", "namespaces", &["ns"], &[], S),
    ("", "v1", "Node", "nodes", &["no"], &[], S),
    ("", "v1", "Pod", "pods", &["po"], &["all"], N | S | G),
    (
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        &["pv"],
        &[],
        S,
    ),
    (
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        &[],
        N | S,
    ),
    ("", "v1", "Secret", "secrets", &[], &[], N),
    ("", "v1", "ConfigMap", "configmaps", &["cm"], &[], N),
    ("", "v1", "Service", "services", &["svc"], &["all"], N | S),
    (
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        &["sa"],
        &[],
        N,
    ),
    ("", "v1", "Event", "events", &["ev"], &[], N),
    (
        "apps",
        "v1",
        "Deployment",
        "deployments",
        &["deploy"],
        &["all"],
        N | S | G,
    ),
    (
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        &[],
        &[],
        N,
    ),
    ("coordination.k8s.io", "v1", "Lease", "leases", &[], &[], N),
    (
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        &["sc"],
        &[],
        0,
    ),
    (
        "storage.k8s.io",
        "v1",
        "CSIDriver",
        "csidrivers",
        &[],
        &[],
        0,
    ),
    (
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        &[],
        &[],
        S,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        &[],
        &[],
        N,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        &[],
        &[],
        N,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        &[],
        &[],
        0,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        &[],
        &[],
        0,
    ),
    (
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
        &[],
        &["api-extensions"],
        S,
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        &["api-extensions"],
        S | G,
    ),
];

/// All built-in kinds.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    ROWS.iter().map(
        |&(group, version, kind, plural, short, categories, flags)| Kind {
            group: group.to_owned(),
            versions: vec![version.to_owned()],
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_ascii_lowercase(),
            short: short.iter().map(ToString::to_string).collect(),
            categories: categories.iter().map(ToString::to_string).collect(),
            namespaced: flags & N != 0,
            status: flags & S != 0,
            generation: flags & G != 0,
            origin: Origin::Builtin,
        },
    )
}
