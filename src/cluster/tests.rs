//! Calls that change a site: labels, undo entries, repeated steps, refusals, and retries.

use std::time::Duration;

use serde_json::{Value, json};

use super::kind::Typed as _;
use super::testing::{Fake, Reply};
use super::undo::{Undo, UndoLog};
use super::{Ask, Error, Method, ObjRef, Owner, Patch, Propagation};
use crate::cluster::crd::core::ConfigMap;
use crate::cluster::crd::kubevirt::VirtualMachine;
use crate::history::event::Site;

const PATH: &str = "/api/v1/namespaces/demo/configmaps/it";

fn object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "demo", "name": "it", "labels": {"mine": "yes"}},
    })
}

fn owner(dir: &tempfile::TempDir) -> Owner {
    let log = UndoLog::create(&dir.path().join("undo.jsonl"), "run-1").expect("a log");
    Owner::new("run-1", log)
}

#[tokio::test]
async fn what_is_created_is_labelled_and_written_down() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    cluster
        .create(&owner.lane("vm-0"), object())
        .await
        .expect("created");
    let made = fake.get(PATH).expect("there");
    assert_eq!(
        made["metadata"]["labels"],
        json!({"mine": "yes", "virtproof.dev/run": "run-1", "virtproof.dev/managed-by": "virtproof"})
    );
    let pending = owner.undo().pending();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].lane.as_deref(), Some("vm-0"));
    let Undo::Delete { object, uid, .. } = &pending[0].undo else {
        panic!("{pending:?}")
    };
    assert_eq!(*object, ObjRef::of::<ConfigMap>("demo", "it"));
    assert_eq!(uid.as_deref(), made["metadata"]["uid"].as_str());
}

#[tokio::test]
async fn a_repeated_step_finds_its_own_object_but_leaves_others_alone() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    let first = cluster.create(&owner, object()).await.expect("created");
    let again = cluster.create(&owner, object()).await.expect("found again");
    assert_eq!(first["metadata"]["uid"], again["metadata"]["uid"]);

    fake.remove(PATH);
    fake.put(PATH, object());
    let before = owner.undo().pending().len();
    let error = cluster
        .create(&owner, object())
        .await
        .expect_err("somebody else's");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(
        owner.undo().pending().len(),
        before,
        "nothing of ours to undo"
    );
}

#[tokio::test]
async fn a_refused_creation_leaves_nothing_to_undo_but_an_unclear_one_does() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    fake.reply(
        "POST",
        Reply(422, json!({"kind": "Status", "message": "no"})),
    );
    let error = cluster.create(&owner, object()).await.expect_err("refused");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(owner.undo().pending().is_empty());

    let unclear = json!({"kind": "Status", "message": "etcdserver: request timed out"});
    for _ in 0..6 {
        fake.reply("POST", Reply(500, unclear.clone()));
    }
    let error = cluster.create(&owner, object()).await.expect_err("unclear");
    assert!(error.is_transient(), "{error}");
    assert_eq!(owner.undo().pending().len(), 1);
}

#[tokio::test]
async fn an_object_without_a_name_is_refused_before_anything_is_written() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "demo", "generateName": "it-"}});
    let error = cluster.create(&owner, nameless).await.expect_err("no name");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let mut escape = object();
    escape["metadata"]["name"] = json!("../secrets/x");
    let error = cluster
        .create(&owner, escape)
        .await
        .expect_err("no name at all");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert_eq!(fake.requests(), Vec::<String>::new());
    assert!(owner.undo().pending().is_empty());
}

#[tokio::test]
async fn only_calls_that_do_no_harm_twice_are_repeated() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    let unavailable = || Reply(503, json!("unavailable"));
    let calls = || fake.requests().len();
    fake.reply("GET", unavailable());
    cluster.read(&reference).await.expect("a read is repeated");
    assert_eq!(calls(), 2);

    fake.reply("PATCH", unavailable());
    let merge = Patch::Merge(json!({"data": {"a": "b"}}));
    cluster.patch(&reference, &merge).await.expect("repeated");
    assert_eq!(calls(), 4);

    fake.reply("PATCH", unavailable());
    let tested = Patch::Json(json!([{"op": "test", "path": "/data/a", "value": "b"}]));
    let error = cluster.patch(&reference, &tested).await.expect_err("once");
    assert!(matches!(error, Error::Http { code: 503, .. }), "{error}");
    fake.reply("PUT", unavailable());
    let error = cluster
        .subresource(Method::Put, &reference, "stop", None)
        .await
        .expect_err("an order is given once");
    assert!(matches!(error, Error::Http { code: 503, .. }), "{error}");
    assert_eq!(calls(), 6);
}

#[tokio::test]
async fn a_creation_that_was_said_to_have_failed_finds_its_own_object() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    let mut made = object();
    owner.stamp(&mut made);
    // The server carried it out and said that it did not.
    fake.put(PATH, made);
    fake.reply(
        "POST",
        Reply(504, json!({"kind": "Status", "reason": "Timeout"})),
    );
    let found = cluster.create(&owner, object()).await.expect("its own");
    assert!(owner.owns(&found));
    assert_eq!(owner.undo().pending().len(), 1);
}

