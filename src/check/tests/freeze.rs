//! A1 to A4: frozen file systems.

use super::*;
use crate::history::event::{CaptureFact, FileSystemFact, FreezeFact, LedgerMode};

const ALL: [&str; 4] = ["A1", "A2", "A3", "A4"];

#[test]
fn a_good_freeze_passes() {
    let kit = Kit::frozen(3);
    for check in ALL {
        let verdict = kit.verdict(check);
        assert_eq!(verdict.status, Pass, "{verdict:?}");
    }
    for check in ALL {
        assert_eq!(Kit::relocate(3).status(check), Inconclusive, "{check}");
    }
}

#[test]
fn a_freeze_that_stopped_nobody_is_a1_alone() {
    // Entry 36: frozen in the launcher's own mount namespace.
    let kit = Kit::frozen_for(3, &[], 500);
    let verdict = kit.verdict("A1");
    assert_eq!(verdict.status, Fail);
    assert!(verdict.summary.contains("took writes"), "{verdict:?}");
    for check in ["A2", "A3", "A4"] {
        let verdict = kit.verdict(check);
        assert_eq!(verdict.status, Inconclusive, "{verdict:?}");
        assert!(verdict.summary.contains("see A1"), "{verdict:?}");
    }
    // Entry 37: it failed and somebody went on all the same.
    let mut kit = Kit::frozen_for(3, &[], 500);
    kit.change(|fact| {
        if let Fact::Freeze { freeze, .. } = fact
            && *freeze == FreezeFact::Frozen
        {
            let why = "no agent".into();
            *freeze = FreezeFact::Refused { why };
        }
    });
    assert_eq!(kit.status("A1"), Fail);
    // Entry 35: nobody even asked for it.
    let mut kit = Kit::frozen_for(3, &[], 500);
    kit.without(|fact| matches!(fact, Fact::Freeze { .. }));
    assert_eq!(kit.status("A1"), Fail);
    kit.without(|fact| matches!(fact, Fact::Capture { .. }));
    assert_eq!(kit.status("A1"), Inconclusive, "and nobody claims it");
}

#[test]
fn a_file_system_that_says_it_is_not_frozen_is_a1() {
    let mut kit = Kit::frozen(3);
    kit.change(|fact| {
        if let Fact::FileSystem {
            state: FileSystemFact::Live { frozen },
            ..
        } = fact
        {
            *frozen = false;
        }
    });
    assert_eq!(kit.status("A1"), Fail);
}

#[test]
fn a_point_outside_any_freeze_is_a1() {
    let mut kit = Kit::frozen(3);
    kit.add(
        PAUSE + 1_500 * MS,
        Fact::Capture {
            site: Site::Primary,
            capture: CaptureFact {
                means: "Recipe".into(),
                quiesced: true,
                taken: true,
            },
        },
    );
    assert_eq!(kit.status("A1"), Fail);
}

#[test]
fn a_freeze_that_nothing_shows_is_no_pass() {
    // The guest stood still as a whole: its raw volumes too.
    assert_eq!(
        Kit::frozen_for(3, &[0, 1, 2], 500).status("A1"),
        Inconclusive
    );
    // No file system at all.
    let mut kit = Kit::frozen(3);
    kit.change(|fact| {
        if let Fact::SubjectCreated { volumes, .. } = fact {
            volumes[1].ledger = LedgerMode::Raw;
        }
    });
    for check in ["A1", "A2", "A3"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
    // Nothing answered.
    let mut kit = Kit::frozen(3);
    kit.without(|fact| {
        matches!(fact, Fact::Capture { .. })
            || matches!(
                fact,
                Fact::Freeze {
                    freeze: FreezeFact::Frozen,
                    ..
                }
            )
    });
    assert_eq!(kit.status("A1"), Inconclusive);
    assert_eq!(kit.status("A2"), Inconclusive);
}

#[test]
fn a_point_outside_the_freeze_is_a2() {
    // Entry 38: taken half a second too late, or too early.
    let verdict = Kit::frozen_for(3, &[0, 2], 1_500).verdict("A2");
    assert_eq!(verdict.status, Fail);
    let mut early = Kit::frozen(3);
    let rank = early
        .ranks
        .iter()
        .filter(|at| **at <= PAUSE - 300 * MS)
        .count();
    early.cut(rank as u64, &mut Draw(3));
    assert_eq!(early.status("A2"), Fail);
    // Entry 40: the guest thawed itself before the point.
    let thawed = Kit::frozen_until(3, &[0, 2], 600, 900);
    let verdict = thawed.verdict("A2");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.witness[0].contains("issued after"), "{verdict:?}");
}

