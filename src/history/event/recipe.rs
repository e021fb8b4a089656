//! One walk over a workflow of a Recipe: each hook as it was asked for and as it ended.

use serde::{Deserialize, Serialize};

use super::Outcome;

/// How far a walk over a workflow is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RecipeFact {
    /// The walk begins.
    Begun {
        /// The Recipe.
        recipe: String,
        /// The workflow, `backup` or `restore`; empty if the Recipe has none of that name, so that no hook runs.
        workflow: String,
        /// `strict` or `faithful`: whose understanding of errors and of pods applies.
        mode: String,
        /// The hooks of its sequence, `hook/op`, in order.
        hooks: Vec<String>,
    },
    /// A hook is about to work on something.
    HookAsked {
        /// `hook/op`.
        hook: String,
        /// `exec`, `check`, `scale` or `job`.
        kind: String,
        /// On what, such as `Pod ns/name, container compute`.
        target: String,
        /// The command or condition.
        what: String,
    },
    /// That came to an end. `Skipped` if there was nothing to work on.
    HookEnded {
        /// `hook/op`.
        hook: String,
        /// On what; empty if there was nothing.
        target: String,
        /// How.
        outcome: Outcome,
        /// The exit code of a command that ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// The beginning of what it wrote.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        said: String,
        /// Whether the Recipe declares that its failure stops the workflow.
        stops: bool,
    },
    /// A group of a `restore` workflow: what belongs to it stands on this site.
    Restored {
        /// The group.
        group: String,
    },
    /// The walk is over.
    Ended {
        /// As it was reported to whoever asked for it.
        outcome: Outcome,
    },
}
