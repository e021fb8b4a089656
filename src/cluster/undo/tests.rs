//! The log on disk, and replaying it from another process.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Hands, Thaw, Undo, UndoError, UndoLog, replay};
use crate::cluster::crd::core::ConfigMap;
use crate::cluster::crd::csiaddons::NetworkFence;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::testing::{Fake, Reply};
use crate::cluster::{Cluster, Deadline, ObjRef, Owner, Sites, Typed as _};
use crate::history::event::Site;

struct World {
    fake: Fake,
    cluster: Arc<Cluster>,
    sites: Sites,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let cluster = fake.cluster(Site::Primary);
    let sites = Sites::new(Arc::clone(&cluster), other.cluster(Site::Secondary));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("undo.jsonl");
    World {
        fake,
        cluster,
        sites,
        path,
        _dir: dir,
    }
}

/// Hands of a run whose guests nobody froze from inside.
struct Gloves;

impl Hands for Gloves {
    fn thaw<'a>(
        &'a self,
        thaw: &'a Thaw,
        _deadline: &'a Deadline,
    ) -> LocalBoxFuture<'a, Result<(), String>> {
        panic!("{thaw:?} is nobody's to thaw")
    }
}

fn deadline(limit: Duration) -> Deadline {
    Deadline::after(limit, &CancellationToken::new())
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "demo", "name": name}})
}

fn path(name: &str) -> String {
    ObjRef::of::<ConfigMap>("demo", name).path()
}

/// Ends the first process: its log is closed, and another opens the file.
fn reopen(owner: Owner, path: &std::path::Path) -> UndoLog {
    drop(owner);
    UndoLog::open(path).expect("the log opens")
}

#[tokio::test]
async fn another_process_undoes_in_reverse_order() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    for name in ["a", "b", "c"] {
        world
            .cluster
            .create(&owner, config_map(name))
            .await
            .expect("created");
    }
    let log = reopen(owner, &world.path);
    let left = replay(
        &log,
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(20)),
    )
    .await;
    assert_eq!(left, []);
    assert!(log.pending().is_empty());
    let deletions: Vec<String> = world
        .fake
        .requests()
        .into_iter()
        .filter(|r| r.starts_with("DELETE"))
        .collect();
    assert_eq!(
        deletions,
        ["c", "b", "a"].map(|n| format!("DELETE {}", path(n)))
    );
    // And again: nothing to do, nothing called.
    let before = world.fake.requests().len();
    drop(log);
    let log = UndoLog::open(&world.path).expect("opens");
    assert_eq!(
        replay(
            &log,
            &world.sites,
            &Gloves,
            &deadline(Duration::from_secs(5))
        )
        .await,
        []
    );
    assert_eq!(world.fake.requests().len(), before);
}

#[tokio::test]
async fn a_crash_between_the_note_and_the_answer_is_undone_by_label_only() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    for name in ["ours", "foreign", "never-made"] {
        let object = ObjRef::of::<ConfigMap>("demo", name);
        let undo = Undo::Delete {
            site: Site::Primary,
            object,
            uid: None,
        };
        log.record(None, undo).await.expect("recorded");
    }
    let mut ours = config_map("ours");
    ours["metadata"]["labels"] = json!({"virtproof.dev/run": "run-1"});
    world.fake.put(&path("ours"), ours);
    world.fake.put(&path("foreign"), config_map("foreign"));
    assert_eq!(
        replay(
            &log,
            &world.sites,
            &Gloves,
            &deadline(Duration::from_secs(20))
        )
        .await,
        []
    );
    assert!(world.fake.get(&path("ours")).is_none());
    assert!(
        world.fake.get(&path("foreign")).is_some(),
        "not ours to delete"
    );
}

#[tokio::test]
async fn a_replaced_object_is_left_alone() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    world
        .cluster
        .create(&owner, config_map("a"))
        .await
        .expect("created");
    world.fake.remove(&path("a"));
    let mut successor = config_map("a");
    successor["metadata"]["labels"] = json!({"virtproof.dev/run": "run-1"});
    world.fake.put(&path("a"), successor);
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(20)),
    )
    .await;
    assert_eq!(left, []);
    assert!(
        world.fake.get(&path("a")).is_some(),
        "another UID is another object"
    );
}