#[test]
fn a_file_volume_that_lacks_what_it_held_is_a2() {
    let mut kit = Kit::frozen(3);
    let early = kit.writes.iter().rev().find(|w| {
        w.volume == 1 && w.heard < PAUSE - 50 * MS && kit.disks[1].get(&w.cell) == Some(&state(w))
    });
    let early = early.expect("written before").clone();
    let before = kit.before(&early);
    kit.disks[1].insert(early.cell, before);
    assert_eq!(kit.status("A2"), Fail);
    let mut unread = Kit::frozen(3);
    unread.scanned = false;
    assert_eq!(unread.status("A2"), Inconclusive);
}

#[test]
fn an_unclean_file_system_is_a3() {
    let found = |states: &[FileSystemFact]| {
        let mut kit = Kit::frozen(3);
        kit.without(|fact| {
            matches!(
                fact,
                Fact::FileSystem {
                    state: FileSystemFact::Raw { .. },
                    ..
                }
            )
        });
        for (n, state) in (0u64..).zip(states) {
            kit.add(FAULT + (2_800 + n) * MS, file_system(state.clone()));
        }
        kit.status("A3")
    };
    let raw = |kind: &str, dirty| raw(kind, Some(dirty));
    let checked = |sound| FileSystemFact::Checked {
        kind: "xfs".into(),
        sound,
        said: "as told".into(),
    };
    assert_eq!(found(&[]), Inconclusive);
    assert_eq!(found(&[raw("ext4", false)]), Pass);
    assert_eq!(found(&[raw("ext4", true)]), Fail);
    assert_eq!(
        found(&[FileSystemFact::Mounted, raw("ext4", false)]),
        Inconclusive
    );
    // A frozen XFS has a dirty log on purpose.
    assert_eq!(found(&[raw("xfs", true)]), Inconclusive);
    assert_eq!(found(&[raw("xfs", true), checked(true)]), Pass);
    assert_eq!(found(&[raw("xfs", true), checked(false)]), Fail);
    assert_eq!(found(&[raw("ntfs", false)]), Inconclusive);
}

/// What A3 says of a failover in which nothing claims quiesced file systems.
fn crashed(states: &[FileSystemFact]) -> Verdict {
    let mut kit = Kit::frozen(3);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::FileSystem { .. } | Fact::Freeze { .. } | Fact::Capture { .. }
        )
    });
    for (n, state) in (0u64..).zip(states) {
        kit.add(FAULT + (2_800 + n) * MS, file_system(state.clone()));
    }
    kit.verdict("A3")
}

#[test]
fn a_crash_may_leave_a_journal_but_no_damage() {
    let checked = |sound| FileSystemFact::Checked {
        kind: "ext4".into(),
        sound,
        said: "it does not mount".into(),
    };
    let verdict = crashed(&[raw("ext4", Some(true)), checked(true)]);
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let limits = verdict.limits.join("; ");
    assert!(limits.contains("its journal was replayed"), "{limits}");
    assert!(limits.contains("crash consistent only"), "{limits}");
    let clean = crashed(&[raw("ext4", Some(false)), checked(true)]);
    assert!(!clean.limits.join("; ").contains("replayed"), "{clean:?}");
    let verdict = crashed(&[raw("ext4", Some(true)), checked(false)]);
    assert_eq!(verdict.status, Fail);
    assert!(verdict.witness[0].contains("does not mount"), "{verdict:?}");
    for unseen in [
        &[raw("ext4", Some(true))][..],
        &[FileSystemFact::Mounted, checked(true)],
        &[],
    ] {
        assert_eq!(crashed(unseen).status, Inconclusive, "{unseen:?}");
    }
}

