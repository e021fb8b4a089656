//! Commands in launcher pods, through the whole API server and by our own client.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::exec::{Command, Ran};
use crate::cluster::{Cluster, Deadline, Error};
use crate::lab::api::{ApiServer, RunningServer, SiteConfig};
use crate::plan::model::SiteRef;

/// A rig whose pods take commands.
struct Pods {
    rig: Rig,
    server: RunningServer,
    dir: tempfile::TempDir,
    cluster: Arc<Cluster>,
}

impl Pods {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let mut config = SiteConfig::new("east", rig.store.clone(), LabClock::new(200.0));
        config.connect = vec![("pods".into(), "exec".into(), rig.kubevirt.exec())];
        let server = ApiServer::start(config).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cluster = client(&server, &dir, "admin").await;
        Self {
            rig,
            server,
            dir,
            cluster,
        }
    }

    /// The launcher pod of a VMI in some phase.
    fn pod(&self, vmi: &str, wanted: &str) -> String {
        let pods = self.rig.store.list(POD, Some("default"));
        let mut pods = pods.iter().filter(|pod| {
            meta::annotation(pod, "kubevirt.io/domain") == Some(vmi) && phase(pod) == wanted
        });
        meta::name(pods.next().expect("a launcher")).to_owned()
    }

    async fn run(&self, pod: &str, container: Option<&str>, line: &str) -> Result<Ran, Error> {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let command = Command {
            namespace: "default",
            pod,
            container,
            argv: &argv,
        };
        let deadline = Deadline::after(Duration::from_secs(20), &CancellationToken::new());
        self.cluster.exec(&command, &deadline).await
    }

    async fn ran(&self, pod: &str, line: &str) -> Ran {
        let ran = self.run(pod, Some("compute"), line).await;
        ran.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// What is said of a command that is not run.
    async fn refused(&self, pod: &str, container: Option<&str>, line: &str) -> String {
        match self.run(pod, container, line).await {
            Err(Error::NotRun { message, .. }) => message,
            other => panic!("{line}: {other:?}"),
        }
    }
}

async fn client(server: &RunningServer, dir: &tempfile::TempDir, user: &str) -> Arc<Cluster> {
    let path = dir.path().join(user);
    std::fs::write(&path, server.kubeconfig(user).unwrap()).unwrap();
    let wanted = SiteRef {
        kubeconfig: Some(path),
        context: None,
    };
    Cluster::open(Site::Primary, &wanted, dir.path())
        .await
        .unwrap()
}

#[tokio::test]
async fn commands_run_in_the_pod_and_say_how_they_ended() {
    let pods = Pods::new().await;
    pods.rig.create(VM, machine("web", "Always", &fedora()));
    pods.rig.agent("web").await;
    let pod = pods.pod("web", "Running");
    assert_eq!(pods.ran(&pod, "true").await.code, 0);
    assert_eq!(pods.ran(&pod, "/bin/false").await.code, 1);
    assert_eq!(pods.ran(&pod, "echo a b").await.stdout.text, "a b\n");
    let inside = pods.ran(&pod, "/usr/bin/fsfreeze -f /mnt").await;
    assert_eq!(inside.code, 1);
    assert!(inside.stderr.text.contains("not permitted"), "{inside:?}");
    let absent = pods.refused(&pod, Some("compute"), "sh -c true").await;
    assert!(
        absent.starts_with(
            "Internal error occurred: Internal error occurred: error executing command in container"
        ) && absent.contains("exec: \"sh\": executable file not found in $PATH"),
        "{absent}"
    );
    let absent = pods.refused(&pod, Some("compute"), "/bin/sh").await;
    assert!(absent.contains("stat /bin/sh: no such file"), "{absent}");
    let absent = pods.refused(&pod, Some("volumeroot"), "true").await;
    assert!(absent.contains("executable file not found"), "{absent}");
    // The annotation with the default container is for kubectl.
    let which = pods.refused(&pod, None, "true").await;
    assert_eq!(
        which,
        format!(
            "a container name must be specified for pod {pod}, choose one of: [compute volumeroot]"
        )
    );
    let wrong = pods.refused(&pod, Some("virt-launcher"), "true").await;
    assert_eq!(
        wrong,
        format!("container virt-launcher is not valid for pod {pod}")
    );
    assert!(
        pods.run("none", None, "true")
            .await
            .unwrap_err()
            .is_not_found()
    );
    pods.server.shutdown().await;
}

#[tokio::test]
async fn a_launcher_that_a_migration_left_takes_no_command() {
    let mut pods = Pods::new().await;
    pods.rig.create(VM, machine("a", "Always", &fedora()));
    pods.rig.agent("a").await;
    let left = pods.pod("a", "Running");
    assert_eq!(pods.rig.put("virtualmachines/a/migrate", "{}").await.0, 202);
    pods.rig
        .until(POD, &left, |pod| phase(pod) == "Succeeded")
        .await;
    let said = pods.refused(&left, Some("compute"), "true").await;
    assert!(
        said.ends_with("unable to upgrade connection: container not found (\"compute\")"),
        "{said}"
    );
    let lives = pods.pod("a", "Running");
    assert_eq!(pods.ran(&lives, "true").await.code, 0);
    pods.server.shutdown().await;
}

