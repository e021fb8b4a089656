//! `kubectl`, as people have it, against a lab site: its real requests, its real output.
#![expect(clippy::print_stderr, reason = "a test that reports")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use virtproof::lab::api::{ApiServer, Part, RunningServer, SiteConfig, Store};
use virtproof::lab::clock::LabClock;
use virtproof::lab::{Guests, Lab, LabConfig};

/// Runs `kubectl` with a site's kubeconfig.
struct Kubectl {
    config: PathBuf,
    home: tempfile::TempDir,
}

impl Kubectl {
    fn new(server: &RunningServer, user: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let config = home.path().join("kubeconfig");
        let text = server.kubeconfig(user).expect("a user");
        std::fs::write(&config, text).expect("a kubeconfig");
        Self { config, home }
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args.split_whitespace())
            .env("KUBECONFIG", &self.config)
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it with input; gives exit code and both outputs.
    fn run(&self, args: &str, input: &str) -> (i32, String) {
        let mut child = self.command(args).spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("input is read");
        drop(stdin);
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().expect("kubectl ends");
        let text = [stdout, stderr].concat();
        (
            status.code().unwrap_or(-1),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Runs it; it must succeed.
    fn ok(&self, args: &str, input: &str) -> String {
        let (code, text) = self.run(args, input);
        assert_eq!(code, 0, "kubectl {args}: {text}");
        text
    }
}

fn installed() -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: there is no kubectl on PATH; nothing was tried");
    }
    there
}

async fn server() -> RunningServer {
    let config = SiteConfig::new("east", Store::new(5), LabClock::new(1.0));
    ApiServer::start(config).await.expect("a server")
}

/// Runs blocking work beside the server.
async fn beside(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work)
        .await
        .expect("no assertion failed");
}

const REPLICATION: &str = "
apiVersion: replication.storage.openshift.io/v1alpha1
kind: VolumeReplication
metadata: {name: vrt}
spec:
  volumeReplicationClass: c
  replicationState: primary
  dataSource: {kind: PersistentVolumeClaim, name: p}
";

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: p, labels: {app: x}}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: rbd
  resources: {requests: {storage: 1Gi}}
";

