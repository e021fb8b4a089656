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
    Spec {
        kind: Kind::FreezeThaw,
        id: "recipe.freeze-thaw",
        purpose: "the hooks of a Recipe reach the guest: its file systems stand still once for each capture, for no longer than allowed, and nothing is lost",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Workflow,
            Step::Workflow,
            Step::Quiesce,
            Step::Restart,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "A1", "A4", "A5", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "RamenDR: Recipe capture order, exec hooks",
            "KubeVirt: virt-freezer",
            "ocs-ci: Recipe check and exec hooks on VMs",
        ],
    },
    Spec {
        kind: Kind::Database,
        id: "recipe.db",
        purpose: "what a database committed before its guest was frozen is there after a failover, whole and in order",
        needs: &[Need::Replication, Need::PowerFault, Need::RealGuests],
        // The whole workflow shows that the database lives on behind a capture; the primary is lost
        // inside a second freeze, as where the replica's file systems are judged.
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Commit,
            Step::Load,
            Step::Workflow,
            Step::Freeze,
            Step::Capture,
            Step::PowerOff,
            Step::HandOver,
            Step::Promote,
            Step::Recover,
            Step::ReadDatabase,
            Step::ReadBack,
            Step::Heal,
        ],
        // Reading the database lengthens the outage, and commits take their time from the ledger's
        // writers, so nothing is said of RTO and RPO; nor of hooks, since the power goes in the middle of
        // a walk.
        checks: &[
            "D2", "D3", "D4", "D5", "D6", "D7", "R2", "S1", "A1", "A2", "A4", "A6", "A7", "O1",
            "O2", "O3", "O4", "O6", "G1",
        ],
        zero_loss: false,
        sources: &[
            "RamenDR: Recipe hooks and capture",
            "SQLite: write-ahead log, integrity_check",
            "PostgreSQL: reliability and the write-ahead log, pg_waldump, amcheck",
            "MariaDB: FLUSH TABLES WITH READ LOCK, CHECK TABLE",
        ],
    },
    Spec {
        kind: Kind::HookFailure,
        id: "recipe.hook-failure",
        purpose: "a hook that fails stops the capture or lets it go on, as the Recipe declares, and the guest is thawed in either case",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::HookFailures,
            Step::Quiesce,
            Step::Restart,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "A1", "A4", "A5", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "RamenDR: onError, failOn, inverseOp of Recipe hooks",
            "KubeVirt: virt-freezer exit codes",
        ],
    },
    Spec {
        kind: Kind::ThawGuarantee,
        id: "recipe.thaw-guarantee",
        purpose: "a guest that is left frozen thaws by itself when its timer runs out, and has lost nothing",
        needs: &[Need::Replication],
        steps: &[
            Step::Provision,
            Step::Seed,
            Step::Baseline,
            Step::Load,
            Step::Freeze,
            Step::Abandon,
            Step::Quiesce,
            Step::Restart,
            Step::ReadBack,
            Step::Heal,
        ],
        checks: &[
            "D1", "D2", "D3", "D4", "D5", "D6", "D7", "A1", "A4", "O1", "O2", "O4", "G1",
        ],
        zero_loss: true,
        sources: &[
            "KubeVirt: unfreezeTimeout, virt-freezer --unfreezeTimeoutSeconds",
            "RamenDR: a thaw hook behind a failed group is never run",
        ],
    },
];
