//! Disks that come and go under a running guest.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[Spec {
    kind: Kind::HotplugPersist,
    id: "hotplug.persist",
    purpose: "a disk that is plugged into a running guest keeps what is written on it through a restart and a live migration, and neither its coming nor its going disturbs the others",
    needs: &[Need::Replication, Need::LiveMigration],
    // M2 wants the boot that was migrated to the end, so the restart comes first.
    steps: &[
        Step::Provision,
        Step::Seed,
        Step::Baseline,
        Step::Load,
        Step::Plug,
        Step::Quiesce,
        Step::Restart,
        Step::ReadBack,
        Step::Serve,
        Step::Migrate,
        Step::Unplug,
        Step::Quiesce,
        Step::ReadBack,
        Step::Heal,
    ],
    checks: &[
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "M1", "M2", "M3", "H1", "H2", "O1", "O2", "O4",
        "G1",
    ],
    zero_loss: true,
    sources: &[
        "KubeVirt: addvolume and removevolume on VMs, DeclarativeHotplugVolumes",
        "kubevirt-storage-checkup: hotplug, which looks at phases and not at data",
        "ocs-ci: hotplugged disks of VMs",
    ],
}];
