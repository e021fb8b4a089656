//! Moves between the nodes of a site.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[Spec {
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
}];
