//! Every fault of the lab, planted in a run of the built binary, turns the run red by the check that
//! the table names; one that only blinds the ack stream makes it inconclusive. The green control is
//! `tests/main_job.rs`.

use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;
use virtproof::lab::faults::{Ordained, by_name, plantable};

fn run(name: &str, out: &Path) -> (Option<i32>, String) {
    let row = by_name(name).expect("a fault of the table");
    let done = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args([
            "run",
            "--lab",
            "--seed",
            "11",
            "--fault",
            name,
            "--only",
            row.scenario,
            "--out",
        ])
        .arg(out)
        .output()
        .expect("virtproof runs");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    (done.status.code(), said)
}

fn caught(name: &str) {
    let row = by_name(name).expect("a fault of the table");
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("run");
    let (code, said) = run(name, &out);
    let text = std::fs::read_to_string(out.join("verdicts.json"))
        .map_err(|error| format!("no verdicts ({error}):\n{said}"))
        .expect("verdicts");
    let verdicts: Verdicts = serde_json::from_str(&text).expect("verdicts");
    let expected = match row.ordained {
        Ordained::Inconclusive => Some(4),
        Ordained::Green => Some(0),
        _ => Some(1),
    };
    assert_eq!(code, expected, "ordained is {}:\n{said}", row.word());
    let fired: Vec<&str> = verdicts
        .verdicts
        .iter()
        .filter(|v| v.status == Status::Fail)
        .map(|v| v.check.as_str())
        .collect();
    for check in row.red() {
        assert!(
            fired.contains(check),
            "{check} did not fire, but {fired:?}:\n{said}"
        );
        assert!(
            said.contains(check),
            "the output does not name {check}:\n{said}"
        );
    }
}

macro_rules! faults {
    ($($test:ident: $name:literal,)*) => {
        const TESTED: &[&str] = &[$($name),*];
        $(#[test] fn $test() { caught($name); })*
    };
}

faults! {
    drop_acked_write: "drop-acked-write",
    reorder_across_barrier: "reorder-across-barrier",
    group_skew: "group-skew",
    torn_acked_write: "torn-acked-write",
    bit_flip_cold: "bit-flip-cold",
    misdirected_write: "misdirected-write",
    swap_volumes: "swap-volumes",
    stale_extent: "stale-extent",
    recycled_volume: "recycled-volume",
    skipped_extent: "skipped-extent",
    older_point: "older-point",
    sync_stalled: "sync-stalled",
    relocate_without_final_sync: "relocate-without-final-sync",
    fresh_empty_disk: "fresh-empty-disk",
    two_live_writers: "two-live-writers",
    promote_stalls: "promote-stalls",
    vm_left_halted: "vm-left-halted",
    unprotected_volume: "unprotected-volume",
    leftover_after_cleanup: "leftover-after-cleanup",
    wrong_guest: "wrong-guest",
    ack_stream_cut: "ack-stream-cut",
    api_latency: "api-latency",
    api_conflicts: "api-conflicts",
    api_throttled: "api-throttled",
    api_throttled_forever: "api-throttled-forever",
    api_errors: "api-errors",
    api_resets: "api-resets",
    watch_gone: "watch-gone",
    watch_stalled: "watch-stalled",
    stale_generation: "stale-generation",
    port_forward_flaps: "port-forward-flaps",
}

#[test]
fn every_fault_of_the_table_is_tested() {
    let mut table: Vec<&str> = plantable().map(|(row, _)| row.name).collect();
    let mut tested = TESTED.to_vec();
    table.sort_unstable();
    tested.sort_unstable();
    assert_eq!(table, tested);
}
