//! CustomResourceDefinitions: kinds from objects and objects from kinds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::handler::Shared;
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;
use crate::lab::api::registry::{Column, Kind, Origin};
use crate::lab::api::schema::Schema;
use crate::lab::api::store::{DeleteOptions, Deleted, Part, Store};

/// The resource key of definitions.
pub(super) const KEY: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// The finalizer under which a definition's objects are deleted.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// A real server takes about this long for each of the two steps to Established.
const STEP: Duration = Duration::from_millis(15);

/// Gives every custom kind that the store knows its definition.
pub(super) fn publish(store: &Store) -> Result<(), ApiError> {
    let kinds: Vec<Arc<Kind>> = store.lock().registry.iter().cloned().collect();
    for kind in kinds.iter().filter(|kind| kind.custom()) {
        if store.get(KEY, "", &kind.key()).is_none() {
            store.create(KEY, definition(kind))?;
        }
    }
    Ok(())
}

fn definition(kind: &Kind) -> Value {
    let mut schema = kind.schema.to_openapi();
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = json!({"type": "string"});
    }
    schema["properties"]["metadata"] = json!({"type": "object"});
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "jsonPath": column.path,
                "priority": column.priority,
            })
        })
        .collect();
    let versions: Vec<Value> = kind
        .versions
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let mut version = json!({
                "name": name,
                "served": true,
                "storage": at == 0,
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": columns,
            });
            if kind.status {
                version["subresources"] = json!({"status": {}});
            }
            version
        })
        .collect();
    let mut names = json!({
        "plural": kind.plural,
        "singular": kind.singular,
        "kind": kind.kind,
        "listKind": kind.list_kind,
    });
    for (field, list) in [
        ("shortNames", &kind.short),
        ("categories", &kind.categories),
    ] {
        if !list.is_empty() {
            names[field] = json!(list);
        }
    }
    json!({
        "metadata": {"name": kind.key()},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions,
            "conversion": {"strategy": "None"},
        },
        "status": {
            "conditions": [
                condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                condition("Established", "True", "InitialNamesAccepted", ACCEPTED),
            ],
            "acceptedNames": names,
            "storedVersions": [kind.versions.first()],
        },
    })
}

const ACCEPTED: &str = "the initial names have been accepted";

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": meta::now(),
        "reason": reason,
        "message": message,
    })
}

/// The kind that a definition defines; `None` without any served version.
fn kind_of(definition: &Value) -> Option<Kind> {
    let spec = definition.get("spec")?;
    let text = |pointer: &str| meta::text(spec, pointer).to_owned();
    let all = spec.get("versions")?.as_array()?;
    let stored = all
        .iter()
        .find(|version| version["storage"] == json!(true))?;
    let mut versions: Vec<&Value> = all
        .iter()
        .filter(|version| version["served"] == json!(true))
        .collect();
    versions.sort_by_key(|version| version["storage"] != json!(true));
    let list = |pointer: &str| -> Vec<String> {
        let list = spec.pointer(pointer).and_then(Value::as_array);
        let list = list.into_iter().flatten();
        list.filter_map(|entry| entry.as_str().map(str::to_owned))
            .collect()
    };
    let mut schema = Schema::from_openapi(stored.pointer("/schema/openAPIV3Schema")?);
    let own = ["apiVersion", "kind", "metadata"];
    schema
        .fields
        .retain(|(name, _)| !own.contains(&name.as_str()));
    let columns = stored["additionalPrinterColumns"].as_array();
    Some(Kind {
        group: text("/group"),
        versions: versions
            .iter()
            .filter_map(|version| version["name"].as_str().map(str::to_owned))
            .collect(),
        deprecated: versions
            .iter()
            .filter(|version| version["deprecated"] == true)
            .filter_map(|version| version["name"].as_str().map(str::to_owned))
            .collect(),
        kind: text("/names/kind"),
        plural: text("/names/plural"),
        singular: text("/names/singular"),
        short: list("/names/shortNames"),
        categories: list("/names/categories"),
        namespaced: text("/scope") == "Namespaced",
        status: stored.pointer("/subresources/status").is_some(),
        generation: true,
        origin: Origin::Custom,
        list_kind: text("/names/listKind"),
        schema: Arc::new(schema),
        columns: columns
            .into_iter()
            .flatten()
            .map(|column| Column {
                name: meta::text(column, "/name").to_owned(),
                kind: meta::text(column, "/type").to_owned(),
                path: meta::text(column, "/jsonPath").to_owned(),
                priority: column["priority"].as_i64().unwrap_or(0),
            })
            .collect(),
    })
}