#[test]
fn a_point_after_the_launchers_own_thaw_is_a2_and_a4() {
    // Entry 38: the timer ran out after 600 ms and the writers went on; the point came later.
    let mut kit = Kit::frozen_until(3, &[0, 2], 700, 950);
    kit.change(|fact| {
        if let Fact::Freeze {
            freeze: FreezeFact::Asked { timeout_ms },
            ..
        } = fact
        {
            *timeout_ms = 600;
        }
    });
    let said: Vec<_> = ALL.iter().map(|check| kit.status(check)).collect();
    assert_eq!(said, [Pass, Fail, Inconclusive, Fail]);
    assert!(kit.verdict("A3").summary.contains("see A2"));
}

#[test]
fn a_guest_whose_power_goes_while_it_is_frozen_needs_no_thaw() {
    let cut = |timeout: u64| {
        // Frozen until the VM is stopped at the fault.
        let mut kit = Kit::frozen_until(3, &[0, 2], 60_000, 500);
        kit.without(|fact| {
            matches!(
                fact,
                Fact::Freeze {
                    freeze: FreezeFact::ThawAsked | FreezeFact::Thawed { .. },
                    ..
                }
            )
        });
        kit.change(|fact| {
            if let Fact::Freeze {
                freeze: FreezeFact::Asked { timeout_ms },
                ..
            } = fact
            {
                *timeout_ms = timeout;
            }
        });
        kit.plan = plan("{rpo: 1900ms}");
        ["A1", "A2", "A3", "A4", "R1"].map(|check| kit.status(check))
    };
    // That the file system took no write was ordered: no silence of the service.
    assert_eq!(cut(60_000), [Pass; 5]);
    assert_eq!(cut(0), [Pass; 5]);
    let [.., thawed, silent] = cut(700);
    assert_eq!(thawed, Fail, "it had thawed by itself");
    assert_eq!(silent, Inconclusive, "nothing ordered that silence");
}

#[test]
fn file_systems_that_do_not_go_on_after_the_thaw_are_a4() {
    let mut kit = Kit::frozen_until(3, &[0, 2], 60_000, 500);
    assert_eq!(
        kit.status("A4"),
        Inconclusive,
        "nothing says how long is too long"
    );
    kit.plan = plan("{freezeStall: 300ms}");
    let verdict = kit.verdict("A4");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.summary.contains("did not go on"), "{verdict:?}");
}

#[test]
fn a_late_or_missing_thaw_is_a4() {
    let mut never = Kit::frozen(3);
    never.without(|fact| {
        matches!(
            fact,
            Fact::Freeze {
                freeze: FreezeFact::ThawAsked | FreezeFact::Thawed { .. },
                ..
            }
        )
    });
    assert_eq!(never.status("A4"), Fail);
    let timed = |timeout_ms: u64| {
        let mut kit = Kit::frozen(3);
        kit.change(|fact| {
            if let Fact::Freeze {
                freeze: FreezeFact::Asked { timeout_ms: old },
                ..
            } = fact
            {
                *old = timeout_ms;
            }
        });
        kit.status("A4")
    };
    assert_eq!(timed(500), Fail, "the guest thawed by itself");
    assert_eq!(timed(1_000), Inconclusive);
    assert_eq!(timed(0), Pass, "it never does");
    let mut failed = Kit::frozen(3);
    failed.change(|fact| {
        if let Fact::Freeze {
            freeze: FreezeFact::Thawed { outcome },
            ..
        } = fact
        {
            *outcome = Outcome::Failed("fsfreeze is limited".into());
        }
    });
    assert_eq!(failed.status("A4"), Fail);
    // Written to before the thaw was asked for: the guest thawed by itself.
    let early = Kit::frozen_until(3, &[0, 2], 600, 500);
    assert_eq!(early.status("A4"), Fail);
}

