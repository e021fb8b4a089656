//! Freezes, and what recovers from a point taken in one.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[
    Spec {
        kind: Kind::FreezeCoversReplica,
        id: "recipe.freeze-covers-replica",
        purpose: "a replica that was synced inside a freeze comes back with clean file systems and exactly what they held then",
        needs: &[Need::Replication, Need::PowerFault],
        // The first freeze shows that the guest lives on; the primary is lost inside the second, so that
        // no later sync can take the place of the one inside it.
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Freeze,
            Step::Capture,
            Step::Thaw,
            Step::Freeze,
            Step::Capture,
            Step::PowerOff,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::Look,
            Step::ReadBack,
            Step::Heal,
        ],
        // Looking lengthens the outage, so nothing is said of the RTO.
        checks: &[
            "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "S1", "A1", "A2", "A3", "A4", "O1",
            "O2", "O3", "O4", "O6", "G1",
        ],
        zero_loss: false,
        sources: &[
            "RamenDR: Recipe hooks and capture",
            "KubeVirt: freeze and unfreeze, virt-freezer",
            "Linux: fsfreeze, ext4 and XFS log recovery",
        ],
    },
    Spec {
        kind: Kind::CrashBaseline,
        id: "recipe.crash-baseline",
        purpose: "without a freeze the file systems come back as after a power cut: journals are replayed and nothing is damaged",
        needs: &[Need::Replication, Need::PowerFault],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::PowerOff,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::Look,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "S1", "A3", "O1", "O2", "O3", "O4",
            "O6", "G1",
        ],
        zero_loss: false,
        sources: &[
            "RamenDR: Recipe without hooks",
            "ocs-ci regional-dr, all nodes off",
            "Linux: ext4 and XFS log recovery",
        ],
    },
];
