//! O3, O5 and O6: the same machine, protected again, in isolation.

use super::*;
use crate::history::event::{HotplugFact, ReplicationFact, Reprotect, ShapeFact};

fn shape() -> ShapeFact {
    ShapeFact {
        run_strategy: "Always".into(),
        machine: "pc-q35-rhel9.6.0".into(),
        firmware_uuid: "6a1a24a1-4061-4607-8bf4-a3963d0c5895".into(),
        firmware_serial: String::new(),
        macs: [("default".to_owned(), "02:00:00:00:00:01".to_owned())].into(),
        disks: vec!["root virtio ".into(), "data0 virtio d0".into()],
        references: [("Secret/key".to_owned(), Some("digest".to_owned()))].into(),
        cpu: "1:2:1".into(),
        memory: "1Gi".into(),
    }
}

/// A move of a VM whose shape was seen on both sides.
fn seen(source: &ShapeFact, target: &ShapeFact) -> Kit {
    let mut kit = Kit::relocate(3);
    for (at, site, shape) in [
        (FAULT - 500 * MS, Site::Primary, source),
        (FAULT + 2_100 * MS, Site::Secondary, target),
    ] {
        let shape = shape.clone();
        kit.add(at, Fact::Shape { site, shape });
    }
    kit
}

type Spoil = fn(&mut ShapeFact);

#[test]
fn the_same_shape_is_o3_and_each_change_is_named() {
    let verdict = seen(&shape(), &shape()).verdict("O3");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let spoils: [(&str, Spoil); 12] = [
        ("MAC address", |s| {
            s.macs.insert("default".into(), "02:00:00:00:00:02".into());
        }),
        ("interface", |s| {
            s.macs.clear();
        }),
        ("firmware UUID", |s| s.firmware_uuid.clear()),
        ("firmware serial", |s| s.firmware_serial = "x".into()),
        ("machine type", |s| s.machine = "pc-i440fx".into()),
        ("disks", |s| s.disks.reverse()),
        ("disks", |s| s.disks[1] = "data0 virtio other".into()),
        ("missing", |s| {
            s.references.insert("Secret/key".into(), None);
        }),
        ("other contents", |s| {
            s.references.insert("Secret/key".into(), Some("new".into()));
        }),
        ("no longer referred", |s| s.references.clear()),
        ("run strategy", |s| s.run_strategy = "Halted".into()),
        ("CPU", |s| s.cpu = "2:1:1".into()),
    ];
    for (what, spoil) in spoils {
        let mut target = shape();
        spoil(&mut target);
        let verdict = seen(&shape(), &target).verdict("O3");
        assert_eq!(verdict.status, Fail, "{what}");
        assert!(verdict.witness[0].contains(what), "{what}: {verdict:?}");
    }
}

#[test]
fn a_disk_that_was_plugged_makes_looks_begin_anew() {
    let mut before = shape();
    before.disks.pop();
    let mut kit = seen(&shape(), &shape());
    let site = Site::Primary;
    kit.add(
        FAULT - 900 * MS,
        Fact::Shape {
            site,
            shape: before,
        },
    );
    assert_eq!(kit.status("O3"), Fail, "nobody plugged it");
    let asked = HotplugFact::Asked {
        adding: true,
        serial: "d0".into(),
    };
    let plugged = Fact::Hotplug {
        site,
        volume: "data0".into(),
        hotplug: asked,
    };
    kit.add(FAULT - 700 * MS, plugged);
    assert_eq!(kit.status("O3"), Pass, "{:?}", kit.verdict("O3"));
}

#[test]
fn a_shape_that_was_not_seen_is_no_pass() {
    assert_eq!(Kit::relocate(3).status("O3"), Inconclusive);
    let mut kit = seen(&shape(), &shape());
    kit.without(|fact| {
        matches!(
            fact,
            Fact::Shape {
                site: Site::Secondary,
                ..
            }
        )
    });
    assert_eq!(kit.status("O3"), Inconclusive);
    let empty = ShapeFact::default();
    assert_eq!(seen(&empty, &empty).status("O3"), Inconclusive);
    // A halted definition promises nothing of how it runs.
    let mut halted = shape();
    halted.run_strategy = "Halted".into();
    let verdict = seen(&halted, &shape()).verdict("O3");
    assert_eq!(verdict.status, Pass);
    assert!(verdict.limits.iter().any(|l| l.contains("not judged")));
}

