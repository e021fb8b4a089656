//! The command line as its users meet it: help, completions, errors and exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn virtproof(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(arguments)
        .current_dir(dir)
        .env("COLUMNS", "100")
        .env_remove("KUBECONFIG")
        .env_remove("VIRTPROOF_SIGN_KEY")
        .env("HOME", dir)
        .output()
        .expect("virtproof runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_help_is_as_recorded() {
    let dir = tempfile::tempdir().expect("folder");
    let verbs: &[&[&str]] = &[
        &[],
        &["init"],
        &["preflight"],
        &["run"],
        &["check"],
        &["report"],
        &["verify"],
        &["sign"],
        &["keygen"],
        &["list"],
        &["explain"],
        &["lint"],
        &["recipe"],
        &["recipe", "explain"],
        &["cleanup"],
        &["lab"],
        &["lab", "up"],
        &["lab", "down"],
        &["lab", "status"],
        &["lab", "fault"],
        &["lab", "power"],
        &["completions"],
    ];
    let mut all = String::new();
    for verb in verbs {
        let arguments = [verb, &["--help"][..]].concat();
        let done = virtproof(&arguments, dir.path());
        assert_eq!(done.status.code(), Some(0), "{verb:?}");
        let said = text(&done.stdout);
        for part in ["$ virtproof ", &arguments.join(" "), "\n", &said, "\n"] {
            all.push_str(part);
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn catalogues_are_as_recorded() {
    let dir = tempfile::tempdir().expect("folder");
    let list = virtproof(&["list"], dir.path());
    assert_eq!(list.status.code(), Some(0));
    let explain = virtproof(&["explain", "relocate.zero-loss"], dir.path());
    let faults = virtproof(&["lab", "fault", "--list"], dir.path());
    let all = [
        text(&list.stdout),
        text(&explain.stdout),
        text(&faults.stdout),
    ]
    .join("\n");
    insta::assert_snapshot!(all);
}

#[test]
fn the_catalogue_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/catalogue.md");
    let page = virtproof::cli::document::catalogue();
    if std::env::var_os("VIRTPROOF_REGENERATE").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == page,
        "docs/catalogue.md is stale; run with VIRTPROOF_REGENERATE=1"
    );
}

#[test]
fn bad_input_is_refused_with_its_exit_code() {
    let dir = tempfile::tempdir().expect("folder");
    let refuse = |arguments: &[&str], code: i32, words: &[&str]| {
        let done = virtproof(arguments, dir.path());
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{arguments:?} does not say `{word}`:\n{said}"
            );
        }
    };
    refuse(&["run"], 2, &["PLAN"]);
    refuse(&["run", "absent.yaml"], 2, &["absent.yaml"]);
    refuse(
        &["run", "--lab", "--fault", "bit-flip-colt"],
        2,
        &["bit-flip-cold"],
    );
    refuse(&["explain", "D99"], 2, &["D99", "virtproof list"]);
    refuse(&["check", "absent"], 2, &["absent"]);
    refuse(&["lab", "status"], 2, &["no lab answers", "lab up"]);

    let made = virtproof(&["init", "--out", "plan.yaml"], dir.path());
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    refuse(&["init", "--out", "plan.yaml"], 2, &["never overwritten"]);
    let plan = std::fs::read_to_string(dir.path().join("plan.yaml")).expect("the starter plan");
    let unknown = plan.replace("scenarios:", "szenarios:");
    std::fs::write(dir.path().join("unknown.yaml"), unknown).expect("written");
    refuse(
        &["run", "unknown.yaml"],
        2,
        &["unknown.yaml", "szenarios", "scenarios"],
    );
    // The starter plan's contexts are nobody's here.
    refuse(&["run", "plan.yaml", "--out", "none"], 2, &["primary"]);
}

#[test]
fn completions_are_shell_scripts() {
    let dir = tempfile::tempdir().expect("folder");
    for shell in ["bash", "zsh", "fish"] {
        let done = virtproof(&["completions", shell], dir.path());
        assert_eq!(done.status.code(), Some(0));
        assert!(text(&done.stdout).contains("virtproof"), "{shell}");
    }
}
