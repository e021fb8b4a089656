//! The fault table, a file per place of injection.

use super::FaultSpec;

mod clean;
mod environment;
mod evidence;
mod freeze;
mod guest;
mod hotplug;
mod lifecycle;
mod migration;
mod orchestration;
mod recipe;
mod relocation;
mod snapshot;
mod storage;
mod unreachable;

const BOOT: &str = "boot.replicated";
const RELOCATE: &str = "relocate.zero-loss";
const NODE_DOWN: &str = "failover.unplanned.node-down";
const PRIMARY_UP: &str = "failover.unplanned.primary-up";
const FAILBACK: &str = "failback.resync";
const MIGRATE: &str = "migrate.under-load";
const DRAIN: &str = "migrate.drain";
const ABORT: &str = "migrate.abort";
const ACROSS: &str = "migrate.during-sync";
const MASS: &str = "migrate.mass";
const FREEZE: &str = "recipe.freeze-covers-replica";
const CRASH: &str = "recipe.crash-baseline";
const FREEZE_THAW: &str = "recipe.freeze-thaw";
const HOOK_FAILURE: &str = "recipe.hook-failure";
const THAW_GUARANTEE: &str = "recipe.thaw-guarantee";
const DATABASE: &str = "recipe.db";
/// Databases that are quiesced by the Recipe and the hook made for them.
const SQLITE: &[&str] = &[
    "workloads.0.database.freezeHook=true",
    "workloads.0.recipe=sqlite",
];
const POSTGRESQL: &[&str] = &[
    "workloads.0.database.engine=postgresql",
    "workloads.0.database.freezeHook=true",
    "workloads.0.recipe=postgresql",
];
const MYSQL: &[&str] = &[
    "workloads.0.database.engine=mysql",
    "workloads.0.database.freezeHook=true",
    "workloads.0.recipe=mysql",
];
const RESTART_PAUSE: &str = "lifecycle.restart-pause";
const HOTPLUG: &str = "hotplug.persist";
const PROTECTED: &str = "hotplug.protected";
const RESIZE: &str = "resize.online";
const IDENTITY: &str = "boot.identity";
const HARD_KILL: &str = "lifecycle.hard-kill";
const RESTORE: &str = "snapshot.restore";
const MULTI_DISK: &str = "snapshot.multi-disk";
const DISK_GROUP: &str = "snapshot.multi-disk-group";
const CHAIN: &str = "snapshot.chain";
const THEN_FAILOVER: &str = "snapshot.then-failover";
const MOVE: &str = "storage.migrate";
const MOVED_AWAY: &str = "storage.then-failover";
const CLONE: &str = "clone.independent";

/// All rows by file.
pub(super) const ALL: &[&[FaultSpec]] = &[
    clean::ROWS,
    storage::ROWS,
    orchestration::ROWS,
    guest::ROWS,
    migration::ROWS,
    lifecycle::ROWS,
    hotplug::ROWS,
    freeze::ROWS,
    recipe::ROWS,
    relocation::ROWS,
    snapshot::ROWS,
    environment::ROWS,
    evidence::ROWS,
    unreachable::ROWS,
];
