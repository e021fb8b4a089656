//! Where the lab's domain hooks into the API server: admission webhooks and aggregated APIs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::errors::ApiError;
use super::store::Store;

/// The body of every answer. It can break off.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is sent in one piece.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Who asks, after authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that messages and reviews show.
    pub name: String,
    /// An identifier of the user, as reviews show it; may be empty.
    pub uid: String,
    /// Groups, as roles and reviews see them.
    pub groups: Vec<String>,
}

/// What is done to an object, as admission sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a POST to a subresource such as `pods/eviction`.
    Create,
    /// Any change of an existing object or its subresource.
    Update,
    /// The request to delete; the object is in [`Review::old`].
    Delete,
}

/// One request under review.
#[derive(Debug, Clone, Copy)]
pub struct Review<'a> {
    /// What is done.
    pub operation: Operation,
    /// Resource key: `plural.group`, or `plural` in the core group.
    pub resource: &'a str,
    /// The subresource, such as `status` or `eviction`.
    pub subresource: Option<&'a str>,
    /// Namespace; empty for objects of the cluster.
    pub namespace: &'a str,
    /// Name; empty while `generateName` is not resolved.
    pub name: &'a str,
    /// The object before, for updates and deletes; the pod for `pods/eviction`.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing will be stored (`dryRun=All`).
    pub dry_run: bool,
    /// The site's objects.
    pub store: &'a Store,
}

/// A chain of mutating and validating webhooks. All mutations run before any validation, as on a
/// real server. Controllers that write through [`Store`] are not reviewed.
pub trait Admission: Send + Sync {
    /// Changes the object on its way in: defaults.
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
        let (_, _) = (review, object);
        Ok(())
    }

    /// Refuses the object, or lets it in with warnings for the client.
    ///
    /// For deletes, `object` is the one to be deleted.
    fn validate(&self, review: &Review<'_>, object: &Value) -> Result<Vec<String>, ApiError>;
}

/// A boxed answer in the making.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A group version that an aggregated API serves, for discovery.
#[derive(Debug, Clone)]
pub struct ServedGroupVersion {
    /// The group, such as `subresources.kubevirt.io`.
    pub group: String,
    /// The version, such as `v1`.
    pub version: String,
    /// `APIResource` entries as the legacy discovery lists them.
    pub resources: Vec<Value>,
}

/// An API behind the aggregator: gets the authenticated and authorized request whole, upgrade
/// included, and gives any answer.
pub trait Aggregated: Send + Sync {
    /// What it serves, the preferred version first. Empty for a handler of core subresources.
    fn serves(&self) -> Vec<ServedGroupVersion>;

    /// Answers one request. `hyper::upgrade::on(request)` works inside.
    fn handle(self: Arc<Self>, request: Request<Incoming>, user: User) -> Answer;
}
