//! Orders to a VM that stays where it is, and who it is afterwards, through the built binary.

#[path = "common/trial.rs"]
mod trial;

use std::collections::BTreeSet;
use std::path::Path;

use virtproof::check::verdict::Status;
use virtproof::history::event::{Deed, Fact, LifecycleFact, Outcome};
use virtproof::history::read::History;

/// Runs a scenario in a lab of its own with one VM; the exit code and what was said.
fn run(out: &Path, scenario: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["--seed", "11", "--only", scenario];
    arguments.extend(["--set", "workloads.0.count=1", "--set", "load.duration=2s"]);
    arguments.extend(more);
    trial::run(out, &arguments)
}

fn status(out: &Path, check: &str) -> Option<Status> {
    trial::status(&trial::verdicts(out), check)
}

/// The orders that were taken, in order.
fn taken(history: &History) -> Vec<Deed> {
    let facts = history.events.iter().filter_map(|event| match &event.fact {
        Fact::Lifecycle {
            lifecycle:
                LifecycleFact::Answered {
                    deed,
                    outcome: Outcome::Ok,
                },
            ..
        } => Some(*deed),
        _ => None,
    });
    facts.collect()
}

/// The boot ids that were seen.
fn boots(history: &History) -> BTreeSet<String> {
    let facts = history.events.iter().filter_map(|event| match &event.fact {
        Fact::Guest { boot_id, .. } => Some(boot_id.clone()),
        _ => None,
    });
    facts.collect()
}

#[test]
fn a_vm_is_paused_rebooted_stopped_and_started_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "lifecycle.restart-pause", &[]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["L1", "L2", "D1"] {
        assert_eq!(status(&out, check), Some(Status::Pass), "{check}\n{said}");
    }
    let history = History::open(&out).expect("a history");
    let orders = [
        Deed::Pause,
        Deed::Unpause,
        Deed::SoftReboot,
        Deed::Stop,
        Deed::Start,
    ];
    assert_eq!(taken(&history), orders);
    assert_eq!(boots(&history).len(), 3, "a reboot and a start");
    let reported = history.events.iter().filter_map(|event| match &event.fact {
        Fact::Lifecycle {
            lifecycle: LifecycleFact::Reported { paused, phase },
            ..
        } => Some((*paused, phase.as_str())),
        _ => None,
    });
    let reported: Vec<_> = reported.collect();
    assert_eq!(reported, [(true, "Running"), (false, "Running")]);
}

#[test]
fn a_pause_that_nobody_carried_out_is_caught() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let fault = ["--fault", "pause-swallowed"];
    let (code, said) = run(&out, "lifecycle.restart-pause", &fault);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(status(&out, "L1"), Some(Status::Fail), "{said}");
    assert_eq!(status(&out, "D1"), Some(Status::Pass), "{said}");
}

#[test]
fn a_vm_whose_launcher_is_killed_comes_back_whole() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "lifecycle.hard-kill", &[]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["L2", "L3", "A3", "D1"] {
        assert_eq!(status(&out, check), Some(Status::Pass), "{check}\n{said}");
    }
    let history = History::open(&out).expect("a history");
    assert_eq!(taken(&history), [Deed::Kill]);
    assert_eq!(boots(&history).len(), 2);
}

#[test]
fn a_vm_that_is_restarted_and_moved_finds_itself_as_it_was() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "boot.identity", &[]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["G1", "G2", "O3"] {
        assert_eq!(status(&out, check), Some(Status::Pass), "{check}\n{said}");
    }
    let history = History::open(&out).expect("a history");
    assert_eq!(boots(&history).len(), 3);
    let mut looks = 0;
    for event in &history.events {
        if let Fact::Inside { inside, .. } = &event.fact {
            looks += 1;
            let serials = inside.disks.iter().filter(|disk| !disk.serial.is_empty());
            assert_eq!(serials.count(), 2, "{inside:?}");
            assert!(inside.cards.contains_key("eth0"), "{inside:?}");
            assert_eq!(inside.families, ["IPv4"]);
        }
    }
    assert_eq!(looks, 3);
}

#[test]
fn a_disk_comes_lives_through_a_restart_and_a_migration_and_goes() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(&out, "hotplug.persist", &[]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["H1", "H2", "M2", "M3"] {
        assert_eq!(status(&out, check), Some(Status::Pass), "{check}\n{said}");
    }
    let judged = trial::verdicts(&out);
    let disk: Vec<_> = judged
        .verdicts
        .iter()
        .filter(|v| v.subject.ends_with("-plugged"))
        .map(|v| (v.check.as_str(), v.status))
        .collect();
    let own = ["D1", "D2", "D3", "D4", "D5", "D6", "D7", "G1"];
    assert_eq!(disk, own.map(|check| (check, Status::Pass)));
}
