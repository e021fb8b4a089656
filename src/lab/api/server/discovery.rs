//! Paths that are no resources: version, health, discovery (legacy and aggregated), OpenAPI.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::{Request, Response};
use hyper::body::Incoming;
use kube::core::Version;
use serde_json::{Value, json};

use super::handler::Shared;
use super::openapi;
use super::query::Query;
use super::respond::{JSON, accepted, answer as write, with_type};
use super::reviews::REVIEWS;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::Body;
use crate::lab::api::registry::{Kind, Registry, api_version};

const TEXT: &str = "text/plain; charset=utf-8";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is no resource.
pub(super) fn answer(
    shared: &Shared,
    request: &Request<Incoming>,
    path: &str,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Ok(write(200, &version(), JSON, &[])),
        ["healthz" | "livez" | "readyz", rest @ ..] if rest.len() < 2 => {
            Ok(health(parts[0], query))
        }
        ["openapi", rest @ ..] => openapi::answer(shared, request, rest),
        [] => Ok(write(200, &json!({"paths": paths(shared)}), JSON, &[])),
        ["api"] => groups(shared, request, true),
        ["apis"] => groups(shared, request, false),
        ["api", "v1"] => resources(shared, "", "v1"),
        ["apis", group] => one_group(shared, group),
        ["apis", group, version] => resources(shared, group, version),
        _ => Err(ApiError::no_path()),
    }
}

/// The version that is claimed: that of the recorded server.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.2",
        "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.6",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}

fn health(which: &str, query: &Query) -> Response<Body> {
    let text = if query.flag("verbose") || query.all("verbose").next().is_some() {
        format!("[+]ping ok\n[+]log ok\n[+]etcd ok\n{which} check passed\n")
    } else {
        "ok".to_owned()
    };
    with_type(200, TEXT, text, &[])
}

/// A group with its versions and the resources of each, as discovery has them.
struct Group {
    name: String,
    versions: Vec<(String, Vec<Value>)>,
}

/// Built-in groups in the order of the real server; others follow by name.
const ORDER: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
];

fn all(shared: &Shared) -> Vec<Group> {
    let registry = shared.store.lock().registry.clone();
    let mut names: BTreeSet<String> = registry.iter().map(|kind| kind.group.clone()).collect();
    names.extend(REVIEWS.iter().map(|(group, _, _)| (*group).to_owned()));
    let mut groups: Vec<Group> = names
        .into_iter()
        .map(|name| Group {
            versions: versions(&registry, &name)
                .into_iter()
                .map(|version| {
                    let resources = api_resources(&registry, &name, &version);
                    (version, resources)
                })
                .collect(),
            name,
        })
        .collect();
    for served in shared.aggregated.iter().flat_map(|api| api.serves()) {
        let version = (served.version, served.resources);
        match groups.iter_mut().find(|group| group.name == served.group) {
            Some(group) => group.versions.push(version),
            None => groups.push(Group {
                name: served.group,
                versions: vec![version],
            }),
        }
    }
    groups.sort_by_key(|group| {
        let place = ORDER.iter().position(|name| *name == group.name);
        (place.unwrap_or(ORDER.len()), group.name.clone())
    });
    groups
}

fn versions(registry: &Registry, group: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for version in registry
        .iter()
        .filter(|kind| kind.group == group)
        .flat_map(|kind| kind.versions.iter())
    {
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    if versions.is_empty() {
        versions.push("v1".to_owned());
    }
    // The first is what clients prefer, whichever is the stored one.
    versions.sort_by_cached_key(|version| Reverse(Version::parse(version).priority()));
    versions
}

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CUSTOM_VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// Subresources of pods: name, kind, and verbs.
const POD_PARTS: &[(&str, &str, &[&str])] = &[
    ("attach", "PodAttachOptions", &["create", "get"]),
    ("binding", "Binding", &["create"]),
    ("ephemeralcontainers", "Pod", STATUS_VERBS),
    ("eviction", "Eviction", &["create"]),
    ("exec", "PodExecOptions", &["create", "get"]),
    ("log", "Pod", &["get"]),
    ("portforward", "PodPortForwardOptions", &["create", "get"]),
    (
        "proxy",
        "PodProxyOptions",
        &["create", "delete", "get", "patch", "update"],
    ),
    ("resize", "Pod", STATUS_VERBS),
    ("status", "Pod", STATUS_VERBS),
];

fn api_resources(registry: &Registry, group: &str, version: &str) -> Vec<Value> {
    let mut resources = Vec::new();
    let kinds = registry
        .iter()
        .filter(|kind| kind.group == group && kind.versions.iter().any(|v| v == version));
    for kind in kinds {
        resources.push(api_resource(kind));
        for (part, shown, verbs) in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{part}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": shown,
                "verbs": verbs,
            });
            if part == "eviction" {
                entry["group"] = json!("policy");
                entry["version"] = json!("v1");
            }
            resources.push(entry);
        }
    }
    for (_, resource, kind) in REVIEWS.iter().filter(|(of, _, _)| *of == group) {
        resources.push(json!({
            "name": resource,
            "singularName": kind.to_ascii_lowercase(),
            "namespaced": false,
            "kind": kind,
            "verbs": ["create"],
        }));
    }
    resources
}

