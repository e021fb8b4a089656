//! `kubevirt-lifecycle.jsonl`: how KubeVirt's webhooks, subresources and objects answer while VMs
//! live. The recorder's deeds between the lines are played by the lab's own controllers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use virtproof::history::event::Site;
use virtproof::lab::api::{ApiServer, DeleteOptions, RunningServer, SiteConfig, Store, User};
use virtproof::lab::array::{self, Array};
use virtproof::lab::clock::LabClock;
use virtproof::lab::faults::Board;
use virtproof::lab::vm::{KubeVirt, Setup, Timing, seed};

use crate::harness::{Answer, Client, Line, Report, lines};
use crate::names::Names;

/// Lines that differ, and why that is right or harmless.
const REASONS: &[(&str, &str)] = &[
    (
        "disc.kubevirt",
        "the lab has no replica sets and presets of VMIs",
    ),
    (
        "kv.cr",
        "the recorder's cluster was installed by hand with settings of its own",
    ),
];

const VMS: &str = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines";
const SUB: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default";

struct Site1 {
    server: RunningServer,
    client: Client,
    names: Names,
    report: Report,
    lines: Vec<Line>,
}

impl Site1 {
    /// Sends the lines whose id is one of `ids` or begins with one that ends in a dot.
    async fn replay(&mut self, ids: &[&str]) {
        let wanted = |line: &&Line| {
            ids.iter()
                .any(|id| *id == line.id() || id.ends_with('.') && line.id().starts_with(id))
        };
        let lines: Vec<Line> = self.lines.iter().filter(wanted).cloned().collect();
        assert!(!lines.is_empty(), "no line {ids:?}");
        for line in lines {
            let request = self.names.translate(line.request());
            let mut answer = self.client.send(&request, None).await;
            same_machine(&line.response()["body"], &mut answer);
            self.report.note(&line, &answer, &self.names);
            self.names.learn(&line.response()["body"], &answer.body);
        }
    }

    /// Says what something with a generated name is called here.
    fn named(&mut self, recorded: &str, ours: &str) {
        let object = |name: &str| json!({"metadata": {"name": name, "generateName": "x"}});
        self.names.learn(&object(recorded), &object(ours));
    }

    async fn put(&self, path: &str) {
        let request = json!({"method": "PUT", "path": format!("{SUB}/{path}"), "body": {},
            "headers": {"Content-Type": "application/json", "Accept": "*/*"}});
        let answer = self.client.send(&request, None).await;
        assert!(answer.status < 300, "{path}: {}", answer.body);
    }

    async fn create(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let line = self
            .lines
            .iter()
            .find(|line| line.id() == "bad.volume_without_disk");
        let mut vm = line.expect("a whole VM").request()["body"].clone();
        vm["metadata"]["name"] = json!(name);
        let template = &mut vm["spec"]["template"];
        template["metadata"]["labels"]["app"] = json!(name);
        if let Some(volumes) = template["spec"]["volumes"].as_array_mut() {
            volumes.truncate(1);
        }
        edit(&mut vm);
        let path = VMS.replace(
            "default",
            vm["metadata"]["namespace"].as_str().unwrap_or("default"),
        );
        self.client.must("POST", &path, vm).await;
    }

    /// Waits until a VM or VMI is as it should be.
    async fn until(
        &self,
        resource: &str,
        (namespace, name): (&str, &str),
        holds: impl Fn(&Value) -> bool,
    ) {
        let store = self.server.store();
        let mut watch = store.watch(resource);
        let found = async {
            while let Some(change) = watch.recv().await {
                let meta = &change.object["metadata"];
                if meta["name"] == name && meta["namespace"] == namespace && holds(&change.object) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), found).await;
        assert!(
            in_time.is_ok(),
            "{resource} {name} stays {:#?}",
            store.get(resource, namespace, name)
        );
    }

    async fn ready(&self, namespace: &str, name: &str) {
        self.until("virtualmachines.kubevirt.io", (namespace, name), |vm| {
            vm["status"]["ready"] == true
        })
        .await;
    }

    async fn printable(&self, name: &str, word: &str) {
        self.until("virtualmachines.kubevirt.io", ("default", name), |vm| {
            vm["status"]["printableStatus"] == word
        })
        .await;
    }
}

