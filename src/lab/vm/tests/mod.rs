mod exec;
mod migrations;
mod snapshots;
mod storage_move;
mod strikes;

use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::keys::PV;
use super::*;
use crate::lab::api::{Admission, Aggregated, DeleteOptions, Operation, Review, User};
use crate::lab::array;
use crate::lab::faults::Fault;

/// One site whose schedules run two hundred times faster.
struct Rig {
    store: Store,
    array: Array,
    board: Arc<Board>,
    kubevirt: KubeVirt,
    webhooks: Arc<Webhooks>,
    api: SendRequest<Full<bytes::Bytes>>,
    token: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Rig {
    async fn new() -> Self {
        Self::on(Site::Primary).await
    }

    async fn on(site: Site) -> Self {
        let clock = LabClock::new(200.0);
        let board = Arc::<Board>::default();
        let store = Store::new(7);
        let array = Array::new(array::Config::default(), clock, Arc::clone(&board));
        seed(&store, site).unwrap();
        let token = CancellationToken::new();
        let setup = Setup {
            site,
            store: store.clone(),
            array: array.clone(),
            clock,
            board: Arc::clone(&board),
            timing: Timing::default(),
            guests: Guests::Simulated,
            seed: 7,
        };
        let kubevirt = KubeVirt::start(setup, &TaskTracker::new(), &token);
        Self {
            webhooks: kubevirt.webhooks(),
            api: connect(kubevirt.subresources()).await,
            store,
            array,
            board,
            kubevirt,
            token,
        }
    }

    /// Creates an object as a user does, through the webhooks.
    fn create(&self, resource: &str, mut object: Value) {
        let user = User {
            name: "admin".into(),
            uid: String::new(),
            groups: Vec::new(),
        };
        let name = meta::name(&object).to_owned();
        let review = Review {
            operation: Operation::Create,
            resource,
            subresource: None,
            namespace: "default",
            name: &name,
            old: None,
            user: &user,
            dry_run: false,
            store: &self.store,
        };
        self.webhooks.mutate(&review, &mut object).unwrap();
        self.webhooks.validate(&review, &object).unwrap();
        self.store.create(resource, object).unwrap();
    }

    async fn call(&mut self, method: Method, path: &str, body: &str) -> (u16, String) {
        let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lab")
            .header("accept", "application/json, */*")
            .body(Full::from(body.to_owned()))
            .unwrap();
        self.api.ready().await.unwrap();
        let response = self.api.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn put(&mut self, path: &str, body: &str) -> (u16, String) {
        self.call(Method::PUT, path, body).await
    }

    /// A claim with its volume on the array.
    fn claim(&self, name: &str) {
        let handle = crate::lab::world::handle(Site::Primary, name);
        self.array.create(Site::Primary, &handle, 1 << 20).unwrap();
        let pv = format!("pv-{name}");
        let volume = json!({"metadata": {"name": pv}, "spec": {"csi": {"volumeHandle": handle}}});
        self.store.create(PV, volume).unwrap();
        let claim = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"volumeName": pv, "accessModes": ["ReadWriteMany"]},
            "status": {"phase": "Bound"}});
        self.store.create(PVC, claim).unwrap();
    }

    /// Waits until an object is as it should be.
    async fn until(
        &self,
        resource: &str,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Arc<Value> {
        let mut watch = self.store.watch(resource);
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let change = watch.recv().await.expect("the store lives");
                let there = change.kind != ChangeKind::Deleted;
                if there && meta::name(&change.object) == name && holds(&change.object) {
                    return change.object;
                }
            }
        });
        found.await.unwrap_or_else(|_| {
            panic!(
                "{resource} {name} stays {:#?}",
                self.store.get(resource, "default", name)
            )
        })
    }

    async fn until_gone(&self, resource: &str, name: &str) {
        let mut watch = self.store.watch(resource);
        let gone = async {
            while self.store.get(resource, "default", name).is_some() {
                watch.recv().await.expect("the store lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .unwrap_or_else(|_| panic!("{resource} {name} is still there"));
    }

    async fn printable(&self, name: &str, word: &str) -> Arc<Value> {
        self.until(VM, name, |vm| {
            meta::text(vm, "/status/printableStatus") == word
        })
        .await
    }

    async fn ready(&self, name: &str) -> Arc<Value> {
        self.until(VM, name, |vm| vm["status"]["ready"] == true)
            .await
    }

    async fn agent(&self, name: &str) -> Arc<Value> {
        self.until(VMI, name, |vmi| condition::is_true(vmi, "AgentConnected"))
            .await
    }
}

async fn connect(api: Arc<Subresources>) -> SendRequest<Full<bytes::Bytes>> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve(api, far));
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn serve(api: Arc<Subresources>, stream: tokio::io::DuplexStream) {
    let service = hyper::service::service_fn(move |request| {
        let api = Arc::clone(&api);
        let user = User {
            name: "admin".into(),
            uid: String::new(),
            groups: Vec::new(),
        };
        async move { Ok::<_, std::convert::Infallible>(api.handle(request, user).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // The client of a test hangs up without ceremony.
    drop(connection.await);
}

fn machine(name: &str, strategy: &str, volumes: &Value) -> Value {
    let disks: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| volume.get("cloudInitNoCloud").is_none())
        .map(|volume| json!({"name": volume["name"], "serial": volume["name"], "disk": {"bus": "virtio"}}))
        .collect();
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"runStrategy": strategy, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 3,
                "domain": {
                    "cpu": {"model": "host-model"},
                    "devices": {"disks": disks, "interfaces": [{"name": "default", "masquerade": {}}]},
                    "resources": {"requests": {"memory": "128Mi"}}},
                "networks": [{"name": "default", "pod": {}}],
                "volumes": volumes}}},
    })
}

