//! C1 to C3: cuts, and what is made from them.

use super::*;
use crate::check::judge;
use crate::check::verdict::Verdict;
use crate::history::event::{
    CutClaims, CutFact, CutState, FileSystemFact, LedgerMode, ReadVia, Site,
};
use crate::history::read::{History, Incarnation, Scan};
use crate::probe::cell::Kind;

const CUT: &str = "ledger-0-cut1";
const LATER: u64 = 0x0100_0003_0000_00CC;
const COPY: u64 = 0x0100_0004_0000_00DD;
const TWIN: &str = "ledger-0-clone";

fn cut(state: CutState) -> Fact {
    let cut = CutFact {
        name: CUT.into(),
        means: "VirtualMachineSnapshot".into(),
        state,
    };
    Fact::Cut {
        site: Site::Primary,
        cut,
    }
}

fn says(indications: &[&str], one_instant: bool) -> CutClaims {
    CutClaims {
        indications: indications.iter().map(|i| (*i).to_owned()).collect(),
        one_instant,
        volumes: Vec::new(),
    }
}

/// Whether a write is on its volume, or a later one in its place.
fn present(kit: &Kit, write: &Made) -> bool {
    matches!(kit.disks[write.volume].get(&write.cell),
        Some(CellState::Ok { kind, wseq, .. }) if *kind != Kind::Fill && *wseq >= write.wseq)
}

/// The moments between which the point that the volumes hold can have been taken.
pub(super) fn bracket(kit: &Kit) -> (u64, u64) {
    let owed = || kit.writes.iter().filter(|w| w.ack != u64::MAX);
    let missing = owed().filter(|w| !present(kit, w));
    let asked = missing
        .map(|w| w.heard)
        .min()
        .expect("something is missing")
        - 1;
    let there = owed().filter(|w| present(kit, w)).map(|w| w.heard).max();
    (asked, there.expect("something is there").max(asked + 1))
}

/// Takes back a write that was acked by then and that nothing has overwritten.
pub(super) fn lose_early(kit: &mut Kit, asked: u64) {
    let writes = kit.writes.clone();
    let early = writes.iter().rev().find(|w| {
        w.heard <= asked && w.ack != u64::MAX && kit.disks[w.volume].get(&w.cell) == Some(&state(w))
    });
    let early = early.expect("something early");
    let before = kit.before(early);
    kit.disks[early.volume].insert(early.cell, before);
}

/// A load under which a cut was taken, and what was made from it, read back.
fn restored(seed: u64, claims: CutClaims, spoil: impl FnOnce(&mut Kit, (u64, u64))) -> Kit {
    let mut kit = Kit::failover(seed);
    kit.scanned = false;
    let (asked, taken) = bracket(&kit);
    kit.add(asked, cut(CutState::Asked));
    kit.add(taken, cut(CutState::Taken { claims }));
    spoil(&mut kit, (asked, taken));
    let scan = Scan {
        cut: Some(CUT.into()),
        ..kit.read(998, ReadVia::Guest)
    };
    kit.reads.push(scan);
    kit
}

#[test]
fn a_rollback_passes_and_a_restore_that_does_nothing_does_not() {
    let kit = restored(3, says(&[], false), |_, _| {});
    let verdict = kit.verdict("C1");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    assert!(verdict.measures[0].low > 0.0, "{verdict:?}");
    // Everything that was written is still there: nothing was put back.
    let idle = restored(3, says(&[], false), |kit, _| {
        for write in &kit.writes.clone() {
            kit.put(write);
        }
    });
    let verdict = idle.verdict("C1");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(
        verdict.summary.contains("0 writes of before"),
        "{verdict:?}"
    );
    assert_eq!(Kit::relocate(3).status("C1"), Inconclusive, "no cut at all");
}

#[test]
fn a_write_from_before_the_cut_that_is_missing_is_c1() {
    let kit = restored(3, says(&[], false), |kit, (asked, _)| {
        lose_early(kit, asked);
    });
    let verdict = kit.verdict("C1");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.witness[0].contains("missing"), "{verdict:?}");
}

#[test]
fn a_write_that_was_issued_after_the_cut_is_c1() {
    let kit = restored(3, says(&[], false), |kit, _| {
        let last = kit.writes.iter().rev().find(|w| w.ack != u64::MAX);
        let last = last.expect("an acked write").clone();
        kit.put(&last);
    });
    let verdict = kit.verdict("C1");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.witness[0].contains("issued after"), "{verdict:?}");
}

