//! L1 to L3 and G2: orders to a VM that stays where it is, and what it finds itself as.

use super::*;
use crate::history::event::Deed;

fn judged(kit: &mut Kit, check: &str) -> Status {
    kit.plan = plan("{migrationBlackout: 1s}");
    kit.status(check)
}

#[test]
fn a_pause_as_long_as_ordered_passes_whatever_the_guests_clock_does() {
    for lag in [0, PAUSED_MS / 2, PAUSED_MS] {
        let mut kit = Kit::paused(3, PAUSED_MS, lag);
        assert_eq!(judged(&mut kit, "L1"), Pass, "{:?}", kit.verdict("L1"));
    }
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    for check in ["L2", "D1", "D2", "D3", "O1"] {
        assert_eq!(judged(&mut kit, check), Pass, "{:?}", kit.verdict(check));
    }
    assert_eq!(Kit::relocate(3).status("L1"), Inconclusive);
    assert_eq!(Kit::relocate(3).status("L2"), Inconclusive);
    assert_eq!(Kit::relocate(3).status("L3"), Inconclusive);
}

#[test]
fn a_guest_that_was_not_paused_or_went_on_early_is_caught() {
    for still in [0, 20, PAUSED_MS / 2] {
        let mut kit = Kit::paused(3, still, 0);
        assert_eq!(judged(&mut kit, "L1"), Fail, "{still}");
    }
}

#[test]
fn a_guest_that_goes_on_late_is_caught_by_the_objective() {
    let mut late = Kit::paused(3, PAUSED_MS + 700, 0);
    assert_eq!(judged(&mut late, "L1"), Pass);
    late.plan = plan("{migrationBlackout: 500ms}");
    assert_eq!(late.status("L1"), Fail);
    late.plan = plan("{migrationBlackout: 700ms}");
    assert_eq!(late.status("L1"), Inconclusive);
    late.plan = plan("{}");
    let verdict = late.verdict("L1");
    assert_eq!(verdict.status, Pass);
    assert!(
        verdict
            .limits
            .iter()
            .any(|limit| limit.contains("no objective"))
    );
}

#[test]
fn silence_of_a_stream_that_broke_is_no_pause() {
    let mut kit = Kit::paused(3, 0, 0);
    let back = PAUSE + PAUSED_MS * MS + 50 * MS;
    kit.hear_at_once(PAUSE..back);
    assert_eq!(judged(&mut kit, "L1"), Fail);
}

#[test]
fn an_order_that_nobody_took_says_nothing() {
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    kit.change(|fact| {
        if let Fact::Lifecycle { lifecycle, .. } = fact
            && let crate::history::event::LifecycleFact::Answered { outcome, .. } = lifecycle
        {
            *outcome = Outcome::Unknown("no answer".into());
        }
    });
    assert_eq!(judged(&mut kit, "L1"), Inconclusive);
}

#[test]
fn boots_and_instances_change_where_they_are_told_to() {
    // The boot id stays although the VM was started anew.
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    kit.change(|fact| {
        if let Fact::Guest { boot_id, .. } = fact {
            *boot_id = "boot-a".into();
        }
    });
    assert_eq!(judged(&mut kit, "L2"), Fail);
    // The VMI stays.
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    kit.without(|fact| matches!(fact, Fact::Vm { vmi_uid: Some(uid), .. } if uid == "uid-2"));
    assert_eq!(judged(&mut kit, "L2"), Inconclusive);
    kit.add(FAULT + 2_050 * MS, vm("uid-1", "node-1"));
    assert_eq!(judged(&mut kit, "L2"), Fail);
    // Another boot that nobody ordered.
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    kit.without(|fact| matches!(fact, Fact::Lifecycle { lifecycle, .. }
        if matches!(lifecycle, crate::history::event::LifecycleFact::Asked { deed } if deed.boots())));
    assert_eq!(judged(&mut kit, "L2"), Fail);
    // A soft reboot keeps its VMI.
    let mut kit = Kit::paused(3, PAUSED_MS, 0);
    kit.without(|fact| matches!(fact, Fact::Lifecycle { .. }));
    kit.order(Deed::SoftReboot, FAULT, FAULT + MS);
    assert_eq!(judged(&mut kit, "L2"), Fail);
    kit.change(|fact| {
        if let Fact::Vm {
            vmi_uid: Some(uid), ..
        } = fact
        {
            *uid = "uid-1".into();
        }
    });
    assert_eq!(judged(&mut kit, "L2"), Pass);
}

#[test]
fn a_killed_guest_that_writes_on_is_caught() {
    let killed = |at: u64| {
        let mut kit = Kit::paused(3, 0, 0);
        kit.without(|fact| matches!(fact, Fact::Lifecycle { .. }));
        kit.order(Deed::Kill, at, at + MS);
        kit
    };
    let mut kit = killed(FAULT);
    let verdict = kit.verdict("L3");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    assert!(
        verdict
            .limits
            .iter()
            .any(|limit| limit.contains("not heard"))
    );
    // The new guest's acks come while the old one's still do.
    for record in &mut kit.verify {
        match record {
            Record::Frame { at_ns, .. } | Record::Token { at_ns, .. } => *at_ns -= 5_000 * MS,
            Record::Link { .. } => {}
        }
    }
    assert_eq!(kit.status("L3"), Fail);
}

/// A guest that shows these disks, by name and serial.
fn inside(disks: &[(&str, &str)], family: &str) -> Fact {
    shows(disks.iter().copied(), family)
}

#[test]
fn a_guest_that_finds_other_hardware_is_caught() {
    let own: &[(&str, &str)] = &[("vda", ""), ("vdb", "one"), ("vdc", "two")];
    let seen = |later: Fact| {
        let mut kit = Kit::relocate(3);
        kit.add(START, inside(own, "IPv4"));
        kit.add(FAULT + 2_600 * MS, later);
        kit.status("G2")
    };
    assert_eq!(seen(inside(own, "IPv4")), Pass);
    assert_eq!(seen(inside(own, "IPv6")), Fail);
    let swapped: &[(&str, &str)] = &[("vda", ""), ("vdb", "two"), ("vdc", "one")];
    assert_eq!(seen(inside(swapped, "IPv4")), Fail);
    assert_eq!(seen(inside(&own[..2], "IPv4")), Fail);
    assert_eq!(seen(inside(&[], "IPv4")), Fail);
    assert_eq!(Kit::relocate(3).status("G2"), Inconclusive);
    // One boot looked at twice proves nothing.
    let mut kit = Kit::relocate(3);
    kit.add(START, inside(own, "IPv4"));
    kit.add(START + MS, inside(own, "IPv4"));
    kit.without(|fact| matches!(fact, Fact::Guest { boot_id, .. } if boot_id == "boot-b"));
    assert_eq!(kit.status("G2"), Inconclusive);
}