/// Firmware identifiers are random on both sides; what is compared is that they are there.
fn same_machine(recorded: &Value, answer: &mut Answer) {
    for base in ["/spec/template/spec", "/spec"] {
        for field in ["uuid", "serial"] {
            let at = format!("{base}/domain/firmware/{field}");
            if let (Some(theirs), Some(mine)) =
                (recorded.pointer(&at), answer.body.pointer_mut(&at))
                && mine.as_str().map(str::len) == theirs.as_str().map(str::len)
            {
                *mine = theirs.clone();
            }
        }
    }
}

async fn site() -> Option<(Site1, CancellationToken)> {
    let lines = lines("kubevirt-lifecycle.jsonl")?;
    let clock = LabClock::new(10.0);
    let board = Arc::<Board>::default();
    let store = Store::new(1);
    let array = Array::new(array::Config::default(), clock, Arc::clone(&board));
    let token = CancellationToken::new();
    let setup = Setup {
        guests: virtproof::lab::Guests::Simulated,
        site: Site::Primary,
        store: store.clone(),
        array,
        clock,
        board,
        timing: Timing::default(),
        seed: 1,
    };
    let mut config = SiteConfig::new("rig", store.clone(), clock);
    let kubevirt = KubeVirt::start(setup, &TaskTracker::new(), &token);
    config.admission = vec![kubevirt.webhooks()];
    config.aggregated = vec![kubevirt.subresources()];
    config.users = vec![User {
        name: "rig-limited".to_owned(),
        uid: "uid-2".to_owned(),
        groups: vec!["system:authenticated".to_owned()],
    }];
    let server = ApiServer::start(config).await.expect("a server");
    seed(&store, Site::Primary).expect("an empty store");
    for namespace in ["rec3", "rec4"] {
        let object = json!({"metadata": {"name": namespace}});
        store.create("namespaces", object).expect("a namespace");
    }
    // The recorded cluster has one node, so that migrations find no target.
    for node in store.list("nodes", None).iter().skip(1) {
        let name = node["metadata"]["name"].as_str().expect("a name");
        store
            .delete("nodes", "", name, &DeleteOptions::default())
            .expect("a node");
    }
    let site = Site1 {
        client: Client::new(&server),
        server,
        names: Names::default(),
        report: Report::default(),
        lines,
    };
    Some((site, token))
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_kubevirt() {
    let Some((mut site, token)) = site().await else {
        return;
    };
    site.named("rig-real", "east-node-0");
    site.replay(&[
        "disc.",
        "sub.version",
        "sub.healthz",
        "sub.guestfs",
        "kv.cr",
        "bad.",
    ])
    .await;
    first_life(&mut site).await;
    always(&mut site).await;
    others(&mut site).await;
    site.report.judge("kubevirt-lifecycle", REASONS, 98);
    token.cancel();
    site.server.shutdown().await;
}

/// `lifecycle.1`: Halted, started, paused, stopped.
async fn first_life(site: &mut Site1) {
    site.create("vm1", |_| {}).await;
    site.until("virtualmachines.kubevirt.io", ("default", "vm1"), |vm| {
        !vm["status"]["conditions"].is_null()
    })
    .await;
    site.replay(&[
        "sub.accept.json",
        "sub.stop.stopped",
        "sub.restart.stopped",
        "sub.pause.stopped",
        "sub.migrate.stopped",
        "sub.guestos.stopped",
        "sub.freeze.stopped",
        "pf.stopped",
        "pf.stopped.vm",
        "sub.expand",
        "sub.memorydump",
    ])
    .await;
    site.put("virtualmachines/vm1/start").await;
    site.until(
        "virtualmachineinstances.kubevirt.io",
        ("default", "vm1"),
        |_| true,
    )
    .await;
    site.replay(&[
        "sub.start.twice",
        "pf.early",
        "sub.pause.early",
        "sub.migrate.early",
    ])
    .await;
    site.ready("default", "vm1").await;
    site.replay(&["sub.start.running"]).await;
    site.put("virtualmachineinstances/vm1/pause").await;
    site.printable("vm1", "Paused").await;
    site.replay(&["sub.pause.twice", "sub.freeze.paused", "sub.guestos.paused"])
        .await;
    site.put("virtualmachineinstances/vm1/unpause").await;
    site.printable("vm1", "Running").await;
    site.replay(&["sub.unpause.twice"]).await;
    site.put("virtualmachines/vm1/stop").await;
    site.replay(&["sub.stop.twice"]).await;
}

/// `lifecycle.2`: Always, with everything that is tried on a running guest.
async fn always(site: &mut Site1) {
    site.create("vm2", |vm| {
        vm["spec"]["runStrategy"] = json!("Always");
        vm["spec"]["template"]["spec"]["evictionStrategy"] = json!("LiveMigrate");
    })
    .await;
    site.ready("default", "vm2").await;
    site.replay(&[
        "sub.guestosinfo.noagent",
        "sub.filesystemlist.noagent",
        "sub.userlist.noagent",
        "sub.freeze.noagent",
        "sub.freeze.nobody",
        "sub.freeze.badbody",
        "sub.unfreeze.noagent",
        "sub.softreboot",
        "sub.freeze.vmpath",
        "sub.pause.vmpath",
        "sub.start.post",
        "sub.start.get",
        "sub.start.badbody",
        "sub.start.paused",
        "sub.forbidden",
        "pf.closed",
        "pf.noproto",
        "pf.otherproto",
        "pf.noupgrade",
        "pf.noprotosuffix",
        "pf.udp",
        "pf.badport",
        "pf.port0",
        "pf.vmpath",
        "console",
        "vnc",
        "sub.addvolume.",
        "sub.removevolume.absent",
        "sub.migrate",
        "vmim.inflight",
        "vmim.absent",
        "vmim.novmi",
        "snap.kind",
        "snap.nogroup",
    ])
    .await;
    let pods = site.server.store().list("pods", Some("default"));
    let launcher = pods.iter().find(|pod| {
        pod["metadata"]["labels"]["app"] == "vm2" && pod["status"]["phase"] == "Running"
    });
    let ours = launcher.expect("a launcher")["metadata"]["name"].clone();
    site.named("virt-launcher-vm2-4ghxq", ours.as_str().expect("a name"));
    site.replay(&["evict.", "snap.absent", "snap.vm2", "snap.imm"])
        .await;
    site.put("virtualmachines/vm2/restart").await;
    site.replay(&["sub.restart.twice"]).await;
}

/// `lifecycle.3` and `lifecycle.4`: claims that are missing, upgrades, users' patches, tables.
async fn others(site: &mut Site1) {
    let claim = |vm: &mut Value, name: &str, volume: Value| {
        vm["metadata"]["namespace"] = json!("rec3");
        vm["metadata"]["name"] = json!(name);
        vm["spec"]["runStrategy"] = json!("Always");
        vm["spec"]["template"]["spec"]["volumes"] = json!([volume]);
    };
    let pvc = json!({"name": "root", "persistentVolumeClaim": {"claimName": "absent"}});
    site.create("vmpvc", |vm| claim(vm, "vmpvc", pvc)).await;
    let dv = json!({"name": "root", "dataVolume": {"name": "absent"}});
    site.create("vmdv", |vm| claim(vm, "vmdv", dv)).await;
    for name in ["vmpvc", "vmdv"] {
        site.until("virtualmachines.kubevirt.io", ("rec3", name), |vm| {
            vm["status"]["printableStatus"] == "ErrorPvcNotFound"
        })
        .await;
    }
    site.replay(&[
        "state.vmpvc",
        "vmi.vmpvc",
        "state.vmdv",
        "vmi.vmdv",
        "vmi.vmman",
        "stop.pending",
    ])
    .await;
    for namespace in ["rec3", "rec4"] {
        site.create("vm4", |vm| {
            vm["metadata"]["namespace"] = json!(namespace);
            vm["spec"]["runStrategy"] = json!("Always");
        })
        .await;
        site.ready(namespace, "vm4").await;
    }
    let pods = site.server.store().list("pods", Some("rec4"));
    let uid = pods.first().expect("a launcher")["metadata"]["uid"].clone();
    site.named(
        "71d73323-8048-437e-b4a2-9cf02fd4500e",
        uid.as_str().expect("a uid"),
    );
    site.replay(&[
        "console.",
        "vnc.",
        "udp.",
        "sub.portforward.forbidden",
        "vmi.spec.patch",
        "vmi.reservedlabel.patch",
        "vmi.status.patch",
        "vmi.label.patch",
        "vm.status.put",
        "vm.rs.patch",
    ])
    .await;
    site.until("virtualmachines.kubevirt.io", ("rec4", "vm4"), |vm| {
        vm["status"].get("created").is_none()
    })
    .await;
    site.replay(&["vm.rs.patch2"]).await;
    site.ready("rec4", "vm4").await;
    site.replay(&["table."]).await;
}
