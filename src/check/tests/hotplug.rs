//! H1 and H2: disks that come and go.

use super::*;
use crate::history::event::HotplugFact;

fn hotplug(hotplug: HotplugFact) -> Fact {
    Fact::Hotplug {
        site: Site::Primary,
        volume: "plugged".into(),
        hotplug,
    }
}

/// A guest that shows disks of these serials.
fn inside(serials: &[&str]) -> Fact {
    shows(serials.iter().map(|serial| (*serial, *serial)), "IPv4")
}

/// A disk that came and went, with a login before, between and after.
fn changed(stall_ms: u64) -> Kit {
    let mut kit = Kit::paused(3, stall_ms, 0);
    kit.plan = plan("{migrationBlackout: 1s}");
    kit.without(|fact| matches!(fact, Fact::Lifecycle { .. }));
    for (adding, at) in [(true, PAUSE - 100 * MS), (false, PAUSE + 1_200 * MS)] {
        let outcome = Outcome::Ok;
        let (phase, pod) = if adding {
            ("Ready", "hp-volume-x")
        } else {
            ("", "")
        };
        kit.add(
            at,
            hotplug(HotplugFact::Asked {
                adding,
                serial: "new".into(),
            }),
        );
        kit.add(
            at + 20 * MS,
            hotplug(HotplugFact::Answered { adding, outcome }),
        );
        let reported = HotplugFact::Reported {
            phase: phase.into(),
            target: String::new(),
            attach_pod: pod.into(),
            message: String::new(),
        };
        kit.add(at + 100 * MS, hotplug(reported));
        kit.add(
            at + 300 * MS,
            hotplug(HotplugFact::Seen { present: adding }),
        );
    }
    kit.add(START, inside(&["one", "two"]));
    kit.add(PAUSE + 600 * MS, inside(&["one", "two", "new"]));
    kit.add(FAULT + 2_600 * MS, inside(&["one", "two"]));
    kit
}

#[test]
fn a_disk_that_comes_and_goes_as_ordered_passes() {
    let kit = changed(0);
    for check in ["H1", "H2"] {
        assert_eq!(kit.status(check), Pass, "{:?}", kit.verdict(check));
        assert_eq!(Kit::relocate(3).status(check), Inconclusive);
    }
}

#[test]
fn others_that_stand_still_are_caught() {
    let mut kit = changed(1_500);
    assert_eq!(kit.status("H2"), Fail, "{:?}", kit.verdict("H2"));
    kit.plan = plan("{}");
    assert_eq!(kit.status("H2"), Pass);
}

#[test]
fn what_the_api_says_and_the_guest_does_not_show_is_caught() {
    type Spoil = fn(&mut HotplugFact);
    let spoils: [(Spoil, Status); 4] = [
        (
            |fact| {
                if let HotplugFact::Seen { present } = fact {
                    *present = !*present;
                }
            },
            Fail,
        ),
        (
            |fact| {
                if let HotplugFact::Reported { phase, .. } = fact {
                    *phase = "Bound".into();
                }
            },
            Fail,
        ),
        (
            |fact| {
                if let HotplugFact::Reported { attach_pod, .. } = fact {
                    attach_pod.clear();
                }
            },
            Fail,
        ),
        (
            |fact| {
                if let HotplugFact::Answered { outcome, .. } = fact {
                    *outcome = Outcome::Unknown("no answer".into());
                }
            },
            Inconclusive,
        ),
    ];
    for (spoil, expected) in spoils {
        let mut kit = changed(0);
        kit.change(|fact| {
            if let Fact::Hotplug { hotplug, .. } = fact {
                spoil(hotplug);
            }
        });
        assert_eq!(kit.status("H1"), expected, "{:?}", kit.verdict("H1"));
    }
}

#[test]
fn a_disk_that_is_gone_later_or_takes_another_along_is_caught() {
    let mut kit = changed(0);
    kit.add(PAUSE + 700 * MS, inside(&["one", "two"]));
    assert_eq!(kit.status("H1"), Fail, "gone after a restart");
    let mut kit = changed(0);
    kit.add(FAULT + 2_700 * MS, inside(&["one", "two", "new"]));
    assert_eq!(kit.status("H1"), Fail, "back again");
    let mut kit = changed(0);
    kit.add(FAULT + 2_700 * MS, inside(&["one"]));
    assert_eq!(kit.status("H1"), Fail, "another one is gone");
}

#[test]
fn a_part_of_a_vm_is_judged_by_its_own_checks() {
    let mut kit = changed(0);
    kit.change(|fact| {
        if let Fact::TrialStarted {
            parts, subjects, ..
        } = fact
        {
            subjects.push("disk".into());
            parts.insert("disk".into(), vec!["D1".into()]);
        }
    });
    let verdicts = kit.judge().verdicts;
    let of: Vec<_> = verdicts.iter().filter(|v| v.subject == "disk").collect();
    assert_eq!(of.len(), 1);
    assert_eq!((of[0].check.as_str(), of[0].status), ("D1", Inconclusive));
}
