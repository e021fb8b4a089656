//! S2 and S3: fences and forks.

use super::*;
use crate::probe::frame::{Ack, Rank};

fn asked(method: &str, outcome: Option<Outcome>) -> Fact {
    Fact::Fencing {
        site: Site::Primary,
        method: method.into(),
        outcome,
    }
}

/// Adds an ack of the old side whose token was sent a millisecond before.
fn late_ack(kit: &mut Kit, at: u64) {
    let last = kit.history().incarnations[0].acks.last_rank();
    let frames = kit
        .load
        .iter()
        .filter(|r| matches!(r, Record::Frame { .. }));
    let seq = 1 + frames.count() as u64;
    let frame = FromGuest::Ack(Ack {
        first_rank: last + 1,
        ranks: vec![Rank {
            marks: vec![(0, 100_000)],
        }],
        mono_ns: 0,
        real_ns: 0,
        token: 777,
        max_gap_ns: 0,
    });
    let at_ns = at - MS;
    kit.load.push(Record::Token { at_ns, n: 777 });
    let bytes = frame.encode(seq);
    kit.load.push(Record::Frame {
        at_ns: at,
        seq,
        bytes,
    });
}

#[test]
fn a_fence_is_dated_by_the_last_write_of_the_old_side() {
    let verdict = Kit::failover(3).verdict("S2");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let latency = &verdict.measures[0];
    assert_eq!(latency.name, "fence-latency");
    assert!(latency.low >= 0.0 && latency.high < 0.1, "{latency:?}");
}

#[test]
fn writes_after_the_fence_was_said_to_hold_are_s2() {
    let mut kit = Kit::failover(3);
    late_ack(&mut kit, FAULT + 1_000 * MS);
    let verdict = kit.verdict("S2");
    assert_eq!(verdict.status, Fail);
    assert!(verdict.witness[0].contains("said to hold"), "{verdict:?}");
    assert_eq!(kit.status("S1"), Pass, "the new side had not begun");
    // Without a fence that was said to hold, the new side's first ack is the line.
    kit.without(|fact| {
        matches!(
            fact,
            Fact::Fencing {
                outcome: Some(_),
                ..
            }
        )
    });
    assert_eq!(kit.status("S2"), Inconclusive);
    let mut kit = Kit::failover(3);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::Fencing {
                outcome: Some(_),
                ..
            }
        )
    });
    late_ack(&mut kit, FAULT + 4_000 * MS);
    assert_eq!(kit.status("S2"), Fail);
}

#[test]
fn a_fence_that_nobody_watched_is_no_pass() {
    let mut kit = Kit::failover(3);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::Vm {
                site: Site::Primary,
                ..
            }
        )
    });
    assert_eq!(kit.status("S2"), Inconclusive, "nobody looked");
    kit.add(FAULT + 95 * MS, running(Site::Primary));
    assert_eq!(kit.status("S2"), Inconclusive, "it still ran");
    kit.add(
        FAULT,
        Fact::Fault {
            name: "site-power-off".into(),
            site: Some(Site::Primary),
            active: true,
            detail: String::new(),
        },
    );
    assert_eq!(kit.status("S2"), Pass, "the whole site was off");
    let mut none = Kit::failover(3);
    none.without(|fact| matches!(fact, Fact::Fencing { .. }));
    assert_eq!(none.status("S2"), Inconclusive, "no fence");
    none.add(FAULT + 10 * MS, asked("none", None));
    none.add(FAULT + 20 * MS, asked("none", Some(Outcome::Ok)));
    assert_eq!(none.status("S2"), Inconclusive, "none holds nothing");
    let mut silent = Kit::failover(3);
    silent.load.clear();
    assert_eq!(silent.status("S2"), Inconclusive, "nothing was written");
}

