//! The cluster and replication modules against the simulated sites, over their real HTTPS APIs: a
//! planned move, an unplanned one, fencing, and cleanup by another process.

use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use virtproof::cluster::crd::core::{ConfigMap, NAMESPACE, PersistentVolumeClaim};
use virtproof::cluster::crd::kubevirt::{VirtualMachine, VirtualMachineInstance};
use virtproof::cluster::undo::{Hands, Thaw, Undo, UndoLog, replay};
use virtproof::cluster::{
    Ask, Deadline, Error, Method, ObjRef, Owner, Scope, Seen, Sites, Wake, repeat,
};
use virtproof::history::event::Site;
use virtproof::lab::control::Request;
use virtproof::lab::{Lab, LabConfig, world};
use virtproof::plan::model::{self, Protection, SiteRef};
use virtproof::replicate::{Driver, Evidence, Goal, Mode, Set, Work, fence, handover};

const NS: &str = "rehearsal";
const PVCS: [&str; 2] = ["data-0", "data-1"];

/// Nobody is frozen from inside here.
struct Gloves;

impl Hands for Gloves {
    fn thaw<'a>(
        &'a self,
        thaw: &'a Thaw,
        _deadline: &'a Deadline,
    ) -> LocalBoxFuture<'a, Result<(), String>> {
        let refused = format!("{thaw:?} is nobody's to thaw");
        async move { Err(refused) }.boxed_local()
    }
}

struct Rig {
    lab: Lab,
    sites: Sites,
    owner: Owner,
    log: PathBuf,
    driver: Driver,
    set: Set,
    deadline: Deadline,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = LabConfig {
            guests: virtproof::lab::Guests::Simulated,
            dir: dir.path().to_owned(),
            seed: 7,
            time_scale: LabConfig::FAST,
        };
        let lab = Lab::start(&config).await.expect("a lab");
        let site = |index: usize| SiteRef {
            kubeconfig: Some(lab.kubeconfigs()[index].clone()),
            context: None,
        };
        let sites = model::Sites {
            primary: site(0),
            secondary: site(1),
        };
        let sites = Sites::connect(&sites, dir.path())
            .await
            .expect("both sites answer");
        let log = dir.path().join("undo.jsonl");
        let owner = Owner::new("run-1", UndoLog::create(&log, "run-1").expect("a log"));
        let protection = Protection {
            driver: model::Driver::VolumeReplication {
                class: world::MIRROR.into(),
            },
            scheduling_interval: Duration::from_secs(60),
            synchronous: false,
            fencing: model::Fencing::None,
            handle_map: [("lab-east-".to_owned(), "lab-west-".to_owned())].into(),
            volume_snapshot_class: None,
            volume_group_snapshot_class: None,
        };
        Self {
            lab,
            sites,
            owner,
            log,
            driver: Driver::new(&protection),
            set: Set {
                namespace: NS.into(),
                vm: "vm".into(),
                pvcs: PVCS.map(str::to_owned).to_vec(),
            },
            deadline: Deadline::after(Duration::from_secs(60), &CancellationToken::new()),
            dir,
        }
    }

    fn work(&self) -> Work<'_> {
        Work {
            sites: &self.sites,
            owner: &self.owner,
            set: &self.set,
        }
    }

    async fn reach(&self, goal: Goal) {
        let reached = self.driver.reach(&self.work(), &goal, &self.deadline).await;
        reached.expect("the goal is reached");
    }

    async fn create(&self, site: Site, object: Value) {
        let made = self.sites.of(site).create(&self.owner, object).await;
        made.expect("created");
    }

    /// Namespaces on both sites, and the claims on the first.
    async fn furnish(&self) {
        for site in [Site::Primary, Site::Secondary] {
            self.create(
                site,
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}}),
            )
            .await;
        }
        for pvc in PVCS {
            self.create(Site::Primary, claim(pvc)).await;
            let east = self.sites.of(Site::Primary);
            let stands = handover::bound(east, &self.set, pvc, None, &self.deadline).await;
            assert!(stands.expect("bound").handle.starts_with("lab-east-"));
        }
    }

    async fn start_vm(&self, site: Site) {
        self.create(site, machine()).await;
        self.running(site).await;
    }

    async fn running(&self, site: Site) {
        let cluster = self.sites.of(site);
        let view = cluster.view::<VirtualMachineInstance>(&Scope::Namespace(NS.into()));
        view.until_object(&self.deadline, NS, "vm", "the VM to run", |vmi| match vmi {
            Some(vmi) if vmi.is_running() => Seen::Met(()),
            Some(vmi) => Seen::Not(vmi.describe()),
            None => Seen::Not("no VMI".into()),
        })
        .await
        .expect("no error");
    }

    async fn stop_vm(&self, site: Site) {
        let cluster = self.sites.of(site);
        let vm = ObjRef::of::<VirtualMachine>(NS, "vm");
        let stop = cluster
            .subresource(Method::Put, &vm, "stop", Some(&json!({})))
            .await;
        assert_eq!(stop.expect("stopped"), Value::Null);
        let gone = cluster
            .until_gone::<VirtualMachineInstance>(&self.deadline, NS, "vm")
            .await;
        gone.expect("no error");
    }

    /// Ends the run as a new process would, and expects nothing to be left.
    async fn clean_up(self) {
        drop(self.owner);
        let log = UndoLog::open(&self.log).expect("the log opens");
        let deadline = Deadline::after(Duration::from_secs(60), &CancellationToken::new());
        let left = replay(&log, &self.sites, &Gloves, &deadline).await;
        assert!(left.is_empty(), "{left:#?}");
        let swept = self.sites.sweep(&log, &[NS.to_owned()]).await;
        assert_eq!(swept.sites.len(), 2, "{:?}", swept.trouble);
        assert_eq!(swept.residue, []);
        self.lab.stop().await;
        drop(self.dir);
    }
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": NS, "name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"], "volumeMode": "Block",
            "storageClassName": world::CLASS_BLOCK,
            "resources": {"requests": {"storage": "16Mi"}},
        },
    })
}

