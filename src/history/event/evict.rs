//! What is done to a VM that moves: its launcher is evicted, or its migration spoiled.

use serde::{Deserialize, Serialize};

/// How a migration is spoiled while it is under way. It is to fail, and the VM to stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spoil {
    /// Its job is deleted.
    Cancel,
    /// Its target launcher is killed.
    KillTarget,
    /// It gets too little bandwidth ever to end, and no time to wait for that.
    Starve,
}

impl Spoil {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Cancel, Self::KillTarget, Self::Starve];

    /// What becomes of the migration, as a participle.
    pub const fn done(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::KillTarget => "robbed of its target",
            Self::Starve => "starved",
        }
    }
}

/// The eviction of a launcher pod, about to be asked for or answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvictionFact {
    /// The pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// `spec.evictionStrategy` of the VMI, empty where the cluster's default holds.
    pub strategy: String,
    /// Whether the VMI ran in that pod when this was asked; if not, it had gone elsewhere.
    pub carries: bool,
    /// The HTTP status of the answer; absent in the fact that says that it is about to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What the server said.
    #[serde(default)]
    pub said: String,
}