#[test]
fn the_stall_is_judged_by_its_bracket() {
    let allowed = |ms: u64| {
        let mut kit = Kit::frozen(3);
        kit.plan = plan(&format!("{{freezeStall: {ms}ms}}"));
        kit.verdict("A4")
    };
    let verdict = allowed(2_000);
    assert_eq!(verdict.status, Pass);
    let stall = verdict.measures.iter().find(|m| m.name == "freeze-stall");
    let stall = stall.expect("measured");
    assert!(
        stall.low <= 1.02 && 0.99 <= stall.high && stall.high - stall.low < 0.25,
        "{stall:?}"
    );
    assert_eq!(allowed(700).status, Fail);
    assert_eq!(allowed(1_000).status, Inconclusive);
}

/// A freeze that nobody is to thaw, with a timer, held for so many milliseconds.
fn abandoned(timer: u64, held: u64) -> Kit {
    let mut kit = Kit::frozen_until(3, &[0, 2], held, 500);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::Capture { .. }
                | Fact::Freeze {
                    freeze: FreezeFact::ThawAsked | FreezeFact::Thawed { .. },
                    ..
                }
        )
    });
    kit.change(|fact| {
        if let Fact::Freeze {
            freeze: FreezeFact::Asked { timeout_ms },
            ..
        } = fact
        {
            *timeout_ms = timer;
        }
    });
    let site = Site::Primary;
    let freeze = FreezeFact::Abandoned;
    kit.add(PAUSE + 20 * MS, Fact::Freeze { site, freeze });
    kit
}

#[test]
fn a_guest_that_nobody_thaws_must_thaw_by_itself() {
    let verdict = abandoned(1_000, 1_000).verdict("A4");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    assert_eq!(abandoned(1_000, 1_000).status("A1"), Pass);
    let mut kit = abandoned(1_000, 1_000);
    kit.plan = plan("{freezeStall: 300ms}");
    assert_eq!(
        kit.status("A4"),
        Pass,
        "the objective is for those who thaw"
    );
    // Without a timer nobody ever would have.
    assert_eq!(abandoned(0, 1_000).status("A4"), Fail);
    // It never wrote again, and was not looked at for long enough to hold that against it.
    let verdict = abandoned(1_000, 60_000).verdict("A4");
    assert_eq!(verdict.status, Inconclusive, "{verdict:?}");
    // Somebody had to thaw it at last, far too late.
    let mut kit = abandoned(1_000, 60_000);
    let site = Site::Primary;
    let freeze = FreezeFact::ThawAsked;
    kit.add(PAUSE + 8_000 * MS, Fact::Freeze { site, freeze });
    let verdict = kit.verdict("A4");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
}

#[test]
fn a_second_freeze_keeps_the_first_timer() {
    let again = |timer: u64| {
        let mut kit = Kit::frozen(3);
        let site = Site::Primary;
        for (at, freeze) in [
            (350, FreezeFact::Asked { timeout_ms: timer }),
            (360, FreezeFact::Frozen),
            (370, FreezeFact::Asked { timeout_ms: timer }),
            (380, FreezeFact::Refused { why: "busy".into() }),
        ] {
            kit.add(PAUSE + at * MS, Fact::Freeze { site, freeze });
        }
        ["A1", "A2", "A4"].map(|check| kit.status(check))
    };
    // One freeze, whatever timer the later ones name.
    assert_eq!(again(5_000), [Pass; 3]);
    assert_eq!(again(100), [Pass; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Points well inside the freeze pass, points well outside fail, none is called wrongly.
    #[test]
    fn the_point_is_dated_rightly(seed in any::<u64>(), taken in 0u64..1_900) {
        let status = Kit::frozen_for(seed, &[0, 2], taken).status("A2");
        match taken {
            // A token interval and a few acks on either side are open.
            150..900 => prop_assert_eq!(status, Pass),
            1_100.. => prop_assert_eq!(status, Fail),
            10..990 => prop_assert_ne!(status, Fail),
            _ => prop_assert_ne!(status, Pass),
        }
    }

    /// A real freeze is never called a false one, and the other way round.
    #[test]
    fn freezes_are_told_from_mere_words(seed in any::<u64>()) {
        for check in ALL {
            prop_assert_eq!(Kit::frozen(seed).status(check), Pass, "{}", check);
        }
        let words = Kit::frozen_for(seed, &[], 500);
        prop_assert_eq!(words.status("A1"), Fail);
        prop_assert_eq!(words.status("A2"), Inconclusive);
    }
}
