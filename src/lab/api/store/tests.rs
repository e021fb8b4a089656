use serde_json::{Value, json};

use super::*;
use crate::lab::api::meta;

fn store() -> Store {
    Store::new(7)
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})
}

fn owned(name: &str, owner: &Value) -> Value {
    let mut object = map(name);
    object["metadata"]["ownerReferences"] = json!([meta::owner_reference(owner)]);
    object
}

fn drain(changes: &mut mpsc::UnboundedReceiver<Change>) -> Vec<(ChangeKind, String)> {
    std::iter::from_fn(|| changes.try_recv().ok())
        .map(|change| (change.kind, meta::name(&change.object).to_owned()))
        .collect()
}

fn foreground() -> DeleteOptions {
    DeleteOptions {
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_names() {
    let object = json!({"metadata": {"generateName": "a-"}});
    let one = store().create("configmaps", object.clone()).unwrap();
    let two = store().create("configmaps", object).unwrap();
    assert_eq!(meta::name(&one), meta::name(&two));
    assert_eq!(meta::uid(&one), meta::uid(&two));
    assert_eq!(meta::name(&one).len(), 7);
}

#[test]
fn a_change_without_effect_writes_nothing() {
    let store = store();
    let one = store.create("configmaps", map("a")).unwrap();
    let before = store.version();
    let same = store
        .modify("configmaps", "default", "a", Part::Object, |_| ())
        .unwrap();
    assert_eq!((store.version(), same), (before, one));
}

#[test]
fn spec_counts_generations_and_status_does_not() {
    let store = store();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {}});
    store.create("pods", pod).unwrap();
    let write = |part, change: fn(&mut Value)| {
        let pod = store.modify("pods", "default", "p", part, change).unwrap();
        (meta::generation(&pod), pod["status"].clone())
    };
    assert_eq!(
        write(Part::Status, |pod| {
            pod["status"]["phase"] = json!("Running");
            pod["spec"]["nodeName"] = json!("other");
        }),
        (1, json!({"phase": "Running"}))
    );
    assert_eq!(
        write(Part::Object, |pod| {
            pod["status"] = json!({});
            pod["spec"]["nodeName"] = json!("m");
        }),
        (2, json!({"phase": "Running"}))
    );
}

#[test]
fn the_last_finalizer_takes_the_object_along() {
    let store = store();
    let mut object = map("a");
    meta::add_finalizer(&mut object, "x/y");
    store.create("configmaps", object).unwrap();
    let deleted = store
        .delete("configmaps", "default", "a", &DeleteOptions::default())
        .unwrap();
    assert!(matches!(deleted, Deleted::Pending(_)));
    let more = store.modify("configmaps", "default", "a", Part::Object, |object| {
        meta::add_finalizer(object, "x/z");
    });
    assert_eq!(more.unwrap_err().reason, "Invalid");
    store
        .modify("configmaps", "default", "a", Part::Object, |object| {
            meta::remove_finalizer(object, "x/y");
        })
        .unwrap();
    assert_eq!(store.get("configmaps", "default", "a"), None);
}

#[test]
fn dependents_follow_their_last_owner() {
    let store = store();
    let owner = store.create("configmaps", map("owner")).unwrap();
    store.create("configmaps", owned("child", &owner)).unwrap();
    let mut changes = store.watch("configmaps");
    drain(&mut changes);
    store
        .delete("configmaps", "default", "owner", &DeleteOptions::default())
        .unwrap();
    assert_eq!(
        drain(&mut changes),
        [
            (ChangeKind::Deleted, "owner".to_owned()),
            (ChangeKind::Deleted, "child".to_owned())
        ]
    );
    // An owner that never was: the collector takes the orphan at once.
    store.create("configmaps", owned("late", &owner)).unwrap();
    assert_eq!(store.get("configmaps", "default", "late"), None);
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents() {
    let store = store();
    let owner = store.create("configmaps", map("owner")).unwrap();
    let mut child = owned("child", &owner);
    meta::add_finalizer(&mut child, "x/y");
    store.create("configmaps", child).unwrap();
    store
        .delete("configmaps", "default", "owner", &foreground())
        .unwrap();
    let waiting = store.get("configmaps", "default", "owner").unwrap();
    assert_eq!(meta::finalizers(&waiting), ["foregroundDeletion"]);
    store
        .modify("configmaps", "default", "child", Part::Object, |object| {
            meta::remove_finalizer(object, "x/y");
        })
        .unwrap();
    assert_eq!(store.get("configmaps", "default", "child"), None);
    assert_eq!(store.get("configmaps", "default", "owner"), None);
}

#[test]
fn orphans_lose_their_owner() {
    let store = store();
    let owner = store.create("configmaps", map("owner")).unwrap();
    store.create("configmaps", owned("child", &owner)).unwrap();
    let options = DeleteOptions {
        propagation: Some(Propagation::Orphan),
        ..DeleteOptions::default()
    };
    store
        .delete("configmaps", "default", "owner", &options)
        .unwrap();
    assert_eq!(store.get("configmaps", "default", "owner"), None);
    let child = store.get("configmaps", "default", "child").unwrap();
    assert!(meta::owners(&child).is_empty());
}

#[test]
fn a_namespace_goes_when_its_content_is_gone() {
    let store = store();
    store
        .create("namespaces", json!({"metadata": {"name": "rec"}}))
        .unwrap();
    let mut held = map("held");
    held["metadata"]["namespace"] = json!("rec");
    meta::add_finalizer(&mut held, "x/y");
    store.create("configmaps", held).unwrap();
    store
        .delete("namespaces", "", "rec", &DeleteOptions::default())
        .unwrap();
    let namespace = store.get("namespaces", "", "rec").unwrap();
    assert_eq!(meta::text(&namespace, "/status/phase"), "Terminating");
    assert_eq!(
        namespace.pointer("/status/conditions/4/message").unwrap(),
        "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
    );
    let refused = store.create(
        "secrets",
        json!({"metadata": {"name": "s", "namespace": "rec"}}),
    );
    assert_eq!(refused.unwrap_err().code, 403);
    store
        .modify("configmaps", "rec", "held", Part::Object, |object| {
            meta::remove_finalizer(object, "x/y");
        })
        .unwrap();
    assert_eq!(store.get("namespaces", "", "rec"), None);
}

#[test]
fn a_bound_pod_keeps_its_grace_period() {
    let store = store();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
    store.create("pods", pod).unwrap();
    let asked = store
        .delete("pods", "default", "p", &DeleteOptions::default())
        .unwrap();
    let left = asked
        .object()
        .pointer("/metadata/deletionGracePeriodSeconds");
    assert_eq!(left, Some(&json!(30)));
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    store.delete("pods", "default", "p", &now).unwrap();
    assert_eq!(store.get("pods", "default", "p"), None);
}

#[test]
fn the_same_event_counts_up() {
    let store = store();
    let object = store.create("configmaps", map("a")).unwrap();
    for _ in 0..3 {
        store
            .emit_event(&object, "Normal", "Rec", "text", "test")
            .unwrap();
    }
    let events = store.list("events", Some("default"));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["count"], 3);
}
