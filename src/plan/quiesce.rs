//! How a VM's file systems are brought to a stand, and how a Recipe that does it is read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a Recipe is understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RecipeMode {
    /// As its author means it: only pods that run, none is an error, every error counts, and whatever
    /// happens the guest is thawed.
    #[default]
    Strict,
    /// As Ramen does it, traps included.
    Faithful,
}

impl RecipeMode {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Faithful => "faithful",
        }
    }
}

/// What freezes a VM's file systems.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Quiesce {
    /// KubeVirt's `freeze` and `unfreeze` subresources.
    #[default]
    Subresource,
    /// The hooks of the workload's Recipe.
    Recipe,
    /// `fsfreeze` inside the guest, over SSH: the file systems of the data volumes, and no agent.
    Guest,
}
