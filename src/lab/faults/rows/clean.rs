//! Runs in which nothing is planted: the plainest negative controls, one per scenario.

use super::{
    ABORT, ACROSS, BOOT, CHAIN, CLONE, CRASH, DATABASE, DISK_GROUP, DRAIN, FAILBACK, FREEZE,
    FREEZE_THAW, HARD_KILL, HOOK_FAILURE, HOTPLUG, IDENTITY, MASS, MIGRATE, MOVE, MOVED_AWAY,
    MULTI_DISK, MYSQL, NODE_DOWN, POSTGRESQL, PRIMARY_UP, PROTECTED, RELOCATE, RESIZE,
    RESTART_PAUSE, RESTORE, SQLITE, THAW_GUARANTEE, THEN_FAILOVER,
};
use crate::lab::faults::{FaultSpec, How, Ordained, Phase, Place};

const fn clean(name: &'static str, scenario: &'static str) -> FaultSpec {
    FaultSpec::new(How::Clean, name, "nothing is planted")
        .at(Place::Tool, Phase::Always)
        .seen_in(scenario)
        .ordained(Ordained::Green)
}

/// Many guests on few cores stand still for longer than the lab's objective allows.
const PATIENT: &[&str] = &["objectives.migrationBlackout=10s"];

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    clean("clean-boot", BOOT),
    clean("clean-relocate", RELOCATE),
    clean("clean-node-down", NODE_DOWN),
    clean("clean-primary-up", PRIMARY_UP),
    clean("clean-failback", FAILBACK),
    clean("clean-migrate", MIGRATE).plan(PATIENT),
    clean("clean-drain", DRAIN).plan(PATIENT),
    clean("clean-abort", ABORT).plan(PATIENT),
    clean("clean-during-sync", ACROSS).plan(PATIENT),
    clean("clean-mass", MASS).plan(PATIENT),
    clean("clean-freeze", FREEZE),
    clean("clean-freeze-xfs", FREEZE).plan(&[
        "workloads.0.parameters.filesystem=xfs",
        "workloads.0.parameters.dataSize=300Mi",
    ]),
    clean("clean-crash-baseline", CRASH),
    clean("clean-freeze-by-recipe", FREEZE).plan(&["workloads.0.recipe=vm-quiesce"]),
    clean("clean-freeze-by-guest", FREEZE).plan(&["workloads.0.quiesce=guest"]),
    clean("clean-recipe", FREEZE_THAW),
    clean("clean-recipe-as-ramen", FREEZE_THAW).plan(&[
        "workloads.0.recipe=vm-quiesce",
        "workloads.0.recipeMode=faithful",
    ]),
    clean("clean-db", DATABASE).plan(SQLITE).real_only(),
    clean("clean-db-postgresql", DATABASE)
        .plan(POSTGRESQL)
        .real_only(),
    clean("clean-db-mysql", DATABASE).plan(MYSQL).real_only(),
    clean("clean-restore-by-recipe", NODE_DOWN).plan(&["workloads.0.recipe=vm-quiesce"]),
    clean("clean-hook-failure", HOOK_FAILURE).plan(&["objectives.freezeStall=15s"]),
    clean("clean-thaw-guarantee", THAW_GUARANTEE).plan(&["deadlines.unfreeze=2s"]),
    clean("clean-thaw-by-guest", THAW_GUARANTEE)
        .plan(&["workloads.0.quiesce=guest", "deadlines.unfreeze=2s"]),
    clean("clean-identity", IDENTITY),
    clean("clean-restart-pause", RESTART_PAUSE),
    clean("clean-hard-kill", HARD_KILL),
    clean("clean-hotplug", HOTPLUG),
    clean("clean-hotplug-protected", PROTECTED),
    clean("clean-resize", RESIZE),
    clean("clean-storage-migrate", MOVE).plan(PATIENT),
    clean("clean-storage-then-failover", MOVED_AWAY).plan(PATIENT),
    clean("clean-snapshot-restore", RESTORE),
    clean("clean-snapshot-multi-disk", MULTI_DISK),
    clean("clean-snapshot-multi-disk-group", DISK_GROUP),
    clean("clean-snapshot-chain", CHAIN),
    clean("clean-snapshot-then-failover", THEN_FAILOVER),
    clean("clean-clone", CLONE),
];
