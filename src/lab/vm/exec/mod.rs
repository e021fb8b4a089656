//! `pods/exec`: a command in a container of a launcher pod, over WebSocket.
//!
//! Contract: the checks of the API server (who may, which pod, which container) come first and as
//! HTTP; what the node finds out later comes as HTTP in plain text to a client of `v4`, whose request
//! is passed on, and on channel 3 to one of `v5`, for whom the API server translates. Nobody kills a
//! command whose client left. SPDY is not spoken.

mod freezer;
mod programs;
mod stream;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;

use super::keys::{POD, items, phase};
use super::site::Ctx;
use super::socket::{offers, wants};
use super::subresources::{refused, text};
use crate::lab::api::hooks::{Answer, ServedGroupVersion};
use crate::lab::api::{Aggregated, ApiError, Body, Query, User, meta};

/// The subprotocol that the API server translates.
const V5: &str = "v5.channel.k8s.io";
/// The subprotocol that it passes on to the node.
const V4: &str = "v4.channel.k8s.io";

/// The handler of one site.
pub struct Exec {
    ctx: Ctx,
}

impl Exec {
    pub(super) const fn new(ctx: Ctx) -> Self {
        Self { ctx }
    }
}

impl Aggregated for Exec {
    fn serves(&self) -> Vec<ServedGroupVersion> {
        Vec::new()
    }

    fn handle(self: Arc<Self>, request: Request<Incoming>, _user: User) -> Answer {
        let answered = answer(&self.ctx, request).unwrap_or_else(|error| refused(&error));
        Box::pin(std::future::ready(answered))
    }
}

/// What is to be run, and which streams the client wants.
struct Order {
    argv: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// Why the node does not run a command: its words, and the code that it gives them as HTTP.
struct Unable {
    code: u16,
    why: String,
}

fn answer(ctx: &Ctx, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(request.uri().query());
    let (namespace, name) = named(request.uri().path());
    let pod = ctx.store.get(POD, &namespace, &name);
    let pod = pod.ok_or_else(|| ApiError::not_found(POD, &name))?;
    let container = container(&pod, query.get("container"))?;
    if meta::text(&pod, "/spec/nodeName").is_empty() {
        let why = format!("pod {name} does not have a host assigned");
        return Err(ApiError::bad_request(why));
    }
    if wants(&request, "SPDY/3.1") {
        let why = "this lab runs commands over WebSocket and does not speak SPDY/3.1";
        return Err(ApiError::bad_request(why));
    }
    if !wants(&request, "websocket") {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let order = Order {
        argv: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let started = node(ctx, &pod, &container, &order);
    if offers(&request, V5) {
        return Ok(stream::translated(ctx, request, order, started));
    }
    if !offers(&request, V4) {
        let why = "the lab speaks v5.channel.k8s.io and v4.channel.k8s.io";
        return Err(ApiError::bad_request(why));
    }
    Ok(match started {
        Ok(started) => stream::passed_on(ctx, request, order, started),
        Err(unable) => text(unable.code, unable.why),
    })
}

/// Namespace and name in `/api/v1/namespaces/NAMESPACE/pods/NAME/exec`.
fn named(path: &str) -> (String, String) {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).skip(3);
    let namespace = parts.next().unwrap_or_default().to_owned();
    (namespace, parts.nth(1).unwrap_or_default().to_owned())
}

/// The container that is meant, as the API server sees it: the default-container annotation is for
/// `kubectl` to read.
fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let names: Vec<&str> = items(pod, "/spec/containers")
        .iter()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let name = meta::name(pod);
    match (asked, names.as_slice()) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", []) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        ("", many) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ))),
        (asked, names) if names.contains(&asked) => Ok(asked.to_owned()),
        (asked, _) => Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        ))),
    }
}

/// A program that was started in a container.
struct Started {
    pod: Arc<Value>,
    container: String,
}

/// The kubelet looks for the container among those that run. That of a pod that is Completed, as a
/// migration leaves its source, is not found.
fn node(ctx: &Ctx, pod: &Arc<Value>, container: &str, order: &Order) -> Result<Started, Unable> {
    let unable = |code, why: String| Err(Unable { code, why });
    if !order.stdin && !order.stdout && !order.stderr {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return unable(400, why.to_owned());
    }
    let powered = ctx.powered.load(std::sync::atomic::Ordering::Acquire);
    if !powered || phase(pod) != "Running" {
        return unable(500, format!("container not found (\"{container}\")"));
    }
    Ok(Started {
        pod: Arc::clone(pod),
        container: container.to_owned(),
    })
}
