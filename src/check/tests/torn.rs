//! D4: which torn cells are legal (control 47), and the completion-order warning of D2 and D3
//! (control 52).

use super::*;
use crate::probe::frame::CellState;

fn torn(write: &Made) -> CellState {
    CellState::Torn {
        sectors: 0x0F,
        wseq: write.wseq,
        writer: write.writer,
    }
}

/// Where the recovered point of a kit lies: the most that was durable when a present write was
/// issued.
fn reached(kit: &Kit) -> u64 {
    let present = kit
        .writes
        .iter()
        .filter(|w| kit.disks[w.volume].get(&w.cell) == Some(&state(w)));
    present.map(|w| w.dep).max().expect("something is present")
}

/// The largest rank up to which nothing is missing, plus one.
fn first_missing(kit: &Kit) -> u64 {
    let missing = kit.writes.iter().filter(|w| {
        let held = kit.disks[w.volume].get(&w.cell);
        !matches!(held, Some(CellState::Ok { wseq, .. }) if *wseq >= w.wseq)
    });
    missing.map(|w| w.ack).min().expect("something is missing")
}

fn newest_on_its_cell(kit: &Kit, write: &Made) -> bool {
    let held = kit.disks[write.volume].get(&write.cell);
    !matches!(held, Some(CellState::Ok { wseq, .. }) if *wseq > write.wseq)
}

#[test]
fn a_torn_write_that_came_after_a_missing_one_is_d4() {
    let mut kit = Kit::failover(3);
    let missing = first_missing(&kit);
    // Its writer had something acked after the first missing write, so it came later than that.
    let late = kit.writes.iter().find(|w| {
        let before = kit.writes.iter().rev();
        let mut before = before.filter(|b| b.writer == w.writer && b.wseq < w.wseq);
        before
            .next()
            .is_some_and(|b| b.ack != u64::MAX && b.ack > missing)
            && newest_on_its_cell(&kit, w)
    });
    let late = late.expect("a late write").clone();
    kit.disks[late.volume].insert(late.cell, torn(&late));
    let verdict = kit.verdict("D4");
    assert_eq!(verdict.status, Fail);
    assert!(verdict.witness[0].contains("is missing"), "{verdict:?}");
    // Nobody says how the load was flushed: then there is no such bound.
    kit.without(|fact| matches!(fact, Fact::LoadStarted { .. }));
    assert_eq!(kit.status("D4"), Pass);
}

#[test]
fn a_torn_write_that_was_never_issued_is_d4() {
    let mut kit = Kit::relocate(3);
    let flying = kit.writes.iter().find(|w| w.ack == u64::MAX);
    let flying = flying.expect("in flight").clone();
    kit.disks[flying.volume].insert(flying.cell, torn(&flying));
    assert_eq!(kit.status("D4"), Pass);
    let frames = kit
        .load
        .iter()
        .filter(|r| matches!(r, Record::Frame { .. }));
    let seq = 1 + frames.count() as u64;
    let account = FromGuest::Stopped {
        issued: vec![(flying.writer, flying.wseq - 1)],
        last_rank: kit.ranks.len() as u64,
    };
    let (at_ns, bytes) = (FAULT, account.encode(seq));
    kit.load.push(Record::Frame { at_ns, seq, bytes });
    assert_eq!(kit.status("D4"), Fail);
}

#[test]
fn a_torn_cell_of_two_loads_is_no_pass_unless_all_was_durable() {
    let mut story = Failback::new(3);
    let write = story.second.writes.iter().rfind(|w| w.ack == u64::MAX);
    let write = write.expect("in flight").clone();
    story.second.disks[write.volume].insert(write.cell, torn(&write));
    assert_eq!(story.verdict("D4").status, Inconclusive);
}

#[test]
fn a_torn_write_of_the_second_load_that_was_acked_is_d4() {
    let mut story = Failback::new(3);
    let writes = &story.second.writes;
    let last = writes.iter().rfind(|w| {
        let mut later = writes.iter().filter(|o| o.wseq > w.wseq);
        w.ack != u64::MAX && !later.any(|o| (o.volume, o.cell) == (w.volume, w.cell))
    });
    let last = last.expect("acked and not written over").clone();
    story.second.disks[last.volume].insert(last.cell, torn(&last));
    assert_eq!(story.verdict("D4").status, Fail);
}

