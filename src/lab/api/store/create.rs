//! Creation: names, namespaces and the metadata that the server fills in.

use std::sync::Arc;

use serde_json::{Value, json};

use super::collect::{Task, controller_manager};
use super::state::{Key, State};
use crate::lab::api::errors::ApiError;
use crate::lab::api::fields::track;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;

/// The annotation that the controller manager puts on `kube-root-ca.crt`.
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

impl State {
    /// Creates an object and settles what follows from it.
    pub(crate) fn create(
        &mut self,
        resource: &str,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Value>, ApiError> {
        let kind = self.kind(resource)?;
        self.name_it(&mut object);
        let namespace = if kind.namespaced {
            match meta::namespace(&object) {
                "" => "default".to_owned(),
                namespace => namespace.to_owned(),
            }
        } else {
            String::new()
        };
        let key = Key::new(resource, &namespace, meta::name(&object));
        self.check_namespace(&kind, &key)?;
        if let Some(existing) = self.get(&key) {
            let mut error = ApiError::already_exists(resource, &key.name);
            if meta::deleting(&existing) {
                error.message = format!("object is being deleted: {}", error.message);
            }
            return Err(error);
        }
        let object = self.complete(&kind, &key, object);
        if dry_run {
            return Ok(Arc::new(object));
        }
        let owned = !meta::owners(&object).is_empty();
        let stored = self.write(&key, None, object);
        if owned {
            self.tasks.push_back(Task::Owned(key.clone()));
        }
        if resource == "namespaces" {
            self.furnish_namespace(&key.name);
        }
        self.settle();
        Ok(stored)
    }

    /// Resolves `generateName` with five letters, as the real server does.
    fn name_it(&mut self, object: &mut Value) {
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let prefix = meta::text(object, "/metadata/generateName").to_owned();
        if !meta::name(object).is_empty() || prefix.is_empty() {
            return;
        }
        let mut draw = self.draw();
        let mut name: String = prefix.chars().take(58).collect();
        for _ in 0..5 {
            let at = usize::try_from(draw % LETTERS.len() as u64).unwrap_or(0);
            name.push(char::from(LETTERS[at]));
            draw /= LETTERS.len() as u64;
        }
        meta::metadata(object).insert("name".to_owned(), json!(name));
    }

    /// Whether an object of a resource may be made where its key says.
    pub(crate) fn check_home(&self, resource: &str, key: &Key) -> Result<(), ApiError> {
        self.check_namespace(&*self.kind(resource)?, key)
    }

    /// Whether objects may be made in the key's namespace.
    fn check_namespace(&self, kind: &Kind, key: &Key) -> Result<(), ApiError> {
        if !kind.namespaced {
            return Ok(());
        }
        let home = Key::new("namespaces", "", &key.namespace);
        let Some(namespace) = self.get(&home) else {
            return Err(ApiError::not_found("namespaces", &key.namespace));
        };
        if !meta::deleting(&namespace) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            key.namespace
        );
        let mut error = ApiError::forbidden(&key.resource, &key.name, &why);
        if let Some(details) = &mut error.details {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {} is being terminated", key.namespace),
                "field": "metadata.namespace",
            }]);
        }
        Err(error)
    }

    /// What the server fills in on create. The order of fields is the real server's.
    fn complete(&mut self, kind: &Kind, key: &Key, object: Value) -> Value {
        let mut completed = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "metadata": {"name": key.name},
        });
        let uid = self.new_uid();
        if let Value::Object(fields) = object {
            for (field, value) in fields {
                if field != "apiVersion" && field != "kind" {
                    completed[field.as_str()] = value;
                }
            }
        }
        let metadata = meta::metadata(&mut completed);
        if kind.namespaced {
            metadata.insert("namespace".to_owned(), json!(key.namespace));
        } else {
            metadata.shift_remove("namespace");
        }
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ] {
            metadata.shift_remove(field);
        }
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(meta::now()));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        if key.resource == "namespaces" {
            let labels = meta::entry(&mut completed, "labels", || json!({}));
            labels["kubernetes.io/metadata.name"] = json!(key.name);
            completed["spec"] = json!({"finalizers": ["kubernetes"]});
            completed["status"] = json!({"phase": "Active"});
        }
        completed
    }

    /// What the controller manager puts into a new namespace.
    fn furnish_namespace(&mut self, namespace: &str) {
        let account = json!({"metadata": {"name": "default", "namespace": namespace}});
        let root = json!({
            "metadata": {
                "name": "kube-root-ca.crt",
                "namespace": namespace,
                "annotations": {"kubernetes.io/description": ROOT_CA_DESCRIPTION},
            },
            "data": {"ca.crt": ""},
        });
        for (resource, mut object) in [("configmaps", root), ("serviceaccounts", account)] {
            if let Ok(kind) = self.kind(resource) {
                track(&kind, None, &mut object, &controller_manager(""));
            }
            if let Err(error) = self.create(resource, object, false) {
                tracing::debug!(%error, resource, namespace, "a namespace was not furnished");
            }
        }
    }
}
