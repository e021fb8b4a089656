//! The main job through the built binary: everything green, everything judged, everything kept.

use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;
use virtproof::plan::{self, Known};
use virtproof::scenario::catalogue::catalogue;

fn virtproof() -> Command {
    Command::new(env!("CARGO_BIN_EXE_virtproof"))
}

fn read(dir: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join(name));
    text.map_err(|error| format!("{name}: {error}"))
        .expect("a file of the run directory")
}

#[test]
fn the_lab_run_passes_and_keeps_its_evidence() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let done = virtproof()
        .args(["run", "--lab", "--seed", "5", "--out"])
        .arg(&out)
        .output()
        .expect("virtproof runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}\n{told}");

    let before = read(&out, "verdicts.json");
    let verdicts: Verdicts = serde_json::from_str(&before).expect("verdicts");
    assert_eq!(verdicts.overall, Status::Pass);
    let lab = plan::lab(dir.path(), &Known::nothing()).expect("the lab's plan");
    let in_plan = |id: &str| plan::LAB.contains(&format!("  - {id}\n"));
    for spec in catalogue().filter(|spec| in_plan(spec.id)) {
        for check in spec.checks_in(&lab.plan) {
            let judged = verdicts
                .verdicts
                .iter()
                .filter(|v| v.scenario == spec.id && v.check == check)
                .count();
            assert!(judged > 0, "{check} of {} came to no verdict", spec.id);
        }
        assert!(said.contains(spec.id), "{said}");
    }
    for name in [
        "events.jsonl",
        "report.json",
        "report.html",
        "report.md",
        "junit.xml",
    ] {
        assert!(!read(&out, name).is_empty(), "{name} is empty");
    }

    let reports = ["report.json", "report.html", "report.md", "junit.xml"].map(|n| read(&out, n));
    let again = virtproof()
        .arg("check")
        .arg(&out)
        .output()
        .expect("virtproof runs");
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(
        read(&out, "verdicts.json"),
        before,
        "judging again gave other bytes"
    );
    let rendered = virtproof()
        .arg("report")
        .arg(&out)
        .output()
        .expect("virtproof runs");
    assert_eq!(rendered.status.code(), Some(0));
    let once_more = ["report.json", "report.html", "report.md", "junit.xml"].map(|n| read(&out, n));
    assert_eq!(reports, once_more, "rendering again gave other bytes");

    edited_evidence_is_refused(&out);
}

/// One byte of the history changed: no verdict may come of it.
fn edited_evidence_is_refused(out: &Path) {
    let path = out.join("events.jsonl");
    let text = read(out, "events.jsonl");
    let edited = text.replacen("\"active\":true", "\"active\":tru3", 1);
    assert_ne!(text, edited);
    std::fs::write(&path, edited).expect("edit");
    let refused = virtproof()
        .arg("check")
        .arg(out)
        .output()
        .expect("virtproof runs");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(
        told.contains("events.jsonl") && told.contains("line"),
        "{told}"
    );
}
