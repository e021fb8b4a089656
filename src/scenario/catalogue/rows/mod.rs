//! The rows of the catalogue, a file per family.

use super::Spec;

mod boot;
mod clone;
mod failover;
mod migrate;
mod recipe;
mod relocate;
mod snapshot;

/// All rows by family, in the order in which a reader should meet them.
pub(super) const ALL: &[&[Spec]] = &[
    boot::ROWS,
    relocate::ROWS,
    failover::ROWS,
    migrate::ROWS,
    recipe::ROWS,
    snapshot::ROWS,
    clone::ROWS,
];