#[tokio::test]
async fn what_cannot_be_undone_is_told_and_does_not_stop_the_rest() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    world
        .cluster
        .create(&owner, config_map("below"))
        .await
        .expect("created");
    world
        .cluster
        .create(&owner, config_map("stuck"))
        .await
        .expect("created");
    world.fake.change(
        &path("stuck"),
        &json!({"metadata": {"finalizers": ["example.com/never"]}}),
    );
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(3)),
    )
    .await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].why.contains("example.com/never"), "{}", left[0].why);
    assert!(world.fake.get(&path("below")).is_none());
    assert_eq!(owner.undo().pending().len(), 1, "still to be undone");

    let swept = world.sites.sweep(owner.undo(), &[]).await;
    assert_eq!(
        swept.sites,
        [Site::Primary, Site::Secondary],
        "{:?}",
        swept.trouble
    );
    assert_eq!(swept.residue.len(), 1, "{swept:?}");
    assert_eq!(swept.residue[0].kind, "v1/ConfigMap");
    assert_eq!(swept.residue[0].name, "demo/stuck");
    assert!(
        swept.residue[0].why.contains("example.com/never"),
        "{swept:?}"
    );
}

#[tokio::test]
async fn a_sweep_finds_volumes_that_stand_for_the_runs_claims() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    let volume = |ns: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": ns},
            "spec": {"claimRef": {"namespace": ns, "name": "data"}}})
    };
    world
        .fake
        .put("/api/v1/persistentvolumes/run-ns", volume("run-ns"));
    world
        .fake
        .put("/api/v1/persistentvolumes/other-ns", volume("other-ns"));
    let swept = world.sites.sweep(&log, &["run-ns".to_owned()]).await;
    let names: Vec<_> = swept.residue.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["run-ns"]);
}

#[tokio::test]
async fn a_site_that_cannot_be_listed_is_not_called_clean() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    world.fake.set_down(true);
    let swept = world.sites.sweep(&log, &[]).await;
    assert_eq!(swept.sites, [Site::Secondary]);
    assert_eq!(swept.trouble.len(), 1);
    // A kind that is not served has no objects, and is no trouble.
    world.fake.set_down(false);
    let cdi = "GET /apis/cdi.kubevirt.io";
    world
        .fake
        .reply(cdi, Reply(404, json!("404 page not found")));
    assert_eq!(world.sites.sweep(&log, &[]).await.sites.len(), 2);
}

#[tokio::test]
async fn a_fence_is_lifted_before_it_is_deleted() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    let fence = ObjRef::of::<NetworkFence>("", "f");
    let manifest = json!({
        "apiVersion": NetworkFence::KIND.api_version(), "kind": "NetworkFence",
        "metadata": {"name": "f"}, "spec": {"fenceState": "Fenced"},
    });
    let undo = Undo::Unfence {
        site: Site::Primary,
        name: "f".into(),
    };
    world
        .cluster
        .create_undone_by::<NetworkFence>(&owner, manifest, undo)
        .await
        .expect("made");
    let done =
        json!({"status": {"result": "Succeeded", "message": "fencing operation successful"}});
    world.fake.change(&fence.path(), &done);

    // Nobody lifts it: the stale success of the other direction must not be believed.
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(1)),
    )
    .await;
    assert_eq!(left.len(), 1);
    assert!(left[0].why.contains("to be lifted"), "{}", left[0].why);
    assert!(world.fake.get(&fence.path()).is_some());

    let lifted =
        json!({"status": {"result": "Succeeded", "message": "unfencing operation successful"}});
    world.fake.change(&fence.path(), &lifted);
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(20)),
    )
    .await;
    assert_eq!(left, []);
    assert!(world.fake.get(&fence.path()).is_none());
}