/// A root disk without an operating system, as in the recordings.
fn blank() -> Value {
    json!([{"name": "root", "emptyDisk": {"capacity": "1Gi"}}])
}

fn fedora() -> Value {
    json!([{"name": "root", "containerDisk": {"image": "registry.example/containerdisks/fedora:42"}}])
}

/// The values that a field went through, without repetitions.
fn steps(watch: &mut mpsc::UnboundedReceiver<Change>, pointer: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    while let Ok(change) = watch.try_recv() {
        let now = meta::text(&change.object, pointer).to_owned();
        let fresh = change.kind == ChangeKind::Added;
        if !now.is_empty() && (fresh || steps.last() != Some(&now)) {
            steps.push(now);
        }
    }
    steps
}

const ONE_LIFE: [&str; 5] = ["Pending", "Scheduling", "Scheduled", "Running", "Failed"];

#[tokio::test]
async fn start_pause_stop_and_delete_go_through_the_recorded_states() {
    let mut rig = Rig::new().await;
    let mut vms = rig.store.watch(VM);
    let mut instances = rig.store.watch(VMI);
    rig.create(VM, machine("vm1", "Halted", &blank()));
    rig.until(VM, "vm1", |vm| condition::get(vm, "Ready").is_some())
        .await;
    let absent = rig.put("virtualmachines/vm1/stop", "{}").await;
    assert!(absent.1.contains("VM is not running"), "{absent:?}");
    assert_eq!(
        rig.put("virtualmachines/vm1/start", "{}").await,
        (202, String::new())
    );
    rig.ready("vm1").await;
    let twice = rig.put("virtualmachines/vm1/start", "{}").await;
    assert!(
        twice.0 == 409 && twice.1.contains("VM is already running"),
        "{twice:?}"
    );
    assert_eq!(
        rig.put("virtualmachineinstances/vm1/pause", "{}").await.0,
        200
    );
    let paused = rig.printable("vm1", "Paused").await;
    assert_eq!(
        phase(&rig.store.get(VMI, "default", "vm1").unwrap()),
        "Running"
    );
    assert!(condition::is_true(&paused, "Paused"));
    rig.until(VM, "vm1", |vm| vm["status"].get("ready").is_none())
        .await;
    assert_eq!(
        rig.put("virtualmachineinstances/vm1/unpause", "{}").await.0,
        200
    );
    rig.ready("vm1").await;
    assert_eq!(rig.put("virtualmachines/vm1/stop", "{}").await.0, 202);
    rig.until_gone(VMI, "vm1").await;
    let stopped = rig
        .until(VM, "vm1", |vm| vm["status"].get("created").is_none())
        .await;
    assert_eq!(stopped["spec"]["runStrategy"], "Halted");
    assert_eq!(rig.put("virtualmachines/vm1/start", "").await.0, 202);
    rig.ready("vm1").await;
    rig.store
        .delete(VM, "default", "vm1", &DeleteOptions::default())
        .unwrap();
    rig.until_gone(VM, "vm1").await;
    assert_eq!(
        steps(&mut vms, "/status/printableStatus"),
        [
            "Stopped",
            "Starting",
            "Running",
            "Paused",
            "Running",
            "Stopping",
            "Stopped",
            "Starting",
            "Running",
            "Terminating"
        ]
    );
    assert_eq!(
        steps(&mut instances, "/status/phase"),
        [ONE_LIFE, ONE_LIFE].concat()
    );
}

