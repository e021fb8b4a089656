//! Disks that come, go and grow under a running guest.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[PERSIST, PROTECTED, RESIZE];

const PERSIST: Spec = Spec {
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
};

const PROTECTED: Spec = Spec {
    kind: Kind::HotplugProtected,
    id: "hotplug.protected",
    purpose: "a disk that is plugged into a protected VM joins its protection: after a failover it is there, under its serial, with its data",
    needs: &[Need::Replication, Need::PowerFault],
    steps: &[
        Step::Provision,
        Step::Seed,
        Step::Baseline,
        Step::Load,
        Step::Plug,
        Step::Join,
        Step::PowerOff,
        Step::HandOver,
        Step::Promote,
        Step::Recover,
        Step::ReadBack,
        Step::Heal,
    ],
    checks: &[
        "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "H1", "H2", "O1", "O2",
        "O3", "O4", "O6", "G1",
    ],
    zero_loss: false,
    sources: &[
        "KubeVirt: addvolume on VMs keeps the disk in the template",
        "RamenDR: PVCs are chosen by label, and a claim that comes later has none unless somebody sets it",
        "csi-addons: one VolumeReplication per PVC",
    ],
};

const RESIZE: Spec = Spec {
    kind: Kind::ResizeOnline,
    id: "resize.online",
    purpose: "a volume that grows under load is larger in the guest without a reboot and on the replica after a move, and what is written on the new part arrives",
    needs: &[Need::Replication],
    steps: &[
        Step::Provision,
        Step::Seed,
        Step::Baseline,
        Step::Load,
        Step::Grow,
        Step::StopSource,
        Step::Demote,
        Step::HandOver,
        Step::Promote,
        Step::Recover,
        Step::ReadBack,
        Step::Heal,
    ],
    checks: &[
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "H3", "O1", "O2",
        "O3", "O4", "O6", "G1",
    ],
    zero_loss: true,
    sources: &[
        "Kubernetes: allowVolumeExpansion, PersistentVolumeClaimResize, external-resizer",
        "KubeVirt: ExpandDisks",
        "Ceph CSI: resize of block PVCs",
        "RBD mirroring: a replica takes its size from the snapshot",
        "ocs-ci and kube-burner: sizes by lsblk, contents unread",
    ],
};
