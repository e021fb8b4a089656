//! Every way out leaves nothing behind: an interrupt, a `kill -9` followed by `cleanup`, and a fence
//! that a run put up.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Lab, virtproof};
use virtproof::cluster::crd::kubevirt::VirtualMachineInstance;
use virtproof::cluster::{Cluster, Deadline, Scope, Seen};
use virtproof::history::event::{Fact, Site};
use virtproof::history::read::History;

/// A run that has come to its load.
fn under_load(dir: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    within(dir, "boot.replicated", "load …")
}

/// A run of a scenario in which a VM has come to a step.
fn within(dir: &Path, scenario: &str, step: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    run_to(dir, &["--only", scenario], step)
}

/// The same with other arguments.
fn run_to(
    dir: &Path,
    arguments: &[&str],
    step: &str,
) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(["run", "plan.yaml", "--out", "run"])
        .args(arguments)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("virtproof runs");
    let mut lines = BufReader::new(child.stderr.take().expect("its errors"));
    let mut line = String::new();
    while !line.trim_end().ends_with(step) {
        line.clear();
        assert_ne!(
            lines.read_line(&mut line).expect("a line"),
            0,
            "it ended before {step}"
        );
    }
    (child, lines)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

/// Whether the last sweep of a run looked at both sites and found nothing.
fn swept_clean(run: &Path) -> bool {
    let history = History::open(run).expect("a history");
    let swept = history
        .events
        .iter()
        .rev()
        .find_map(|event| match &event.fact {
            Fact::Swept { sites, residue } => Some(sites.len() == 2 && residue.is_empty()),
            _ => None,
        });
    swept.expect("a sweep")
}

#[test]
fn an_interrupt_cleans_up_and_still_reports() {
    let dir = tempfile::tempdir().expect("folder");
    let _lab = Lab::up(dir.path(), str::to_owned);
    for name in ["-INT", "-TERM"] {
        let (mut child, mut lines) = under_load(dir.path());
        signal(&child, name);
        std::io::copy(&mut lines, &mut std::io::sink()).expect("the rest is read");
        assert_eq!(child.wait().expect("its end").code(), Some(130), "{name}");
        let run = dir.path().join("run");
        assert!(run.join("report.html").exists(), "{name}: no report");
        assert!(swept_clean(&run), "{name}: something was left");
        std::fs::remove_dir_all(run).expect("removed");
    }
}

#[test]
fn an_interrupted_move_leaves_nothing_on_either_site() {
    let dir = tempfile::tempdir().expect("folder");
    let _lab = Lab::up(dir.path(), |plan| plan.replace("count: 3", "count: 1"));
    for (scenario, step) in [
        // Demoted on one side and promoted on none.
        ("relocate.zero-loss", "hand-over …"),
        // Both sides primary, one of them being given up.
        ("failback.resync", "reprotect …"),
        // The replica about to be the primary again.
        ("failback.resync", "demote done"),
        // On its way between two nodes.
        ("migrate.under-load", "migrate …"),
    ] {
        let (mut child, mut lines) = within(dir.path(), scenario, step);
        signal(&child, "-INT");
        std::io::copy(&mut lines, &mut std::io::sink()).expect("the rest is read");
        assert_eq!(child.wait().expect("its end").code(), Some(130), "{step}");
        let run = dir.path().join("run");
        assert!(swept_clean(&run), "{scenario}, {step}: something was left");
        std::fs::remove_dir_all(run).expect("removed");
    }
}

#[test]
fn a_killed_run_is_undone_by_another_process() {
    let dir = tempfile::tempdir().expect("folder");
    let _lab = Lab::up(dir.path(), str::to_owned);
    let (mut child, _lines) = under_load(dir.path());
    let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
    assert_eq!(
        code,
        Some(2),
        "a run that goes on must not be undone: {said}"
    );
    signal(&child, "-KILL");
    child.wait().expect("its end");
    let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !said.contains("clean: 0 entries"),
        "there was nothing to undo: {said}"
    );
    let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
    assert_eq!(
        (code, said.contains("clean: 0 entries")),
        (Some(0), true),
        "{said}"
    );
}

#[test]
fn a_network_fence_holds_and_is_lifted() {
    let dir = tempfile::tempdir().expect("folder");
    let fence = "fencing: {method: networkFence, networkFenceClass: lab-fence}";
    let _lab = Lab::up(dir.path(), |plan| {
        let edited = plan.replace("fencing: {method: stopVm}", fence);
        assert_ne!(edited, plan);
        edited
    });
    let run = [
        "run",
        "plan.yaml",
        "--only",
        "failover.unplanned.primary-up",
        "--out",
        "run",
    ];
    let (code, said) = virtproof(dir.path(), &run);
    assert_eq!(code, Some(0), "{said}");
    let run = dir.path().join("run");
    assert!(swept_clean(&run));
    let history = History::open(&run).expect("a history");
    let fenced = history.events.iter().any(
        |e| matches!(&e.fact, Fact::Fencing { method, outcome: Some(_), .. } if method == "networkFence"),
    );
    assert!(fenced, "nothing was fenced");
}