#[tokio::test]
async fn a_restart_replaces_the_instance() {
    let mut rig = Rig::new().await;
    let mut vms = rig.store.watch(VM);
    rig.create(VM, machine("vm2", "Always", &blank()));
    rig.ready("vm2").await;
    let first = rig.store.get(VMI, "default", "vm2").unwrap();
    assert_eq!(rig.put("virtualmachines/vm2/restart", "{}").await.0, 202);
    let again = rig.put("virtualmachines/vm2/restart", "{}").await;
    assert!(
        again.0 == 500 && again.1.contains("stop/start already underway"),
        "{again:?}"
    );
    rig.until(VMI, "vm2", |vmi| {
        meta::uid(vmi) != meta::uid(&first) && condition::is_true(vmi, "Ready")
    })
    .await;
    let vm = rig.ready("vm2").await;
    assert_eq!(vm["status"].get("stateChangeRequests"), None);
    assert_eq!(rig.put("virtualmachines/vm2/stop", "{}").await.0, 202);
    rig.until_gone(VMI, "vm2").await;
    assert_eq!(
        steps(&mut vms, "/status/printableStatus"),
        [
            "Stopped", "Starting", "Running", "Stopping", "Stopped", "Starting", "Running",
            "Stopping", "Stopped"
        ]
    );
}

#[tokio::test]
async fn what_a_running_instance_looks_like() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("web", "Always", &fedora()));
    let vmi = rig.agent("web").await;
    assert_eq!(
        vmi["status"]["interfaces"][0]["infoSource"],
        "domain, guest-agent"
    );
    assert!(meta::label(&vmi, keys::NODE_LABEL).is_some_and(|node| node.starts_with("east-node-")));
    assert_eq!(vmi["status"]["guestOSInfo"]["id"], "fedora");
    assert!(condition::is_true(&vmi, "LiveMigratable"));
    let pod = vmi::launcher_pod(&rig.kubevirt.ctx, &vmi).unwrap();
    assert_eq!(meta::label(&pod, "vm.kubevirt.io/name"), Some("web"));
    assert_eq!(phase(&pod), "Running");
    let vm = rig.ready("web").await;
    assert_eq!(
        vm["status"]["observedGeneration"],
        vm["metadata"]["generation"]
    );
    assert!(condition::is_true(&vm, "AgentConnected"));
    let (status, text) = rig
        .call(Method::GET, "virtualmachineinstances/web/guestosinfo", "")
        .await;
    assert_eq!(status, 200);
    assert!(text.contains("\"fsFreezeStatus\":\"thawed\""), "{text}");
}

#[tokio::test]
async fn a_guest_that_switches_itself_off_is_started_again_by_always_only() {
    let rig = Rig::new().await;
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.create(VM, machine("o", "Once", &fedora()));
    for name in ["a", "o"] {
        rig.agent(name).await;
    }
    let first = rig.store.get(VMI, "default", "a").unwrap();
    for name in ["a", "o"] {
        let vmi = rig.store.get(VMI, "default", name).unwrap();
        let off = Work::Guest(
            meta::uid(&vmi).to_owned(),
            crate::lab::guest::Request::Poweroff,
        );
        rig.kubevirt.ctx.push(off);
    }
    rig.until(VMI, "o", |vmi| phase(vmi) == "Succeeded").await;
    rig.until(VMI, "a", |vmi| {
        meta::uid(vmi) != meta::uid(&first) && phase(vmi) == "Running"
    })
    .await;
    rig.printable("o", "Stopped").await;
}

