//! Moves between the nodes of a site.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[
    Spec {
        kind: Kind::MigrateUnderLoad,
        id: "migrate.under-load",
        purpose: "a VM that writes is live-migrated: it stands still no longer than allowed, lives on as one, and keeps every acknowledged write",
        needs: &[Need::Replication, Need::LiveMigration],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Migrate,
            Step::Quiesce,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "kube-burner-ocp virt-migration, which looks at neither data nor blackout",
            "kubevirt#15373, kubevirt#16622: two live virt-launchers after a migration",
            "openshift-virtualization-tests: migration under I/O",
        ],
    },
    Spec {
        kind: Kind::MigrateDrain,
        id: "migrate.drain",
        purpose: "the nodes under VMs that write are drained one after the other: evictions make the VMs move, none is killed, and everything acknowledged is kept",
        needs: &[Need::Replication, Need::LiveMigration, Need::Drain],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Drain,
            Step::Quiesce,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "KubeVirt: eviction strategies and the evacuation controller",
            "ocs-ci node drain, which looks at pods alone",
            "openshift-virtualization-tests: node maintenance",
        ],
    },
    Spec {
        kind: Kind::MigrateAbort,
        id: "migrate.abort",
        purpose: "live migrations that are cancelled, lose their target or starve fail, say so, and leave one guest, unharmed, where it was; the next one succeeds",
        needs: &[
            Need::Replication,
            Need::LiveMigration,
            Need::MigrationPolicy,
        ],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Abort,
            Step::Quiesce,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "kube-burner and kubevirt-storage-checkup, which take a failed migration for a completed one",
            "kubevirt#15373, kubevirt#16622: two live virt-launchers after a migration",
            "krkn: pods killed during migration",
        ],
    },
    Spec {
        kind: Kind::MigrateDuringSync,
        id: "migrate.during-sync",
        purpose: "a VM goes from node to node while three syncs cross; replication keeps up, and the failover after that recovers a whole, ordered, recent prefix",
        needs: &[Need::Replication, Need::LiveMigration],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::MigrateAcross,
            Step::Fence,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "S2", "M1", "M2",
            "O1", "O2", "O3", "O4", "O6", "G1",
        ],
        zero_loss: false,
        sources: &[
            "Ceph CSI: an image changes its client while its mirror snapshots go on",
            "RamenDR: failover",
        ],
    },
    Spec {
        kind: Kind::MigrateMass,
        id: "migrate.mass",
        purpose: "all VMs are live-migrated at once while they write: every one moves, none is left out of the figures, and none loses anything acknowledged",
        needs: &[Need::Replication, Need::LiveMigration],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::MigrateAll,
            Step::Quiesce,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "M4", "O1", "O2", "O4",
            "G1",
        ],
        zero_loss: true,
        sources: &[
            "kube-burner-ocp virt-migration, which leaves migrations that never succeed out of its figures",
            "KubeVirt: five migrations per cluster, two out of a node",
        ],
    },
];
