//! The only module that calls an API server or waits on one.
//!
//! Contract: typed objects, one watch per kind and site, every deadline, ownership and the undo log.
//! May use: plan, history.

mod access;
mod answer;
mod client;
mod config;
pub mod crd;
mod deadline;
mod error;
mod evict;
pub mod exec;
mod facts;
mod group;
mod kind;
mod owner;
pub mod portforward;
mod sites;
mod socket;
mod subresource;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod undo;
pub mod view;
mod wait;
mod write;

pub use access::{Ask, Denied};
pub use client::Cluster;
pub use config::QUIET_TARGETS;
pub use deadline::Deadline;
pub use error::{Error, Timeout, Tried};
pub use evict::Evicted;
pub use facts::{Clock, Versions};
pub use kind::{Kind, ObjRef, Typed};
pub use owner::{FIELD_MANAGER, MANAGED_BY_LABEL, Owner, RUN_LABEL};
pub use portforward::Tunnel;
pub use sites::Sites;
pub use subresource::Method;
pub use sweep::Swept;
pub use view::{Objects, Scope, Seen, View};
pub use wait::{Pace, Wake, repeat};
pub use write::{Patch, Propagation};