#[tokio::test]
async fn a_missing_claim_is_waited_for() {
    let rig = Rig::new().await;
    let data = json!([{"name": "root", "persistentVolumeClaim": {"claimName": "disk"}}]);
    rig.create(VM, machine("p", "Always", &data));
    let vm = rig.printable("p", "ErrorPvcNotFound").await;
    let text = condition::get(&vm, "Synchronized").unwrap()["message"].clone();
    assert_eq!(
        text,
        "PVC default/disk does not exist, waiting for it to appear"
    );
    rig.claim("disk");
    let vm = rig.printable("p", "Running").await;
    assert_eq!(condition::get(&vm, "Synchronized"), None);
}

#[tokio::test]
async fn an_image_that_is_not_primary_keeps_the_launcher_waiting() {
    let rig = Rig::new().await;
    let data = json!([{"name": "root", "persistentVolumeClaim": {"claimName": "disk"}}]);
    rig.claim("disk");
    rig.array
        .fence(Site::Primary, &crate::lab::world::nodes(Site::Primary));
    rig.create(VM, machine("p", "Always", &data));
    let mut events = rig.store.watch("events");
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(change) = events.recv().await {
            if change.object["reason"] == "FailedMount" {
                return;
            }
        }
    });
    seen.await.expect("the failed attach is told");
    assert_eq!(
        phase(&rig.store.get(VMI, "default", "p").unwrap()),
        "Scheduling"
    );
    rig.array
        .unfence(Site::Primary, &crate::lab::world::nodes(Site::Primary));
    rig.printable("p", "Running").await;
}

#[tokio::test]
async fn errors_that_scheduling_meets_are_printed() {
    let rig = Rig::new().await;
    let mut big = machine("big", "Always", &blank());
    big["spec"]["template"]["spec"]["domain"]["resources"]["requests"]["memory"] = json!("900Gi");
    rig.create(VM, big);
    rig.printable("big", "ErrorUnschedulable").await;
    let image = json!([{"name": "root", "containerDisk": {"image": "registry.rig/absent:1"}}]);
    rig.create(VM, machine("img", "Always", &image));
    rig.printable("img", "ErrImagePull").await;
    rig.printable("img", "ImagePullBackOff").await;
}

#[tokio::test]
async fn freezing_has_the_recorded_traps() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("bare", "Always", &blank()));
    rig.create(VM, machine("web", "Always", &fedora()));
    rig.ready("bare").await;
    let freeze = r#"{"unfreezeTimeout":"5m0s"}"#;
    let (status, text) = rig.put("virtualmachineinstances/bare/freeze", freeze).await;
    assert_eq!(status, 500);
    assert!(text.contains("unexpected return code 400 (400 Bad Request), message: server error. command Freeze failed"), "{text}");
    rig.agent("web").await;
    let (status, text) = rig.put("virtualmachineinstances/web/freeze", "").await;
    assert!(
        status == 500 && text.contains("Unfreeze timeout in freeze request is not set"),
        "{text}"
    );
    let (status, text) = rig
        .put(
            "virtualmachineinstances/web/freeze",
            r#"{"unfreezeTimeout":"soon"}"#,
        )
        .await;
    assert!(
        status == 500 && text.contains("failed to unmarshal unfreeze timeout"),
        "{text}"
    );
    let timed = r#"{"unfreezeTimeout":"500ms"}"#;
    assert_eq!(
        rig.put("virtualmachineinstances/web/freeze", timed).await,
        (200, String::new())
    );
    let guest = rig.kubevirt.guest("default", "web").unwrap();
    assert!(guest.frozen());
    rig.until(VMI, "web", |vmi| {
        vmi["status"]["fsFreezeStatus"] == "frozen"
    })
    .await;
    assert_eq!(
        rig.put(
            "virtualmachineinstances/web/freeze",
            r#"{"unfreezeTimeout":"0s"}"#
        )
        .await
        .0,
        200
    );
    // The first timer still runs and thaws, silently.
    rig.until(VMI, "web", |vmi| {
        vmi["status"].get("fsFreezeStatus").is_none()
    })
    .await;
    assert!(!guest.frozen());
    assert_eq!(
        rig.put("virtualmachineinstances/web/unfreeze", "").await.0,
        200
    );
}

