//! The Recipes that virtproof brings along.

use crate::workload::Embedded;

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        &[$(Embedded { name: $name, text: include_str!(concat!("../../../recipes/", $name, ".yaml")) }),*]
    };
}

/// The Recipes that virtproof brings along, by name.
pub const fn embedded() -> &'static [Embedded] {
    embed!["mysql", "postgresql", "sqlite", "vm-no-hooks", "vm-quiesce"]
}

/// Recipes that are wrong on purpose, for showing what they do to a guest.
pub const fn traps() -> &'static [Embedded] {
    embed![
        "trap-misnamed-workflow",
        "trap-fsfreeze-in-the-pod",
        "trap-restore-hook-fails",
    ]
}
