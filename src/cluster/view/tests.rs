//! Waiting on watches: outages, expiry, absence, and our own writes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Scope, Seen};
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::testing::{Fake, Reply};
use crate::cluster::{Deadline, Error, ObjRef, Patch};
use crate::history::event::Site;

const COLLECTION: &str = "/apis/kubevirt.io/v1/namespaces/demo/virtualmachineinstances";
const PATH: &str = "/apis/kubevirt.io/v1/namespaces/demo/virtualmachineinstances/vm";

fn vmi(phase: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "demo", "name": "vm"},
        "status": {"phase": phase},
    })
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(30), &CancellationToken::new())
}

fn scope() -> Scope {
    Scope::Namespace("demo".into())
}

fn running(vmi: Option<&VirtualMachineInstance>) -> Seen<String> {
    match vmi {
        Some(vmi) if vmi.is_running() => Seen::Met(vmi.metadata.uid.clone().unwrap_or_default()),
        Some(vmi) => Seen::Not(vmi.describe()),
        None => Seen::Not("no VMI".into()),
    }
}

/// Waits until the server has seen a watch of the collection begin `times` times.
async fn watched(fake: &Fake, times: usize) {
    // Lists and watches alternate in the request log: both are GETs of the collection.
    let seen = || {
        fake.requests()
            .iter()
            .filter(|r| r.ends_with(COLLECTION))
            .count()
    };
    while seen() < 2 * times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_wakes_the_waiter() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Scheduling"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    let limit = deadline();
    let wait = view.until_object(&limit, "demo", "vm", "vm to run", running);
    let change = async {
        watched(&fake, 1).await;
        fake.put(PATH, vmi("Running"));
    };
    let (met, ()) = tokio::join!(wait, change);
    assert_eq!(met.expect("running"), "uid-1");
}

#[tokio::test]
async fn a_cut_watch_is_resumed_where_it_was() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Scheduling"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    let limit = deadline();
    let wait = view.until_object(&limit, "demo", "vm", "vm to run", running);
    let outage = async {
        watched(&fake, 1).await;
        fake.set_down(true);
        // Happens while nobody watches; only a resumed watch can tell.
        fake.put(PATH, vmi("Running"));
        fake.set_down(false);
    };
    let (met, ()) = tokio::join!(wait, outage);
    assert_eq!(met.expect("running"), "uid-1");
}

#[tokio::test]
async fn an_expired_watch_starts_over() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    view.until_object(&deadline(), "demo", "vm", "vm to run", running)
        .await
        .expect("running");
    watched(&fake, 1).await;
    fake.set_down(true);
    fake.remove(PATH);
    // The deletion can no longer be replayed: 410, and a new list without the object.
    fake.expire();
    fake.set_down(false);
    view.until_gone(&deadline(), "demo", "vm")
        .await
        .expect("gone");
}

#[tokio::test]
async fn absence_is_not_believed_before_a_whole_list() {
    let fake = Fake::start().await;
    fake.set_down(true);
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    let short = deadline().within(Duration::from_millis(300));
    let error = view
        .until_gone(&short, "demo", "vm")
        .await
        .expect_err("the site is down");
    let Error::Timeout(timeout) = error else {
        panic!("{error}")
    };
    assert!(timeout.last_seen.contains("no list"), "{timeout}");
    assert!(timeout.last_error.is_some(), "{timeout}");
    assert!(
        timeout.waiting_for.contains("demo/vm to be gone"),
        "{timeout}"
    );
    // The same view recovers.
    fake.set_down(false);
    view.until_gone(&deadline(), "demo", "vm")
        .await
        .expect("never was there");
}

