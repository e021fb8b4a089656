//! M1 to M4: live migrations.

use super::*;
use crate::history::event::{EvictionFact, MigrationFact, Spoil};
use crate::probe::disk::Grants;

fn allowed(kit: &mut Kit, ms: u64) -> Status {
    kit.plan = plan(&format!("{{migrationBlackout: {ms}ms}}"));
    kit.status("M1")
}

fn span(kit: &Kit, name: &str) -> (f64, f64) {
    let verdict = kit.verdict("M1");
    let found = verdict.measures.iter().find(|m| m.name == name);
    found.map(|m| (m.low, m.high)).expect("measured")
}

#[test]
fn a_good_migration_passes() {
    let kit = Kit::migrated(3, 300, 0);
    for check in ["M1", "M2", "M3", "D1", "D2", "D3", "D4", "D5", "D6", "D7"] {
        let verdict = kit.verdict(check);
        assert_eq!(verdict.status, Pass, "{verdict:?}");
    }
    for check in ["M1", "M2", "M3"] {
        assert_eq!(Kit::relocate(3).status(check), Inconclusive, "{check}");
    }
}

#[test]
fn the_blackout_is_judged_by_its_bracket() {
    let mut kit = Kit::migrated(3, 300, 0);
    let (low, high) = span(&kit, "blackout");
    assert!(
        low <= 0.31 && 0.3 <= high && high - low < 0.2,
        "{low} {high}"
    );
    let (guest, _) = span(&kit, "blackout.guest");
    assert!((guest - 0.3).abs() < 0.02, "{guest}");
    assert_eq!(allowed(&mut kit, 500), Pass);
    assert_eq!(allowed(&mut kit, 310), Inconclusive);
    assert_eq!(allowed(&mut kit, 150), Fail);
}

#[test]
fn a_clock_that_stood_still_hides_no_blackout() {
    let mut kit = Kit::migrated(3, 900, 900);
    let (guest, _) = span(&kit, "blackout.guest");
    assert!(guest < 0.05, "{guest}");
    assert_eq!(allowed(&mut kit, 500), Fail);
    // Half of it stood still.
    assert_eq!(allowed(&mut Kit::migrated(3, 900, 450), 500), Fail);
}

#[test]
fn a_stream_that_broke_is_no_blackout_where_the_guests_clock_kept_step() {
    let mut kit = Kit::migrated(3, 100, 0);
    // Everything from the pause on is heard at once, more than a second later.
    let back = PAUSE + 1_400 * MS;
    kit.hear_at_once(PAUSE..back);
    let (heard, _) = span(&kit, "blackout.heard");
    assert!(heard > 1.3, "{heard}");
    assert_eq!(allowed(&mut kit, 400), Pass);
}

#[test]
fn a_blackout_behind_acks_that_came_late_is_seen() {
    let mut kit = Kit::migrated(3, 900, 0);
    // The stream breaks just before the pause and comes back after it: the first frame that is then
    // heard is one of before.
    let back = PAUSE + 1_000 * MS;
    let broken = PAUSE - 50 * MS..back;
    for record in &mut kit.load {
        if let Record::Frame { at_ns, .. } = record
            && broken.contains(at_ns)
        {
            *at_ns = back;
        }
    }
    kit.load.sort_by_key(Record::at_ns);
    kit.load
        .retain(|record| !matches!(record, Record::Token { at_ns, .. } if broken.contains(at_ns)));
    let (guest, _) = span(&kit, "blackout.guest");
    assert!((guest - 0.9).abs() < 0.02, "{guest}");
    assert_eq!(allowed(&mut kit, 500), Fail);
}

#[test]
fn writes_that_never_come_back_are_m1_if_the_guest_was_heard() {
    let mut kit = Kit::migrated(3, 300, 0);
    let end = PAUSE + 300 * MS;
    kit.load.retain(|record| record.at_ns() < PAUSE + 100 * MS);
    assert_eq!(allowed(&mut kit, 500), Inconclusive);
    for n in 1..=3 {
        let alive = FromGuest::Alive {
            mono_ns: 0,
            token: 0,
        };
        let (at_ns, bytes) = (end + n * 500 * MS, alive.encode(0));
        kit.load.push(Record::Frame {
            at_ns,
            seq: 0,
            bytes,
        });
    }
    assert_eq!(allowed(&mut kit, 500), Fail);
}

