//! Live migration under load through the built binary: a VM that moves several times, one that cannot,
//! drained nodes, migrations that are spoiled, syncs meanwhile, and many VMs at once.

#[path = "common/trial.rs"]
mod trial;

use std::collections::BTreeSet;
use std::path::Path;

use trial::{status, verdicts};
use virtproof::check::verdict::Status;
use virtproof::history::event::{Fact, Spoil};
use virtproof::history::read::History;

/// Runs the scenario in a lab of its own with one VM; the exit code and what was said.
fn migrated(out: &Path, sets: &[&str]) -> (Option<i32>, String) {
    let one = ["workloads.0.count=1"].iter().chain(sets);
    run(out, "migrate.under-load", &one.copied().collect::<Vec<_>>())
}

/// Runs a scenario in a lab of its own. How long a busy machine keeps a guest from writing is not what
/// these tests are about.
fn run(out: &Path, scenario: &str, sets: &[&str]) -> (Option<i32>, String) {
    let patient = ["objectives.migrationBlackout=30s", "objectives.rpo=30s"];
    let sets = patient.iter().chain(sets);
    let sets = sets.flat_map(|set| ["--set", set]);
    let common = ["--seed", "11", "--only", scenario];
    trial::run(out, &common.into_iter().chain(sets).collect::<Vec<_>>())
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

/// The status of a check on every subject of the run, each of them the same.
#[test]
fn drained_nodes_are_left_alive_and_are_put_back() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "migrate.drain", &["workloads.0.count=2"]);
    assert_eq!(code, Some(0), "{said}");
    let judged = verdicts(&out);
    for check in ["M1", "M2", "M3", "D1", "O4"] {
        assert_eq!(
            status(&judged, check),
            Some(Status::Pass),
            "{check}\n{said}"
        );
    }
    let history = History::open(&out).expect("a history");
    let mut answers = Vec::new();
    let mut evacuated = BTreeSet::new();
    for event in &history.events {
        match &event.fact {
            Fact::Eviction { eviction, .. } if eviction.code.is_some() => {
                answers.push((eviction.carries, eviction.code));
                assert!(
                    !eviction.carries
                        || eviction
                            .said
                            .contains("Eviction triggered evacuation of VMI"),
                    "{eviction:?}"
                );
            }
            Fact::Migration { migration, .. } if migration.completed => {
                assert!(migration.evacuates && !migration.failed, "{migration:?}");
                evacuated.insert(migration.name.clone());
            }
            _ => {}
        }
    }
    assert!(evacuated.len() >= 2, "{evacuated:?}");
    let refused = answers.iter().filter(|a| **a == (true, Some(429))).count();
    let granted = answers.iter().filter(|a| **a == (false, Some(201))).count();
    assert_eq!((refused, granted), (evacuated.len(), evacuated.len()));
    assert_eq!(refused + granted, answers.len(), "{answers:?}");
    // What lifted the cordons is done with, and it was written down before they were set.
    let undo = std::fs::read_to_string(out.join("undo.jsonl")).expect("an undo log");
    assert!(undo.contains("unschedulable"), "{undo}");
    assert_eq!(status(&judged, "O1"), Some(Status::Pass));
}

#[test]
fn a_launcher_that_nothing_protects_is_killed_by_its_eviction_and_that_is_seen() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let sets = [
        "workloads.0.count=1",
        "workloads.0.parameters.evictionStrategy=None",
        "deadlines.ssh=8s",
    ];
    let (code, said) = run(&out, "migrate.drain", &sets);
    assert_eq!(code, Some(1), "{said}");
    let judged = verdicts(&out);
    assert_eq!(status(&judged, "M2"), Some(Status::Fail), "{said}");
    assert!(
        said.contains("was evicted while the VM ran in it (strategy None)"),
        "{said}"
    );
}

#[test]
fn a_vm_that_cannot_move_blocks_the_drain_and_is_not_killed() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let sets = [
        "workloads.0.count=1",
        "workloads.0.parameters.accessModes=ReadWriteOnce",
    ];
    let (code, said) = run(&out, "migrate.drain", &sets);
    assert_eq!(
        code,
        Some(4),
        "nothing moved, so nothing is proved of moving:\n{said}"
    );
    let judged = verdicts(&out);
    assert_eq!(status(&judged, "M2"), Some(Status::Pass), "{said}");
    for check in ["M1", "M3"] {
        assert_eq!(status(&judged, check), Some(Status::Inconclusive), "{said}");
    }
    assert_eq!(status(&judged, "D1"), Some(Status::Pass), "{said}");
}

