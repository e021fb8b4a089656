//! The rows of the catalogue, a file per family.

use super::Spec;

mod boot;
mod clone;
mod failover;
mod hotplug;
mod lifecycle;
mod migrate;
mod recipe;
mod relocate;
mod snapshot;
mod storage;

/// All rows by family, in the order in which a reader should meet them.
pub(super) const ALL: &[&[Spec]] = &[
    boot::ROWS,
    lifecycle::ROWS,
    relocate::ROWS,
    failover::ROWS,
    migrate::ROWS,
    recipe::ROWS,
    hotplug::ROWS,
    storage::ROWS,
    snapshot::ROWS,
    clone::ROWS,
];
