//! Scenarios run in a lab of their own through the built binary, and what was judged of them.

use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;

/// Runs the built-in plan with `arguments` into `out`: the exit code, and all that was said.
pub(crate) fn run(out: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(["run", "--lab"])
        .args(arguments)
        .arg("--out")
        .arg(out)
        .output()
        .expect("virtproof runs");
    let said = [done.stdout, b"\n".to_vec(), done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The verdicts of a run.
pub(crate) fn verdicts(out: &Path) -> Verdicts {
    let text = std::fs::read_to_string(out.join("verdicts.json")).expect("verdicts");
    serde_json::from_str(&text).expect("verdicts")
}

/// The first word of a check, if it had one.
pub(crate) fn status(judged: &Verdicts, check: &str) -> Option<Status> {
    let found = judged.verdicts.iter().find(|v| v.check == check);
    found.map(|v| v.status)
}