#[test]
fn the_network_is_watched_from_outside() {
    let echo = |longest_ns: u64, unbroken_ns: Option<u64>| {
        let mut kit = Kit::migrated(3, 100, 0);
        kit.add(
            PAUSE + 1_000 * MS,
            Fact::Echo {
                site: Site::Primary,
                address: "192.0.2.9".into(),
                from_ns: PAUSE - 500 * MS,
                interval_ns: 10 * MS,
                sent: 150,
                answered: 100,
                longest_ns,
                unbroken_ns,
            },
        );
        allowed(&mut kit, 400)
    };
    assert_eq!(echo(300 * MS, None), Pass);
    assert_eq!(echo(405 * MS, None), Inconclusive);
    assert_eq!(echo(2_000 * MS, None), Fail);
    assert_eq!(echo(2_000 * MS, Some(2_000 * MS)), Fail);
    // A stream that had to be made anew is not the guest's network.
    assert_eq!(echo(2_000 * MS, Some(300 * MS)), Pass);
    assert_eq!(echo(2_000 * MS, Some(405 * MS)), Inconclusive);
}

#[test]
fn another_guest_or_another_writer_is_m2() {
    type Spoil = fn(&mut Kit);
    let spoils: [(&str, Spoil); 8] = [
        ("failed", |kit| {
            kit.change(|fact| {
                if let Fact::Migration { migration, .. } = fact
                    && migration.completed
                {
                    migration.failed = true;
                }
            });
        }),
        ("the VMI is uid-9", |kit| {
            kit.change(|fact| {
                if let Fact::Vm { vmi_uid, node, .. } = fact
                    && node.as_deref() == Some("node-2")
                {
                    *vmi_uid = Some("uid-9".into());
                }
            });
        }),
        ("still on node node-1", |kit| {
            kit.change(|fact| {
                if let Fact::Vm { node, .. } = fact
                    && node.is_some()
                {
                    *node = Some("node-1".into());
                }
            });
        }),
        ("went to node-3", |kit| {
            kit.change(|fact| {
                if let Fact::Migration { migration, .. } = fact
                    && migration.completed
                {
                    migration.target_node = "node-3".into();
                }
            });
        }),
        ("somebody else wrote", |kit| {
            kit.change(|fact| {
                if let Fact::Lease { foreign, .. } = fact {
                    foreign.push("stamp".into());
                }
            });
        }),
        ("runs on boot boot-z", |kit| kit.verify_boot = "boot-z"),
        ("the guest is of boot boot-z", |kit| {
            kit.change(|fact| {
                if let Fact::Guest { boot_id, .. } = fact {
                    *boot_id = "boot-z".into();
                }
            });
        }),
        ("speaks as process 8", |kit| {
            let found = kit.load.iter().find_map(|record| match decode(record) {
                Some(FromGuest::Opened(identity)) => Some(identity),
                _ => None,
            });
            let mut identity = found.expect("introduced");
            identity.pid = 8;
            let (at_ns, bytes) = (FAULT, FromGuest::Opened(identity).encode(0));
            kit.load.push(Record::Frame {
                at_ns,
                seq: 0,
                bytes,
            });
        }),
    ];
    for (what, spoil) in spoils {
        let mut kit = Kit::migrated(3, 300, 0);
        spoil(&mut kit);
        let verdict = kit.verdict("M2");
        assert_eq!(verdict.status, Fail, "{what}: {verdict:?}");
        let said = format!("{} {}", verdict.summary, verdict.witness.join(" "));
        assert!(said.contains(what), "{what}: {said}");
    }
}