#[tokio::test]
async fn power_comes_back_and_so_does_every_vm_that_is_to_run() {
    let rig = Rig::new().await;
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.create(VM, machine("m", "Manual", &fedora()));
    rig.ready("a").await;
    let before = rig.store.get(VMI, "default", "a").unwrap();
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    rig.array.power_cut(Site::Primary);
    rig.kubevirt.power_off();
    assert!(guest.is_off());
    assert_eq!(
        phase(&rig.store.get(VMI, "default", "a").unwrap()),
        "Running"
    );
    rig.array.power_on(Site::Primary);
    rig.kubevirt.power_on();
    rig.until(VMI, "a", |vmi| {
        meta::uid(vmi) != meta::uid(&before) && phase(vmi) == "Running"
    })
    .await;
    assert!(rig.store.get(VMI, "default", "m").is_none());
}

#[tokio::test]
async fn a_forced_stop_and_a_deleted_launcher_end_the_guest_at_once() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.ready("a").await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    let vmi = rig.store.get(VMI, "default", "a").unwrap();
    let pod = vmi::launcher_pod(&rig.kubevirt.ctx, &vmi).unwrap();
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    rig.store
        .delete(POD, "default", meta::name(&pod), &now)
        .unwrap();
    rig.until(VMI, "a", |now| {
        meta::uid(now) != meta::uid(&vmi) && phase(now) == "Running"
    })
    .await;
    assert!(guest.is_off());
    rig.ready("a").await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert_eq!(
        rig.put("virtualmachines/a/stop", r#"{"gracePeriod":0}"#)
            .await
            .0,
        202
    );
    rig.until_gone(VMI, "a").await;
    assert!(guest.is_off());
}

#[tokio::test]
async fn a_vm_deleted_before_its_domain_starts_goes_all_the_same() {
    let rig = Rig::new().await;
    let mut pods = rig.store.watch(POD);
    rig.create(VM, machine("a", "Always", &fedora()));
    let started = async {
        while let Some(change) = pods.recv().await {
            if phase(&change.object) == "Running" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), started)
        .await
        .expect("a running launcher");
    assert!(
        rig.kubevirt.guest("default", "a").is_none(),
        "the domain is there already"
    );
    rig.store
        .delete(VM, "default", "a", &DeleteOptions::default())
        .unwrap();
    rig.until_gone(VMI, "a").await;
    rig.until_gone(VM, "a").await;
}

#[tokio::test]
async fn a_migration_moves_the_guest_and_keeps_it_running() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("a", "Always", &fedora()));
    let before = rig.agent("a").await;
    let mut jobs = rig.store.watch(VMIM);
    assert_eq!(rig.put("virtualmachines/a/migrate", "{}").await.0, 202);
    let after = rig
        .until(VMI, "a", |vmi| {
            vmi["status"]["migrationState"]["completed"] == true
        })
        .await;
    assert_eq!(meta::uid(&after), meta::uid(&before));
    assert_ne!(after["status"]["nodeName"], before["status"]["nodeName"]);
    let name = meta::name(&rig.store.list(VMIM, None)[0]).to_owned();
    rig.until(VMIM, &name, |job| phase(job) == "Succeeded")
        .await;
    assert_eq!(
        steps(&mut jobs, "/status/phase"),
        [
            "Pending",
            "Scheduling",
            "Scheduled",
            "PreparingTarget",
            "TargetReady",
            "Running",
            "Succeeded"
        ]
    );
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert!(guest.connect(22).await.is_ok());
}

#[tokio::test]
async fn planted_faults_strike() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.ready("a").await;
    rig.board.plant(Fault::TwoLiveWriters);
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert_eq!(
        rig.put("virtualmachines/a/stop", r#"{"gracePeriod":0}"#)
            .await
            .0,
        202
    );
    rig.until_gone(VMI, "a").await;
    assert!(!guest.is_off(), "the guest outlives its objects");
    rig.board.heal(Fault::TwoLiveWriters);
    rig.board.plant(Fault::LeftoverAfterCleanup);
    rig.store
        .delete(VM, "default", "a", &DeleteOptions::default())
        .unwrap();
    rig.create(VM, machine("b", "Halted", &fedora()));
    rig.until(VM, "b", |vm| !meta::finalizers(vm).is_empty())
        .await;
    rig.store
        .delete(VM, "default", "b", &DeleteOptions::default())
        .unwrap();
    rig.until_gone(VM, "b").await;
    let left = rig.printable("a", "Terminating").await;
    assert_eq!(meta::finalizers(&left), [keys::FINALIZER]);
}