#[tokio::test]
async fn virt_freezer_reaches_the_guest_and_lies_about_one_without_an_agent() {
    let pods = Pods::new().await;
    pods.rig.create(VM, machine("bare", "Always", &blank()));
    pods.rig.create(VM, machine("web", "Always", &fedora()));
    pods.rig.agent("web").await;
    pods.rig.ready("bare").await;
    let flags = "--name web --namespace default";
    let web = pods.pod("web", "Running");
    let guest = pods.rig.kubevirt.guest("default", "web").unwrap();
    let frozen = pods
        .ran(
            &web,
            &format!("virt-freezer --freeze {flags} --unfreezeTimeoutSeconds 1"),
        )
        .await;
    assert_eq!(frozen.code, 0, "{frozen:?}");
    assert!(guest.frozen());
    // A second freeze succeeds and leaves the first timer alone.
    assert_eq!(
        pods.ran(&web, &format!("virt-freezer --freeze {flags}"))
            .await
            .code,
        0
    );
    pods.rig
        .until(VMI, "web", |vmi| {
            vmi["status"]["fsFreezeStatus"] == "frozen"
        })
        .await;
    pods.rig
        .until(VMI, "web", |vmi| {
            vmi["status"].get("fsFreezeStatus").is_none()
        })
        .await;
    assert!(!guest.frozen());
    assert_eq!(
        pods.ran(&web, &format!("virt-freezer --unfreeze {flags}"))
            .await
            .code,
        0
    );
    assert_eq!(
        pods.ran(&web, &format!("virt-freezer --freeze {flags}"))
            .await
            .code,
        0
    );
    assert!(guest.frozen());
    assert_eq!(
        pods.ran(&web, &format!("virt-freezer --unfreeze {flags}"))
            .await
            .code,
        0
    );
    assert!(!guest.frozen());
    let bare = pods.pod("bare", "Running");
    let lie = pods
        .ran(
            &bare,
            "virt-freezer --freeze --name bare --namespace default",
        )
        .await;
    assert_eq!(lie.code, 0);
    assert!(
        lie.stderr.text.contains("No guest agent, exiting"),
        "{lie:?}"
    );
    for (line, code) in [
        ("virt-freezer --name web --namespace default", 1),
        ("virt-freezer --freeze", 1),
        ("virt-freezer --frieze", 2),
    ] {
        assert_eq!(pods.ran(&web, line).await.code, code, "{line}");
    }
    pods.server.shutdown().await;
}

#[tokio::test]
async fn a_freeze_goes_on_although_nobody_waits_for_it() {
    let pods = Pods::new().await;
    pods.rig.create(VM, machine("web", "Always", &fedora()));
    pods.rig.agent("web").await;
    pods.rig.board.plant(Fault::FreezeSlow);
    let pod = pods.pod("web", "Running");
    let argv: Vec<String> = "virt-freezer --freeze --name web --namespace default"
        .split(' ')
        .map(str::to_owned)
        .collect();
    let command = Command {
        namespace: "default",
        pod: &pod,
        container: Some("compute"),
        argv: &argv,
    };
    let guest = pods.rig.kubevirt.guest("default", "web").unwrap();
    let token = CancellationToken::new();
    // Each asking is given up long before its freeze is over; one of them at least reaches the pod.
    let mut given_up = 0;
    while !guest.frozen() {
        let deadline = Deadline::after(Duration::from_millis(30), &token);
        match pods.cluster.exec(&command, &deadline).await {
            Err(Error::Timeout(_)) => given_up += 1,
            // Frozen meanwhile by one that was given up.
            Ok(_) if given_up > 0 && guest.frozen() => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(given_up > 0);
    pods.server.shutdown().await;
}

#[tokio::test]
async fn who_may_not_create_an_exec_runs_nothing() {
    let pods = Pods::new().await;
    pods.rig.create(VM, machine("web", "Always", &fedora()));
    pods.rig.agent("web").await;
    let pod = pods.pod("web", "Running");
    let role = json!({"metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]});
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "User", "name": "limited"}]});
    let rbac = "rbac.authorization.k8s.io";
    pods.rig
        .store
        .create(&format!("clusterroles.{rbac}"), role)
        .unwrap();
    pods.rig
        .store
        .create(&format!("clusterrolebindings.{rbac}"), binding)
        .unwrap();
    let limited = client(&pods.server, &pods.dir, "limited").await;
    let argv = ["true".to_owned()];
    let command = Command {
        namespace: "default",
        pod: &pod,
        container: Some("compute"),
        argv: &argv,
    };
    let deadline = Deadline::after(Duration::from_secs(20), &CancellationToken::new());
    let error = limited.exec(&command, &deadline).await.unwrap_err();
    assert!(
        matches!(&error, Error::Forbidden { message, .. } if message.contains("cannot create resource \"pods/exec\"")),
        "{error}"
    );
    pods.server.shutdown().await;
}
