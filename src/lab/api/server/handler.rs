//! One request: who asks, may they, and who answers.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{self, Tokens, Wish};
use super::call::{Call, Kinds};
use super::faults::{Faults, Turn};
use super::power::Power;
use super::query::Query;
use super::respond::failure;
use super::route::Target;
use super::{discovery, list, patch, remove, reviews, watch, write};
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::{Admission, Aggregated, Body, User};
use crate::lab::api::store::Store;
use crate::lab::clock::LabClock;

/// What all requests share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) tokens: Tokens,
    pub(super) admission: Vec<Arc<dyn Admission>>,
    pub(super) aggregated: Vec<Arc<dyn Aggregated>>,
    pub(super) connect: Vec<(String, String, Arc<dyn Aggregated>)>,
    pub(super) clock: LabClock,
    pub(super) skew: Option<super::Skew>,
    pub(super) address: SocketAddr,
    pub(super) power: Power,
    pub(super) faults: Arc<Faults>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Shared {
    /// The aggregated API that serves a group version.
    pub(super) fn aggregated(&self, group: &str, version: &str) -> Option<&Arc<dyn Aggregated>> {
        self.aggregated.iter().find(|api| {
            let serves = api.serves();
            serves
                .iter()
                .any(|s| s.group == group && s.version == version)
        })
    }
}

/// Answers one request.
pub(super) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let skew = shared.skew.as_ref().map(|skew| skew());
    let query = Query::parse(request.uri().query());
    let target = Target::parse(request.method(), request.uri().path(), &query);
    shared.power.count(target.counted());
    let faults = Arc::clone(&shared.faults);
    let proxied = shared.aggregated(&target.group, &target.version).is_some();
    let denial = match faults.before(&shared.store, &target, proxied) {
        Turn::Serve => None,
        Turn::Refuse(answer) => return faults.after(&target, answer).await,
        Turn::Deny(denial) => Some(denial),
    };
    let answer = match route(shared, request, query, target.clone()).await {
        Ok(response) => response,
        Err(error) => failure(&error, &[]),
    };
    let answer = match denial {
        Some(denial) if answer.status().is_success() => denial,
        _ => answer,
    };
    let mut answer = faults.after(&target, answer).await;
    if let Some(skew) = skew.filter(|skew| !skew.is_zero()) {
        date(&mut answer, skew);
    }
    answer
}

/// Says the time by a clock that is off. A header that is there already is kept by the HTTP server.
fn date(response: &mut Response<Body>, skew: jiff::SignedDuration) {
    let now = jiff::Timestamp::now();
    let text = now
        .checked_add(skew)
        .unwrap_or(now)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    if let Ok(value) = http::HeaderValue::from_str(&text) {
        response.headers_mut().insert(http::header::DATE, value);
    }
}

async fn route(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    query: Query,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let user = auth::authenticate(&shared.tokens, request.headers())?;
    let path = request.uri().path().to_owned();
    let wish = Wish::of(&target, &path);
    if !auth::allows(&shared.store, &user, &wish) {
        return Err(auth::forbidden(&user, &wish));
    }
    // Since 1.35 a WebSocket to a pod, which is a GET, needs the right to create it as well.
    if target.group.is_empty() && target.full_resource() == "pods/exec" {
        let wish = Wish {
            verb: "create".to_owned(),
            ..wish
        };
        if !auth::allows(&shared.store, &user, &wish) {
            return Err(auth::forbidden(&user, &wish));
        }
    }
    if let Some(api) = shared.aggregated(&target.group, &target.version)
        && (target.resource_path || request.method() != Method::GET)
    {
        return Ok(Arc::clone(api).handle(request, user).await);
    }
    if !target.resource_path {
        return discovery::answer(&shared, &request, &path, &query);
    }
    if let Some(api) = connector(&shared, &target) {
        return Ok(api.handle(request, user).await);
    }
    if request.method() == Method::HEAD {
        return Err(ApiError::not_allowed());
    }
    if reviews::serves(&target) {
        return reviews::answer(&shared, request, &user, &target).await;
    }
    resource(shared, request, user, query, target).await
}

/// The handler of a connecting subresource, such as `pods/exec`.
fn connector(shared: &Shared, target: &Target) -> Option<Arc<dyn Aggregated>> {
    let key = target.key();
    shared
        .connect
        .iter()
        .find(|(resource, sub, _)| *resource == key && *sub == target.subresource)
        .map(|(_, _, api)| Arc::clone(api))
}

async fn resource(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    user: User,
    query: Query,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let kinds = Kinds::resolve(&shared.store, &target)?;
    let (parts, body) = request.into_parts();
    let agent = parts.headers.get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    let warnings = kinds.kind.warning(&target.version).into_iter().collect();
    let mut call = Call {
        agent: agent.to_owned(),
        headers: parts.headers,
        shared,
        user,
        query,
        target,
        kinds,
        warnings,
    };
    let answered = match (call.target.verb, parts.method.as_str()) {
        ("get", _) => list::get(&call),
        ("list", _) => list::list(&call),
        ("watch", _) => watch::watch(&call),
        ("create", _) if call.target.name.is_empty() || !call.target.subresource.is_empty() => {
            let bytes = call.read(body).await?;
            write::create(&mut call, &bytes)
        }
        ("update", _) if !call.target.name.is_empty() => {
            let bytes = call.read(body).await?;
            write::update(&mut call, &bytes)
        }
        ("patch", _) if !call.target.name.is_empty() => {
            let bytes = call.read(body).await?;
            patch::patch(&mut call, &bytes)
        }
        ("delete", _) if call.target.subresource.is_empty() => {
            let bytes = call.read(body).await?;
            remove::one(&call, &bytes)
        }
        ("deletecollection", _) => {
            let bytes = call.read(body).await?;
            remove::collection(&call, &bytes)
        }
        _ => Err(ApiError::not_allowed()),
    };
    // Warnings go along with refusals too.
    Ok(answered.unwrap_or_else(|error| failure(&error, &call.warnings)))
}
