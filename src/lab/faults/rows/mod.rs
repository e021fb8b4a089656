//! The fault table, a file per place of injection.

use super::FaultSpec;

mod environment;
mod evidence;
mod guest;
mod orchestration;
mod storage;
mod unreachable;

const BOOT: &str = "boot.replicated";
const RELOCATE: &str = "relocate.zero-loss";
const NODE_DOWN: &str = "failover.unplanned.node-down";
const PRIMARY_UP: &str = "failover.unplanned.primary-up";
const FAILBACK: &str = "failback.resync";

/// All rows by file.
pub(super) const ALL: &[&[FaultSpec]] = &[
    storage::ROWS,
    orchestration::ROWS,
    guest::ROWS,
    environment::ROWS,
    evidence::ROWS,
    unreachable::ROWS,
];