/// Starts to serve a new definition's kind: first it answers 429, then it is Established.
pub(super) fn establish(shared: &Arc<Shared>, name: &str) {
    let Some(kind) = shared
        .store
        .get(KEY, "", name)
        .and_then(|definition| kind_of(&definition))
    else {
        return;
    };
    let key = kind.key();
    {
        let mut state = shared.store.lock();
        state.registry.add(kind);
        state.setting_up.insert(key.clone());
    }
    let shared = Arc::clone(shared);
    let name = name.to_owned();
    shared.clone().tasks.spawn(async move {
        for (status, reason) in [("False", "Installing"), ("True", "InitialNamesAccepted")] {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = shared.clock.pass(STEP) => {}
            }
            let step = shared
                .store
                .modify(KEY, "", &name, Part::Any, |definition| {
                    definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
                    definition["status"]["conditions"] = json!([
                        condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                        condition("Established", status, reason, ACCEPTED),
                    ]);
                    note_server(definition);
                });
            if let Err(error) = step {
                tracing::debug!(%error, name, "a definition was gone before it was established");
            }
        }
        shared.store.lock().setting_up.remove(&key);
    });
}

/// The server's own entry in `managedFields`.
fn note_server(definition: &mut Value) {
    let of_condition = json!({
        ".": {}, "f:lastTransitionTime": {}, "f:message": {}, "f:reason": {}, "f:status": {}, "f:type": {}
    });
    let entry = json!({
        "manager": "kube-apiserver",
        "operation": "Update",
        "apiVersion": "apiextensions.k8s.io/v1",
        "time": meta::now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {
            "f:acceptedNames": {"f:kind": {}, "f:listKind": {}, "f:plural": {}, "f:singular": {}},
            "f:conditions": {
                "k:{\"type\":\"Established\"}": of_condition,
                "k:{\"type\":\"NamesAccepted\"}": of_condition,
            },
        }},
        "subresource": "status",
    });
    let list = meta::entry(definition, "managedFields", || json!([]));
    if let Some(list) = list.as_array_mut() {
        list.retain(|other| other["manager"] != "kube-apiserver");
        list.insert(0, entry);
    }
}

/// Serves a changed definition.
pub(super) fn refresh(store: &Store, name: &str) -> Result<(), ApiError> {
    let definition = store
        .get(KEY, "", name)
        .ok_or_else(|| ApiError::not_found(KEY, name))?;
    if let Some(kind) = kind_of(&definition) {
        store.lock().registry.add(kind);
    }
    Ok(())
}

/// Deletes a definition and its objects. The answer shows it while it is being cleaned up.
pub(super) fn delete(
    store: &Store,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    store.modify(KEY, "", name, Part::Any, |definition| {
        meta::add_finalizer(definition, CLEANUP);
        let terminating = condition(
            "Terminating",
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        );
        match definition["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(terminating),
            None => definition["status"]["conditions"] = json!([terminating]),
        }
    })?;
    let deleted = store.delete(KEY, "", name, options)?;
    for object in store.list(name, None) {
        let gone = store.delete(
            name,
            meta::namespace(&object),
            meta::name(&object),
            &DeleteOptions::default(),
        );
        if let Err(error) = gone
            && error.code != 404
        {
            return Err(error);
        }
    }
    store.lock().registry.remove(name);
    store.modify(KEY, "", name, Part::Any, |definition| {
        meta::remove_finalizer(definition, CLEANUP);
    })?;
    Ok(deleted)
}
