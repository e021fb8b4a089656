//! subresources.kubevirt.io, which virt-api serves behind the aggregator.
//!
//! Contract: the codes, bodies and traps of the recorded server: 406 to PUTs that accept JSON alone,
//! Status JSON for most refusals, plain text for the guest agent's, errors before upgrades.

mod agent;
mod lifecycle;
mod reply;
mod route;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::keys::VERSION;
use super::site::Ctx;
use crate::lab::api::hooks::{Answer, ServedGroupVersion};
use crate::lab::api::{Aggregated, ApiError, Body, User};
use lifecycle::Call;
pub(super) use reply::{duration, refused, text};
use route::{Owner, Route};

/// The largest body of a PUT.
const MAX_BODY: usize = 3 << 20;
/// The group.
pub const GROUP: &str = "subresources.kubevirt.io";

/// Freezes a guest as a controller asks virt-api for it, without HTTP.
pub(super) async fn freeze(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
    timeout: Duration,
) -> Result<(), ApiError> {
    let body = json!({"unfreezeTimeout": format!("{}ms", timeout.as_millis())});
    agent::freeze(&Call {
        ctx,
        namespace,
        name,
        body: Ok(body),
    })
    .await
}

/// Thaws it, in the same way.
pub(super) async fn unfreeze(ctx: &Ctx, namespace: &str, name: &str) -> Result<(), ApiError> {
    agent::unfreeze(&Call {
        ctx,
        namespace,
        name,
        body: Ok(Value::Null),
    })
    .await
}

/// Tells a VM to stop, in the same way.
pub(super) fn stop(ctx: &Ctx, namespace: &str, name: &str) -> Result<(), ApiError> {
    let call = Call {
        ctx,
        namespace,
        name,
        body: Ok(Value::Null),
    };
    lifecycle::stop(&call).map(drop)
}

/// The aggregated API of one site.
pub struct Subresources {
    ctx: Ctx,
}

impl Subresources {
    pub(super) const fn new(ctx: Ctx) -> Self {
        Self { ctx }
    }
}

fn resources() -> Vec<Value> {
    route::RESOURCES
        .iter()
        .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "", "verbs": null}))
        .collect()
}

impl Aggregated for Subresources {
    fn serves(&self) -> Vec<ServedGroupVersion> {
        ["v1", "v1alpha3"]
            .into_iter()
            .map(|version| ServedGroupVersion {
                group: GROUP.to_owned(),
                version: version.to_owned(),
                resources: resources(),
            })
            .collect()
    }

    fn handle(self: Arc<Self>, request: Request<Incoming>, _user: User) -> Answer {
        let ctx = Arc::clone(&self.ctx);
        Box::pin(async move { answer(&ctx, request).await })
    }
}

async fn answer(ctx: &Ctx, request: Request<Incoming>) -> Response<Body> {
    let Some((route, method)) = route::parse(request.uri().path()) else {
        return reply::page(404, "Page Not Found");
    };
    if *request.method() != method {
        let mut response = reply::page(405, "Method Not Allowed");
        if let Ok(allow) = HeaderValue::from_str(method.as_str()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        return response;
    }
    if method == Method::PUT && !accepts_anything(&request) {
        return text(406, "406: Not Acceptable\n\nAvailable representations: ");
    }
    match route {
        Route::Resources => reply::json(200, &resource_list(request.uri().path())),
        Route::Info(what) => reply::json(200, &info(&what)),
        Route::ExpandSpec(_) => match read(request).await {
            Ok(vm) if vm.is_object() => reply::json(200, &vm),
            Ok(_) => refused(&ApiError::bad_request("empty request body")),
            Err(why) => refused(&ApiError::bad_request(why)),
        },
        Route::Of {
            owner,
            namespace,
            name,
            sub,
            rest,
        } => {
            let mut call = Call {
                ctx,
                namespace: &namespace,
                name: &name,
                body: Ok(Value::Null),
            };
            if method == Method::PUT {
                call.body = read(request).await;
                return match owner {
                    Owner::Machine => lifecycle::put(&call, &sub),
                    Owner::Instance => agent::put(&call, &sub).await,
                };
            }
            get(&call, request, owner, &sub, &rest).await
        }
    }
}

async fn get(
    call: &Call<'_>,
    request: Request<Incoming>,
    owner: Owner,
    sub: &str,
    rest: &[String],
) -> Response<Body> {
    match (owner, sub) {
        (Owner::Machine, "portforward") => match stream::started(call) {
            Ok(()) => stream::port_forward(call, request, rest).await,
            Err(error) => refused(&error),
        },
        (Owner::Machine, _) => lifecycle::expanded(call),
        (Owner::Instance, "portforward") => stream::port_forward(call, request, rest).await,
        (Owner::Instance, "console") => stream::terminal(call, request, sub).await,
        (Owner::Instance, "vnc") if rest.is_empty() => stream::terminal(call, request, sub).await,
        (Owner::Instance, "vnc") => text(500, "Internal error occurred: no screen"),
        (Owner::Instance, _) => agent::get(call, sub).await,
    }
}

/// PUTs declare no content type to produce, so only a client that takes anything is acceptable.
fn accepts_anything(request: &Request<Incoming>) -> bool {
    request
        .headers()
        .get(header::ACCEPT)
        .is_none_or(|accept| accept.to_str().is_ok_and(|accept| accept.contains("*/*")))
}

/// The body as a value: null when empty, JSON or YAML otherwise.
async fn read(request: Request<Incoming>) -> Result<Value, String> {
    let body = Limited::new(request.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    let text = str::from_utf8(&body).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).or_else(|why| {
        serde_saphyr::from_str::<Value>(text)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| why.to_string())
    })
}

fn resource_list(path: &str) -> Value {
    let version = if path.contains("/v1alpha3") {
        "v1alpha3"
    } else {
        "v1"
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{version}"),
        "resources": resources(),
    })
}

fn info(what: &str) -> Value {
    match what {
        "version" => json!({
            "gitVersion": VERSION, "gitCommit": "lab", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "none",
            "platform": "linux/amd64",
        }),
        "guestfs" => json!({
            "registry": "registry.example/kubevirt", "tag": VERSION, "digest": "", "imagePrefix": "",
            "gsImage": "",
        }),
        _ => json!({
            "apiserver": {"connectivity": "ok", "version": {
                "buildDate": "1970-01-01T00:00:00Z", "compiler": "none", "emulationMajor": "1",
                "emulationMinor": "36", "gitCommit": "lab", "gitTreeState": "clean",
                "gitVersion": "v1.36.2", "goVersion": "none", "major": "1",
                "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "minor": "36",
                "platform": "linux/amd64",
            }},
            "config-resource-version": "1",
        }),
    }
}
