//! Disks that move to other storage.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[
    Spec {
        kind: Kind::StorageMigrate,
        id: "storage.migrate",
        purpose: "the data disks of a VM that writes move to claims of another StorageClass: no acknowledged write is lost on the way, what was left is as it was, and the new claims are protected",
        needs: &[Need::Replication, Need::LiveMigration],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::MoveStorage,
            Step::Baseline,
            Step::Quiesce,
            Step::ReadLeft,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "M5", "O1", "O2", "O4",
            "G1",
        ],
        zero_loss: true,
        sources: &[
            "KubeVirt: updateVolumesStrategy Migration, which promises nothing of the data",
            "openshift-virtualization-tests: storage class migration, which compares one file",
            "kubevirt-migration-operator: VirtualMachineStorageMigrationPlan",
        ],
    },
    Spec {
        kind: Kind::StorageThenFailover,
        id: "storage.then-failover",
        purpose: "a VM whose disks moved is as well protected as before: after a failover the new claims come back within the RPO",
        needs: &[Need::Replication, Need::LiveMigration, Need::PowerFault],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::MoveStorage,
            Step::Baseline,
            Step::PowerOff,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "M1", "M2", "O1",
            "O2", "O3", "O4", "G1",
        ],
        zero_loss: false,
        sources: &[
            "RamenDR: a VRG protects the claims that its selector finds",
            "KubeVirt: updateVolumesStrategy Migration",
        ],
    },
];
