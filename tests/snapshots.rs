//! Snapshots, restores and clones through the built binary: the rollback that is one, and the one that
//! is not. What else can go wrong is in the table of faults.

#[path = "common/trial.rs"]
mod trial;

use std::path::Path;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;

fn run(out: &Path, more: &[&str]) -> (Option<i32>, Verdicts, String) {
    let mut arguments = vec!["--seed", "5", "--set", "workloads.0.count=1"];
    arguments.extend(["--set", "load.duration=2s"]);
    arguments.extend(more);
    let (code, said) = trial::run(out, &arguments);
    (code, trial::verdicts(out), said)
}

fn status(verdicts: &Verdicts, check: &str) -> Status {
    trial::status(verdicts, check).expect("a verdict")
}

#[test]
fn a_restore_is_a_rollback_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, verdicts, said) = run(&out, &["--only", "snapshot.restore"]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["C1", "C3", "D1", "O4"] {
        assert_eq!(status(&verdicts, check), Status::Pass, "{check}\n{said}");
    }
    let events = std::fs::read_to_string(out.join("events.jsonl")).expect("events");
    for part in [
        "\"GuestAgent\"",
        "\"type\":\"restore\"",
        "\"state\":\"taken\"",
    ] {
        assert!(events.contains(part), "{part}");
    }
}

#[test]
fn a_restore_that_does_nothing_is_red() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let more = [
        "--only",
        "snapshot.restore",
        "--fault",
        "restore-is-a-no-op",
    ];
    let (code, verdicts, said) = run(&out, &more);
    assert_eq!(code, Some(1), "{said}");
    for check in ["C1", "D1", "D6"] {
        assert_eq!(status(&verdicts, check), Status::Fail, "{check}\n{said}");
    }
    assert_eq!(status(&verdicts, "O4"), Status::Pass, "{said}");
}
