//! NetworkFences.

use serde_json::{Value, json};

use super::Lab;
use crate::history::event::Site::Primary;
use crate::lab::api::{DeleteOptions, Part, meta};
use crate::lab::storage::FENCES;
use crate::lab::world;

fn fence(name: &str, spec: &Value) -> Value {
    let mut fence = json!({"metadata": {"name": name}, "spec": {"fenceState": "Fenced"}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        fence["spec"][field.as_str()] = value.clone();
    }
    fence
}

fn said(fence: &Value, message: &str) -> bool {
    meta::text(fence, "/status/message") == message
}

#[tokio::test(start_paused = true)]
async fn a_fence_holds_until_it_is_lifted_and_not_merely_deleted() {
    let lab = Lab::start();
    let store = lab.store(Primary);
    let spec = json!({"networkFenceClassName": world::FENCE_CLASS, "cidrs": ["10.71.0.0/24"]});
    store.create(FENCES, fence("f", &spec)).unwrap();
    let done = "fencing operation successful";
    let object = lab.until(Primary, FENCES, "f", |f| said(f, done)).await;
    assert_eq!(object["status"]["result"], "Succeeded");
    assert_eq!(lab.array.fenced(Primary), world::nodes(Primary));
    let options = DeleteOptions::default();
    store.delete(FENCES, "", "f", &options).unwrap();
    lab.pass(60).await;
    assert!(store.get(FENCES, "", "f").is_none());
    assert_eq!(lab.array.fenced(Primary), world::nodes(Primary));
    store.create(FENCES, fence("g", &spec)).unwrap();
    lab.until(Primary, FENCES, "g", |f| said(f, done)).await;
    store
        .modify(FENCES, "", "g", Part::Object, |f| {
            f["spec"]["fenceState"] = json!("Unfenced");
        })
        .unwrap();
    let lifted = "unfencing operation successful";
    lab.until(Primary, FENCES, "g", |f| said(f, lifted)).await;
    assert!(lab.array.fenced(Primary).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fence_fails_aloud_on_bad_input_and_is_silent_without_class_or_leader() {
    let lab = Lab::start();
    let store = lab.store(Primary);
    let class = world::FENCE_CLASS;
    for (name, spec) in [
        (
            "bad",
            json!({"networkFenceClassName": class, "cidrs": ["nope"]}),
        ),
        (
            "empty",
            json!({"networkFenceClassName": class, "cidrs": []}),
        ),
        (
            "cluster",
            json!({"driver": world::DRIVER, "cidrs": ["10.71.0.10/32"]}),
        ),
    ] {
        store.create(FENCES, fence(name, &spec)).unwrap();
        let failed = |f: &Value| f["status"]["result"] == "Failed";
        lab.until(Primary, FENCES, name, failed).await;
    }
    for (name, spec) in [
        (
            "class",
            json!({"networkFenceClassName": "absent", "cidrs": ["10.71.0.10/32"]}),
        ),
        (
            "driver",
            json!({"driver": "rbd.csi.example.com", "cidrs": ["10.71.0.10/32"]}),
        ),
    ] {
        store.create(FENCES, fence(name, &spec)).unwrap();
        lab.pass(60).await;
        let silent = store.get(FENCES, "", name).unwrap();
        assert_eq!(silent.get("status"), None);
        assert!(meta::finalizers(&silent).is_empty());
    }
    assert!(lab.array.fenced(Primary).is_empty());
}
