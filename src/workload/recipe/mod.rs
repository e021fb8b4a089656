//! Ramen Recipes as data: what the CRD accepts, and what the controller makes of it.
//!
//! Contract: pure and total; text or a value in, a [`Recipe`] or every reason of refusal out. A
//! [`Recipe`] is read, its parameters are expanded, and a [`Workflow`](Flow) of it is resolved into
//! steps that an executor can do one after another. Everything follows what the controller does, not
//! what its documents say: its defaults, its references, its command lines and its conditions.

mod command;
mod embedded;
mod expand;
mod explain;
mod expression;
mod jsonpath;
mod model;
mod read;
mod resolve;
mod target;

pub use command::{CommandError, argv};
pub use embedded::{embedded, traps};
pub use expand::{ExpandError, expand_text, parameters};
pub use explain::{Behaviour, Explained, Explanation, explain};
pub use expression::{EvaluateError, Expression, Operand, Operator};
pub use model::{
    Check, FailOn, Group, GroupKind, Hook, HookKind, MAX_ATTEMPTS, OnError, Op, Recipe, TIMEOUT,
    Workflow,
};
pub(crate) use read::describe;
pub use read::{Refusal, Refused};
pub use resolve::{Condition, Exec, Flow, Inverse, Job, Scale, ScaleOp, Step, Unresolved, Work};
pub use target::{Names, Target};

/// The apiVersion of Recipes.
pub const API_VERSION: &str = "ramendr.openshift.io/v1alpha1";

#[cfg(test)]
mod tests;
