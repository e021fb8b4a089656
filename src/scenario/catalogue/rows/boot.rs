//! Booting and living: what a VM on replicated volumes keeps.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[Spec {
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
}];
