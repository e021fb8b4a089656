//! A Kubernetes API server of version 1.36 in this process, behind real HTTPS.
//!
//! Contract: answers like the real server, wording and traps included. [`Store`] holds one site's
//! objects and is what the lab's controllers use; [`Admission`] and [`Aggregated`] are where the
//! domain (KubeVirt's webhooks and subresources) hooks in. Knows no domain rule itself.

pub mod errors;
mod fields;
pub mod hooks;
pub mod meta;
pub mod registry;
pub mod schema;
pub mod server;
pub mod store;

pub use errors::{ApiError, Cause};
pub use hooks::{Admission, Aggregated, Body, Operation, Review, User, full};
pub use server::{ApiServer, Query, RunningServer, SiteConfig, Skew, StartError};
pub use store::{Change, ChangeKind, DeleteOptions, Deleted, Part, Propagation, Store};
