//! Clones of VMs.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[Spec {
    kind: Kind::CloneIndependent,
    id: "clone.independent",
    purpose: "a clone equals its source at the cut; then both are written to, and neither sees what the other wrote",
    needs: &[Need::Snapshots],
    steps: &[
        Step::Provision,
        Step::Seed,
        Step::Load,
        Step::Quiesce,
        Step::Clone,
        Step::Serve,
        Step::ReadClone,
        Step::ServeClone,
        Step::Quiesce,
        Step::ReadClone,
        Step::Restart,
        Step::ReadBack,
        Step::Heal,
    ],
    checks: &[
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "C1", "C2", "O1", "O4", "G1",
    ],
    zero_loss: true,
    sources: &[
        "KubeVirt: VirtualMachineClone",
        "kube-burner-ocp virt-clone, which looks at no content",
        "ocs-ci clones, which are not written to",
    ],
}];