/// Waits until the only VMI of the primary says what is wanted of its frozen file systems.
async fn until_frozen(dir: &Path, wanted: bool) {
    let plan = virtproof::plan::Known::nothing();
    let text = std::fs::read_to_string(dir.join("plan.yaml")).expect("the plan");
    let plan = virtproof::plan::parse(&text, "plan.yaml", dir, &plan).expect("a plan");
    let primary = &plan.plan.sites().primary;
    let cluster = Cluster::connect(Site::Primary, primary, dir).await;
    let view = cluster
        .expect("the lab")
        .view::<VirtualMachineInstance>(&Scope::All);
    let limit = std::time::Duration::from_secs(60);
    let deadline = Deadline::after(limit, &tokio_util::sync::CancellationToken::new());
    let waiting = format!("a VMI whose file systems are frozen: {wanted}");
    let seen = view.until(&deadline, &waiting, |vmis| {
        let is = |vmi: &VirtualMachineInstance| vmi.status.fs_freeze_status.is_some();
        match vmis.iter().next() {
            Some(vmi) if is(vmi) == wanted => Seen::Met(()),
            _ => Seen::Not("not yet".into()),
        }
    });
    seen.await.expect("the state that is waited for");
}

#[test]
fn a_killed_run_leaves_no_guest_frozen() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let frozen = |dir: &Path, wanted| runtime.block_on(until_frozen(dir, wanted));
    for (timer, by_itself) in [("30s", false), ("3s", true)] {
        let dir = tempfile::tempdir().expect("folder");
        let _lab = Lab::up(dir.path(), |plan| {
            let one = plan.replace("count: 3", "count: 1");
            one.replace("unfreeze: 30s", &format!("unfreeze: {timer}"))
        });
        let (mut child, _lines) = within(dir.path(), "recipe.freeze-covers-replica", "freeze done");
        signal(&child, "-KILL");
        child.wait().expect("its end");
        frozen(dir.path(), true);
        if by_itself {
            // Nobody cleans up: the launcher's own timer thaws.
            frozen(dir.path(), false);
        }
        let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("clean: 0 entries"), "{said}");
        let log = std::fs::read_to_string(dir.path().join("run/undo.jsonl")).expect("a log");
        assert!(log.contains("unfreeze"), "the thaw was on record: {log}");
    }
}

#[test]
fn a_run_killed_inside_a_recipe_leaves_no_guest_frozen() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let frozen = |dir: &Path, wanted| runtime.block_on(until_frozen(dir, wanted));
    for (timer, by_itself) in [("30s", false), ("3s", true)] {
        let dir = tempfile::tempdir().expect("folder");
        let _lab = Lab::up(dir.path(), |plan| {
            let one = plan.replace("count: 3", "count: 1\n    recipe: vm-quiesce");
            let one = one.replace("  - boot.replicated", "  - recipe.freeze-thaw");
            one.replace("unfreeze: 30s", &format!("unfreeze: {timer}"))
        });
        // No sync ends the capture before the run is killed.
        let (code, said) = virtproof(
            dir.path(),
            &["lab", "fault", "snapshot-outside-freeze", "--dir", "."],
        );
        assert_eq!(code, Some(0), "{said}");
        let (mut child, _lines) = within(dir.path(), "recipe.freeze-thaw", "workflow …");
        frozen(dir.path(), true);
        signal(&child, "-KILL");
        child.wait().expect("its end");
        if by_itself {
            // Nobody cleans up: the freezer's timer thaws.
            frozen(dir.path(), false);
        }
        let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
        assert_eq!(code, Some(0), "{said}");
        let log = std::fs::read_to_string(dir.path().join("run/undo.jsonl")).expect("a log");
        assert!(log.contains("unfreeze"), "the thaw was on record: {log}");
    }
}

#[test]
fn a_run_killed_in_a_freeze_from_inside_is_thawed_over_ssh() {
    let dir = tempfile::tempdir().expect("folder");
    let _lab = Lab::up(dir.path(), |plan| {
        plan.replace("count: 3", "count: 1\n    quiesce: guest")
    });
    let (mut child, _lines) = within(dir.path(), "recipe.freeze-covers-replica", "freeze done");
    signal(&child, "-KILL");
    child.wait().expect("its end");
    let key = dir.path().join("run/guests/login-key");
    let mode = std::fs::metadata(&key).expect("a key").permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
    assert_eq!(code, Some(0), "{said}");
    let log = std::fs::read_to_string(dir.path().join("run/undo.jsonl")).expect("a log");
    // The guest still ran, so only a login can have told that the thaw is done.
    let line = |text: &str| log.lines().position(|line| line.contains(text));
    let thaw = line(r#""do":"thaw""#).expect("the thaw was on record");
    let record: serde_json::Value =
        serde_json::from_str(log.lines().nth(thaw).expect("a line")).expect("JSON");
    let id = &record["record"]["id"];
    assert!(
        line(&format!(r#"{{"done":{{"id":{id}}}}}"#)).is_some(),
        "{log}"
    );
    assert!(!key.exists(), "the key outlived its use");
}
