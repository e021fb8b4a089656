//! The driver against two servers: what it asks for, in which order, and what it refuses to ask.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::Scope;
use crate::cluster::crd::replication::VolumeReplication;
use crate::cluster::testing::Fake;
use crate::cluster::undo::UndoLog;

const VRS: &str =
    "/apis/replication.storage.openshift.io/v1alpha1/namespaces/demo/volumereplications";
const VMI: &str = "/apis/kubevirt.io/v1/namespaces/demo/virtualmachineinstances/vm";
const VM: &str = "/apis/kubevirt.io/v1/namespaces/demo/virtualmachines/vm";
const PVCS: [&str; 2] = ["data-0", "data-1"];

struct World {
    east: Fake,
    west: Fake,
    sites: Sites,
    owner: Owner,
    set: Set,
    driver: Driver,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (east, west) = (Fake::start().await, Fake::start().await);
        let sites = Sites::new(east.cluster(Site::Primary), west.cluster(Site::Secondary));
        let dir = tempfile::tempdir().expect("a directory");
        let log = UndoLog::create(&dir.path().join("undo.jsonl"), "run-1").expect("a log");
        Self {
            east,
            west,
            sites,
            owner: Owner::new("run-1", log),
            set: Set {
                namespace: "demo".into(),
                vm: "vm".into(),
                pvcs: PVCS.map(str::to_owned).to_vec(),
            },
            driver: Driver::VolumeReplication(VolumeReplicationDriver::new("rbd-1m".into())),
            _dir: dir,
        }
    }

    const fn work(&self) -> Work<'_> {
        Work {
            sites: &self.sites,
            owner: &self.owner,
            set: &self.set,
        }
    }

    async fn reach(&self, goal: &Goal, limit: Duration) -> Result<(), Error> {
        let deadline = Deadline::after(limit, &CancellationToken::new());
        self.driver.reach(&self.work(), goal, &deadline).await
    }

    /// How many of the VolumeReplications on a site have been seen.
    fn observed(&self, site: Site) -> usize {
        let scope = Scope::Namespace(self.set.namespace.clone());
        let view = self.sites.of(site).view::<VolumeReplication>(&scope);
        let seen = view.peek(|objects| {
            let has = |pvc: &&&str| objects.get(&self.set.namespace, pvc).is_some();
            PVCS.iter().filter(has).count()
        });
        seen.unwrap_or_default()
    }

    async fn admit(&self, site: Site, mode: Mode) -> Result<Pass, gate::Closed> {
        self.driver.admit(&self.sites, &self.set, site, mode).await
    }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(2);
/// Gives up only after a controller had its say, even on a busy machine.
const ENOUGH: Duration = Duration::from_secs(8);

fn path(pvc: &str) -> String {
    format!("{VRS}/{pvc}")
}

/// What the controller writes once it is through.
fn settled(state: &str, reason: &str, degraded: &str, resyncing: &str) -> Value {
    json!({"metadata": {"generation": 1}, "status": {
        "state": state, "observedGeneration": 1, "conditions": [
            {"type": "Completed", "status": "True", "reason": reason, "observedGeneration": 1},
            {"type": "Degraded", "status": degraded, "reason": "x", "observedGeneration": 1},
            {"type": "Resyncing", "status": resyncing, "reason": "x", "observedGeneration": 1}]}})
}

fn primary() -> Value {
    settled("Primary", "Promoted", "False", "False")
}

fn clean() -> Value {
    settled("Secondary", "Demoted", "False", "False")
}

/// Waits for the driver to ask for `desired` on all volumes of a site, then answers.
async fn controller(fake: &Fake, desired: &str, answer: &Value) {
    for pvc in PVCS {
        while fake
            .get(&path(pvc))
            .is_none_or(|vr| vr["spec"]["replicationState"] != desired)
        {
            tokio::task::yield_now().await;
        }
        fake.change(&path(pvc), answer);
    }
}

async fn protect(world: &World) {
    let goal = Goal::Protected {
        site: Site::Primary,
    };
    let answer = primary();
    let (done, ()) = tokio::join!(
        world.reach(&goal, LONG),
        controller(&world.east, "primary", &answer)
    );
    done.expect("protected");
}

#[tokio::test]
async fn protection_asks_for_every_volume_and_waits_for_all() {
    let world = World::new().await;
    let goal = Goal::Protected {
        site: Site::Primary,
    };
    let one = async {
        while world.east.get(&path("data-1")).is_none() {
            tokio::task::yield_now().await;
        }
        world.east.change(&path("data-0"), &primary());
    };
    let (error, ()) = tokio::join!(world.reach(&goal, ENOUGH), one);
    let error = error.expect_err("one of two");
    assert!(error.to_string().contains("data-1"), "{error}");
    protect(&world).await;
    let vr = world.east.get(&path("data-1")).expect("there");
    assert_eq!(vr["spec"]["volumeReplicationClass"], "rbd-1m");
    assert_eq!(vr["spec"]["autoResync"], false);
    assert_eq!(
        vr["spec"]["dataSource"],
        json!({"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data-1"})
    );
    assert_eq!(world.owner.undo().pending().len(), 2);
}

