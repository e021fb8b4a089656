//! Every fault of the lab, planted in a run of the built binary, turns the run red by the check that
//! the table names; one that only blinds the ack stream makes it inconclusive; a legal disorder
//! leaves it green. Rows whose scenario or check does not exist yet are not run. The green control
//! without any fault is `tests/main_job.rs`.

use std::path::Path;
use std::process::Command;

use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;
use virtproof::lab::faults::{FaultSpec, Ordained, by_name, plantable};
use virtproof::scenario::catalogue;

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
        ])
        .args(row.plan.iter().flat_map(|set| ["--set", set]))
        .arg("--out")
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
    snapshot_never_ready: "snapshot-never-ready",
    lying_flush: "lying-flush",
    mid_delta_promote: "mid-delta-promote",
    truncated_device: "truncated-device",
    enlarged_device: "enlarged-device",
    unreadable_extent: "unreadable-extent",
    stale_read_cache: "stale-read-cache",
    sync_time_lies: "sync-time-lies",
    replica_corrupt_idle: "replica-corrupt-idle",
    busy_promote_forced: "busy-promote-forced",
    backend_demoted: "backend-demoted",
    torn_in_flight: "torn-in-flight",
    unsynced_rollback: "unsynced-rollback",
    slow_storage: "slow-storage",
    reorder_without_barrier: "reorder-without-barrier",
    resync_overwrites_primary: "resync-overwrites-primary",
    resync_deletes_good_image: "resync-deletes-good-image",
    resync_never_progresses: "resync-never-progresses",
    degraded_forever: "degraded-forever",
    schedule_not_rearmed: "schedule-not-rearmed",
    resync_to_last_snapshot: "resync-to-last-snapshot",
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

/// Whether a run can come to the verdict that a row ordains.
fn can_be_judged(row: &FaultSpec) -> bool {
    let spec = catalogue::by_id(row.scenario);
    spec.is_some_and(|spec| row.red().iter().all(|check| spec.checks.contains(check)))
}

#[test]
fn every_fault_of_the_table_is_tested() {
    let mut table: Vec<&str> = plantable()
        .filter(|(row, _)| can_be_judged(row))
        .map(|(row, _)| row.name)
        .collect();
    let mut tested = TESTED.to_vec();
    table.sort_unstable();
    tested.sort_unstable();
    assert_eq!(table, tested);
}