#[test]
fn a_migration_that_nobody_watched_is_no_pass() {
    type Gone = fn(&Fact) -> bool;
    let gone: [(&str, Gone); 3] = [
        ("lease", |fact| matches!(fact, Fact::Lease { .. })),
        ("place", |fact| matches!(fact, Fact::Vm { .. })),
        (
            "end",
            |fact| matches!(fact, Fact::Migration { migration, .. } if migration.completed),
        ),
    ];
    for (what, gone) in gone {
        let mut kit = Kit::migrated(3, 300, 0);
        kit.without(gone);
        assert_eq!(kit.status("M2"), Inconclusive, "{what}");
    }
    let mut kit = Kit::migrated(3, 300, 0);
    kit.without(|fact| matches!(fact, Fact::Migration { migration, .. } if migration.completed));
    assert_eq!(kit.status("M1"), Inconclusive);
    assert_eq!(kit.status("M3"), Inconclusive);
}

#[test]
fn a_lease_read_through_a_cache_says_nothing() {
    let kit = Kit::migrated(3, 300, 0);
    let limits = |history: &History| {
        let verdicts = judge(&kit.plan, history).verdicts;
        let found = verdicts.into_iter().find(|v| v.check == "M2");
        found
            .map(|v| (v.status, v.limits.join("; ")))
            .expect("judged")
    };
    let mut history = kit.history();
    assert!(!limits(&history).1.contains("cache"));
    history.incarnations[0].identity.volumes[1].grants = Grants::default();
    let (status, said) = limits(&history);
    assert_eq!(status, Pass, "the other volume tells");
    assert!(
        said.contains("/dev/vd1 was read through the guest's cache"),
        "{said}"
    );
    history.incarnations[0].identity.volumes[0].grants = Grants::default();
    assert_eq!(limits(&history).0, Inconclusive);
}

#[test]
fn the_worst_of_several_migrations_speaks_for_all() {
    let mut kit = Kit::migrated(3, 300, 0);
    let again = |phase: &str, completed| {
        let migration = MigrationFact {
            name: "move-2".into(),
            phase: phase.into(),
            target_node: "node-2".into(),
            completed,
            ..MigrationFact::default()
        };
        let site = Site::Primary;
        Fact::Migration { site, migration }
    };
    kit.add(PAUSE + 600 * MS, again("", false));
    kit.add(PAUSE + 800 * MS, again("Succeeded", true));
    let verdict = kit.verdict("M1");
    let blackouts = verdict.measures.iter().filter(|m| m.name == "blackout");
    assert_eq!(blackouts.count(), 1);
    assert!(span(&kit, "blackout").1 > 0.25, "{verdict:?}");
    let said = "2 of 2 migrations came out so, the worst is shown".to_owned();
    assert!(verdict.limits.contains(&said), "{verdict:?}");
}