#[tokio::test]
async fn patches_puts_and_commands_are_undone_and_told_when_they_fail() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    world.fake.put(
        &path("adopted"),
        json!({"metadata": {"name": "adopted"}, "data": {"a": "new"}}),
    );
    let adopted = ObjRef::of::<ConfigMap>("demo", "adopted");
    let vmi = ObjRef::of::<VirtualMachineInstance>("demo", "vm");
    let marker = world.path.with_file_name("ran");
    let touch = vec!["touch".to_owned(), "ran".to_owned()];
    let folder = world.path.parent().expect("a folder").to_owned();
    for undo in [
        Undo::Patch {
            site: Site::Primary,
            object: adopted,
            merge: json!({"data": {"a": "old"}}),
        },
        Undo::Put {
            site: Site::Primary,
            object: vmi,
            subresource: "unfreeze".into(),
            body: None,
        },
        Undo::Command {
            argv: touch,
            dir: folder,
        },
        Undo::Command {
            argv: vec!["false".into()],
            dir: "/".into(),
        },
    ] {
        log.record(None, undo).await.expect("recorded");
    }
    let left = replay(
        &log,
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(20)),
    )
    .await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].why.contains("false") && left[0].why.contains("exit status: 1"));
    assert_eq!(
        world.fake.get(&path("adopted")).expect("there")["data"]["a"],
        "old"
    );
    assert!(
        world
            .fake
            .requests()
            .iter()
            .any(|r| r.starts_with("PUT") && r.ends_with("vm/unfreeze"))
    );
    assert!(marker.exists());
}

#[tokio::test]
async fn lanes_do_not_wait_for_each_other_but_barriers_do() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    world
        .cluster
        .create(&owner, config_map("namespace"))
        .await
        .expect("created");
    for (lane, name) in [("vm-0", "stuck"), ("vm-1", "free")] {
        world
            .cluster
            .create(&owner.lane(lane), config_map(name))
            .await
            .expect("created");
    }
    world
        .fake
        .change(&path("stuck"), &json!({"metadata": {"finalizers": ["x"]}}));
    let fake = world.fake.clone();
    let release = async {
        // The stuck lane is let go only once the free one is through.
        while fake.get(&path("free")).is_some() {
            tokio::task::yield_now().await;
        }
        assert!(
            fake.get(&path("namespace")).is_some(),
            "the barrier waits for both lanes"
        );
        fake.remove(&path("stuck"));
    };
    let limit = deadline(Duration::from_secs(30));
    let (left, ()) = tokio::join!(replay(owner.undo(), &world.sites, &Gloves, &limit), release);
    assert_eq!(left, []);
    assert!(world.fake.get(&path("namespace")).is_none());
}

#[tokio::test]
async fn replications_of_a_subject_go_primaries_first() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    let vr = |name: &str| {
        json!({"apiVersion": "replication.storage.openshift.io/v1alpha1",
            "kind": "VolumeReplication", "metadata": {"namespace": "demo", "name": name}})
    };
    let place = |name: &str| {
        format!(
            "/apis/replication.storage.openshift.io/v1alpha1/namespaces/demo/volumereplications/{name}"
        )
    };
    let lane = owner.lane("vm-0");
    for (name, state) in [("primary", "Primary"), ("secondary", "Secondary")] {
        world
            .cluster
            .create(&lane, vr(name))
            .await
            .expect("created");
        world
            .fake
            .change(&place(name), &json!({"status": {"state": state}}));
    }
    assert_eq!(
        replay(
            owner.undo(),
            &world.sites,
            &Gloves,
            &deadline(Duration::from_secs(20))
        )
        .await,
        []
    );
    let deletions: Vec<String> = world
        .fake
        .requests()
        .into_iter()
        .filter(|r| r.starts_with("DELETE"))
        .collect();
    assert_eq!(
        deletions,
        ["primary", "secondary"].map(|n| format!("DELETE {}", place(n)))
    );
}

#[tokio::test]
async fn a_torn_last_line_is_dropped_and_a_broken_one_is_named() {
    let world = world().await;
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    world
        .cluster
        .create(&owner, config_map("a"))
        .await
        .expect("created");
    drop(owner);
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&world.path)
            .expect("the log");
        file.write_all(text.as_bytes()).expect("written");
    };
    append("{\"record\":{\"id\":1,\"undo\":{\"do\":\"dele");
    let log = UndoLog::open(&world.path).expect("a torn tail is no damage");
    assert_eq!(log.pending().len(), 1);
    let undo = Undo::Command {
        argv: vec!["true".into()],
        dir: "/".into(),
    };
    log.record(None, undo)
        .await
        .expect("appended after the cut");
    drop(log);
    assert_eq!(
        UndoLog::open(&world.path).expect("whole").pending().len(),
        2
    );
    append("{\"what\":1}\n");
    let Err(UndoError::Broken { line, .. }) = UndoLog::open(&world.path) else {
        panic!("a broken line was taken")
    };
    assert_eq!(line, 5);
}

