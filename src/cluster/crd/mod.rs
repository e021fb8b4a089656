//! Typed structs of the fields that virtproof uses, per API group. Fields that we do not know are
//! ignored when read; writes are patches or whole manifests, so nothing is lost by that.

pub mod cdi;
pub mod core;
pub mod csiaddons;
pub mod kubevirt;
pub mod meta;
pub mod replication;
pub mod snapshot;
pub mod vmsnapshot;

use super::kind::{Kind, Typed};

/// Declares a custom resource as a `kube` resource and a [`Typed`] kind.
macro_rules! resource {
    (
        $(#[$doc:meta])*
        $name:ident { $group:literal / $version:literal, $plural:literal, $scope:ident } {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Object metadata.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            $($(#[$field_doc])* #[serde(default)] pub $field: $type,)*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = resource!(@scope $scope);

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }

        impl $crate::cluster::kind::Typed for $name {
            const KIND: $crate::cluster::kind::Kind =
                $crate::cluster::kind::Kind::$scope($group, $version, stringify!($name), $plural);
        }
    };
    (@scope namespaced) => { kube::core::NamespaceResourceScope };
    (@scope cluster) => { kube::core::ClusterResourceScope };
}
use resource;

/// The kinds that need no discovery.
const KNOWN: &[Kind] = &[
    core::NAMESPACE,
    core::Pod::KIND,
    core::Node::KIND,
    core::Secret::KIND,
    core::ConfigMap::KIND,
    core::Event::KIND,
    core::PersistentVolumeClaim::KIND,
    core::PersistentVolume::KIND,
    core::StorageClass::KIND,
    kubevirt::VirtualMachine::KIND,
    kubevirt::VirtualMachineInstance::KIND,
    kubevirt::VirtualMachineInstanceMigration::KIND,
    kubevirt::MigrationPolicy::KIND,
    kubevirt::KubeVirt::KIND,
    cdi::DataVolume::KIND,
    snapshot::VolumeSnapshot::KIND,
    snapshot::VolumeSnapshotClass::KIND,
    vmsnapshot::VirtualMachineSnapshot::KIND,
    vmsnapshot::VirtualMachineRestore::KIND,
    replication::VolumeReplication::KIND,
    replication::VolumeReplicationClass::KIND,
    csiaddons::NetworkFence::KIND,
    csiaddons::NetworkFenceClass::KIND,
    csiaddons::CSIAddonsNode::KIND,
];

/// A kind from our own table.
pub(super) fn known(api_version: &str, kind: &str) -> Option<Kind> {
    KNOWN
        .iter()
        .find(|k| k.kind == kind && k.api_version() == api_version)
        .cloned()
}

/// The kinds that a run may create, in the order in which residue is listed.
pub(super) fn swept() -> impl Iterator<Item = Kind> {
    KNOWN
        .iter()
        .filter(|k| {
            !matches!(
                k.kind.as_ref(),
                "Node"
                    | "Event"
                    | "StorageClass"
                    | "KubeVirt"
                    | "VolumeSnapshotClass"
                    | "VolumeReplicationClass"
                    | "NetworkFenceClass"
                    | "CSIAddonsNode"
            )
        })
        .cloned()
}