#[tokio::test]
async fn a_timeout_tells_the_last_state() {
    let fake = Fake::start().await;
    let mut paused = vmi("Running");
    paused["status"]["conditions"] =
        json!([{"type": "Paused", "status": "True", "reason": "PausedIOError", "message": "EIO"}]);
    fake.put(PATH, paused);
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    view.until_object(&deadline(), "demo", "vm", "it", |_| Seen::Met(()))
        .await
        .expect("listed");
    let short = deadline().within(Duration::from_millis(100));
    let error = view
        .until_object(&short, "demo", "vm", "vm to run", running)
        .await;
    let Err(Error::Timeout(timeout)) = error else {
        panic!("{error:?}")
    };
    assert!(timeout.last_seen.contains("PausedIOError"), "{timeout}");
    assert_eq!(timeout.last_error, None);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_does_not_hide_the_others() {
    let fake = Fake::start().await;
    let mut odd = vmi("x");
    odd["metadata"]["name"] = json!("odd");
    odd["status"] = json!({"phase": 7});
    fake.put(&format!("{COLLECTION}/odd"), odd);
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    view.until_object(&deadline(), "demo", "vm", "vm to run", running)
        .await
        .expect("running");
    let short = deadline().within(Duration::from_millis(50));
    let error = view
        .until_object(&short, "demo", "odd", "odd to run", running)
        .await;
    let Err(Error::Timeout(timeout)) = error else {
        panic!("{error:?}")
    };
    assert!(
        timeout
            .last_error
            .is_some_and(|e| e.contains("demo/odd cannot be read"))
    );
}

#[tokio::test]
async fn our_own_writes_are_seen_at_once_and_old_news_does_not_undo_them() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    view.until_object(&deadline(), "demo", "vm", "it", running)
        .await
        .expect("running");
    let object = ObjRef::of::<VirtualMachineInstance>("demo", "vm");
    let patch = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    cluster.patch(&object, &patch).await.expect("patched");
    // No await between the write and the look: the watch cannot have told yet.
    let phase = view.peek(|objects| objects.get("demo", "vm").map(|v| v.status.phase.clone()));
    assert_eq!(phase.flatten().as_deref(), Some("Failed"));
}

#[tokio::test]
async fn one_watch_serves_all_waiters() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    for _ in 0..5 {
        let view = cluster.view::<VirtualMachineInstance>(&scope());
        view.until_object(&deadline(), "demo", "vm", "it", running)
            .await
            .expect("running");
    }
    watched(&fake, 1).await;
    assert_eq!(fake.requests().len(), 2, "{:?}", fake.requests());
}

#[tokio::test]
async fn cancelling_ends_a_wait() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    let token = CancellationToken::new();
    let limit = Deadline::after(Duration::from_secs(30), &token);
    let wait = view.until_object(&limit, "demo", "vm", "vm to run", running);
    let stop = async {
        watched(&fake, 1).await;
        token.cancel();
    };
    let (error, ()) = tokio::join!(wait, stop);
    assert!(error.expect_err("cancelled").is_cancelled());
}

#[tokio::test]
async fn lists_follow_pages_and_survive_one_expiry() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    let get = format!("GET {COLLECTION}");
    let page = |token: &str, name: &str| {
        Reply(
            200,
            json!({"metadata": {"continue": token}, "items": [
                {"metadata": {"namespace": "demo", "name": name}}]}),
        )
    };
    fake.reply(&get, page("next", "a"));
    fake.reply(
        &get,
        Reply(
            410,
            json!({"kind": "Status", "reason": "Expired", "message": "old"}),
        ),
    );
    fake.reply(&get, page("next", "a"));
    fake.reply(&get, page("", "b"));
    let found = cluster
        .list::<VirtualMachineInstance>(&scope())
        .await
        .expect("a list");
    let names: Vec<_> = found
        .iter()
        .filter_map(|v| v.metadata.name.as_deref())
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn a_silent_watch_is_not_believed_while_somebody_waits() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Scheduling"));
    let cluster = fake.cluster(Site::Primary);
    let view = cluster.view::<VirtualMachineInstance>(&scope());
    watched(&fake, 1).await;
    fake.stall();
    fake.put(PATH, vmi("Running"));
    view.until_object(&deadline(), "demo", "vm", "it", running)
        .await
        .expect("seen by a list");
}

#[tokio::test]
async fn a_deletion_is_seen_although_the_watch_is_silent() {
    let fake = Fake::start().await;
    fake.put(PATH, vmi("Running"));
    let cluster = fake.cluster(Site::Primary);
    fake.stall();
    let uid = fake.get(PATH).expect("there")["metadata"]["uid"].clone();
    let object = ObjRef::of::<VirtualMachineInstance>("demo", "vm");
    let limit = deadline();
    let uid = uid.as_str().expect("a UID");
    let gone = cluster.until_gone_at(&limit, &object, uid);
    let remove = async {
        watched(&fake, 1).await;
        fake.remove(PATH);
    };
    let (gone, ()) = tokio::join!(gone, remove);
    gone.expect("gone");
}