fn subresources(kind: &Kind) -> Vec<(&'static str, String, &'static [&'static str])> {
    if kind.key() == "pods" {
        return POD_PARTS
            .iter()
            .map(|(part, kind, verbs)| (*part, (*kind).to_owned(), *verbs))
            .collect();
    }
    let mut parts: Vec<(&str, String, &[&str])> = Vec::new();
    if kind.key() == "namespaces" {
        parts.push(("finalize", kind.kind.clone(), &["update"]));
    }
    if kind.status {
        parts.push(("status", kind.kind.clone(), STATUS_VERBS));
    }
    parts
}

fn verbs(kind: &Kind) -> Vec<&'static str> {
    let verbs = if kind.custom() { CUSTOM_VERBS } else { VERBS };
    let whole = kind.key() != "namespaces";
    let kept = verbs
        .iter()
        .filter(|verb| whole || **verb != "deletecollection");
    kept.copied().collect()
}

fn api_resource(kind: &Kind) -> Value {
    let digest = blake3::hash(kind.qualified().as_bytes());
    let hash = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&digest.as_bytes()[..8])
    };
    let mut entry = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": verbs(kind),
    });
    for (field, list) in [
        ("shortNames", &kind.short),
        ("categories", &kind.categories),
    ] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    entry["storageVersionHash"] = json!(hash);
    entry
}

fn group_entry(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, _)| {
            json!({"groupVersion": api_version(&group.name, version), "version": version})
        })
        .collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn groups(
    shared: &Shared,
    request: &Request<Incoming>,
    core: bool,
) -> Result<Response<Body>, ApiError> {
    let mut legacy = false;
    for entry in accepted(request.headers()) {
        let plain = entry.parameter("as").is_empty();
        let version = entry.parameter("v");
        match entry.media.as_str() {
            "application/json" | "*/*" | "application/*" if plain => {
                legacy = true;
                break;
            }
            "application/json" if version == "v2" => {
                let list = aggregated(shared, core);
                return Ok(with_type(200, AGGREGATED, list.to_string(), &[]));
            }
            _ => {}
        }
    }
    if !legacy {
        return Err(ApiError::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ));
    }
    let address = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": shared.address.to_string()}]);
    let list = if core {
        json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address})
    } else {
        let groups: Vec<Value> = all(shared)
            .iter()
            .filter(|group| !group.name.is_empty())
            .map(group_entry)
            .collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    };
    Ok(write(200, &list, JSON, &[]))
}

fn one_group(shared: &Shared, name: &str) -> Result<Response<Body>, ApiError> {
    let groups = all(shared);
    let group = groups
        .iter()
        .find(|group| group.name == name && !name.is_empty());
    let group = group.ok_or_else(ApiError::no_path)?;
    let mut entry = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Some(target), Value::Object(fields)) = (entry.as_object_mut(), group_entry(group)) {
        target.extend(fields);
    }
    Ok(write(200, &entry, JSON, &[]))
}

fn resources(shared: &Shared, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let groups = all(shared);
    let found = groups
        .iter()
        .filter(|candidate| candidate.name == group)
        .flat_map(|candidate| &candidate.versions)
        .find(|(name, _)| name == version);
    let (_, resources) = found.ok_or_else(ApiError::no_path)?;
    let mut list = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    list["groupVersion"] = json!(api_version(group, version));
    list["resources"] = json!(resources);
    Ok(write(200, &list, JSON, &[]))
}

/// Aggregated discovery: everything in one document.
fn aggregated(shared: &Shared, core: bool) -> Value {
    let items: Vec<Value> = all(shared)
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, resources)| {
                    json!({
                        "version": version,
                        "resources": nested(resources),
                        "freshness": "Current",
                    })
                })
                .collect();
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group.name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

/// Legacy entries as aggregated discovery nests them.
fn nested(resources: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for entry in resources {
        let name = entry["name"].as_str().unwrap_or("");
        let text = |field: &str| entry[field].as_str().unwrap_or("");
        let kind =
            json!({"group": text("group"), "version": text("version"), "kind": text("kind")});
        let Some((_, part)) = name.split_once('/') else {
            let scope = if entry["namespaced"] == json!(true) {
                "Namespaced"
            } else {
                "Cluster"
            };
            let mut resource = json!({
                "resource": name,
                "responseKind": kind,
                "scope": scope,
                "singularResource": text("singularName"),
                "verbs": entry["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if let Some(list) = entry.get(field) {
                    resource[field] = list.clone();
                }
            }
            out.push(resource);
            continue;
        };
        let part = json!({"subresource": part, "responseKind": kind, "verbs": entry["verbs"]});
        let plain = name.split('/').next().unwrap_or("");
        match out
            .iter_mut()
            .find(|resource| resource["resource"] == plain)
        {
            Some(parent) => match parent["subresources"].as_array_mut() {
                Some(list) => list.push(part),
                None => parent["subresources"] = json!([part]),
            },
            // An aggregated API may serve subresources of what another group has.
            None => out.push(json!({
                "resource": plain,
                "responseKind": null,
                "scope": "Namespaced",
                "singularResource": "",
                "verbs": [],
                "subresources": [part],
            })),
        }
    }
    out
}

fn paths(shared: &Shared) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in all(shared).iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        for (version, _) in &group.versions {
            paths.push(format!("/apis/{}/{version}", group.name));
        }
    }
    for path in [
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    paths
}
