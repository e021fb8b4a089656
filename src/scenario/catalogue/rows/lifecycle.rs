//! Orders to a VM that stays where it is.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[
    Spec {
        kind: Kind::RestartPause,
        id: "lifecycle.restart-pause",
        purpose: "a VM that writes is paused, rebooted, stopped and started: it stands still for as long as it is paused, boots where it is told to and nowhere else, and keeps every acknowledged write",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Pause,
            Step::SoftReboot,
            Step::ReadBack,
            Step::Serve,
            Step::StopStart,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "L1", "L2", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "KubeVirt: pause, unpause, softreboot, stop, start",
            "kube-burner-ocp VM operations, which look at no data",
            "openshift-virtualization-tests: boot id and uptime after restarts",
        ],
    },
    Spec {
        kind: Kind::HardKill,
        id: "lifecycle.hard-kill",
        purpose: "the launcher of a VM that writes is killed: the VM comes back by its run strategy, its journals are replayed, and every acknowledged write is there",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Kill,
            Step::Look,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "L2", "L3", "A3", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "KubeVirt: a launcher pod that is deleted by force takes its guest with it",
            "krkn pod and VM outage scenarios, which look at no data",
            "Linux: ext4 and XFS log recovery",
        ],
    },
];
