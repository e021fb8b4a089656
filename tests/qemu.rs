//! Real kernels under the lab, through the built binary. Runs wherever QEMU and apt are, emulated; CI
//! installs QEMU. Emulation is slow and the host may be busy: no assertion here depends on speed.
#![expect(clippy::print_stderr, reason = "a test that reports")]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use program::virtproof;
use serde_json::Value;
use virtproof::lab::qemu;

/// Emulated guests take a core each, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A turn, if real guests can run here; says so loudly if not.
fn available() -> Option<MutexGuard<'static, ()>> {
    can_run().then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn can_run() -> bool {
    let missing: Vec<&str> = ["qemu-system-x86_64", "apt-get"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(" and ");
    assert!(
        std::env::var_os("VIRTPROOF_CI").is_none(),
        "CI must have {missing}"
    );
    eprintln!("SKIPPED: no {missing} here, no real guest was run");
    false
}

/// A run with real guests: exit code, what was said, and the words of each check by scenario.
fn run(dir: &Path, more: &[&str]) -> (Option<i32>, String, BTreeMap<String, Vec<String>>) {
    let mut arguments = vec!["run", "--lab", "--guests", "qemu", "--accel", "tcg"];
    arguments.extend(["--out", "run"]);
    arguments.extend(more);
    let (code, said) = virtproof(dir, &arguments);
    let path = dir.join("run/verdicts.json");
    let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Ok(text) = std::fs::read_to_string(path) {
        let verdicts: Value = serde_json::from_str(&text).expect("verdicts");
        for verdict in verdicts["verdicts"].as_array().expect("a list") {
            let word = |field: &str| verdict[field].as_str().unwrap_or_default().to_owned();
            let words = words.entry(word("check")).or_default();
            words.push(word("status"));
        }
    }
    (code, said, words)
}

/// Every verdict of these checks is a pass.
fn all_pass(words: &BTreeMap<String, Vec<String>>, checks: &[&str], said: &str) {
    for check in checks {
        let all = words.get(*check);
        let pass = all.is_some_and(|all| all.iter().all(|word| word == "pass"));
        assert!(pass, "{check}: {all:?}\n{said}");
    }
}

#[test]
fn a_kernel_boots_moves_and_survives_the_loss_of_its_site() {
    let Some(_turn) = available() else { return };
    let dir = tempfile::tempdir().expect("folder");
    let only = [
        "--only",
        "boot.replicated",
        "--only",
        "relocate.zero-loss",
        "--only",
        "failover.unplanned.*",
        "--set",
        "workloads.0.count=1",
        "--seed",
        "21",
    ];
    let (code, said, words) = run(dir.path(), &only);
    assert_eq!(code, Some(0), "{said}");
    all_pass(
        &words,
        &["D1", "D2", "D3", "D8", "R1", "T1", "S1", "S2", "G1"],
        &said,
    );
    // What the guests said is kept beside the evidence, which stays whole.
    let consoles: Vec<String> = consoles(&dir.path().join("run/guests"));
    assert!(
        consoles
            .iter()
            .any(|text| text.contains(qemu::image::marker::READY)),
        "no console says that its guest came up: {consoles:?}"
    );
    let (code, said) = virtproof(dir.path(), &["verify", "run"]);
    assert_eq!(code, Some(0), "{said}");
}

/// Runs a scenario with one VM; every verdict of these checks must be a pass.
fn passes(scenario: &str, sets: &[&str], checks: &[&str]) {
    let dir = tempfile::tempdir().expect("folder");
    let mut more = vec!["--only", scenario, "--seed", "21"];
    for set in ["workloads.0.count=1"].iter().chain(sets) {
        more.extend(["--set", *set]);
    }
    let (code, said, words) = run(dir.path(), &more);
    assert_eq!(code, Some(0), "{said}");
    all_pass(&words, checks, &said);
}

#[test]
fn systemd_comes_up_from_the_replicated_root_on_either_site() {
    let Some(_turn) = available() else { return };
    let dir = tempfile::tempdir().expect("folder");
    let more = [
        "--only",
        "relocate.zero-loss",
        "--guest-init",
        "systemd",
        "--set",
        "workloads.0.count=1",
        "--set",
        "workloads.0.parameters.rootSize=128Mi",
        "--seed",
        "21",
    ];
    let (code, said, words) = run(dir.path(), &more);
    // On a busy host acks come too slowly for R1 to say anything.
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
    all_pass(&words, &["D1", "D2", "D3", "T1", "S1", "G1"], &said);
    let consoles = consoles(&dir.path().join("run/guests"));
    let first = format!("{}systemd", qemu::image::marker::INIT);
    let (installed, found): (Vec<&String>, Vec<&String>) = consoles
        .iter()
        .partition(|text| text.contains(qemu::image::marker::INSTALLED));
    // The system was put on a volume once, and came to the other site with its replica.
    assert!(!installed.is_empty() && !found.is_empty(), "{consoles:?}");
    for text in installed.iter().chain(&found) {
        assert!(text.contains(&first), "{text}");
        assert!(text.contains("root virtproof-root"), "{text}");
    }
}

#[test]
fn a_kernel_moves_between_nodes_while_it_writes() {
    let Some(_turn) = available() else { return };
    let checks = ["D1", "M1", "M2", "M3", "G1"];
    passes("migrate.under-load", &["migration.count=2"], &checks);
}

/// Its ext4 is younger than what a kernel writes back by itself, and nothing freezes it.
#[test]
fn a_group_snapshot_of_a_young_file_system_is_read_without_its_journal() {
    let Some(_turn) = available() else { return };
    let checks = ["C1", "C3", "D1", "D2", "D3"];
    passes("snapshot.multi-disk-group", &[], &checks);
}

/// The target is lost while its QEMU starts, and one migration starves.
#[test]
fn migrations_that_are_spoiled_leave_one_guest_where_it_was() {
    let Some(_turn) = available() else { return };
    let checks = ["D1", "M1", "M2", "M3", "G1"];
    passes("migrate.abort", &[], &checks);
}

#[test]
fn a_frozen_ext4_comes_back_clean_and_an_unfrozen_one_replays_its_journal() {
    let Some(_turn) = available() else { return };
    let frozen = ["A1", "A2", "A3", "A4"];
    passes("recipe.freeze-covers-replica", &[], &frozen);
    passes("recipe.crash-baseline", &[], &["A3", "D2", "D3"]);
}

#[test]
fn a_frozen_xfs_is_judged_by_its_own_rules() {
    let Some(_turn) = available() else { return };
    let sets = [
        "workloads.0.parameters.filesystem=xfs",
        "workloads.0.parameters.dataSize=300Mi",
    ];
    let checks = ["A1", "A2", "A3", "A4"];
    passes("recipe.freeze-covers-replica", &sets, &checks);
}

/// A database with the Recipe and the hook that were made for it comes back whole, with all that it owes,
/// and as its hook left it.
fn database_passes(engine: &str) {
    let recipe = format!("workloads.0.recipe={engine}");
    let engine = format!("workloads.0.database.engine={engine}");
    let sets = [&*engine, &*recipe, "workloads.0.database.freezeHook=true"];
    passes("recipe.db", &sets, &["A1", "A2", "A6", "A7", "G1"]);
}

#[test]
fn sqlite_survives_with_an_empty_log() {
    let Some(_turn) = available() else { return };
    database_passes("sqlite");
}

#[test]
fn postgresql_survives_with_a_checkpoint_behind_it() {
    let Some(_turn) = available() else { return };
    database_passes("postgresql");
}

#[test]
fn mariadb_survives_with_closed_tables() {
    let Some(_turn) = available() else { return };
    database_passes("mysql");
}

#[test]
fn lost_and_skewed_writes_are_caught_on_a_real_kernel_too() {
    let Some(_turn) = available() else { return };
    let dir = tempfile::tempdir().expect("folder");
    let (code, said) = virtproof(
        dir.path(),
        &[
            "selftest",
            "--guests",
            "qemu",
            "--jobs",
            "1",
            "--histories",
            "0",
            "--only",
            "drop-acked-write",
            "--only",
            "group-skew",
            "--out",
            "matrix",
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("D1 as ordained"), "{said}");
    // A kernel takes its time to say that a write is durable, and other writes go on meanwhile.
    assert!(said.contains("D3 as ordained"), "{said}");
}

#[test]
fn what_a_killed_run_leaves_behind_is_found_and_killed() {
    let Some(_turn) = available() else { return };
    let dir = tempfile::tempdir().expect("folder");
    // Without setpriv nothing ties a QEMU's life to ours, which is what is to be cleaned up.
    let tools = dir.path().join("bin");
    std::fs::create_dir(&tools).expect("folder");
    for tool in ["qemu-system-x86_64", "apt-get", "apt-cache"] {
        let path = found(tool);
        std::os::unix::fs::symlink(path, tools.join(tool)).expect("link");
    }
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).expect("folder");
    let mut child = Started(
        Command::new(env!("CARGO_BIN_EXE_virtproof"))
            .args(["run", "--lab", "--guests", "qemu", "--accel", "tcg"])
            .args(["--only", "boot.replicated", "--set", "workloads.0.count=1"])
            // Nobody answers the clean-up any more, so it need not wait for long.
            .args(["--set", "deadlines.cleanup=5s"])
            .args(["--out", "run", "--format", "json"])
            .current_dir(dir.path())
            .env("PATH", &tools)
            .env("TMPDIR", &temporary)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("virtproof runs"),
    );
    child.until("\"load-started\"");
    child.0.kill().expect("killed");
    child.0.wait().expect("reaped");
    assert_eq!(qemus(&temporary).len(), 1, "one QEMU outlives its lab");
    let (code, said) = virtproof(dir.path(), &["cleanup", "run"]);
    assert!(said.contains("killed QEMU"), "{code:?}: {said}");
    assert_eq!(qemus(&temporary), Vec::<u32>::new(), "{said}");
}

struct Started(Child);

impl Started {
    /// Reads its output until a line holds a text.
    fn until(&mut self, text: &str) {
        use std::io::{BufRead as _, BufReader};
        let stdout = self.0.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let found = lines.any(|line| line.is_ok_and(|line| line.contains(text)));
        assert!(found, "the run ended before {text}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Fails when the test did it already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn found(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("a path");
    std::env::split_paths(&path)
        .map(|folder| folder.join(tool))
        .find(|file| file.exists())
        .expect("the tool was asked before")
}

/// The QEMUs that run with files below a folder.
fn qemus(folder: &Path) -> Vec<u32> {
    let found = qemu::orphans(folder).expect("the folder");
    found.iter().map(qemu::Orphan::pid).collect()
}

fn consoles(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("consoles are kept");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let bytes = std::fs::read(entry.expect("entry").path()).expect("console");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    entries.map(read).collect()
}
