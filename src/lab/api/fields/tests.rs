use serde_json::{Value, json};

use super::*;
use crate::lab::api::registry::{Kind, Registry};

fn kind(key: &str) -> Kind {
    (**Registry::full().get(key).unwrap()).clone()
}

fn writer(manager: &str) -> Writer {
    Writer {
        manager: manager.to_owned(),
        api_version: "v1".to_owned(),
        subresource: String::new(),
    }
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn entries(object: &Value) -> Vec<(String, Value)> {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let who = format!("{}/{}", entry["manager"], entry["operation"]).replace('"', "");
            (who, entry["fieldsV1"].clone())
        })
        .collect()
}

fn apply_by(
    manager: &str,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, String> {
    apply(&Apply {
        kind: &kind("configmaps"),
        live,
        config,
        writer: &writer(manager),
        force,
    })
    .map_err(|error| error.message.clone())
}

#[test]
fn an_update_owns_what_it_adds_and_changes() {
    let kind = kind("configmaps");
    let mut object = map(&json!({"a": "1"}));
    track(&kind, None, &mut object, &writer("x"));
    let fields = json!({"f:data": {".": {}, "f:a": {}}});
    assert_eq!(entries(&object), [("x/Update".to_owned(), fields)]);
    let mut next = object.clone();
    next["data"] = json!({"a": "2", "b": "1"});
    track(&kind, Some(&object), &mut next, &writer("y"));
    assert_eq!(
        entries(&next),
        [
            ("x/Update".to_owned(), json!({"f:data": {}})),
            (
                "y/Update".to_owned(),
                json!({"f:data": {"f:a": {}, "f:b": {}}})
            ),
        ]
    );
}

#[test]
fn always_written_fields_have_no_dot() {
    let kind = kind("pods");
    let mut pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]},
        "status": {},
    });
    track(&kind, None, &mut pod, &writer("x"));
    let item = "k:{\"name\":\"c\"}";
    assert_eq!(
        entries(&pod)[0].1,
        json!({"f:spec": {"f:containers": {
            item: {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}
        }}})
    );
}

#[test]
fn applies_conflict_share_and_remove() {
    let one = apply_by("m1", None, &map(&json!({"a": "1", "b": "1"})), false).unwrap();
    let two = apply_by("m1", Some(&one), &map(&json!({"a": "2"})), false).unwrap();
    assert_eq!(two["data"], json!({"a": "2"}));
    assert_eq!(
        apply_by("m2", Some(&two), &map(&json!({"a": "3"})), false),
        Err("Apply failed with 1 conflict: conflict with \"m1\": .data.a".to_owned())
    );
    let forced = apply_by("m2", Some(&two), &map(&json!({"a": "3", "c": "1"})), true).unwrap();
    let owned = json!({"f:data": {"f:a": {}, "f:c": {}}});
    assert_eq!(entries(&forced), [("m2/Apply".to_owned(), owned)]);
    let shared = apply_by("m3", Some(&forced), &map(&json!({"a": "3"})), false).unwrap();
    assert_eq!(entries(&shared).len(), 2);
    assert!(shared["metadata"]["managedFields"][0].get("time").is_none());
    let gone = apply_by("m2", Some(&shared), &map(&json!({})), false).unwrap();
    assert_eq!(gone["data"], json!({"a": "3"}));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let live = map(&json!({"a": "1"}));
    assert_eq!(
        apply_by("m1", Some(&live), &map(&json!({"a": "2"})), false),
        Err(
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
                .to_owned()
        )
    );
}

#[test]
fn strategic_patches_merge_lists_by_key() {
    let schema = whole(&kind("pods"));
    let mut pod = json!({
        "metadata": {"finalizers": ["a"]},
        "spec": {"containers": [{"name": "c1", "image": "a"}, {"name": "c2", "image": "b"}]},
    });
    let patch = json!({
        "metadata": {"finalizers": ["b"], "$deleteFromPrimitiveList/finalizers": ["a"]},
        "spec": {
            "$setElementOrder/containers": [{"name": "c3"}, {"name": "c2"}],
            "containers": [{"name": "c2", "image": "b2"}, {"name": "c3"}, {"name": "c1", "$patch": "delete"}],
            "nodeName": null,
        },
    });
    strategic(Some(&schema), &mut pod, &patch);
    let containers = json!([{"name": "c3"}, {"name": "c2", "image": "b2"}]);
    assert_eq!(pod["spec"], json!({"containers": containers}));
    assert_eq!(pod["metadata"]["finalizers"], json!(["b"]));
}
