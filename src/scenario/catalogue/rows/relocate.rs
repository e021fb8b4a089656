//! Planned moves to the other site.

use super::super::{Kind, Need, Spec, Step};

/// The rows.
pub(super) const ROWS: &[Spec] = &[Spec {
    kind: Kind::RelocateZeroLoss,
    id: "relocate.zero-loss",
    purpose: "a planned move loses nothing: the guest writes until it is stopped, and every acknowledged write arrives",
    needs: &[Need::Replication],
    steps: &[
        Step::Provision,
        Step::Seed,
        Step::Baseline,
        Step::Load,
        Step::StopSource,
        Step::Demote,
        Step::HandOver,
        Step::Promote,
        Step::Recover,
        Step::ReadBack,
        Step::Heal,
    ],
    checks: &[
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "A5", "O1", "O2",
        "O3", "O4", "O6", "G1",
    ],
    zero_loss: true,
    sources: &[
        "RamenDR: relocate (primary and secondary, promotion and demotion)",
        "Ceph CSI: demote, promote",
        "ocs-ci regional-dr relocate",
    ],
}];
