//! The plans that virtproof brings along: a commented starter per driver and the lab's own.

use std::path::Path;

use super::model::DriverKind;
use super::{Known, Loaded, PlanError, overrides, parse};

const VOLUME_REPLICATION: &str = include_str!("starter/volume-replication.yaml");

/// The text of the plan behind `run --lab`.
pub const LAB: &str = include_str!("starter/lab.yaml");

/// The plan behind `run --lab --guests qemu`.
pub const LAB_QEMU: &str = include_str!("starter/lab-qemu.yaml");

/// A commented plan to start from.
pub const fn starter(driver: DriverKind) -> &'static str {
    match driver {
        DriverKind::VolumeReplication => VOLUME_REPLICATION,
    }
}

/// The plan behind `run --lab`, read like any other. Its kubeconfigs are relative to `dir`.
pub fn lab(dir: &Path, known: &Known<'_>) -> Result<Loaded, PlanError> {
    lab_with(dir, &[], known)
}

/// The same, with the values of `sets`, each `PATH=VALUE`, in place.
pub fn lab_with(dir: &Path, sets: &[String], known: &Known<'_>) -> Result<Loaded, PlanError> {
    built_in("lab.yaml", LAB, dir, sets, known)
}

/// The plan behind `run --lab --guests qemu`, with the values of `sets` in place.
pub fn lab_qemu_with(dir: &Path, sets: &[String], known: &Known<'_>) -> Result<Loaded, PlanError> {
    built_in("lab-qemu.yaml", LAB_QEMU, dir, sets, known)
}

fn built_in(
    name: &str,
    text: &str,
    dir: &Path,
    sets: &[String],
    known: &Known<'_>,
) -> Result<Loaded, PlanError> {
    let text = overrides::apply(text, sets).map_err(PlanError::Set)?;
    parse(&text, name, dir, known)
}