#[tokio::test]
async fn a_port_forward_dials_before_it_upgrades_and_carries_raw_bytes() {
    let mut rig = Rig::new().await;
    rig.create(VM, machine("bare", "Always", &blank()));
    rig.create(VM, machine("web", "Always", &fedora()));
    rig.agent("web").await;
    rig.ready("bare").await;
    let get = |path: &str| format!("virtualmachineinstances/{path}");
    for (path, code, text) in [
        (
            get("bare/portforward/22/tcp"),
            500,
            "connect: no route to host",
        ),
        (
            get("web/portforward/80"),
            500,
            "connect: connection refused",
        ),
        (
            get("web/portforward/abc/tcp"),
            500,
            "dialing VM: dial tcp: lookup tcp/abc: unknown port",
        ),
        (
            get("web/portforward/70000"),
            500,
            "dialing VM: dial tcp: address 70000: invalid port",
        ),
        (get("none/portforward/22"), 404, "not found"),
        (get("web/portforward/22"), 400, "'upgrade' token not found"),
        (
            "virtualmachines/none/portforward/22".to_owned(),
            404,
            "not found",
        ),
    ] {
        let (status, body) = rig.call(Method::GET, &path, "").await;
        assert!(
            status == code && body.contains(text),
            "{path}: {status} {body}"
        );
    }
    streams(&mut rig).await;
}

/// The upgraded half of the test above.
async fn streams(rig: &mut Rig) {
    use futures::{SinkExt, StreamExt};
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve(rig.kubevirt.subresources(), far));
    let url = "ws://lab/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web/portforward/22/tcp";
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert(
        "sec-websocket-protocol",
        http::HeaderValue::from_static("plain.kubevirt.io"),
    );
    let (mut socket, response) = tokio_tungstenite::client_async(request, near)
        .await
        .unwrap();
    assert_eq!(
        response.headers()["sec-websocket-protocol"],
        "plain.kubevirt.io"
    );
    let mut banner = Vec::new();
    let mut pings = 0;
    while !banner.ends_with(b"\n") {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => banner.extend_from_slice(&bytes),
            Message::Ping(payload) => {
                assert_eq!(payload.as_ref(), b"keep alive");
                pings += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
        if banner.len() > 4 && banner.starts_with(b"SSH-") && banner.contains(&b'\n') {
            break;
        }
    }
    assert!(banner.starts_with(b"SSH-2.0-OpenSSH"), "{banner:?}");
    socket
        .send(Message::Binary("SSH-2.0-x\r\n".into()))
        .await
        .unwrap();
    rig.board.plant(Fault::AckStreamCut);
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(Ok(message)) = socket.next().await {
            pings += usize::from(message.is_ping());
        }
    });
    ended.await.expect("the cut ends the stream");
    let (status, body) = rig
        .call(
            Method::GET,
            "virtualmachineinstances/web/portforward/22",
            "",
        )
        .await;
    assert!(status == 500 && body.contains("dialing VM"), "{body}");
}

#[tokio::test]
async fn methods_and_types_are_refused_as_recorded() {
    let mut rig = Rig::new().await;
    for (method, path, code) in [
        (Method::PUT, "virtualmachines/v/freeze", 404),
        (Method::POST, "virtualmachines/v/start", 405),
        (Method::GET, "virtualmachines/v/start", 405),
    ] {
        assert_eq!(rig.call(method, path, "").await.0, code, "{path}");
    }
    let (status, text) = rig.put("virtualmachines/absent/start", "{}").await;
    assert_eq!(status, 404);
    assert!(
        text.contains("virtualmachine.kubevirt.io \\\"absent\\\" not found"),
        "{text}"
    );
    let request =
        Request::put("/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/v/stop")
            .header("accept", "application/json")
            .body(Full::from("{}"))
            .unwrap();
    let response = rig.api.send_request(request).await.unwrap();
    assert_eq!(response.status(), 406);
}
