//! Snapshots, restores and clones through the built binary: the rollback that is one, and the one that
//! is not. What else can go wrong is in the table of faults.

use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;

fn run(out: &Path, more: &[&str]) -> (Option<i32>, Verdicts, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args([
            "run",
            "--lab",
            "--seed",
            "5",
            "--set",
            "workloads.0.count=1",
        ])
        .args(["--set", "load.duration=2s"])
        .args(more)
        .arg("--out")
        .arg(out)
        .output()
        .expect("virtproof runs");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    let text = std::fs::read_to_string(out.join("verdicts.json"))
        .map_err(|error| format!("no verdicts ({error}):\n{said}"))
        .expect("verdicts");
    let verdicts = serde_json::from_str(&text).expect("verdicts");
    (done.status.code(), verdicts, said)
}

fn status(verdicts: &Verdicts, check: &str) -> Status {
    let found = verdicts.verdicts.iter().find(|v| v.check == check);
    found.expect("a verdict").status
}

#[test]
fn a_restore_is_a_rollback_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, verdicts, said) = run(&out, &["--set", "scenarios=[snapshot.restore]"]);
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
        "--set",
        "scenarios=[snapshot.restore]",
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
