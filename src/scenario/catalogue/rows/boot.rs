//! Booting and living: what a VM on replicated volumes keeps.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[
    Spec {
        kind: Kind::BootReplicated,
        id: "boot.replicated",
        purpose: "a VM on replicated volumes boots, writes, restarts and still has every acknowledged write",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Quiesce,
            Step::Restart,
            Step::ReadBack,
            Step::SecondRead,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "CNV: boot from a replicated volume",
            "ocs-ci cnv workloads",
            "kube-burner-ocp virt-density",
        ],
    },
    Spec {
        kind: Kind::BootIdentity,
        id: "boot.identity",
        purpose: "a VM that is restarted, and then moved as planned, is the same machine to itself and to others: host key, machine id, MAC, firmware, disks and their serials",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Quiesce,
            Step::Restart,
            Step::ReadBack,
            Step::StopSource,
            Step::Demote,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "O1", "O2", "O3", "O4", "O6", "G1", "G2",
        ],
        zero_loss: true,
        sources: &[
            "RamenDR: static addresses of relocated VMs, which are set and not looked at",
            "KubeVirt: firmware UUID, instance-id and pci-topology-version",
            "cloud-init: ssh_deletekeys for a new instance-id",
        ],
    },
];
