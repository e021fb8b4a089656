//! The built binary, run in a folder as a user would.

use std::path::Path;
use std::process::Command;

/// Runs virtproof in a folder: its exit code, and all that it said.
pub(crate) fn virtproof(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("virtproof runs");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.code(), said)
}