#[tokio::test]
async fn a_log_in_use_is_not_opened() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    assert!(matches!(
        UndoLog::open(&world.path),
        Err(UndoError::InUse { .. })
    ));
    assert!(matches!(
        UndoLog::create(&world.path, "run-2"),
        Err(UndoError::Io { .. })
    ));
    drop(log);
    assert_eq!(UndoLog::open(&world.path).expect("free").run(), "run-1");
}

#[tokio::test]
async fn a_log_that_is_too_large_is_refused_and_left_whole() {
    let world = world().await;
    drop(UndoLog::create(&world.path, "run-1").expect("a log"));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&world.path)
        .expect("the log");
    // Sparse: takes no room.
    file.set_len(300 << 20).expect("longer");
    assert!(matches!(
        UndoLog::open(&world.path),
        Err(UndoError::Broken { .. })
    ));
    assert_eq!(file.metadata().expect("there").len(), 300 << 20);
}

#[tokio::test]
async fn what_no_api_took_is_told_apart_from_what_will_not_go() {
    let world = world().await;
    let log = UndoLog::create(&world.path, "run-1").expect("a log");
    let owner = Owner::new("run-1", log);
    world
        .cluster
        .create(&owner, config_map("a"))
        .await
        .expect("created");
    world.fake.throttle(u32::MAX, 1);
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(6)),
    )
    .await;
    assert!(left.len() == 1 && left[0].blind, "{left:?}");

    world.fake.throttle(0, 0);
    let stuck = json!({"metadata": {"finalizers": ["example.com/never"]}});
    world.fake.change(&path("a"), &stuck);
    let left = replay(
        owner.undo(),
        &world.sites,
        &Gloves,
        &deadline(Duration::from_secs(3)),
    )
    .await;
    assert!(left.len() == 1 && !left[0].blind, "{left:?}");
}

/// Hands that thaw, or find that they cannot, and count.
#[derive(Default)]
struct Bare {
    asked: Mutex<Vec<String>>,
    cannot: bool,
}

impl Hands for Bare {
    fn thaw<'a>(
        &'a self,
        thaw: &'a Thaw,
        _deadline: &'a Deadline,
    ) -> LocalBoxFuture<'a, Result<(), String>> {
        self.asked
            .lock()
            .expect("no panic")
            .push(thaw.command.clone());
        let answer = if self.cannot {
            Err("nobody answers".to_owned())
        } else {
            Ok(())
        };
        async move { answer }.boxed_local()
    }
}

#[tokio::test]
async fn a_guest_is_thawed_from_inside_by_a_later_process_if_it_is_the_one_that_was_frozen() {
    let world = world().await;
    let vmi = |name: &str| ObjRef::of::<VirtualMachineInstance>("demo", name);
    for (name, uid, phase) in [
        ("same", "u1", "Running"),
        ("another", "u9", "Running"),
        ("over", "u1", "Failed"),
    ] {
        let object = json!({"metadata": {"namespace": "demo", "name": name, "uid": uid}, "status": {"phase": phase}});
        world.fake.put(&vmi(name).path(), object);
    }
    let owner = Owner::new(
        "run-1",
        UndoLog::create(&world.path, "run-1").expect("a log"),
    );
    for name in ["same", "another", "over", "gone"] {
        let thaw = Thaw {
            site: Site::Primary,
            object: vmi(name),
            uid: "u1".into(),
            workload: "w".into(),
            user: "root".into(),
            command: name.into(),
            stdin: String::new(),
        };
        let recorded = owner.undo().record(None, Undo::Thaw(Box::new(thaw)));
        recorded.await.expect("recorded");
    }
    let log = reopen(owner, &world.path);
    let limit = deadline(Duration::from_secs(20));
    let cannot = Bare {
        cannot: true,
        ..Bare::default()
    };
    let left = replay(&log, &world.sites, &cannot, &limit).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].why.contains("nobody answers"));
    assert!(left[0].entry.undo.describe().contains("thaw"));
    let hands = Bare::default();
    assert_eq!(replay(&log, &world.sites, &hands, &limit).await, []);
    assert_eq!(*hands.asked.lock().expect("no panic"), ["same"]);
    assert!(log.pending().is_empty());
}