const MACHINE: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: vm1}
spec:
  runStrategy: Halted
  template:
    spec:
      domain: {devices: {disks: [{name: root, disk: {bus: virtio}}]}}
      volumes: [{name: root, persistentVolumeClaim: {claimName: p}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_gets_describes_and_deletes() {
    if !installed() {
        return;
    }
    let server = server().await;
    let kubectl = Kubectl::new(&server, "admin");
    let store = server.store().clone();
    beside(move || {
        let all = [CLAIM, MACHINE, REPLICATION].join("---");
        let applied = kubectl.ok("apply -f -", &all);
        assert_eq!(
            applied,
            "persistentvolumeclaim/p created\nvirtualmachine.kubevirt.io/vm1 created\nvolumereplication.replication.storage.openshift.io/vrt created\n"
        );
        let again = kubectl.ok("apply -f -", &all);
        assert_eq!(again.matches("unchanged").count(), 3, "{again}");
        let changed = CLAIM.replace("app: x", "app: z");
        let changed = kubectl.ok("apply -f -", &changed);
        assert_eq!(changed, "persistentvolumeclaim/p configured\n");
        let claim = store.get("persistentvolumeclaims", "default", "p").expect("a claim");
        assert_eq!(claim["metadata"]["labels"], json!({"app": "z"}));

        let got = kubectl.ok("get vm,vmi,pvc,volumereplication -A", "");
        for column in ["NAMESPACE", "STATUS", "READY", "ACCESS MODES", "DESIREDSTATE"] {
            assert!(got.contains(column), "{column} is missing:\n{got}");
        }
        assert!(got.contains("virtualmachine.kubevirt.io/vm1"), "{got}");
        assert!(got.contains("RWX") || got.contains("rbd"), "{got}");
        let rows = kubectl.ok("get vr vrt --no-headers", "");
        let cells: Vec<&str> = rows.split_whitespace().collect();
        assert_eq!(
            (cells[0], &cells[2..]),
            ("vrt", &["c", "PersistentVolumeClaim", "p", "primary"][..])
        );
        let described = kubectl.ok("describe vr vrt", "");
        assert!(described.contains("Replication State:         primary"), "{described}");
        assert!(described.contains("Events:                      <none>"), "{described}");

        let refused = kubectl.run("patch vr vrt --type merge -p {\"spec\":{\"dataSource\":{\"name\":\"q\"}}}", "");
        assert_eq!(
            refused,
            (1, "The VolumeReplication \"vrt\" is invalid: spec.dataSource: Invalid value: dataSource is immutable\n".to_owned())
        );
        let unknown = kubectl.run("apply -f -", &REPLICATION.replace("vrt", "x").replace("dataSource:", "bogus: 1\n  dataSource:"));
        assert_eq!(unknown.0, 1);
        assert!(unknown.1.contains("strict decoding error: unknown field \"spec.bogus\""), "{}", unknown.1);
        assert_eq!(
            kubectl.run("get vr absent", "").1,
            "Error from server (NotFound): volumereplications.replication.storage.openshift.io \"absent\" not found\n"
        );
        assert_eq!(
            kubectl.ok("delete vr vrt", ""),
            "volumereplication.replication.storage.openshift.io \"vrt\" deleted\n"
        );
        assert_eq!(kubectl.ok("delete vm vm1 --cascade=foreground", ""), "virtualmachine.kubevirt.io \"vm1\" deleted\n");
        assert_eq!(kubectl.ok("get vr -A", ""), "No resources found\n");
    })
    .await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_watches_and_explains() {
    if !installed() {
        return;
    }
    let server = server().await;
    let kubectl = Kubectl::new(&server, "admin");
    let store = server.store().clone();
    beside(move || {
        kubectl.ok("apply -f -", MACHINE);
        let (code, text) = kubectl.run("wait vm/vm1 --for=condition=Ready --timeout=1s", "");
        assert_eq!(
            (code, text.as_str()),
            (
                1,
                "error: timed out waiting for the condition on virtualmachines/vm1\n"
            )
        );
        let mut watch = kubectl
            .command("get vm vm1 -w --no-headers")
            .spawn()
            .expect("kubectl runs");
        let waiting = kubectl
            .command("wait vm/vm1 --for=condition=Ready --timeout=60s")
            .spawn();
        let ready = |vm: &mut Value| {
            vm["status"] = json!({
                "printableStatus": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
            });
        };
        store
            .modify(
                "virtualmachines.kubevirt.io",
                "default",
                "vm1",
                Part::Status,
                ready,
            )
            .expect("a machine");
        let waited = waiting
            .expect("kubectl runs")
            .wait_with_output()
            .expect("it ends");
        assert_eq!(
            String::from_utf8_lossy(&waited.stdout),
            "virtualmachine.kubevirt.io/vm1 condition met\n"
        );
        // The watch ends with its server's patience or ours; its first lines are what counts.
        let mut seen = String::new();
        let mut lines = std::io::BufReader::new(watch.stdout.take().expect("a pipe"));
        while !seen.contains("Running") {
            let read = std::io::BufRead::read_line(&mut lines, &mut seen).expect("a line");
            assert!(read > 0, "the watch ended after {seen:?}");
        }
        watch.kill().expect("it runs");
        watch.wait().expect("it ends");

        let explained = kubectl.ok("explain vm.spec.runStrategy", "");
        for part in [
            "GROUP:      kubevirt.io",
            "VERSION:    v1",
            "FIELD: runStrategy <string>",
            "Halted",
        ] {
            assert!(explained.contains(part), "{part} is missing:\n{explained}");
        }
        let explained = kubectl.ok("explain pod.spec.containers", "");
        assert!(
            explained.contains("FIELD: containers <[]Object>"),
            "{explained}"
        );
        let resources = kubectl.ok(
            "api-resources --api-group=replication.storage.openshift.io",
            "",
        );
        assert!(resources.contains("volumereplications"), "{resources}");
        let version = kubectl.ok("version", "");
        assert!(version.contains("Server Version: v1.36.2"), "{version}");
    })
    .await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_tells_who_may_do_what() {
    if !installed() {
        return;
    }
    let server = server().await;
    let (admin, limited) = (
        Kubectl::new(&server, "admin"),
        Kubectl::new(&server, "limited"),
    );
    beside(move || {
        assert_eq!(admin.ok("auth can-i create vm", ""), "yes\n");
        assert_eq!(limited.run("auth can-i create vm", ""), (1, "no\n".to_owned()));
        assert!(admin.ok("auth can-i --list", "").contains("*.*"));
        assert!(limited.ok("auth whoami", "").contains("limited"));
        let (code, text) = limited.run("get cm", "");
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "Error from server (Forbidden): configmaps is forbidden: User \"limited\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"\n"
        );
        admin.ok("create namespace rec", "");
        admin.ok("create configmap one --from-literal=a=1 -n rec", "");
        admin.ok("label configmap one x=z -n rec", "");
        assert_eq!(admin.ok("get cm -n rec -l x=z -o name", ""), "configmap/one\n");
        admin.ok("delete namespace rec", "");
        assert_eq!(admin.run("get namespace rec", "").0, 1);
    })
    .await;
    server.shutdown().await;
}

const WANDERER: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: wanderer}
spec:
  runStrategy: Always
  template:
    spec:
      evictionStrategy: LiveMigrate
      domain:
        memory: {guest: 128Mi}
        devices:
          disks: [{name: root, disk: {bus: virtio}}]
          interfaces: [{name: default, masquerade: {}}]
      networks: [{name: default, pod: {}}]
      volumes: [{name: root, containerDisk: {image: registry.example/containerdisks/fedora:42}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_drains_a_node_and_its_vm_lives_on() {
    if !installed() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let config = LabConfig {
        dir: dir.path().to_owned(),
        seed: 5,
        time_scale: LabConfig::FAST,
        guests: Guests::Simulated,
    };
    let lab = Lab::start(&config).await.expect("a lab");
    let kubectl = Kubectl {
        config: lab.kubeconfigs()[0].clone(),
        home: tempfile::tempdir().expect("a directory"),
    };
    beside(move || {
        kubectl.ok("apply -f -", WANDERER);
        kubectl.ok("wait vm/wanderer --for=condition=Ready --timeout=60s", "");
        let vmi = || -> Value {
            let text = kubectl.ok("get vmi wanderer -o json", "");
            serde_json::from_str(&text).expect("an object")
        };
        let node_of = |vmi: &Value| vmi["status"]["nodeName"].as_str().map(str::to_owned);
        let before = vmi();
        let node = node_of(&before).expect("a node");
        let drain = "--ignore-daemonsets --delete-emptydir-data --timeout=60s";
        let said = kubectl.ok(&format!("drain {node} {drain}"), "");
        for words in [
            "cordoned",
            "Eviction triggered evacuation of VMI \"default/wanderer\"",
            "evicted",
            "drained",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let after = vmi();
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
        assert_ne!(node_of(&after), Some(node.clone()));
        assert_eq!(after["status"]["evacuationNodeName"], Value::Null);
        let jobs = kubectl.ok("get vmim -o name", "");
        assert!(jobs.contains("kubevirt-evacuation-"), "{jobs}");
        kubectl.ok(&format!("uncordon {node}"), "");
    })
    .await;
    lab.stop().await;
}
