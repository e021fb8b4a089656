//! OpenAPI v3 per group version, and v2 in one document, from the kinds' schemas.

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::handler::Shared;
use super::respond::{JSON, accepted, answer as write, with_type};
use crate::lab::api::errors::ApiError;
use crate::lab::api::fields;
use crate::lab::api::hooks::Body;
use crate::lab::api::registry::{Kind, Registry};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Answers below `/openapi`.
pub(super) fn answer(
    shared: &Shared,
    request: &Request<Incoming>,
    rest: &[&str],
) -> Result<Response<Body>, ApiError> {
    let registry = shared.store.lock().registry.clone();
    match rest {
        ["v2"] => v2(&registry, request),
        ["v3"] => Ok(with_type(
            200,
            "text/plain; charset=utf-8",
            index(&registry).to_string(),
            &[],
        )),
        ["v3", "api", version] => v3(&registry, "", version),
        ["v3", "apis", group, version] => v3(&registry, group, version),
        _ => Err(ApiError::no_path()),
    }
}

/// The kinds of a group version.
fn kinds<'a>(registry: &'a Registry, group: &str, version: &str) -> Vec<&'a Kind> {
    registry
        .iter()
        .map(|kind| &**kind)
        .filter(|kind| kind.group == group && kind.versions.iter().any(|v| v == version))
        .collect()
}

fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for kind in registry.iter() {
        for version in &kind.versions {
            let path = root(&kind.group, version);
            let path = path.trim_start_matches('/');
            if paths.contains_key(path) {
                continue;
            }
            // The hash stands for the content, so that clients may keep the document.
            let text = document(registry, &kind.group, version).to_string();
            let hash = blake3::hash(text.as_bytes()).to_hex().to_ascii_uppercase();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn v3(registry: &Registry, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    if kinds(registry, group, version).is_empty() {
        return Err(ApiError::no_path());
    }
    Ok(write(200, &document(registry, group, version), JSON, &[]))
}

fn v2(registry: &Registry, request: &Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let json_taken = accepted(request.headers()).iter().any(|entry| {
        matches!(
            entry.media.as_str(),
            "application/json" | "*/*" | "application/*"
        )
    });
    if !json_taken {
        return Err(ApiError::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        ));
    }
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for kind in registry.iter() {
        for version in &kind.versions {
            paths.extend(operations(kind, version));
            definitions.extend(schemas(kind, version));
        }
    }
    definitions.extend(metas());
    let text = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths,
        "definitions": definitions,
    })
    .to_string()
    .replace("#/components/schemas/", "#/definitions/");
    Ok(with_type(200, "application/json", text, &[]))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    let about = json!({"get": {
        "tags": [tag(group, version)],
        "description": "get available resources",
        "operationId": format!("get{}APIResources", camel(group, version)),
        "responses": responses("io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList"),
    }});
    paths.insert(format!("{}/", root(group, version)), about);
    for kind in kinds(registry, group, version) {
        paths.extend(operations(kind, version));
        definitions.extend(schemas(kind, version));
    }
    definitions.extend(metas());
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths,
        "components": {"schemas": definitions},
    })
}

fn tag(group: &str, version: &str) -> String {
    let short = group.split('.').next().unwrap_or("");
    let short = if short.is_empty() { "core" } else { short };
    format!("{short}_{version}")
}

fn camel(group: &str, version: &str) -> String {
    let upper = |text: &str| {
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    let short = group.split('.').next().unwrap_or("");
    format!(
        "{}{}",
        upper(if short.is_empty() { "core" } else { short }),
        upper(version)
    )
}

/// The name of a kind's schema: as in Kubernetes for built-in kinds, else the group reversed.
fn schema_name(kind: &Kind, version: &str) -> String {
    if kind.custom() {
        let mut parts: Vec<&str> = kind.group.split('.').collect();
        parts.reverse();
        return format!("{}.{version}.{}", parts.join("."), kind.kind);
    }
    let group = match kind.group.split('.').next().unwrap_or("") {
        "" => "core",
        short => short,
    };
    let package = match kind.group.as_str() {
        "apiextensions.k8s.io" => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned()
        }
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
        _ => format!("io.k8s.api.{group}"),
    };
    format!("{package}.{version}.{}", kind.kind)
}

fn gvk(kind: &Kind, version: &str) -> Value {
    json!({"group": kind.group, "version": version, "kind": kind.kind})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn responses(schema: &str) -> Value {
    json!({
        "200": {"description": "OK", "content": {
            "application/json": {"schema": reference(schema)},
            "application/yaml": {"schema": reference(schema)},
        }},
        "401": {"description": "Unauthorized"},
    })
}

/// Query parameters: name and type.
fn parameters(names: &[(&str, &str)]) -> Vec<Value> {
    names
        .iter()
        .map(|(name, kind)| {
            json!({
                "name": name,
                "in": "query",
                "description": "See the Kubernetes API concepts.",
                "schema": {"type": kind, "uniqueItems": true},
            })
        })
        .collect()
}

const LISTS: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITES: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];

