//! The plans that virtproof brings along: a commented starter per driver and the lab's own.

use std::path::Path;

use super::model::DriverKind;
use super::{Known, Loaded, PlanError, parse};

const VOLUME_REPLICATION: &str = include_str!("starter/volume-replication.yaml");

/// The text of the plan behind `run --lab`.
pub const LAB: &str = include_str!("starter/lab.yaml");

/// A commented plan to start from.
pub const fn starter(driver: DriverKind) -> &'static str {
    match driver {
        DriverKind::VolumeReplication => VOLUME_REPLICATION,
    }
}

/// The plan behind `run --lab`, read like any other. Its kubeconfigs are relative to `dir`.
pub fn lab(dir: &Path, known: &Known<'_>) -> Result<Loaded, PlanError> {
    parse(LAB, "lab.yaml", dir, known)
}
