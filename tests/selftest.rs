//! The self-test through the built binary: every row of the fault table that can be put into effect
//! comes out as ordained, and simulated histories are judged rightly. Then one row is spoilt, and the
//! self-test must say so.

use std::process::Command;

use virtproof::lab::faults::{How, table};
use virtproof::selftest::{Matrix, Word};

fn selftest(args: &[&str]) -> (Option<i32>, String, Matrix) {
    let dir = tempfile::tempdir().expect("folder");
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .arg("selftest")
        .args(args)
        .arg("--out")
        .arg(dir.path())
        .output()
        .expect("virtproof runs");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    let text = std::fs::read_to_string(dir.path().join("selftest.json"))
        .map_err(|error| format!("no matrix ({error}):\n{said}"))
        .expect("a matrix");
    assert!(dir.path().join("selftest.html").exists(), "{said}");
    let matrix = serde_json::from_str(&text).expect("a matrix");
    (done.status.code(), said, matrix)
}

#[test]
fn every_reachable_fault_is_judged_as_ordained() {
    let (code, said, matrix) = selftest(&["--jobs", "6", "--histories", "300"]);
    let bad: Vec<_> = matrix.rows.iter().filter(|row| row.word.is_bad()).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{said}");
    assert!(matrix.gaps.is_empty(), "{:?}", matrix.gaps);
    assert_eq!(code, Some(0), "{said}");
    let reachable = table().filter(|row| row.how != How::Nowhere && !row.real_only);
    let reachable = reachable.count();
    assert_eq!(matrix.tally().held, reachable);
    assert_eq!(matrix.rows.len(), table().count());
}

#[test]
fn a_selftest_of_rows_that_cannot_be_shown_does_not_pass() {
    let (code, said, matrix) = selftest(&["--only", "vss-self-thaw", "--histories", "0"]);
    assert_eq!(code, Some(1), "nothing shown is no pass:\n{said}");
    assert!(matches!(matrix.rows[0].word, Word::Unreachable(_)));
    assert!(said.contains("unreachable"), "{said}");
}

#[test]
fn an_unknown_row_is_refused() {
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(["selftest", "--only", "no-such-fault"])
        .output()
        .expect("virtproof runs");
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("no-such-fault"));
}