#[test]
fn reordering_between_flushes_is_a_warning_and_no_failure() {
    let reordered = (0..40).map(|seed| Kit::failover_batched(seed, 8));
    let mut warned = 0;
    for kit in reordered {
        let verdict = kit.verdict("D2");
        assert_eq!(verdict.status, Pass, "{verdict:?}");
        warned += usize::from(!verdict.warnings.is_empty());
    }
    assert!(warned > 0, "no history was reordered");
    // In strict mode a flush lies after every write, so nothing is left to warn of but the tail
    // that nobody heard.
    let kit = Kit::failover(3);
    assert!(kit.verdict("D2").warnings.is_empty());
    assert!(kit.verdict("D3").warnings.is_empty());
}

#[test]
fn one_write_left_behind_is_named() {
    let mut kit = Kit::failover_batched(3, 8);
    // As if all writers' writes had come in order up to the cut.
    let last = kit.writes.iter().map(|w| w.ack).filter(|a| *a != u64::MAX);
    let rank = last.max().expect("acked") / 2;
    kit.cut_but(rank, &mut Draw(3), &[0, 1, 2]);
    assert!(kit.verdict("D2").warnings.is_empty());
    // Two writes of one writer that one flush covered: the second came, the first did not.
    let pair = kit.writes.iter().find_map(|first| {
        let second = kit
            .writes
            .iter()
            .find(|w| w.writer == first.writer && w.wseq == first.wseq + 1 && w.writer != 0)?;
        let covered = first.ack == rank + 1 && second.ack == rank + 1 && second.dep <= rank;
        (covered && first.cell != second.cell).then_some(second.clone())
    });
    let Some(second) = pair else {
        panic!("no flush covers two writes of one writer");
    };
    kit.put(&second);
    let verdict = kit.verdict("D2");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let warning = &verdict.warnings[0];
    assert!(
        warning.contains(&format!(
            "lacks writer {} write {}",
            second.writer,
            second.wseq - 1
        )),
        "{warning}"
    );
    assert_eq!(kit.verdict("D3").warnings.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Control 47: whatever was under way at a legal cut may be torn, strict or batched.
    #[test]
    fn writes_under_way_may_be_torn(seed in any::<u64>(), batch in 0u64..12, at in 70u64..100) {
        let mut kit = Kit::failover_batched(seed, batch);
        let last = kit.writes.iter().filter(|w| w.ack != u64::MAX).map(|w| w.ack).max();
        let rank = last.expect("acked") * at / 100;
        kit.cut(rank, &mut Draw(seed));
        let flying: Vec<Made> = kit.writes.iter()
            .filter(|w| w.dep <= rank && w.ack > rank && newest_on_its_cell(&kit, w))
            .cloned()
            .collect();
        for write in &flying {
            kit.disks[write.volume].insert(write.cell, torn(write));
        }
        for check in DATA {
            let verdict = kit.verdict(check);
            prop_assert_eq!(verdict.status, Pass, "{:?}", verdict);
        }
    }

    /// What was durable before something present was issued may not be torn.
    #[test]
    fn durable_writes_may_not_be_torn(seed in any::<u64>(), batch in 0u64..12, pick in any::<prop::sample::Index>()) {
        let mut kit = Kit::failover_batched(seed, batch);
        let reached = reached(&kit);
        let owed: Vec<Made> = kit.writes.iter()
            .filter(|w| w.ack <= reached && kit.disks[w.volume].get(&w.cell) == Some(&state(w)))
            // The one on which the point rests must stay.
            .filter(|w| w.dep < reached)
            .cloned()
            .collect();
        prop_assume!(!owed.is_empty());
        let write = pick.get(&owed);
        kit.disks[write.volume].insert(write.cell, torn(write));
        prop_assert_eq!(kit.status("D4"), Fail);
    }
}
