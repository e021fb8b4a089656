//! D8: the second reader.

use super::*;
use crate::history::event::ReadVia;
use crate::probe::cell::Kind;

/// A move whose volumes were read by the guest and then through clones.
fn read_twice(seed: u64, spoil: impl FnOnce(&mut Kit)) -> Kit {
    let kit = Kit::relocate(seed);
    let mut other = kit.clone();
    spoil(&mut other);
    let mut kit = kit;
    kit.reads.push(other.read(1_100, ReadVia::Clone));
    kit
}

#[test]
fn a_clone_that_says_the_same_is_d8_and_nobody_elses() {
    let kit = read_twice(3, |_| {});
    let verdict = kit.verdict("D8");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    assert!(verdict.measures[0].low > 100.0, "{verdict:?}");
    assert_eq!(not_passed(&kit), []);
}

#[test]
fn a_cell_that_the_guest_sees_otherwise_is_named_with_both_versions() {
    let recent = Kit::relocate(3).recent(false);
    let before = Kit::relocate(3).before(&recent);
    let kit = read_twice(3, |other| {
        other.disks[recent.volume].insert(recent.cell, before);
    });
    let verdict = kit.verdict("D8");
    assert_eq!(verdict.status, Fail);
    let line = &verdict.witness[0];
    assert!(line.contains(&format!("cell {}", recent.cell)), "{line}");
    assert!(line.contains(&format!("write {}", recent.wseq)), "{line}");
    // Whatever a clone holds, the other checks judge what the guest holds.
    assert_eq!(not_passed(&kit), []);
    let cold = read_twice(3, |other| {
        let first = other.layouts[1].cold.start;
        other.disks[1].insert(first, CellState::Zeroed);
    });
    assert_eq!(cold.status("D8"), Fail, "a cold cell counts as well");
}

#[test]
fn without_both_looks_there_is_no_word() {
    assert_eq!(Kit::relocate(3).status("D8"), Inconclusive, "no clone");
    let mut kit = read_twice(3, |_| {});
    kit.scanned = false;
    assert_eq!(kit.status("D8"), Inconclusive, "no read-back by the guest");
    let hole = read_twice(3, |other| {
        let cell = other.layouts[0].hot.start;
        other.disks[0].remove(&cell);
    });
    assert_eq!(
        hole.status("D8"),
        Inconclusive,
        "a cell that one did not read"
    );
}

#[test]
fn what_may_have_been_written_in_between_is_left_aside() {
    // The load lives on in the guest that reads, so its later writes are no difference.
    let write = Kit::relocate(3).recent(false);
    let later = CellState::Ok {
        kind: Kind::Hot,
        incarnation: LOAD,
        writer: write.writer,
        wseq: write.wseq + 1_000,
        dep: 0,
        token: 0,
    };
    let living = |boot: &'static str| {
        let mut kit = read_twice(3, |other| {
            other.disks[write.volume].insert(write.cell, later);
        });
        (kit.verify_boot, kit.verify_site) = (boot, Site::Primary);
        for read in &mut kit.reads {
            read.site = Site::Primary;
        }
        kit.status("D8")
    };
    assert_eq!(living("boot-a"), Pass);
    assert_eq!(living("boot-b"), Fail, "its guest is gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any one cell that differs is found.
    #[test]
    fn each_difference_is_d8(seed in any::<u64>(), volume in 0usize..2, pick in any::<prop::sample::Index>()) {
        let cells: Vec<u64> = Kit::relocate(seed).disks[volume].keys().copied().collect();
        let cell = *pick.get(&cells);
        let kit = read_twice(seed, |other| {
            other.disks[volume].insert(cell, CellState::Corrupt);
        });
        prop_assert_eq!(kit.status("D8"), Fail);
        prop_assert_eq!(read_twice(seed, |_| {}).status("D8"), Pass);
    }
}
