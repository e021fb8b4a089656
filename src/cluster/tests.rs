//! Calls that change a site: labels, undo entries, repeated steps, refusals, and retries.

use serde_json::{Value, json};

use super::testing::{Fake, Reply};
use super::undo::{Undo, UndoLog};
use super::{Ask, Error, ObjRef, Owner, Patch, Propagation};
use crate::cluster::crd::core::ConfigMap;
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

    fake.reply("POST", Reply(500, json!("the webhook timed out")));
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
async fn only_calls_that_were_not_taken_are_repeated() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    fake.put(PATH, object());
    let reference = ObjRef::of::<ConfigMap>("demo", "it");
    fake.reply("GET", Reply(503, json!("unavailable")));
    cluster.read(&reference).await.expect("a read is repeated");
    assert_eq!(fake.requests().len(), 2);

    fake.reply("PATCH", Reply(503, json!("unavailable")));
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    let error = cluster
        .patch(&reference, &patch)
        .await
        .expect_err("not repeated");
    assert!(matches!(error, Error::Http { code: 503, .. }), "{error}");
    assert_eq!(fake.requests().len(), 3);
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
