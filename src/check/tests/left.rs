//! M5, and O2 for disks that moved: what a move of the disks left behind and what became of it.

use super::cut::{bracket, lose_early};
use super::*;
use crate::history::event::{MovedDisk, ReadVia, Site, StorageFact};
use crate::history::read::Scan;

const LEFT: &str = "ledger-0-left";

fn storage(storage: StorageFact) -> Fact {
    Fact::Storage {
        site: Site::Primary,
        storage,
    }
}

fn disks() -> Vec<MovedDisk> {
    let disks = (0..2).map(|n| MovedDisk {
        volume: format!("data{n}"),
        from: format!("pvc-{n}"),
        to: format!("pvc-{n}-moved"),
        class: "other".into(),
    });
    disks.collect()
}

/// A load under which the disks moved, and what they left, read back; `on` ends the claims' names.
fn moved(on: &str, spoil: impl FnOnce(&mut Kit, u64)) -> Kit {
    let mut kit = Kit::failover(3);
    kit.scanned = false;
    let (asked, over) = bracket(&kit);
    let left = LEFT.to_owned();
    kit.add(
        asked,
        storage(StorageFact::Asked {
            left,
            disks: disks(),
        }),
    );
    let claims = (0..2).map(|n| (format!("data{n}"), format!("pvc-{n}{on}")));
    let claims = claims.collect();
    kit.add(over, storage(StorageFact::Moved { claims }));
    spoil(&mut kit, asked);
    let scan = Scan {
        cut: Some(LEFT.into()),
        ..kit.read(998, ReadVia::Clone)
    };
    kit.reads.push(scan);
    kit
}

#[test]
fn what_is_left_as_it_was_passes_and_a_guest_that_still_writes_to_it_does_not() {
    let verdict = moved("-moved", |_, _| {}).verdict("M5");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let idle = moved("-moved", |kit, _| {
        for write in &kit.writes.clone() {
            kit.put(write);
        }
    });
    let verdict = idle.verdict("M5");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.summary.contains("still wrote"), "{verdict:?}");
}

#[test]
fn a_write_of_before_the_move_that_is_gone_from_what_was_left_is_m5() {
    let kit = moved("-moved", lose_early);
    let verdict = kit.verdict("M5");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.summary.contains("not as it was"), "{verdict:?}");
}

#[test]
fn a_vmi_that_names_the_old_claims_is_m5_and_what_nobody_saw_is_not_judged() {
    let verdict = moved("", |_, _| {}).verdict("M5");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    let mut unread = moved("-moved", |_, _| {});
    unread.reads.clear();
    assert_eq!(unread.status("M5"), Inconclusive);
    let mut open = moved("-moved", |_, _| {});
    open.without(|fact| {
        matches!(
            fact,
            Fact::Storage {
                storage: StorageFact::Moved { .. },
                ..
            }
        )
    });
    assert_eq!(open.status("M5"), Inconclusive);
    let why = "the volumes replacement is effective only after restart".to_owned();
    open.add(FAULT, storage(StorageFact::Refused { why }));
    assert_eq!(open.status("M5"), Fail);
    assert_eq!(Kit::relocate(3).status("M5"), Inconclusive, "nothing moved");
}

#[test]
fn a_claim_that_a_disk_moved_to_must_be_protected_in_the_place_of_the_old_one() {
    let mut kit = Kit::relocate(3);
    let moved: Vec<String> = (0..2).map(|n| format!("pvc-{n}-moved")).collect();
    for site in [Site::Primary, Site::Secondary] {
        let synced = Some(second(FAULT - 1_500 * MS));
        let at = if site == Site::Primary {
            FAULT - 150 * MS
        } else {
            FAULT + 900 * MS
        };
        kit.add(at, replication(site, &moved, synced));
    }
    let claims: Vec<Fact> = moved
        .iter()
        .map(|pvc| Fact::Claim {
            site: Site::Secondary,
            pvc: pvc.clone(),
            pv: format!("pv-{pvc}"),
            handle: format!("h-{pvc}"),
            expected: Some(format!("h-{pvc}")),
        })
        .collect();
    for claim in claims {
        kit.add(FAULT + 900 * MS, claim);
    }
    let left = LEFT.to_owned();
    kit.add(
        FAULT - 900 * MS,
        storage(StorageFact::Asked {
            left,
            disks: disks(),
        }),
    );
    let unmoved = kit.verdict("O2");
    assert_eq!(unmoved.status, Pass, "the old claims count: {unmoved:?}");
    let claims = (0..2).map(|n| (format!("data{n}"), format!("pvc-{n}-moved")));
    let claims = claims.collect();
    kit.add(FAULT - 500 * MS, storage(StorageFact::Moved { claims }));
    let verdict = kit.verdict("O2");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    kit.change(|fact| {
        if let Fact::Replication { volumes, .. } = fact {
            volumes.retain(|volume| volume.pvc != "pvc-1-moved");
        }
    });
    let verdict = kit.verdict("O2");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
}