fn protection(progress: Reprotect) -> Fact {
    let site = Site::Secondary;
    Fact::Reprotection { site, progress }
}

/// A failover after which the VM was protected again from the secondary.
fn protected_again(syncs: u32, word: impl Fn(&mut ReplicationFact)) -> Kit {
    let pvcs: Vec<String> = vec!["root".into(), "pvc-0".into(), "pvc-1".into()];
    let mut kit = Kit::failover(3);
    let at = FAULT + 5_100 * MS;
    kit.add(at, protection(Reprotect::Ordered));
    let mut said = replication(Site::Secondary, &pvcs, Some(second(at + 4_000 * MS)));
    if let Fact::Replication { volumes, .. } = &mut said {
        volumes.iter_mut().for_each(word);
    }
    kit.add(at + 4_500 * MS, said);
    let bytes = Some(4096);
    kit.add(
        at + 4_600 * MS,
        protection(Reprotect::Restored { syncs, bytes }),
    );
    kit
}

#[test]
fn protection_that_was_restored_is_o5_with_its_time() {
    let verdict = protected_again(2, |_| {}).verdict("O5");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let took = &verdict.measures[0];
    assert!(
        took.name == "reprotect" && (took.low - 4.6).abs() < 0.01,
        "{took:?}"
    );
    assert_eq!(verdict.measures[1].name, "reprotect-bytes");
}

#[test]
fn protection_that_is_only_said_to_be_restored_is_o5() {
    assert_eq!(protected_again(1, |_| {}).status("O5"), Fail, "one sync");
    let degraded = protected_again(2, |word| {
        if let Some(condition) = word.conditions.get_mut("Degraded") {
            condition.status = "True".into();
        }
    });
    assert_eq!(degraded.status("O5"), Fail);
    let stale = protected_again(2, |word| word.current = false);
    assert_eq!(stale.status("O5"), Fail);
    let old = protected_again(2, |word| word.last_sync_time = Some(second(FAULT)));
    assert_eq!(old.status("O5"), Fail, "its sync is older than the order");
    let mut never = protected_again(2, |_| {});
    never.without(|fact| {
        matches!(
            fact,
            Fact::Reprotection {
                progress: Reprotect::Restored { .. },
                ..
            }
        )
    });
    assert_eq!(never.status("O5"), Fail, "ordered and never restored");
    never.without(|fact| matches!(fact, Fact::TrialEnded { .. }));
    assert_eq!(never.status("O5"), Inconclusive, "the trial was cut short");
}

#[test]
fn protection_that_nobody_ordered_or_saw_is_no_pass() {
    assert_eq!(Kit::failover(3).status("O5"), Inconclusive);
    let mut unseen = protected_again(2, |_| {});
    unseen.without(|fact| matches!(fact, Fact::Replication { .. }));
    assert_eq!(unseen.status("O5"), Inconclusive);
    let unsynced = protected_again(2, |word| word.last_sync_time = None);
    assert_eq!(unsynced.status("O5"), Inconclusive);
}

fn reach(reached: Option<bool>) -> Fact {
    Fact::Reach {
        site: Site::Secondary,
        address: "192.0.2.1:443".into(),
        reached,
        said: "as seen".into(),
    }
}

#[test]
fn forbidden_addresses_are_o6() {
    let status = |words: &[Option<bool>]| {
        let mut kit = Kit::relocate(3);
        for word in words {
            kit.add(FAULT + 3_500 * MS, reach(*word));
        }
        kit.verdict("O6")
    };
    assert_eq!(status(&[]).status, Inconclusive);
    assert_eq!(status(&[Some(false), Some(false)]).status, Pass);
    assert_eq!(status(&[Some(false), None]).status, Inconclusive);
    let verdict = status(&[Some(false), None, Some(true)]);
    assert_eq!(verdict.status, Fail);
    assert!(verdict.witness[0].contains("192.0.2.1:443"), "{verdict:?}");
}