#[test]
fn a_life_that_the_cut_cannot_know_is_c1() {
    let kit = restored(3, says(&[], false), |_, _| {});
    let mut history = kit.history();
    let mut later = history.incarnations[0].clone();
    (later.number, later.name) = (LATER, format!("{LATER:016x}"));
    later.at_ns = FAULT;
    history.incarnations.push(later);
    let c1 = |history: &History| find(&kit, history, "C1");
    assert_eq!(c1(&history).status, Pass);
    let cell = kit.layouts[0].hot.start;
    let cells = &mut history.scans[0].volumes[0].cells;
    let at = cells
        .iter()
        .position(|seen| seen.cell == cell)
        .expect("a hot cell");
    let write = kit.writes.iter().find(|w| (w.volume, w.cell) == (0, cell));
    let write = write.expect("it was written");
    cells[at].state = state_of(write, LATER);
    let verdict = c1(&history);
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(
        verdict
            .witness
            .iter()
            .any(|line| line.contains("came back"))
    );
}

fn find(kit: &Kit, history: &History, check: &str) -> Verdict {
    let verdicts = judge(&kit.plan, history).verdicts;
    let found = verdicts.into_iter().find(|verdict| verdict.check == check);
    found.expect("a verdict")
}

#[test]
fn without_anything_to_discard_or_a_bracket_there_is_no_word() {
    let mut kit = Kit::relocate(3);
    kit.scanned = false;
    kit.add(FAULT + MS, cut(CutState::Asked));
    let claims = says(&[], false);
    kit.add(FAULT + 2 * MS, cut(CutState::Taken { claims }));
    let scan = Scan {
        cut: Some(CUT.into()),
        ..kit.read(998, ReadVia::Guest)
    };
    kit.reads.push(scan);
    let verdict = kit.verdict("C1");
    assert_eq!(verdict.status, Inconclusive, "{verdict:?}");
    assert!(verdict.summary.contains("does nothing would look the same"));
    kit.without(
        |fact| matches!(fact, Fact::Cut { cut, .. } if matches!(cut.state, CutState::Taken { .. })),
    );
    for check in ["C1", "C3"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
}

/// Volume 1 of the kit carries a file system that was looked at before any mount.
fn look(kit: &mut Kit, dirty: Option<bool>) {
    kit.change(|fact| {
        if let Fact::SubjectCreated { volumes, .. } = fact {
            volumes[1].ledger = LedgerMode::File;
        }
    });
    let state = FileSystemFact::Raw {
        kind: "ext4".into(),
        dirty,
        said: "needs_recovery".into(),
    };
    let seen = Fact::FileSystem {
        site: Site::Secondary,
        volume: 1,
        state,
    };
    kit.add(FAULT + 10 * MS, seen);
}

#[test]
fn what_claims_to_be_quiesced_must_have_clean_file_systems() {
    let claims = || says(&["GuestAgent", "Online"], false);
    let with = |dirty| restored(3, claims(), |kit, _| look(kit, dirty));
    let verdict = with(Some(false)).verdict("C3");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let verdict = with(Some(true)).verdict("C3");
    assert_eq!(verdict.status, Fail, "{verdict:?}");
    assert!(verdict.witness[0].contains("journal"), "{verdict:?}");
    assert_eq!(with(None).status("C3"), Inconclusive);
    // The same disks under a claim that promises less.
    for less in [
        &["NoGuestAgent", "Online"][..],
        &["GuestAgent", "QuiesceTimeout"],
        &[],
    ] {
        let kit = restored(3, says(less, false), |kit, _| look(kit, Some(true)));
        let verdict = kit.verdict("C3");
        assert_eq!(verdict.status, Pass, "{less:?}: {verdict:?}");
        assert!(
            verdict
                .limits
                .iter()
                .any(|l| l.contains("crash consistent only"))
        );
    }
}

#[test]
fn what_is_said_of_the_agent_is_held_against_the_agent() {
    let with = |word: &str, answers: [bool; 2]| {
        restored(3, says(&[word, "Online"], false), |kit, (asked, _)| {
            look(kit, Some(false));
            for (n, answers) in (0u64..).zip(answers) {
                let said = String::new();
                kit.add(asked + n, cut(CutState::Agent { answers, said }));
            }
        })
        .status("C3")
    };
    assert_eq!(with("GuestAgent", [true, true]), Pass);
    assert_eq!(
        with("GuestAgent", [true, false]),
        Pass,
        "it went away later"
    );
    assert_eq!(with("GuestAgent", [false, false]), Fail);
    assert_eq!(with("NoGuestAgent", [false, false]), Pass);
    assert_eq!(with("NoGuestAgent", [true, true]), Fail);
}

#[test]
fn order_across_volumes_is_judged_only_where_it_is_claimed() {
    // Volume 1 is from an earlier point than volume 0.
    let skewed = |claims| {
        restored(3, claims, |kit, _| {
            let mut early = kit.clone();
            let acks = kit.writes.iter().map(|w| w.ack).filter(|a| *a != u64::MAX);
            let last = acks.max().unwrap_or(0);
            early.cut(last / 3, &mut Draw(1));
            kit.disks[1] = early.disks[1].clone();
        })
    };
    let bare = skewed(says(&[], false)).verdict("C3");
    assert_eq!(bare.status, Pass, "{bare:?}");
    let apart = "no point that the guest was ever in";
    assert!(bare.limits.iter().any(|l| l.contains(apart)), "{bare:?}");
    assert_eq!(skewed(says(&[], true)).status("C3"), Fail);
}

/// A source and its clone, both written to after the cut, each read back; `spoil` gets both kits.
fn twins(seed: u64, spoil: impl FnOnce(&mut Kit, &mut Kit)) -> (Kit, History) {
    let mut kit = Kit::relocate(seed);
    kit.scanned = false;
    kit.add(START - 100 * MS, cut(CutState::Asked));
    let claims = says(&[], false);
    kit.add(START - 90 * MS, cut(CutState::Taken { claims }));
    let subject = TWIN.into();
    kit.add(START - 80 * MS, cut(CutState::Cloned { subject }));
    let of = |number: u64| {
        let mut side = kit.clone();
        for disk in &mut side.disks {
            for state in disk.values_mut() {
                if let CellState::Ok {
                    kind, incarnation, ..
                } = state
                    && *kind != Kind::Fill
                {
                    *incarnation = number;
                }
            }
        }
        side
    };
    let (mut source, mut copy) = (of(LATER), of(COPY));
    spoil(&mut source, &mut copy);
    let mut history = kit.history();
    let life = |number: u64, subject: &str, history: &History| Incarnation {
        number,
        name: format!("{number:016x}"),
        seq: 2,
        at_ns: START - 50 * MS,
        subject: Some(subject.into()),
        ..history.incarnations[0].clone()
    };
    let lives = [life(LATER, VM, &history), life(COPY, TWIN, &history)];
    history.incarnations.extend(lives);
    let judges = |number: u64| vec![format!("{LOAD:016x}"), format!("{number:016x}")];
    history.scans = vec![
        Scan {
            judges: judges(COPY),
            cut: Some(CUT.into()),
            ..copy.read(997, ReadVia::Clone)
        },
        Scan {
            judges: judges(LATER),
            ..source.read(998, ReadVia::Guest)
        },
    ];
    (kit, history)
}

#[test]
fn a_clone_that_goes_its_own_way_is_independent() {
    let (kit, mut history) = twins(3, |_, _| {});
    let verdict = find(&kit, &history, "C2");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    history.scans.remove(0);
    assert_eq!(
        find(&kit, &history, "C2").status,
        Inconclusive,
        "one side only"
    );
    let (kit, mut history) = twins(3, |_, _| {});
    history.incarnations.retain(|life| life.number != COPY);
    assert_eq!(
        find(&kit, &history, "C2").status,
        Inconclusive,
        "one writer only"
    );
    assert_eq!(Kit::relocate(3).status("C2"), Inconclusive, "no clone");
}

#[test]
fn a_write_of_the_other_side_is_c2() {
    for of_source in [true, false] {
        let (kit, history) = twins(3, |source, copy| {
            let (to, from) = if of_source {
                (source, copy)
            } else {
                (copy, source)
            };
            let cell = to.layouts[0].hot.start;
            let theirs = from.disks[0][&cell];
            to.disks[0].insert(cell, theirs);
        });
        let verdict = find(&kit, &history, "C2");
        assert_eq!(verdict.status, Fail, "{verdict:?}");
        assert!(verdict.witness[0].contains("wrote"), "{verdict:?}");
    }
}

proptest! {
    #[test]
    fn legal_cuts_never_fail(seed: u64) {
        let kit = restored(seed, says(&[], true), |_, _| {});
        for check in ["C1", "C3"] {
            let verdict = kit.verdict(check);
            prop_assert_eq!(verdict.status, Pass, "{:?}", verdict);
        }
    }

    #[test]
    fn whatever_surely_came_later_is_found(seed: u64, pick: prop::sample::Index) {
        let mut any = false;
        let kit = restored(seed, says(&[], false), |kit, (_, taken)| {
            let acks = kit.history().incarnations[0].acks.clone();
            let surely_after = |write: &&Made| {
                let before = acks.batches().partition_point(|b| b.first_rank <= write.dep);
                let issued = before.checked_sub(1).and_then(|at| acks.bracket(at));
                write.ack != u64::MAX && issued.is_some_and(|issued| issued.low > taken)
            };
            let late: Vec<_> = kit.writes.iter().filter(surely_after).cloned().collect();
            any = !late.is_empty();
            if any {
                kit.put(&late[pick.index(late.len())]);
            }
        });
        let verdict = kit.verdict("C1");
        prop_assert_eq!(verdict.status, if any { Fail } else { Pass }, "{:?}", verdict);
    }
}