#[tokio::test]
async fn nothing_is_demoted_under_a_running_vm() {
    let world = World::new().await;
    protect(&world).await;
    world.east.put(
        VMI,
        json!({"metadata": {"namespace": "demo", "name": "vm"},
        "status": {"phase": "Running"}}),
    );
    let goal = Goal::Demoted {
        site: Site::Primary,
    };
    let error = world.reach(&goal, SHORT).await.expect_err("the VM runs");
    assert!(error.to_string().contains("the VM is not gone"), "{error}");
    assert_eq!(
        world.east.get(&path("data-0")).expect("there")["spec"]["replicationState"],
        "primary"
    );
    // The VMI's end wakes the wait.
    let answer = clean();
    let (done, (), ()) = tokio::join!(
        world.reach(&goal, LONG),
        async { world.east.remove(VMI) },
        controller(&world.east, "secondary", &answer),
    );
    done.expect("demoted");
}

#[tokio::test]
async fn a_planned_move_passes_the_gate_only_when_clean() {
    let world = World::new().await;
    protect(&world).await;
    let closed = world
        .admit(Site::Secondary, Mode::Planned)
        .await
        .expect_err("still primary");
    assert!(closed.0.contains("data-0"), "{closed}");

    let goal = Goal::Demoted {
        site: Site::Primary,
    };
    // Demoted, but the last data has not crossed: the controller would force a promotion now.
    let degraded = settled("Secondary", "Demoted", "True", "False");
    let (error, ()) = tokio::join!(
        world.reach(&goal, ENOUGH),
        controller(&world.east, "secondary", &degraded),
    );
    assert!(error.is_err());
    assert!(world.admit(Site::Secondary, Mode::Planned).await.is_err());

    let answer = clean();
    let (done, ()) = tokio::join!(
        world.reach(&goal, LONG),
        controller(&world.east, "secondary", &answer)
    );
    done.expect("clean");
    // A VM that would start again keeps the gate closed.
    world.east.put(
        VM,
        json!({"metadata": {"namespace": "demo", "name": "vm"},
        "spec": {"runStrategy": "Always"}}),
    );
    assert!(world.admit(Site::Secondary, Mode::Planned).await.is_err());
    world
        .east
        .change(VM, &json!({"spec": {"runStrategy": "Halted"}}));
    let pass = world
        .admit(Site::Secondary, Mode::Planned)
        .await
        .expect("open");

    let goal = Goal::Primary(pass);
    let answer = primary();
    let (done, ()) = tokio::join!(
        world.reach(&goal, LONG),
        controller(&world.west, "primary", &answer)
    );
    done.expect("promoted");
}

#[tokio::test]
async fn a_pass_that_has_become_stale_promotes_nothing() {
    let world = World::new().await;
    protect(&world).await;
    let answer = clean();
    let goal = Goal::Demoted {
        site: Site::Primary,
    };
    let (done, ()) = tokio::join!(
        world.reach(&goal, LONG),
        controller(&world.east, "secondary", &answer)
    );
    done.expect("clean");
    let pass = world
        .admit(Site::Secondary, Mode::Planned)
        .await
        .expect("open");
    // Somebody starts the VM again.
    world.east.put(
        VMI,
        json!({"metadata": {"namespace": "demo", "name": "vm"},
        "status": {"phase": "Scheduling"}}),
    );
    let error = world
        .reach(&Goal::Primary(pass), SHORT)
        .await
        .expect_err("closed again");
    assert!(error.to_string().contains("closed again"), "{error}");
    assert_eq!(world.west.get(&path("data-0")), None);
}

#[tokio::test]
async fn a_dead_site_allows_only_force_with_evidence() {
    let world = World::new().await;
    protect(&world).await;
    world.east.set_down(true);
    let closed = world
        .admit(Site::Secondary, Mode::Planned)
        .await
        .expect_err("no answer");
    assert!(closed.0.contains("cannot be asked"), "{closed}");
    let down = Mode::Forced(Evidence::Down("power was cut".into()));
    let pass = world.admit(Site::Secondary, down).await.expect("open");
    assert!(pass.forced());
    let goal = Goal::Primary(pass);
    let answer = primary();
    let (done, ()) = tokio::join!(
        world.reach(&goal, LONG),
        controller(&world.west, "primary", &answer)
    );
    done.expect("promoted");
}

#[tokio::test]
async fn a_site_said_to_be_down_that_answers_is_not_passed() {
    let world = World::new().await;
    world.east.put(
        VMI,
        json!({"metadata": {"namespace": "demo", "name": "vm"},
        "status": {"phase": "Running"}}),
    );
    let down = Mode::Forced(Evidence::Down("power was cut".into()));
    let closed = world
        .admit(Site::Secondary, down)
        .await
        .expect_err("it answers");
    assert!(closed.0.contains("answers"), "{closed}");
}

