//! Every command that the documents show: all of them must parse, and those of the lab's page and of
//! the page on Recipes are run as they stand, in order.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use clap::Parser;
use virtproof::cli::args::Cli;
use virtproof::scenario::catalogue::{catalogue, select};

const PAGES: [&str; 25] = [
    "README.md",
    "docs/architecture.md",
    "docs/catalogue.md",
    "docs/disks.md",
    "docs/databases.md",
    "docs/evidence.md",
    "docs/extending.md",
    "docs/lab.md",
    "docs/lifecycle.md",
    "docs/lint.md",
    "docs/migration.md",
    "docs/mysql.md",
    "docs/performance.md",
    "docs/plan.md",
    "docs/postgresql.md",
    "docs/quiesce.md",
    "docs/rbac.md",
    "docs/real-guests.md",
    "docs/recipes.md",
    "docs/selftest.md",
    "docs/simulation.md",
    "docs/snapshots.md",
    "docs/sqlite.md",
    "docs/storage.md",
    "docs/templates.md",
];

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).expect("a page of the documents")
}

/// The lines behind a `$ ` in the console blocks of a page.
fn commands(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            inside = !inside && kind == "console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            found.push(command.to_owned());
        }
    }
    found
}

#[test]
fn every_documented_command_line_is_valid() {
    let mut seen = 0;
    for name in PAGES {
        for command in commands(&page(name)) {
            let own = command.replace("cargo run --release --", "virtproof");
            let words: Vec<&str> = own
                .split_whitespace()
                .take_while(|w| *w != ">")
                .map(|w| w.trim_matches('\''))
                .collect();
            if words.first() == Some(&"virtproof") {
                let parsed = Cli::try_parse_from(&words);
                let refused = parsed.err().map(|error| error.to_string());
                assert_eq!(refused, None, "{name}: `{command}`");
                seen += 1;
            }
        }
    }
    assert!(
        seen >= 10,
        "only {seen} commands seen: the scanner is broken"
    );
}

#[test]
fn the_commands_of_the_lab_page_work_as_they_stand() {
    let dir = tempfile::tempdir().expect("folder");
    let kubectl = Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_ok();
    assert!(
        kubectl || std::env::var_os("VIRTPROOF_CI").is_none(),
        "CI must have kubectl"
    );
    if !kubectl {
        eprintln!("SKIPPED: no kubectl here, its lines of docs/lab.md were not run");
    }
    run_all("docs/lab.md", dir.path(), kubectl);
}

#[test]
fn the_commands_of_the_recipes_page_work_as_they_stand() {
    let dir = tempfile::tempdir().expect("folder");
    run_all("docs/recipes.md", dir.path(), false);
}

/// The scenarios that the table of real guests names, by who showed them.
fn shown() -> Vec<(String, BTreeSet<String>)> {
    let page = page("docs/real-guests.md");
    let table = page
        .lines()
        .skip_while(|line| *line != "| shown by | scenarios |");
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let by = cells.next().expect("who showed them").to_owned();
        let named = cells.next().expect("scenarios").split_whitespace();
        (
            by,
            named.map(|id| id.trim_matches('`').to_owned()).collect(),
        )
    })
    .collect()
}

#[test]
fn the_table_of_real_guests_names_each_scenario_once_and_those_of_the_tests_truly() {
    let shown = shown();
    let all: Vec<&String> = shown.iter().flat_map(|(_, ids)| ids).collect();
    let known: BTreeSet<&str> = catalogue().map(|spec| spec.id).collect();
    assert_eq!(all.len(), known.len(), "{all:?}");
    assert!(all.iter().all(|id| known.contains(id.as_str())), "{all:?}");
    let tests = page("tests/qemu.rs");
    let named = tests.split('"').skip(1).step_by(2);
    let named = named.filter(|text| {
        text.chars()
            .all(|c| c.is_ascii_lowercase() || ".*-".contains(c))
    });
    let run: BTreeSet<String> = named
        .filter(|text| text.contains('.'))
        .filter_map(|glob| select(&[glob.to_owned()]).ok())
        .flatten()
        .map(|spec| spec.id.to_owned())
        .collect();
    let (by, claimed) = &shown[0];
    assert!(by.contains("tests/qemu.rs"), "{by}");
    assert_eq!(claimed, &run);
}

/// Runs the commands of a page in a folder; all must succeed.
fn run_all(name: &str, dir: &Path, kubectl: bool) {
    for command in commands(&page(name)) {
        let mut words = command.split_whitespace();
        let program = match words.next() {
            Some("virtproof") => env!("CARGO_BIN_EXE_virtproof"),
            Some("kubectl") if kubectl => "kubectl",
            _ => continue,
        };
        let done = Command::new(program)
            .args(words)
            .current_dir(dir)
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "`{command}` ended with {}: {said}",
            done.status
        );
    }
}
