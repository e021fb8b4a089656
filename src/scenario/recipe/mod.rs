//! A workload's Recipe carried out without Ramen: its `backup` workflow, hook by hook, with a point of
//! the replication in the place of each group; its `restore` workflow on the site that took over, with
//! the VM made and started in the place of its first.
//!
//! Contract: two understandings of one workflow. `strict` is what its author means: only pods that run,
//! no pod is an error, every error counts as declared, one pass. `faithful` is what Ramen does: pods of
//! any phase, no pod is a success, a failure without `inverseOp` is swallowed, and every group sends the
//! walk back to the top. In both the guest is thawed in the end whatever happens: that is on record
//! before a hook freezes, and the freeze bears a timer.
//! Every run of a hook is a fact. What a hook says is never taken for what the guest did.

mod bound;
mod exec;
mod failures;
mod job;
mod objects;
mod scale;
mod walk;

pub(super) use bound::Bound;
pub use bound::admissible;
pub(super) use failures::hook_failures;
pub(super) use walk::{Part, restore, walk};

/// A hook or a point failed, and that ended the walk.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Stopped(String);
