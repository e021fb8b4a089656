//! Holds the module table of `docs/architecture.md` against the `use` lines of the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → modules it may use; `x::y` allows only that part of `x`.
const TABLE: &[(&str, &[&str])] = &[
    ("plan", &[]),
    ("history", &["probe"]),
    ("cluster", &["plan", "history"]),
    ("workload", &["plan", "cluster::crd"]),
    ("lint", &["plan", "workload"]),
    ("replicate", &["plan", "history", "cluster", "workload"]),
    ("guest", &["plan", "cluster", "probe"]),
    ("probe", &["history", "guest", "cluster"]),
    ("check", &["plan", "history", "probe"]),
    (
        "scenario",
        &[
            "plan",
            "history",
            "cluster",
            "workload",
            "replicate",
            "guest",
            "probe",
        ],
    ),
    (
        "run",
        &[
            "plan",
            "history",
            "cluster",
            "workload",
            "replicate",
            "guest",
            "probe",
            "check",
            "scenario",
            "report",
            "evidence",
        ],
    ),
    ("evidence", &["plan", "history", "check", "report"]),
    ("report", &["plan", "history", "check", "probe::layout"]),
    (
        "lab",
        &["cluster::crd", "workload", "probe", "history::event"],
    ),
    ("sim", &["plan", "history", "check", "probe"]),
];

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every `crate::a::b…` path named in a file, tests left out.
fn uses(text: &str) -> Vec<String> {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let mut found = Vec::new();
    for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let path: String = line[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect();
            found.push(path);
        }
    }
    found
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table: BTreeMap<_, _> = TABLE.iter().copied().collect();
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    let mut looked = 0;
    for file in &files {
        let inner = file.strip_prefix(&src).expect("below src");
        let module = inner
            .iter()
            .next()
            .and_then(|m| m.to_str())
            .unwrap_or_default();
        let Some(allowed) = table.get(module) else {
            continue;
        };
        if inner
            .file_name()
            .is_some_and(|n| n == "tests.rs" || n == "testkit.rs")
            || inner.iter().any(|part| part == "tests")
        {
            continue;
        }
        for path in uses(&fs::read_to_string(file).expect("source")) {
            looked += 1;
            let own = path == module || path.starts_with(&format!("{module}::"));
            let fine = allowed
                .iter()
                .any(|a| path == *a || path.starts_with(&format!("{a}::")));
            if !own && !fine {
                wrong.push(format!("{}: crate::{path}", inner.display()));
            }
        }
    }
    assert!(
        looked > 20,
        "only {looked} paths seen: the scanner is broken"
    );
    assert!(
        wrong.is_empty(),
        "not allowed by the module table:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_stay_short() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut lengths = Vec::new();
    let mut long = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("source");
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = code.lines().count();
        let is_test = file
            .file_name()
            .is_some_and(|n| n == "tests.rs" || n == "testkit.rs")
            || file.iter().any(|part| part == "tests");
        if !is_test {
            lengths.push(lines);
            if lines > 500 {
                long.push(format!("{} has {lines} lines", file.display()));
            }
        }
    }
    lengths.sort_unstable();
    assert!(
        long.is_empty(),
        "over 500 lines without tests:\n{}",
        long.join("\n")
    );
    assert!(
        lengths[lengths.len() / 2] <= 200,
        "median {}",
        lengths[lengths.len() / 2]
    );
}