fn machine() -> Value {
    let disk = |name: &str| json!({"name": name, "serial": name, "disk": {"bus": "virtio"}});
    let data = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"namespace": NS, "name": "vm"},
        "spec": {"runStrategy": "Always", "template": {"spec": {
            "domain": {
                "devices": {
                    "disks": [disk("root"), disk(PVCS[0]), disk(PVCS[1])],
                    "interfaces": [{"name": "default", "masquerade": {}}],
                },
                "resources": {"requests": {"memory": "128Mi"}},
            },
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": "registry.example/containerdisks/fedora:42"}},
                data(PVCS[0]), data(PVCS[1]),
            ],
        }}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_move_there_and_back_leaves_nothing() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.start_vm(Site::Primary).await;
    rig.reach(Goal::Protected {
        site: Site::Primary,
    })
    .await;
    rig.reach(Goal::Synced {
        site: Site::Primary,
        newer_than: Timestamp::now(),
    })
    .await;
    let east = rig.sites.of(Site::Primary);
    let captured = handover::capture(east, &rig.set).await.expect("captured");

    let closed = rig
        .driver
        .admit(&rig.sites, &rig.set, Site::Secondary, Mode::Planned)
        .await;
    assert!(
        closed
            .expect_err("the VM runs")
            .0
            .contains("VM is not gone")
    );
    rig.stop_vm(Site::Primary).await;
    rig.reach(Goal::Demoted {
        site: Site::Primary,
    })
    .await;
    let map = [("lab-east-".to_owned(), "lab-west-".to_owned())].into();
    let west = rig.sites.of(Site::Secondary);
    let stands =
        handover::install(west, &rig.owner, &rig.set, &captured, &map, &rig.deadline).await;
    for one in stands.expect("handed over") {
        assert_eq!(Some(&one.handle), one.expected.as_ref());
        assert!(one.handle.starts_with("lab-west-"), "{one:?}");
    }
    let pass = rig
        .driver
        .admit(&rig.sites, &rig.set, Site::Secondary, Mode::Planned)
        .await;
    rig.reach(Goal::Primary(pass.expect("clean"))).await;
    handover::settle(west, &captured).await.expect("settled");
    rig.start_vm(Site::Secondary).await;
    // The direction has turned: the old primary now receives.
    rig.reach(Goal::Synced {
        site: Site::Secondary,
        newer_than: Timestamp::now(),
    })
    .await;

    rig.stop_vm(Site::Secondary).await;
    rig.reach(Goal::Demoted {
        site: Site::Secondary,
    })
    .await;
    let pass = rig
        .driver
        .admit(&rig.sites, &rig.set, Site::Primary, Mode::Planned)
        .await;
    rig.reach(Goal::Primary(pass.expect("clean"))).await;
    let vm = ObjRef::of::<VirtualMachine>(NS, "vm");
    let started = east
        .subresource(Method::Put, &vm, "start", Some(&json!({})))
        .await;
    started.expect("no error");
    rig.running(Site::Primary).await;
    rig.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_power_is_left_by_force_and_taken_back_by_resync() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.start_vm(Site::Primary).await;
    rig.reach(Goal::Protected {
        site: Site::Primary,
    })
    .await;
    rig.reach(Goal::Synced {
        site: Site::Primary,
        newer_than: Timestamp::now(),
    })
    .await;
    let east = rig.sites.of(Site::Primary);
    let captured = handover::capture(east, &rig.set).await.expect("captured");
    let power = |on| {
        rig.lab.act(Request::Power {
            site: Site::Primary,
            on,
        })
    };
    power(false);
    let error = east.versions().await.expect_err("no power");
    assert!(error.is_unreachable(), "{error}");
    let planned = rig
        .driver
        .admit(&rig.sites, &rig.set, Site::Secondary, Mode::Planned)
        .await;
    assert!(planned.is_err());

    let west = rig.sites.of(Site::Secondary);
    let map = [("lab-east-".to_owned(), "lab-west-".to_owned())].into();
    handover::install(west, &rig.owner, &rig.set, &captured, &map, &rig.deadline)
        .await
        .expect("handed over");
    let down = Mode::Forced(Evidence::Down("its power was cut".into()));
    let pass = rig
        .driver
        .admit(&rig.sites, &rig.set, Site::Secondary, down)
        .await
        .expect("open");
    rig.reach(Goal::Primary(pass)).await;
    handover::settle(west, &captured).await.expect("settled");
    rig.start_vm(Site::Secondary).await;

    // The old primary comes back and starts its VM again, for its objects say so.
    power(true);
    let back = repeat(
        &rig.deadline,
        "the old site to answer",
        Wake::paced(),
        || async { east.versions().await.map(Seen::Met) },
    );
    back.await.expect("no error");
    rig.running(Site::Primary).await;
    rig.stop_vm(Site::Primary).await;
    rig.reach(Goal::Resynced {
        site: Site::Primary,
        newer_than: Timestamp::now(),
    })
    .await;
    rig.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_tunnels_and_refusals_over_a_real_api() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let east = rig.sites.of(Site::Primary);
    let refused = east
        .port_forward(NS, "vm", 22)
        .await
        .expect_err("no VM yet");
    assert!(refused.is_not_found(), "{refused}");
    rig.start_vm(Site::Primary).await;
    let mut tunnel = repeat(&rig.deadline, "a banner", Wake::paced(), || async {
        east.port_forward(NS, "vm", 22).await.map(Seen::Met)
    })
    .await
    .expect("no error");
    let mut banner = [0; 8];
    tunnel.read_exact(&mut banner).await.expect("a banner");
    assert_eq!(&banner, b"SSH-2.0-");
    let error = east
        .port_forward(NS, "vm", 4)
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, Error::DialRefused { .. }), "{error}");

    let held = fence::fence(east, &rig.owner, world::FENCE_CLASS, &[], &rig.deadline).await;
    let held = held.expect("no error");
    assert_eq!(held.cidrs.len(), world::NODES, "{held}");
    assert!(
        rig.owner
            .undo()
            .pending()
            .iter()
            .any(|e| matches!(e.undo, Undo::Unfence { .. }))
    );

    let versions = east.versions().await.expect("answers");
    assert!(versions.kubevirt.is_some(), "{versions:?}");
    let clock = versions.clock.expect("a date");
    assert!(
        clock.skew_ms.unsigned_abs() <= clock.bound_ms + 1000,
        "{clock:?}"
    );
    let ask = Ask {
        verb: "create",
        group: "",
        resource: "pods/exec",
        namespace: NS.into(),
    };
    assert_eq!(east.denied(&[ask]).await.expect("asked"), []);
    let absent = east.find::<ConfigMap>(NS, "absent").await.expect("asked");
    assert_eq!(absent, None);
    let unknown = east
        .resolve("example.com/v1", "Widget")
        .await
        .expect_err("not served");
    assert!(matches!(unknown, Error::MissingKind { .. }), "{unknown}");
    let claims = east
        .list::<PersistentVolumeClaim>(&Scope::Labelled(rig.owner.selector()))
        .await;
    assert_eq!(claims.expect("listed").len(), PVCS.len());
    let twice = east
        .create(
            &rig.owner,
            json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "kube-system"}}),
        )
        .await
        .expect_err("not ours");
    assert!(matches!(twice, Error::AlreadyExists { .. }), "{twice}");
    assert_eq!(
        ObjRef::new(NAMESPACE, "", NS).to_string(),
        "Namespace rehearsal"
    );
    rig.clean_up().await;
}
