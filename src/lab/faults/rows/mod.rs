//! The fault table, a file per place of injection.

use super::FaultSpec;

mod clean;
mod environment;
mod evidence;
mod freeze;
mod guest;
mod migration;
mod orchestration;
mod snapshot;
mod storage;
mod unreachable;

const BOOT: &str = "boot.replicated";
const RELOCATE: &str = "relocate.zero-loss";
const NODE_DOWN: &str = "failover.unplanned.node-down";
const PRIMARY_UP: &str = "failover.unplanned.primary-up";
const FAILBACK: &str = "failback.resync";
const MIGRATE: &str = "migrate.under-load";
const FREEZE: &str = "recipe.freeze-covers-replica";
const CRASH: &str = "recipe.crash-baseline";
const RESTORE: &str = "snapshot.restore";
const MULTI_DISK: &str = "snapshot.multi-disk";
const CHAIN: &str = "snapshot.chain";
const THEN_FAILOVER: &str = "snapshot.then-failover";
const CLONE: &str = "clone.independent";

/// All rows by file.
pub(super) const ALL: &[&[FaultSpec]] = &[
    clean::ROWS,
    storage::ROWS,
    orchestration::ROWS,
    guest::ROWS,
    migration::ROWS,
    freeze::ROWS,
    snapshot::ROWS,
    environment::ROWS,
    evidence::ROWS,
    unreachable::ROWS,
];