#[test]
fn a_running_migration_is_not_over() {
    let mut kit = Kit::migrated(3, 300, 0);
    kit.change(|fact| {
        if let Fact::Migration { migration, .. } = fact {
            *migration = MigrationFact {
                name: migration.name.clone(),
                phase: "Running".into(),
                ..MigrationFact::default()
            };
        }
    });
    for check in ["M1", "M2", "M3"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
}

#[test]
fn a_target_that_lacks_an_acked_write_is_m3() {
    let mut kit = Kit::migrated(3, 300, 0);
    let write = kit.recent(false);
    let before = kit.before(&write);
    kit.disks[write.volume].insert(write.cell, before);
    assert_eq!(kit.status("M3"), Fail);
    let mut kit = Kit::migrated(3, 300, 0);
    kit.scanned = false;
    assert_eq!(kit.status("M3"), Inconclusive, "not read back");
    let kit = Kit::migrated(3, 300, 0);
    let mut history = kit.history();
    for volume in &mut history.incarnations[1].identity.volumes {
        volume.grants = Grants::default();
    }
    let verdicts = judge(&kit.plan, &history).verdicts;
    let kept = verdicts.iter().find(|v| v.check == "M3").expect("judged");
    assert_eq!(kept.status, Inconclusive, "read through a cache");
}

/// The same migration, spoiled: it failed, and the VM is on the node it was on.
fn spoiled(how: Spoil) -> Kit {
    let mut kit = Kit::migrated(3, 300, 0);
    kit.change(|fact| match fact {
        Fact::Migration { migration, .. } => {
            migration.spoil = Some(how);
            if migration.completed {
                migration.failed = true;
                migration.phase = "Failed".into();
                migration.why = "Live migration has been aborted".into();
            }
        }
        Fact::Vm { node, .. } if node.as_deref() == Some("node-2") => {
            *node = Some("node-1".into());
        }
        _ => {}
    });
    kit
}

#[test]
fn a_spoiled_migration_must_fail_and_leave_the_guest_where_it_was() {
    for how in Spoil::ALL {
        let kit = spoiled(how);
        for check in ["M1", "M2", "M3"] {
            let verdict = kit.verdict(check);
            assert_eq!(verdict.status, Pass, "{how:?} {verdict:?}");
        }
        assert!(kit.verdict("M2").summary.contains(how.done()), "{how:?}");
    }
    let mut kit = spoiled(Spoil::Cancel);
    kit.change(|fact| {
        if let Fact::Migration { migration, .. } = fact {
            (migration.failed, migration.phase) = (false, "Succeeded".into());
        }
    });
    assert_eq!(kit.status("M2"), Inconclusive, "it was through before");
}

#[test]
fn each_harm_of_a_spoiled_migration_is_m2() {
    type Harm = (&'static str, fn(&mut Fact));
    let harms: [Harm; 3] = [
        ("was to stay on node-1", |fact| {
            if let Fact::Vm { node, .. } = fact
                && node.is_some()
            {
                *node = Some("node-2".into());
            }
        }),
        ("somebody else wrote", |fact| {
            if let Fact::Lease { foreign, .. } = fact {
                foreign.push("a stamp".into());
            }
        }),
        ("the VMI is uid-2", |fact| {
            if let Fact::Vm { vmi_uid, .. } = fact {
                *vmi_uid = Some("uid-2".into());
            }
        }),
    ];
    for (what, harm) in harms {
        let mut kit = spoiled(Spoil::KillTarget);
        for (at, _, fact) in &mut kit.facts {
            // The look before stays as it was.
            if *at > PAUSE {
                harm(fact);
            }
        }
        let verdict = kit.verdict("M2");
        assert_eq!(verdict.status, Fail, "{what}: {verdict:?}");
        assert!(
            verdict.witness.join(" ").contains(what),
            "{what}: {verdict:?}"
        );
    }
}

fn eviction(code: Option<u16>, said: &str) -> Fact {
    Fact::Eviction {
        site: Site::Primary,
        eviction: EvictionFact {
            pod: "launcher".into(),
            node: "node-1".into(),
            strategy: "LiveMigrate".into(),
            carries: true,
            code,
            said: said.into(),
        },
    }
}

/// An eviction with this answer before the migration, or instead of one.
fn evicted(code: u16, said: &str, moved: bool) -> Kit {
    let mut kit = if moved {
        Kit::migrated(3, 300, 0)
    } else {
        let mut kit = spoiled(Spoil::Cancel);
        kit.without(|fact| matches!(fact, Fact::Migration { .. }));
        kit
    };
    kit.change(|fact| {
        if let Fact::Migration { migration, .. } = fact {
            migration.evacuates = true;
        }
    });
    kit.add(PAUSE - 150 * MS, eviction(None, ""));
    kit.add(PAUSE - 140 * MS, eviction(Some(code), said));
    kit
}

#[test]
fn an_eviction_moves_the_vm_or_leaves_it_alone() {
    let triggered = "Eviction triggered evacuation of VMI \"ns/vm\"";
    let fixed = "VMI ns/vm is configured with an eviction strategy but is not live-migratable";
    let moved = evicted(429, triggered, true);
    assert_eq!(moved.status("M2"), Pass, "{:?}", moved.verdict("M2"));
    assert_eq!(moved.status("M1"), Pass);
    let blocked = evicted(429, fixed, false);
    assert_eq!(blocked.status("M2"), Pass, "{:?}", blocked.verdict("M2"));
    assert_eq!(blocked.status("M1"), Inconclusive, "nothing moved");
    assert_eq!(
        evicted(429, triggered, false).status("M2"),
        Fail,
        "never came"
    );
    let killed = evicted(201, "", false).verdict("M2");
    assert_eq!(killed.status, Fail);
    assert!(
        killed.summary.contains("while the VM ran in it"),
        "{killed:?}"
    );
    let mut unheard = evicted(429, triggered, false);
    unheard
        .without(|fact| matches!(fact, Fact::Eviction { eviction, .. } if eviction.code.is_some()));
    assert_eq!(unheard.status("M2"), Inconclusive);
    assert_eq!(evicted(404, "gone", false).status("M2"), Inconclusive);
}

#[test]
fn the_window_of_an_evacuation_begins_with_the_eviction() {
    let mut kit = evicted(429, "Eviction triggered evacuation", true);
    // Nobody noticed the migration before the guest stood still.
    for (at, _, fact) in &mut kit.facts {
        if matches!(fact, Fact::Migration { migration, .. } if !migration.completed) {
            *at = PAUSE + 340 * MS;
        }
    }
    let (low, high) = span(&kit, "blackout");
    assert!(low <= 0.31 && 0.3 <= high, "{low} {high}");
}

#[test]
fn a_vm_that_did_not_move_is_not_left_out_of_the_count() {
    let mut kit = Kit::migrated(3, 300, 0);
    assert_eq!(kit.status("M4"), Pass, "{:?}", kit.verdict("M4"));
    let max = |kit: &Kit| {
        let verdict = kit.verdict("M4");
        let found = verdict
            .measures
            .into_iter()
            .find(|m| m.name == "blackout.max");
        found.map(|m| m.high)
    };
    assert!(max(&kit).is_some_and(|high| high > 0.29));
    kit.plan = plan("{migrationBlackout: 150ms}");
    assert_eq!(kit.status("M4"), Fail, "longer than allowed");
    kit.plan = plan("{migrationBlackout: 310ms}");
    assert_eq!(kit.status("M4"), Inconclusive);
    let mut failed = Kit::migrated(3, 300, 0);
    failed.change(|fact| {
        if let Fact::Migration { migration, .. } = fact {
            migration.failed = migration.completed;
        }
    });
    assert_eq!(failed.status("M4"), Fail);
    assert_eq!(max(&failed), None, "endless");
    let mut waiting = Kit::migrated(3, 300, 0);
    waiting
        .without(|fact| matches!(fact, Fact::Migration { migration, .. } if migration.completed));
    assert_eq!(waiting.status("M4"), Fail, "its turn never came");
    let mut unheard = Kit::migrated(3, 300, 0);
    unheard
        .load
        .retain(|record| record.at_ns() < PAUSE + 100 * MS);
    assert_eq!(unheard.status("M4"), Inconclusive);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The true pause lies inside the bracket, whatever the guest's clock does meanwhile.
    #[test]
    fn the_bracket_holds_the_blackout(seed in any::<u64>(), pause in 100u64..1_200, share in 0u64..=100) {
        let kit = Kit::migrated(seed, pause, pause * share / 100);
        let (low, high) = span(&kit, "blackout");
        let within = kit.stall.as_ref().expect("a pause");
        let before = kit.ranks.iter().rfind(|at| **at < within.from).expect("before");
        let after = kit.ranks.iter().find(|at| **at >= within.to).expect("after");
        let truth = std::time::Duration::from_nanos(after - before).as_secs_f64();
        prop_assert!(low <= truth + 1e-9 && truth <= high + 1e-9, "{} {} {}", low, truth, high);
        prop_assert_eq!(kit.status("M3"), Pass);
        prop_assert_eq!(kit.status("M2"), Pass);
    }

    /// Any acked write that the target lacks is found.
    #[test]
    fn each_write_lost_in_a_migration_is_m3(seed in any::<u64>(), pick in any::<prop::sample::Index>()) {
        let mut kit = Kit::migrated(seed, 200, 0);
        let held: Vec<Made> = kit.writes.iter()
            .filter(|w| w.ack != u64::MAX && kit.disks[w.volume].get(&w.cell) == Some(&state(w)))
            .cloned()
            .collect();
        let write = pick.get(&held);
        let before = kit.before(write);
        kit.disks[write.volume].insert(write.cell, before);
        prop_assert_eq!(kit.status("M3"), Fail);
    }
}