#[tokio::test]
async fn a_resync_is_done_when_the_winner_says_that_data_crossed() {
    let world = World::new().await;
    protect(&world).await;
    for pvc in PVCS {
        world.west.put(
            &path(pvc),
            json!({"metadata": {"namespace": "demo", "name": pvc},
            "spec": {"replicationState": "primary"}}),
        );
        world.west.change(&path(pvc), &primary());
    }
    let begun: Timestamp = "2026-11-22T10:00:00Z".parse().expect("a timestamp");
    let goal = Goal::Resynced {
        site: Site::Primary,
        newer_than: begun,
    };
    // A healthy loser is Degraded and Resyncing as long as its peer is primary.
    let resyncing = settled("Secondary", "Demoted", "True", "True");
    let stale = json!({"status": {"lastSyncTime": "2026-11-22T09:00:00Z"}});
    for pvc in PVCS {
        world.west.change(&path(pvc), &stale);
    }
    let (error, ()) = tokio::join!(
        world.reach(&goal, ENOUGH),
        controller(&world.east, "secondary", &resyncing),
    );
    assert!(error.expect_err("stale").to_string().contains("last sync"));
    assert_eq!(
        world.east.get(&path("data-0")).expect("there")["spec"]["autoResync"],
        true
    );
    for pvc in PVCS {
        let fresh = json!({"status": {"lastSyncTime": "2026-11-22T10:01:00Z"}});
        world.west.change(&path(pvc), &fresh);
    }
    world.reach(&goal, LONG).await.expect("resynced");
}

#[tokio::test]
async fn release_goes_primaries_first_and_only_with_a_word() {
    let world = World::new().await;
    protect(&world).await;
    for pvc in PVCS {
        world.west.put(
            &path(pvc),
            json!({"metadata": {"namespace": "demo", "name": pvc},
            "spec": {"replicationState": "secondary"}, "status": {"state": "Secondary"}}),
        );
        world
            .east
            .change(&path(pvc), &json!({"metadata": {"finalizers": ["f"]}}));
    }
    // The release goes by what its watches have seen.
    while world.observed(Site::Secondary) < PVCS.len() {
        tokio::task::yield_now().await;
    }
    let keep = Goal::Released {
        discard_replicas: false,
    };
    let error = world
        .reach(&keep, LONG)
        .await
        .expect_err("the replica is needed");
    assert!(matches!(error, Error::Stuck { .. }), "{error}");
    assert!(world.east.get(&path("data-0")).is_some());

    let discard = Goal::Released {
        discard_replicas: true,
    };
    let finalizer = async {
        for pvc in PVCS {
            while world
                .east
                .get(&path(pvc))
                .is_some_and(|vr| vr["metadata"]["deletionTimestamp"].is_null())
            {
                tokio::task::yield_now().await;
            }
        }
        for pvc in PVCS {
            assert!(
                world.west.get(&path(pvc)).is_some(),
                "the secondary goes after the primary"
            );
            world.east.remove(&path(pvc));
        }
    };
    let (done, ()) = tokio::join!(world.reach(&discard, LONG), finalizer);
    done.expect("released");
    assert_eq!(
        (
            world.east.get(&path("data-0")),
            world.west.get(&path("data-1"))
        ),
        (None, None)
    );
}

#[tokio::test]
async fn an_observation_is_a_fresh_read_of_every_volume() {
    let world = World::new().await;
    protect(&world).await;
    world.east.remove(&path("data-1"));
    let seen = world
        .driver
        .observe(&world.sites, &world.set, Site::Primary)
        .await
        .expect("read");
    assert!(matches!(seen.volumes[0].1, VolumeState::Seen(_)));
    assert_eq!(seen.volumes[1], ("data-1".to_owned(), VolumeState::Absent));
    world.east.set_down(true);
    let error = world
        .driver
        .observe(&world.sites, &world.set, Site::Primary)
        .await;
    assert!(matches!(error, Err(Error::Cluster(e)) if e.is_unreachable()));
}

#[test]
fn a_set_is_as_far_as_its_last_volume() {
    let pending = Progress::Pending("p".into());
    let stuck = Progress::Stuck("s".into());
    assert_eq!(Progress::Done.and(Progress::Done), Progress::Done);
    assert_eq!(Progress::Done.and(pending.clone()), pending);
    assert_eq!(pending.clone().and(stuck.clone()), stuck);
    assert_eq!(stuck.clone().and(pending.clone()), stuck);
    assert_eq!(
        pending.clone().and(pending),
        Progress::Pending("p; p".into())
    );
}

/// The futures of the driver are spawned by scenarios that run side by side.
#[test]
fn the_driver_can_be_spawned() {
    fn sendable<T: Send>(_: &T) {}
    let check = |world: &'static World, goal: &'static Goal, deadline: &'static Deadline| {
        let work: &'static Work<'static> = Box::leak(Box::new(world.work()));
        sendable(&world.driver.reach(work, goal, deadline));
        sendable(
            &world
                .driver
                .admit(&world.sites, &world.set, Site::Primary, Mode::Planned),
        );
    };
    // Compiling it is the test.
    let _: fn(&'static World, &'static Goal, &'static Deadline) = check;
}
