//! Reviews: what one may do, and who one is.

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::auth::{Wish, allows, rules};
use super::handler::Shared;
use super::respond::{JSON, answer as write};
use super::route::Target;
use super::{body, protobuf};
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::hooks::{Body, User};
use crate::lab::api::meta;

/// Group, resource and kind of each review.
pub(super) const REVIEWS: &[(&str, &str, &str)] = &[
    (
        "authentication.k8s.io",
        "selfsubjectreviews",
        "SelfSubjectReview",
    ),
    (
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
    ),
    (
        "authorization.k8s.io",
        "subjectaccessreviews",
        "SubjectAccessReview",
    ),
];

/// Whether a path is a review.
pub(super) fn serves(target: &Target) -> bool {
    target.version == "v1"
        && REVIEWS
            .iter()
            .any(|(group, resource, _)| target.group == *group && target.resource == *resource)
}

/// Answers a review.
pub(super) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    user: &User,
    target: &Target,
) -> Result<Response<Body>, ApiError> {
    if target.verb != "create" {
        return Err(ApiError::not_allowed());
    }
    let binary = body::media(request.headers()) == protobuf::MEDIA;
    let read = request.into_body().collect().await;
    let bytes = read
        .map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))?
        .to_bytes();
    let asked: Value = if binary {
        protobuf::review(&bytes)
            .ok_or_else(|| ApiError::bad_request("the body is no Kubernetes protobuf"))?
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad_request(format!("json parse error: {error}")))?
    };
    let (api_version, kind) = (
        format!("{}/v1", target.group),
        REVIEWS
            .iter()
            .find(|(_, resource, _)| target.resource == *resource)
            .map_or("", |(_, _, kind)| kind),
    );
    let mut review = json!({"kind": kind, "apiVersion": api_version, "metadata": {}});
    match target.resource.as_str() {
        "selfsubjectreviews" => {
            review["metadata"] = json!({"creationTimestamp": meta::now()});
            review["status"] = json!({"userInfo": info(user)});
        }
        "selfsubjectrulesreviews" => {
            let namespace = meta::text(&asked, "/spec/namespace");
            review["spec"] = json!({});
            review["status"] = rules_status(&rules(&shared.store, user, namespace));
        }
        resource => {
            let whose = if resource == "subjectaccessreviews" {
                subject(&asked["spec"])
            } else {
                user.clone()
            };
            let wish = wish(&asked["spec"]).map_err(|cause| invalid(&cause))?;
            review["metadata"] = json!({"managedFields": [managed(&asked, &api_version)]});
            review["spec"] = asked["spec"].clone();
            review["status"] = json!({"allowed": allows(&shared.store, &whose, &wish)});
        }
    }
    Ok(write(201, &review, JSON, &[]))
}

fn info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    info["groups"] = json!(user.groups);
    info
}

fn subject(spec: &Value) -> User {
    let groups = spec["groups"].as_array().into_iter().flatten();
    User {
        name: meta::text(spec, "/user").to_owned(),
        uid: String::new(),
        groups: groups
            .filter_map(|g| g.as_str().map(str::to_owned))
            .collect(),
    }
}

fn rules_status(rules: &[Value]) -> Value {
    let (paths, resources): (Vec<&Value>, Vec<&Value>) = rules
        .iter()
        .partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

/// An access review is refused with a `Status` that names no kind.
fn invalid(cause: &Cause) -> ApiError {
    ApiError::invalid(".authorization.k8s.io", "", std::slice::from_ref(cause))
}

fn wish(spec: &Value) -> Result<Wish, Cause> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        return Err(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_owned();
    if path.is_object() {
        return Ok(Wish {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..Wish::default()
        });
    }
    let sub = text(resource, "subresource");
    let plain = text(resource, "resource");
    Ok(Wish {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        resource: if sub.is_empty() {
            plain
        } else {
            format!("{plain}/{sub}")
        },
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        path: String::new(),
    })
}

/// Reviews are not stored and yet say who manages their fields.
fn managed(body: &Value, api_version: &str) -> Value {
    let fields = |value: &Value| -> Value {
        let mut set = json!({".": {}});
        for (name, _) in value.as_object().into_iter().flatten() {
            set[format!("f:{name}")] = json!({});
        }
        set
    };
    let mut spec = json!({});
    for (name, value) in body["spec"].as_object().into_iter().flatten() {
        spec[format!("f:{name}")] = fields(value);
    }
    json!({
        "manager": "unknown",
        "operation": "Update",
        "apiVersion": api_version,
        "time": meta::now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": spec},
    })
}