#[test]
fn a_living_old_guest_that_was_heard_and_wrote_nothing_is_fenced() {
    let mut kit = Kit::failover(3);
    kit.without(|fact| matches!(fact, Fact::Fencing { .. } | Fact::Vm { .. }));
    kit.add(FAULT + 10 * MS, asked("networkFence", None));
    kit.add(FAULT + 100 * MS, asked("networkFence", Some(Outcome::Ok)));
    assert_eq!(kit.status("S2"), Inconclusive);
    for n in 1..=4 {
        let alive = FromGuest::Alive {
            mono_ns: 0,
            token: 0,
        };
        let (at_ns, bytes) = (FAULT + n * 1_000 * MS, alive.encode(0));
        kit.load.push(Record::Frame {
            at_ns,
            seq: 0,
            bytes,
        });
    }
    assert_eq!(kit.status("S2"), Pass);
}

#[test]
fn what_was_discarded_is_counted_and_stays_away() {
    let story = Failback::new(3);
    let verdict = story.verdict("S3");
    assert_eq!(verdict.status, Pass, "{verdict:?}");
    let discarded = &verdict.measures[0];
    assert_eq!(discarded.name, "discarded-writes");
    assert!(discarded.low > 50.0, "{discarded:?}");
    assert!(verdict.summary.contains("stayed away"), "{verdict:?}");
    for check in [
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "S1", "S2", "R1", "R2",
    ] {
        let verdict = story.verdict(check);
        assert_eq!(verdict.status, Pass, "{verdict:?}");
    }
    assert_eq!(Kit::failover(3).status("S3"), Inconclusive, "no way back");
}

#[test]
fn discarded_writes_that_come_back_are_s3() {
    let mut story = Failback::new(3);
    let write = story.discarded()[0].clone();
    story.second.disks[write.volume].insert(write.cell, state(&write));
    let verdict = story.verdict("S3");
    assert_eq!(verdict.status, Fail);
    assert!(verdict.witness[0].starts_with("came back"), "{verdict:?}");
}

#[test]
fn a_new_side_that_was_overwritten_is_s3_and_d1() {
    let mut story = Failback::new(3);
    // The resync went the wrong way: the old side kept its own line.
    let last = story.first.writes.iter().filter(|w| w.ack != u64::MAX);
    let last = last.map(|w| w.ack).max().expect("acked");
    let mut own = story.first.clone();
    own.cut(last, &mut Draw(1));
    story.second.disks.clone_from(&own.disks);
    assert_eq!(story.verdict("S3").status, Fail);
    assert_eq!(story.verdict("D1").status, Fail);
}

#[test]
fn a_fork_needs_its_read_backs() {
    let mut story = Failback::new(3);
    story.site = Site::Secondary;
    assert_eq!(
        story.verdict("S3").status,
        Inconclusive,
        "the loser was not read"
    );
    let mut story = Failback::new(3);
    story.first.scanned = false;
    assert_eq!(
        story.verdict("S3").status,
        Inconclusive,
        "nobody saw the fork"
    );
    let mut story = Failback::new(3);
    story.second.load.clear();
    assert_ne!(
        story.verdict("S3").status,
        Pass,
        "the new line wrote nothing"
    );
}

#[test]
fn a_scan_says_for_itself_whether_it_owes_everything() {
    let mut story = Failback::new(3);
    story.zero_loss = Some(false);
    assert_eq!(story.verdict("D1").status, Inconclusive);
    story.zero_loss = None;
    assert_eq!(
        story.verdict("D1").status,
        Inconclusive,
        "the trial is a failover"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Every discarded write that comes back is found, and no legal way back is condemned.
    #[test]
    fn each_resurrection_is_s3(seed in any::<u64>(), pick in any::<prop::sample::Index>()) {
        let mut story = Failback::new(seed);
        let verdict = story.verdict("S3");
        prop_assert_eq!(verdict.status, Pass, "{:?}", verdict);
        let write = pick.get(&story.discarded()).clone();
        story.second.disks[write.volume].insert(write.cell, state(&write));
        prop_assert_eq!(story.verdict("S3").status, Fail);
    }
}