#[test]
fn migrations_that_are_spoiled_fail_and_harm_nobody() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "migrate.abort", &["workloads.0.count=1"]);
    assert_eq!(code, Some(0), "{said}");
    let judged = verdicts(&out);
    for check in ["M1", "M2", "M3", "D1", "O4"] {
        assert_eq!(
            status(&judged, check),
            Some(Status::Pass),
            "{check}\n{said}"
        );
    }
    let history = History::open(&out).expect("a history");
    let mut ends: Vec<(Option<Spoil>, bool, String, String)> = Vec::new();
    for event in &history.events {
        if let Fact::Migration { migration, .. } = &event.fact
            && migration.completed
        {
            let spoil = migration.spoil;
            if ends.last().is_none_or(|(last, ..)| *last != spoil) {
                let why = migration.why.clone();
                ends.push((spoil, migration.failed, migration.abort.clone(), why));
            }
        }
    }
    let text = |failed: bool, abort: &str, why: &str| (failed, abort.to_owned(), why.to_owned());
    let found: Vec<_> = ends
        .iter()
        .map(|(_, failed, abort, why)| text(*failed, abort, why))
        .collect();
    let starved = "Live migration is not completed after 5 seconds and has been aborted";
    assert_eq!(
        found,
        [
            text(true, "Succeeded", "Live migration has been aborted"),
            text(true, "", "Target pod is down"),
            text(true, "Succeeded", starved),
            text(false, "", ""),
        ],
        "{said}"
    );
}

#[test]
fn replication_keeps_up_with_a_vm_that_moves_and_the_failover_after_that_proves_out() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "migrate.during-sync", &["workloads.0.count=1"]);
    assert_eq!(code, Some(0), "{said}");
    let judged = verdicts(&out);
    for check in ["M1", "M2", "R1", "R2", "D2", "D3", "S1"] {
        assert_eq!(
            status(&judged, check),
            Some(Status::Pass),
            "{check}\n{said}"
        );
    }
    let history = History::open(&out).expect("a history");
    let asked = history
        .events
        .iter()
        .position(|event| matches!(event.fact, Fact::Migration { .. }));
    let asked = asked.expect("a migration");
    let mut points = BTreeSet::new();
    let mut moves = BTreeSet::new();
    for event in &history.events[asked..] {
        match &event.fact {
            Fact::Replication { volumes, .. } => {
                points.extend(
                    volumes
                        .iter()
                        .map(|volume| volume.last_sync_time)
                        .min()
                        .flatten(),
                );
            }
            Fact::Migration { migration, .. } => {
                moves.insert(migration.name.clone());
            }
            _ => {}
        }
    }
    assert!(
        points.len() >= 3 && moves.len() >= 2,
        "{points:?} {moves:?}"
    );
}

#[test]
fn many_vms_move_at_once_within_the_clusters_limits_and_all_are_counted() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "migrate.mass", &["workloads.0.count=8"]);
    assert_eq!(code, Some(0), "{said}");
    let judged = verdicts(&out);
    for check in ["M1", "M2", "M3", "M4", "D1"] {
        assert_eq!(
            status(&judged, check),
            Some(Status::Pass),
            "{check}\n{said}"
        );
    }
    let mut all = judged.verdicts.iter().filter(|v| v.check == "M4");
    let verdict = all.next().expect("M4");
    assert!(all.next().is_none(), "once per trial");
    let measured = |name: &str| {
        let found = verdict.measures.iter().find(|m| m.name == name);
        found.map(|m| m.high).expect("measured")
    };
    let at_once = measured("at-once");
    assert!((2.0..=5.0).contains(&at_once), "{at_once}");
    let (p50, p99, max) = (
        measured("blackout.p50"),
        measured("blackout.p99"),
        measured("blackout.max"),
    );
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{p50} {p99} {max}");
    let pending = History::open(&out).expect("a history");
    let moved: BTreeSet<_> = pending
        .events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Migration { migration, .. } if migration.phase == "Succeeded" => {
                Some(migration.name.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(moved.len(), 8);
}