fn operations(kind: &Kind, version: &str) -> Map<String, Value> {
    let name = schema_name(kind, version);
    let list = format!("{name}List");
    let operation = |action: &str, schema: &str, names: &[(&str, &str)]| {
        json!({
            "tags": [tag(&kind.group, version)],
            "description": format!("{action} {}", kind.kind),
            "operationId": format!("{action}{}{}", camel(&kind.group, version), kind.kind),
            "parameters": parameters(names),
            "responses": responses(schema),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(kind, version),
        })
    };
    let forced: Vec<(&str, &str)> = WRITES
        .iter()
        .copied()
        .chain([("force", "boolean")])
        .collect();
    let item = json!({
        "get": operation("get", &name, &[]),
        "put": operation("put", &name, WRITES),
        "patch": operation("patch", &name, &forced),
        "delete": operation("delete", &name, &[("dryRun", "string"), ("propagationPolicy", "string")]),
    });
    let collection = json!({
        "get": operation("list", &list, &[]),
        "post": operation("post", &name, WRITES),
        "delete": operation("deletecollection", &name, &[]),
        "parameters": parameters(LISTS),
    });
    let everywhere = json!({
        "get": {
            "tags": [tag(&kind.group, version)],
            "description": format!("list or watch objects of kind {}", kind.kind),
            "operationId": format!("list{}{}ForAllNamespaces", camel(&kind.group, version), kind.kind),
            "responses": responses(&list),
            "x-kubernetes-action": "list",
            "x-kubernetes-group-version-kind": gvk(kind, version),
        },
        "parameters": parameters(LISTS),
    });
    let base = root(&kind.group, version);
    let mut paths = Map::new();
    if kind.namespaced {
        let home = format!("{base}/namespaces/{{namespace}}/{}", kind.plural);
        paths.insert(format!("{base}/{}", kind.plural), everywhere);
        paths.insert(home.clone(), collection);
        paths.insert(format!("{home}/{{name}}"), item);
    } else {
        let home = format!("{base}/{}", kind.plural);
        paths.insert(home.clone(), collection);
        paths.insert(format!("{home}/{{name}}"), item);
    }
    paths
}

fn schemas(kind: &Kind, version: &str) -> Map<String, Value> {
    let name = schema_name(kind, version);
    let mut schema = kind.schema.to_openapi();
    if !kind.custom() {
        patch_keys(&mut schema);
    }
    schema["properties"]["apiVersion"] = json!({
        "description": "The version of the schema that the object is written in.",
        "type": "string",
    });
    schema["properties"]["kind"] = json!({
        "description": "The kind of the object, in CamelCase.",
        "type": "string",
    });
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.",
        "default": {},
        "allOf": [reference(OBJECT_META)],
    });
    schema["x-kubernetes-group-version-kind"] = json!([gvk(kind, version)]);
    let list = json!({
        "description": format!("A list of {}.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "The version of the schema.", "type": "string"},
            "items": {"description": "The objects.", "type": "array", "items": reference(&name)},
            "kind": {"description": "The kind of the list.", "type": "string"},
            "metadata": {"description": "Standard list metadata.", "allOf": [reference(LIST_META)]},
        },
        "x-kubernetes-group-version-kind": [{
            "group": kind.group, "version": version, "kind": kind.list_kind,
        }],
    });
    [(format!("{name}List"), list), (name, schema)]
        .into_iter()
        .collect()
}

/// Built-in kinds say how strategic merge patches merge their lists.
fn patch_keys(schema: &mut Value) {
    if let Some(key) = schema.pointer("/x-kubernetes-list-map-keys/0").cloned() {
        schema["x-kubernetes-patch-merge-key"] = key;
        schema["x-kubernetes-patch-strategy"] = json!("merge");
    }
    match schema {
        Value::Object(map) => map.values_mut().for_each(patch_keys),
        Value::Array(items) => items.iter_mut().for_each(patch_keys),
        _ => {}
    }
}

fn metas() -> Map<String, Value> {
    let mut object = fields::metadata().to_openapi();
    patch_keys(&mut object);
    object["description"] = json!("ObjectMeta is metadata that all persisted resources must have.");
    let list = json!({"type": "object", "description": "ListMeta describes a list.", "properties": {
        "continue": {"type": "string"},
        "remainingItemCount": {"type": "integer", "format": "int64"},
        "resourceVersion": {"type": "string"},
        "selfLink": {"type": "string"},
    }});
    let resources = json!({"type": "object", "description": "APIResourceList is a list of APIResource.", "properties": {
        "groupVersion": {"type": "string"},
        "resources": {"type": "array", "items": {"type": "object"}},
    }});
    [
        (OBJECT_META.to_owned(), object),
        (LIST_META.to_owned(), list),
        (
            "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList".to_owned(),
            resources,
        ),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_every_kind_and_every_reference_resolves() {
        let registry = Registry::full();
        for kind in registry.iter() {
            for version in &kind.versions {
                let document = document(&registry, &kind.group, version);
                let schemas = &document["components"]["schemas"];
                let schema = &schemas[schema_name(kind, version)];
                let named = &schema["x-kubernetes-group-version-kind"][0];
                assert_eq!(named, &gvk(kind, version));
                check_references(&document, schemas);
            }
        }
        let pods = document(&registry, "", "v1");
        let containers = pods
            .pointer(
                "/components/schemas/io.k8s.api.core.v1.Pod/properties/spec/properties/containers",
            )
            .unwrap();
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }

    fn check_references(value: &Value, schemas: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    let name = to.rsplit('/').next().unwrap();
                    assert!(schemas.get(name).is_some(), "{to} leads nowhere");
                }
                map.values()
                    .for_each(|value| check_references(value, schemas));
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| check_references(item, schemas)),
            _ => {}
        }
    }
}
