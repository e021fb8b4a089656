//! Who asks, and whether they may: bearer tokens, and RBAC from the stored roles and bindings.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::route::Target;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::User;
use crate::lab::api::store::Store;

/// Users by bearer token.
pub(super) type Tokens = BTreeMap<String, User>;

/// What is asked of authorization.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) verb: String,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Set for paths that are no resources.
    pub(super) path: String,
}

impl Wish {
    /// What a request wants.
    pub(super) fn of(target: &Target, path: &str) -> Self {
        Self {
            verb: target.verb.to_owned(),
            group: target.group.clone(),
            resource: target.full_resource(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            path: if target.resource_path {
                String::new()
            } else {
                path.to_owned()
            },
        }
    }
}

/// The user of a request: by token, or anonymous without one.
///
/// # Errors
/// 401 for a token that is not known.
pub(super) fn authenticate(tokens: &Tokens, headers: &HeaderMap) -> Result<User, ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(User {
            name: "system:anonymous".to_owned(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".to_owned()],
        });
    };
    let token = header
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer "));
    token
        .and_then(|token| tokens.get(token))
        .cloned()
        .ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))
}

/// The rules that a user has in a namespace: cluster-wide bindings, then the namespace's own.
pub(super) fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let bound = store.list("clusterrolebindings.rbac.authorization.k8s.io", None);
    for binding in bound.iter().filter(|binding| binds(binding, user)) {
        rules.extend(role_rules(store, binding, ""));
    }
    if !namespace.is_empty() {
        let bound = store.list("rolebindings.rbac.authorization.k8s.io", Some(namespace));
        for binding in bound.iter().filter(|binding| binds(binding, user)) {
            rules.extend(role_rules(store, binding, namespace));
        }
    }
    rules
}

fn binds(binding: &Arc<Value>, user: &User) -> bool {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.into_iter().any(|subject| {
        let name = subject["name"].as_str().unwrap_or("");
        match subject["kind"].as_str() {
            Some("User") => user.name == name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or("");
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
        }
    })
}

fn role_rules(store: &Store, binding: &Value, namespace: &str) -> Vec<Value> {
    let name = binding["roleRef"]["name"].as_str().unwrap_or("");
    let role = if binding["roleRef"]["kind"] == "Role" {
        store.get("roles.rbac.authorization.k8s.io", namespace, name)
    } else {
        store.get("clusterroles.rbac.authorization.k8s.io", "", name)
    };
    role.and_then(|role| role["rules"].as_array().cloned())
        .unwrap_or_default()
}

/// Whether a user may do something.
pub(super) fn allows(store: &Store, user: &User, wish: &Wish) -> bool {
    rules(store, user, &wish.namespace)
        .iter()
        .any(|rule| permits(rule, wish))
}

fn permits(rule: &Value, wish: &Wish) -> bool {
    let has = |field: &str, wanted: &str| {
        let list = rule[field].as_array().into_iter().flatten();
        list.into_iter()
            .filter_map(Value::as_str)
            .any(|entry| entry == "*" || entry == wanted)
    };
    if !has("verbs", &wish.verb) {
        return false;
    }
    if !wish.path.is_empty() {
        let urls = rule["nonResourceURLs"].as_array().into_iter().flatten();
        return urls
            .into_iter()
            .filter_map(Value::as_str)
            .any(|url| match url.strip_suffix('*') {
                Some(prefix) => wish.path.starts_with(prefix),
                None => wish.path.trim_end_matches('/') == url.trim_end_matches('/'),
            });
    }
    let names = rule["resourceNames"].as_array();
    let by_name = names.is_none_or(|names| {
        names.is_empty() || names.iter().any(|name| name == wish.name.as_str())
    });
    let every = wish
        .resource
        .split_once('/')
        .is_some_and(|(_, sub)| has("resources", &format!("*/{sub}")));
    by_name && has("apiGroups", &wish.group) && (has("resources", &wish.resource) || every)
}

/// The refusal, in the server's words.
pub(super) fn forbidden(user: &User, wish: &Wish) -> ApiError {
    if !wish.path.is_empty() {
        let message = format!(
            "forbidden: User \"{}\" cannot {} path \"{}\"",
            user.name, wish.verb, wish.path
        );
        return ApiError::new(403, "Forbidden", message).with_details(json!({}));
    }
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wish.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
        user.name, wish.verb, wish.resource, wish.group
    );
    let plain = wish.resource.split('/').next().unwrap_or("");
    let key = if wish.group.is_empty() {
        plain.to_owned()
    } else {
        format!("{plain}.{}", wish.group)
    };
    ApiError::forbidden(&key, &wish.name, &why)
}

/// The roles and bindings that every cluster starts with, as data.
pub(super) fn bootstrap(store: &Store) -> Result<(), ApiError> {
    let basic = json!([
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
         "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
         "resources": ["selfsubjectreviews"]},
    ]);
    let issuer = json!([{"verbs": ["get"], "nonResourceURLs": ["/.well-known", "/.well-known/*"]}]);
    let discovery = json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}]);
    let public = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]}]);
    let all = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    let authenticated = &["system:authenticated"][..];
    for (name, rules, groups) in [
        ("cluster-admin", all, &["system:masters"][..]),
        ("system:basic-user", basic, authenticated),
        (
            "system:service-account-issuer-discovery",
            issuer,
            authenticated,
        ),
        ("system:discovery", discovery, authenticated),
        (
            "system:public-info-viewer",
            public,
            &["system:authenticated", "system:unauthenticated"],
        ),
    ] {
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| {
                json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group})
            })
            .collect();
        store.create(
            "clusterroles.rbac.authorization.k8s.io",
            json!({"metadata": {"name": name}, "rules": rules}),
        )?;
        store.create(
            "clusterrolebindings.rbac.authorization.k8s.io",
            json!({
                "metadata": {"name": name},
                "subjects": subjects,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            }),
        )?;
    }
    Ok(())
}
