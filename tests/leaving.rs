//! Every way out leaves nothing behind: an interrupt, a `kill -9` followed by `cleanup`, and a fence
//! that a run put up.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use virtproof::history::event::Fact;
use virtproof::history::read::History;

struct Lab<'a>(&'a Path);

impl<'a> Lab<'a> {
    /// A lab with the built-in plan beside it, `edit` applied.
    fn up(dir: &'a Path, edit: impl FnOnce(&str) -> String) -> Self {
        let lab = Self(dir);
        assert_eq!(
            lab.virtproof(&["lab", "up", "--detach", "--dir", "."]).0,
            Some(0)
        );
        std::fs::write(dir.join("plan.yaml"), edit(virtproof::plan::LAB)).expect("the plan");
        lab
    }

    fn virtproof(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
            .args(arguments)
            .current_dir(self.0)
            .output()
            .expect("virtproof runs");
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// A run that has come to its load.
    fn under_load(&self) -> (Child, BufReader<std::process::ChildStderr>) {
        self.within("boot.replicated", "load …")
    }

    /// A run of a scenario in which a VM has come to a step.
    fn within(&self, scenario: &str, step: &str) -> (Child, BufReader<std::process::ChildStderr>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_virtproof"))
            .args(["run", "plan.yaml", "--only", scenario, "--out", "run"])
            .current_dir(self.0)
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
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        self.virtproof(&["lab", "down", "--dir", "."]);
    }
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
    let lab = Lab::up(dir.path(), str::to_owned);
    for name in ["-INT", "-TERM"] {
        let (mut child, mut lines) = lab.under_load();
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
    let lab = Lab::up(dir.path(), |plan| plan.replace("count: 3", "count: 1"));
    for (scenario, step) in [
        // Demoted on one side and promoted on none.
        ("relocate.zero-loss", "hand-over …"),
        // Both sides primary, one of them being given up.
        ("failback.resync", "reprotect …"),
        // The replica about to be the primary again.
        ("failback.resync", "demote done"),
    ] {
        let (mut child, mut lines) = lab.within(scenario, step);
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
    let lab = Lab::up(dir.path(), str::to_owned);
    let (mut child, _lines) = lab.under_load();
    let (code, said) = lab.virtproof(&["cleanup", "run"]);
    assert_eq!(
        code,
        Some(2),
        "a run that goes on must not be undone: {said}"
    );
    signal(&child, "-KILL");
    child.wait().expect("its end");
    let (code, said) = lab.virtproof(&["cleanup", "run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !said.contains("clean: 0 entries"),
        "there was nothing to undo: {said}"
    );
    let (code, said) = lab.virtproof(&["cleanup", "run"]);
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
    let lab = Lab::up(dir.path(), |plan| {
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
    let (code, said) = lab.virtproof(&run);
    assert_eq!(code, Some(0), "{said}");
    let run = dir.path().join("run");
    assert!(swept_clean(&run));
    let history = History::open(&run).expect("a history");
    let fenced = history.events.iter().any(
        |e| matches!(&e.fact, Fact::Fencing { method, outcome: Some(_), .. } if method == "networkFence"),
    );
    assert!(fenced, "nothing was fenced");
}
