//! Runs in which nothing is planted: the plainest negative controls, one per scenario.

use super::{
    BOOT, CHAIN, CLONE, CRASH, FAILBACK, FREEZE, MIGRATE, MULTI_DISK, NODE_DOWN, PRIMARY_UP,
    RELOCATE, RESTORE, THEN_FAILOVER,
};
use crate::lab::faults::{FaultSpec, How, Ordained, Phase, Place};

const fn clean(name: &'static str, scenario: &'static str) -> FaultSpec {
    FaultSpec::new(How::Clean, name, "nothing is planted")
        .at(Place::Tool, Phase::Always)
        .seen_in(scenario)
        .ordained(Ordained::Green)
}

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    clean("clean-boot", BOOT),
    clean("clean-relocate", RELOCATE),
    clean("clean-node-down", NODE_DOWN),
    clean("clean-primary-up", PRIMARY_UP),
    clean("clean-failback", FAILBACK),
    clean("clean-migrate", MIGRATE),
    clean("clean-freeze", FREEZE),
    clean("clean-freeze-xfs", FREEZE).plan(&[
        "workloads.0.parameters.filesystem=xfs",
        "workloads.0.parameters.dataSize=300Mi",
    ]),
    clean("clean-crash-baseline", CRASH),
    clean("clean-snapshot-restore", RESTORE),
    clean("clean-snapshot-multi-disk", MULTI_DISK),
    clean("clean-snapshot-chain", CHAIN),
    clean("clean-snapshot-then-failover", THEN_FAILOVER),
    clean("clean-clone", CLONE),
];
