//! Live migration under load through the built binary: a VM that moves several times, and one that
//! cannot.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;
use virtproof::history::event::Fact;
use virtproof::history::read::History;

/// Runs the scenario in a lab of its own with one VM; the exit code and what was said.
fn migrated(out: &Path, sets: &[&str]) -> (Option<i32>, String) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args([
            "run",
            "--lab",
            "--seed",
            "11",
            "--only",
            "migrate.under-load",
        ])
        .args(["--set", "workloads.0.count=1"])
        .args(sets)
        .arg("--out")
        .arg(out)
        .output()
        .expect("virtproof runs");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    (done.status.code(), said)
}

fn verdicts(out: &Path) -> Verdicts {
    let text = std::fs::read_to_string(out.join("verdicts.json")).expect("verdicts");
    serde_json::from_str(&text).expect("verdicts")
}

#[test]
fn a_vm_that_moves_three_times_stays_one_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = migrated(&out, &["migration.count=3"]);
    assert_eq!(code, Some(0), "{said}");
    let judged = verdicts(&out);
    for check in ["M1", "M2", "M3", "D1"] {
        let found = judged.verdicts.iter().find(|v| v.check == check);
        assert_eq!(
            found.map(|v| v.status),
            Some(Status::Pass),
            "{check}\n{said}"
        );
    }
    let history = History::open(&out).expect("a history");
    let (mut ends, mut nodes, mut leases) = (BTreeSet::new(), BTreeSet::new(), 0);
    for event in &history.events {
        match &event.fact {
            // The job may say that it succeeded before the VMI is seen to.
            Fact::Migration { migration, .. }
                if migration.phase == "Succeeded" && migration.completed =>
            {
                ends.insert(migration.name.clone());
                nodes.insert(migration.target_node.clone());
                assert!(!migration.failed);
                assert_ne!(migration.source_node, migration.target_node);
            }
            Fact::Lease { foreign, .. } => {
                leases += 1;
                assert_eq!(*foreign, Vec::<String>::new());
            }
            Fact::Echo {
                sent,
                answered,
                interval_ns,
                unbroken_ns,
                ..
            } => {
                assert!(*answered > 0 && answered <= sent);
                assert_eq!(*interval_ns, 2_000_000);
                assert!(unbroken_ns.is_some());
            }
            _ => {}
        }
    }
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(nodes.len() > 1 && leases > 0, "{nodes:?} {leases}");
}

#[test]
fn a_vm_that_cannot_be_migrated_fails_the_step_with_the_reason() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let sets = ["workloads.0.parameters.accessModes=ReadWriteOnce"];
    let (code, said) = migrated(&out, &sets);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("cannot be live-migrated: DisksNotLiveMigratable"),
        "{said}"
    );
    let judged = verdicts(&out);
    let status = |check: &str| {
        let found = judged.verdicts.iter().find(|v| v.check == check);
        found.map(|v| v.status)
    };
    assert_eq!(status("O1"), Some(Status::Fail));
    assert_eq!(status("M2"), Some(Status::Inconclusive));
    assert_eq!(status("O4"), Some(Status::Pass), "nothing is left");
}
