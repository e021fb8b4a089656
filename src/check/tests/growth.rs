//! H3, and D7 of a volume that grew.

use super::*;
use crate::history::event::{ConditionFact, InsideDisk, InsideFact, Outcome, ResizeFact, ScanFact};

const SERIAL: &str = "data";
const CELLS: u64 = 4096;

fn resize(resize: ResizeFact) -> Fact {
    Fact::Resize {
        site: Site::Primary,
        resize,
    }
}

fn inside(at: Site, size: u64) -> Fact {
    let disk = InsideDisk {
        name: "vdb".into(),
        serial: SERIAL.into(),
        size,
        read_only: false,
    };
    Fact::Inside {
        site: at,
        inside: InsideFact {
            disks: vec![disk],
            ..InsideFact::default()
        },
    }
}

/// A move of a VM whose first volume was doubled under load.
fn grown(seed: u64) -> Kit {
    let mut kit = Kit::relocate(seed);
    let (from, to) = (kit.sizes[0], 2 * kit.sizes[0]);
    let at = START + 500 * MS;
    let asked = ResizeFact::Asked {
        ordinal: 0,
        pvc: "claim".into(),
        serial: SERIAL.into(),
        from,
        to,
        boot_id: "boot".into(),
    };
    let behind = ResizeFact::Behind {
        read: 64,
        strange: 0,
        scan: ScanFact {
            volume: 0,
            size: from,
            read: 64,
            cold_ok: 0,
            file: String::new(),
            blake3: String::new(),
        },
    };
    let outcome = Outcome::Ok;
    let condition = ConditionFact {
        status: "True".into(),
        reason: String::new(),
        message: String::new(),
    };
    let conditions = |kinds: &[&str]| {
        let all = kinds.iter();
        all.map(|kind| ((*kind).to_owned(), condition.clone()))
            .collect()
    };
    for (after, fact) in [
        (0, asked),
        (20, ResizeFact::Answered { outcome }),
        (
            30,
            ResizeFact::Claimed {
                capacity: from,
                conditions: conditions(&["Resizing"]),
            },
        ),
        (
            300,
            ResizeFact::Claimed {
                capacity: to,
                conditions: conditions(&[]),
            },
        ),
        (310, ResizeFact::Reported { capacity: to }),
        (
            400,
            ResizeFact::Seen {
                size: to,
                boot_id: "boot".into(),
            },
        ),
        (420, behind),
    ] {
        kit.add(at + after * MS, resize(fact));
    }
    kit.add(at + 410 * MS, inside(Site::Primary, to));
    kit.add(FAULT + 2_600 * MS, inside(Site::Secondary, to));
    kit.sizes[0] = to;
    kit
}

/// The same with each fact about the growth changed.
fn spoilt(how: impl Fn(&mut ResizeFact)) -> Kit {
    let mut kit = grown(3);
    kit.change(|fact| {
        if let Fact::Resize { resize, .. } = fact {
            how(resize);
        }
    });
    kit
}

#[test]
fn a_volume_that_grew_everywhere_passes() {
    let kit = grown(3);
    for check in ["H3", "D7", "D1"] {
        assert_eq!(kit.status(check), Pass, "{:?}", kit.verdict(check));
    }
    assert_eq!(Kit::relocate(3).status("H3"), Inconclusive);
}

#[test]
fn a_claim_that_grew_for_nobody_is_caught() {
    let small = grown(3).sizes[0] / 2;
    let unseen = spoilt(|fact| {
        if let ResizeFact::Seen { size, .. } = fact {
            *size = small;
        }
    });
    let verdict = unseen.verdict("H3");
    assert_eq!(verdict.status, Fail);
    assert!(
        verdict.witness[0].contains("the guest shows"),
        "{verdict:?}"
    );
    let rebooted = spoilt(|fact| {
        if let ResizeFact::Seen { boot_id, .. } = fact {
            *boot_id = "another".into();
        }
    });
    assert!(rebooted.verdict("H3").witness[0].contains("reboot"));
    let stuck = spoilt(|fact| {
        if let ResizeFact::Claimed { capacity, .. } = fact {
            *capacity = small;
        }
    });
    assert!(stuck.verdict("H3").witness[0].contains("still has"));
    let used = spoilt(|fact| {
        if let ResizeFact::Behind { strange, .. } = fact {
            *strange = 3;
        }
    });
    assert!(used.verdict("H3").witness[0].contains("not blank"));
    for kit in [rebooted, stuck, used] {
        assert_eq!(kit.status("H3"), Fail);
    }
}

#[test]
fn what_nobody_waited_for_is_no_word() {
    let small = grown(3).sizes[0] / 2;
    let mut kit = spoilt(|fact| {
        if let ResizeFact::Seen { size, .. } = fact {
            *size = small;
        }
    });
    kit.change(|fact| {
        if let Fact::TrialEnded { outcome } = fact {
            *outcome = Outcome::Unknown("interrupted".into());
        }
    });
    assert_eq!(kit.status("H3"), Inconclusive, "{:?}", kit.verdict("H3"));
}

#[test]
fn what_was_refused_or_not_looked_at_is_no_word() {
    for answer in [
        Outcome::Failed("forbidden".into()),
        Outcome::Unknown("no answer".into()),
    ] {
        let kit = spoilt(|fact| {
            if let ResizeFact::Answered { outcome } = fact {
                *outcome = answer.clone();
            }
        });
        assert_eq!(kit.status("H3"), Inconclusive, "{:?}", kit.verdict("H3"));
    }
    let gone: [fn(&Fact) -> bool; 4] = [
        |fact| matches!(fact, Fact::Resize { resize, .. } if matches!(resize, ResizeFact::Behind { .. })),
        |fact| matches!(fact, Fact::Resize { resize, .. } if matches!(resize, ResizeFact::Claimed { .. })),
        |fact| matches!(fact, Fact::Resize { resize, .. } if matches!(resize, ResizeFact::Seen { .. })),
        |fact| matches!(fact, Fact::Inside { site, .. } if *site == Site::Secondary),
    ];
    for gone in gone {
        let mut kit = grown(3);
        kit.without(gone);
        assert_eq!(kit.status("H3"), Inconclusive, "{:?}", kit.verdict("H3"));
    }
}

#[test]
fn a_replica_of_the_old_size_is_caught() {
    let mut kit = grown(3);
    kit.sizes[0] /= 2;
    let small = kit.sizes[0];
    kit.change(|fact| {
        if let Fact::Inside { site, inside } = fact
            && *site == Site::Secondary
        {
            inside.disks[0].size = small;
        }
    });
    for check in ["H3", "D7"] {
        assert_eq!(kit.status(check), Fail, "{:?}", kit.verdict(check));
    }
    let mut kit = grown(3);
    kit.change(|fact| {
        if let Fact::Inside { site, inside } = fact
            && *site == Site::Secondary
        {
            inside.disks.clear();
        }
    });
    assert_eq!(kit.status("H3"), Fail, "the disk is gone");
}

proptest! {
    #[test]
    fn a_legal_growth_is_never_condemned(seed in 0..1000_u64, more in 0..8_u64) {
        let mut kit = grown(seed);
        // Storage may round up.
        let size = kit.sizes[0] + more * CELLS;
        kit.change(|fact| match fact {
            Fact::Inside { inside, .. } => inside.disks[0].size = size,
            Fact::Resize { resize: ResizeFact::Seen { size: seen, .. }, .. } => *seen = size,
            _ => {}
        });
        prop_assert_eq!(kit.status("H3"), Pass);
    }
}
