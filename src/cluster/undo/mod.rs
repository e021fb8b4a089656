//! The undo log: what to do to leave the sites as they were, as data in `undo.jsonl`.
//!
//! Each entry is on disk before the call that it undoes, so that another process can finish the work
//! after a `kill -9`. Entries are undone in reverse order; undoing twice does no harm.

mod log;
mod replay;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::log::{UndoError, UndoLog};
pub use self::replay::{Left, replay};
use super::deadline::Deadline;
use super::kind::ObjRef;
use crate::history::event::Site;

/// One thing to undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Undo {
    /// Delete an object that the run makes.
    Delete {
        /// Where.
        site: Site,
        /// What.
        object: ObjRef,
        /// Its UID once the server has told; only that very object is deleted. Without it, only an
        /// object with the run's label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
    /// Put an object's old state back.
    Patch {
        /// Where.
        site: Site,
        /// What.
        object: ObjRef,
        /// JSON merge patch.
        merge: Value,
    },
    /// Call a KubeVirt subresource, such as `unfreeze`.
    Put {
        /// Where.
        site: Site,
        /// VM or VMI.
        object: ObjRef,
        /// The subresource.
        subresource: String,
        /// What it is called with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Value>,
    },
    /// Lift a NetworkFence, and delete it once it is lifted: deleting a fenced one would leave its
    /// addresses blocked.
    Unfence {
        /// The site that holds the NetworkFence.
        site: Site,
        /// Its name.
        name: String,
    },
    /// Thaw a guest's file systems from inside the guest.
    Thaw(Box<Thaw>),
    /// Run a command on this host, such as the plan's `powerOn`. No shell is involved.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// The folder that it runs in, absolute, so that a later process runs it the same way.
        dir: PathBuf,
    },
}

impl Undo {
    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Self::Delete { site, object, .. } => format!("delete {object} on the {site} site"),
            Self::Patch { site, object, .. } => format!("restore {object} on the {site} site"),
            Self::Put {
                site,
                object,
                subresource,
                ..
            } => format!("{subresource} {object} on the {site} site"),
            Self::Unfence { site, name } => {
                format!("lift NetworkFence {name} on the {site} site")
            }
            Self::Thaw(thaw) => {
                let Thaw { site, object, .. } = &**thaw;
                format!("thaw the file systems in {object} on the {site} site")
            }
            Self::Command { argv, .. } => format!("run {argv:?}"),
        }
    }
}

/// A freeze from inside a guest, and how it is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thaw {
    /// Where the guest runs.
    pub site: Site,
    /// Its VMI.
    pub object: ObjRef,
    /// The UID of that: another VMI is another boot, of which nothing is frozen.
    pub uid: String,
    /// The plan's workload, which says how its guests are reached.
    pub workload: String,
    /// The login name.
    pub user: String,
    /// The command.
    pub command: String,
    /// What it reads.
    pub stdin: String,
}

/// What undoes that which no API server can: it reaches into guests.
pub trait Hands {
    /// Thaws the file systems of a guest whose VMI still runs.
    fn thaw<'a>(
        &'a self,
        thaw: &'a Thaw,
        deadline: &'a Deadline,
    ) -> LocalBoxFuture<'a, Result<(), String>>;
}

/// An undo entry with its place in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// The subject whose work it belongs to; entries without one are barriers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// What to do.
    pub undo: Undo,
}
