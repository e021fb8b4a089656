//! What servers say when they cannot serve.

use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, Response};
use serde_json::json;
use uuid::Uuid;

use super::Target;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::Body;
use crate::lab::api::server::respond::with_type;

/// Seconds after which priority and fairness wants to be asked again, unless it is loaded for long.
const RETRY_SECONDS: u32 = 1;

/// Priority and fairness rejects a request: plain text, when to come back, and which flow schema and
/// priority level decided.
pub(super) fn throttled(seed: u64) -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = with_type(429, "text/plain; charset=utf-8", text, &[]);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    for (name, what) in [
        ("x-kubernetes-pf-flowschema-uid", "flowschema"),
        ("x-kubernetes-pf-prioritylevel-uid", "prioritylevel"),
    ] {
        let uid = Uuid::new_v5(&Uuid::from_u64_pair(seed, 0), what.as_bytes());
        if let Ok(value) = HeaderValue::from_str(&uid.to_string()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// etcd did not answer in time: an error without reason and details, which the server passes on.
pub(super) fn etcd() -> ApiError {
    ApiError::new(500, "", "etcdserver: request timed out")
}

/// The server's own limit for a request passed. What was under way goes on.
pub(super) fn timeout() -> ApiError {
    let message =
        "Timeout: request did not complete within requested timeout - context deadline exceeded";
    ApiError::new(504, "Timeout", message).with_details(json!({}))
}

/// KubeVirt's webhook has nobody behind it (recorded with virt-api scaled to zero).
pub(super) fn no_webhook(target: &Target) -> ApiError {
    let (resource, path) = match target.resource.as_str() {
        "virtualmachineinstances" => ("virtualmachineinstances", "virtualmachineinstances-mutate"),
        _ => ("virtualmachines", "virtualmachines-mutate"),
    };
    ApiError::internal(format!(
        "failed calling webhook \"{resource}-mutator.kubevirt.io\": failed to call webhook: Post \"https://virt-api.kubevirt.svc:443/{path}?timeout=10s\": no endpoints available for service \"virt-api\""
    ))
}

/// Nobody is there to serve: the aggregator's text for an API without endpoints (recorded), else the
/// page of the load balancer before the servers (HAProxy's default).
pub(super) fn unavailable(proxied: bool) -> Response<Body> {
    if proxied {
        let text = "service unavailable\n";
        return with_type(503, "text/plain; charset=utf-8", text, &[]);
    }
    let page = "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n";
    with_type(503, "text/html", page, &[])
}