#[tokio::test]
async fn a_patch_without_a_version_is_tried_again_when_another_writer_was_first() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    let first = || Reply(409, json!({"kind": "Status", "reason": "Conflict"}));
    fake.reply("PATCH", first());
    let merge = Patch::Merge(json!({"data": {"a": "b"}}));
    cluster.patch(&reference, &merge).await.expect("again");
    assert_eq!(fake.get(PATH).expect("there")["data"]["a"], "b");

    fake.reply("PATCH", first());
    let of_old = Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "data": {}}));
    let error = cluster.patch(&reference, &of_old).await.expect_err("old");
    assert!(error.is_conflict(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it_but_not_for_ever() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    let begin = tokio::time::Instant::now();
    fake.throttle(3, 2);
    cluster.read(&reference).await.expect("it came round");
    assert!(
        begin.elapsed() >= Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    fake.throttle(1000, 2);
    let error = cluster.read(&reference).await.expect_err("never");
    assert!(error.is_blind(), "{error}");
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn deletion_spares_another_object_of_the_same_name() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    let delete = |uid| cluster.delete(&reference, uid, Propagation::Background);
    let error = delete(Some("other")).await.expect_err("another object");
    assert!(error.is_conflict(), "{error}");
    assert!(fake.get(PATH).is_some());
    assert!(delete(None).await.expect("deleted"));
    assert!(!delete(None).await.expect("nothing there"));
}

#[tokio::test]
async fn a_site_that_is_down_is_unreachable_and_says_so() {
    let fake = Fake::start().await;
    fake.set_down(true);
    let cluster = fake.cluster(Site::Secondary);
    let error = cluster.versions().await.expect_err("down");
    assert!(error.is_unreachable(), "{error}");
    let text = error.to_string();
    for word in [
        "GET /version",
        "secondary site",
        "http://127.0.0.1",
        "Check that",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn kinds_that_are_not_ours_come_from_discovery() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    let list = json!({"kind": "APIResourceList", "resources": [
        {"name": "widgets/status", "kind": "Widget", "namespaced": true},
        {"name": "widgets", "kind": "Widget", "namespaced": true}]});
    fake.reply("GET /apis/example.com/v1", Reply(200, list));
    let kind = cluster
        .resolve("example.com/v1", "Widget")
        .await
        .expect("resolved");
    assert_eq!((kind.plural.as_ref(), kind.namespaced), ("widgets", true));
    cluster
        .resolve("example.com/v1", "Widget")
        .await
        .expect("remembered");
    assert_eq!(fake.requests().len(), 1);
    fake.reply(
        "GET /apis/example.com/v2",
        Reply(404, json!("404 page not found")),
    );
    let error = cluster
        .resolve("example.com/v2", "Widget")
        .await
        .expect_err("not served");
    assert!(matches!(error, Error::MissingKind { .. }), "{error}");
}

#[tokio::test]
async fn whether_a_kind_of_ours_is_served_is_for_the_server_to_say() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    let kind = VirtualMachine::KIND;
    let path = "GET /apis/kubevirt.io/v1";
    fake.reply(path, Reply(404, json!("404 page not found")));
    let error = cluster.serves(&kind).await.expect_err("no KubeVirt");
    assert!(matches!(error, Error::MissingKind { .. }), "{error}");
    let others = json!({"kind": "APIResourceList", "resources": [
        {"name": "kubevirts", "kind": "KubeVirt", "namespaced": true}]});
    fake.reply(path, Reply(200, others));
    let error = cluster.serves(&kind).await.expect_err("no such kind");
    assert!(matches!(error, Error::MissingKind { .. }), "{error}");
    let list = json!({"kind": "APIResourceList", "resources": [
        {"name": "virtualmachines", "kind": "VirtualMachine", "namespaced": true}]});
    fake.reply(path, Reply(200, list));
    cluster.serves(&kind).await.expect("served");
}

#[tokio::test]
async fn denied_verbs_are_listed_in_order() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    let ask = |verb, resource| Ask {
        verb,
        group: "",
        resource,
        namespace: String::new(),
    };
    fake.reply("POST", Reply(201, json!({"status": {"allowed": true}})));
    let denied = cluster.denied(&[ask("get", "pods")]).await.expect("asked");
    assert!(denied.is_empty());
    fake.reply(
        "POST",
        Reply(
            201,
            json!({"status": {"allowed": false, "reason": "no role"}}),
        ),
    );
    let denied = cluster
        .denied(&[ask("create", "pods/exec")])
        .await
        .expect("asked");
    assert_eq!(denied[0].ask.to_string(), "create pods/exec");
    assert_eq!(denied[0].reason, "no role");
}

#[tokio::test]
async fn applying_updates_our_object_and_spares_others() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    cluster.apply(&owner, object()).await.expect("created");
    let mut newer = object();
    newer["data"] = json!({"a": "b"});
    cluster.apply(&owner, newer).await.expect("updated");
    assert_eq!(fake.get(PATH).expect("there")["data"]["a"], "b");
    assert_eq!(owner.undo().pending().len(), 1, "made once, undone once");
    fake.remove(PATH);
    fake.put(PATH, object());
    let error = cluster.apply(&owner, object()).await.expect_err("not ours");
    assert!(matches!(error, Error::NotOwned { .. }), "{error}");
}

#[tokio::test]
async fn a_recorded_patch_can_be_undone() {
    let (fake, dir) = (
        Fake::start().await,
        tempfile::tempdir().expect("a directory"),
    );
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    let restore = json!({"data": null});
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    // The server is gone by the time of the call: the note is there all the same.
    fake.set_down(true);
    cluster
        .patch_recorded(&owner, &reference, &patch, restore.clone())
        .await
        .expect_err("down");
    let pending = owner.undo().pending();
    assert!(
        matches!(&pending[..], [e] if matches!(&e.undo, Undo::Patch { merge, .. } if *merge == restore)),
        "{pending:?}"
    );
}
