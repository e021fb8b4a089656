use proptest::prelude::*;

use super::*;
use crate::probe::frame::{Ack, Rank};

fn frame(at_ns: u64, seq: u64, frame: &FromGuest) -> Record {
    Record::Frame {
        at_ns,
        seq,
        bytes: frame.encode(seq),
    }
}

fn ack(first_rank: u64, marks: &[&[(u32, u64)]]) -> FromGuest {
    FromGuest::Ack(Ack {
        first_rank,
        ranks: marks
            .iter()
            .map(|marks| Rank {
                marks: marks.to_vec(),
            })
            .collect(),
        mono_ns: 1,
        real_ns: 2,
        token: 7,
        max_gap_ns: 3,
    })
}

fn log(records: &[Record]) -> Result<AckLog, String> {
    let mut log = AckLog::default();
    for record in records {
        log.absorb(record)?;
    }
    Ok(log)
}

fn writes(log: &AckLog) -> Vec<(u32, u64, u64)> {
    log.acked().map(|a| (a.writer, a.wseq, a.rank)).collect()
}

#[test]
fn strict_and_batched_ranks_expand_to_their_writes() {
    let log = log(&[
        frame(10, 1, &ack(1, &[&[(0, 1)], &[(2, 1)]])),
        frame(20, 2, &ack(3, &[&[(0, 3), (2, 2)], &[(2, 2)], &[(300, 1)]])),
    ])
    .expect("consistent");
    assert_eq!(
        writes(&log),
        [
            (0, 1, 1),
            (2, 1, 2),
            (0, 2, 3),
            (0, 3, 3),
            (2, 2, 3),
            (300, 1, 5)
        ]
    );
    assert_eq!((log.last_rank(), log.writes(), log.watermark(0)), (5, 6, 3));
    let batches: Vec<_> = log.acked().map(|a| a.batch).collect();
    assert_eq!(batches, [0, 0, 1, 1, 1, 1]);
}

#[test]
fn redelivered_frames_count_once_and_must_be_equal() {
    let first = ack(1, &[&[(0, 1)]]);
    let again = log(&[frame(10, 1, &first), frame(30, 1, &first)]).expect("equal");
    assert_eq!(writes(&again), [(0, 1, 1)]);
    assert_eq!(again.batches()[0].at_ns, 10, "heard when it first came");
    let other = ack(1, &[&[(0, 2)]]);
    let error = log(&[frame(10, 1, &first), frame(30, 1, &other)]).expect_err("conflict");
    assert!(error.contains("different contents"), "{error}");
}

#[test]
fn missing_frames_and_ranks_are_holes() {
    let gap = log(&[
        frame(1, 1, &ack(1, &[&[(0, 1)]])),
        frame(2, 3, &ack(3, &[&[(0, 3)]])),
    ])
    .expect("readable");
    assert!(gap.hole().is_some_and(|hole| hole.contains("never heard")));
    assert_eq!(gap.last_rank(), 3);
    let whole = log(&[frame(1, 1, &ack(1, &[&[(0, 1)]]))]).expect("readable");
    assert_eq!(whole.hole(), None);
}

#[test]
fn contradictions_are_errors() {
    let one = ack(1, &[&[(0, 2)]]);
    for (second, word) in [
        (ack(1, &[&[(0, 3)]]), "acked twice"),
        (ack(2, &[&[(0, 1)]]), "goes back"),
        (ack(2, &[&[(0, u64::MAX)]]), "more than"),
        (ack(u64::MAX, &[&[(0, 3)], &[(0, 4)]]), "beyond"),
    ] {
        let error = log(&[frame(1, 1, &one), frame(2, 2, &second)]).expect_err(word);
        assert!(error.contains(word), "{error}");
    }
    let mut bytes = one.encode(1);
    bytes[20] ^= 1;
    let record = Record::Frame {
        at_ns: 1,
        seq: 1,
        bytes,
    };
    assert!(log(&[record]).expect_err("damaged").contains("damaged"));
}

#[test]
fn writes_of_unknown_outcome_are_not_acked() {
    let unknown = FromGuest::Unknown {
        writer: 0,
        wseq: 2,
        errno: 5,
    };
    let log =
        log(&[frame(1, 1, &unknown), frame(2, 2, &ack(1, &[&[(0, 3)]]))]).expect("consistent");
    assert_eq!(writes(&log), [(0, 1, 1), (0, 3, 1)]);
}

#[test]
fn brackets_run_from_the_token_to_the_frame() {
    let token = |at_ns, n| Record::Token { at_ns, n };
    let mut records = vec![token(5, 1), token(50, 6), token(55, 7), token(60, 8)];
    records.push(frame(70, 1, &ack(1, &[&[(0, 1)]])));
    let log = log(&records).expect("consistent");
    assert_eq!(log.bracket(0), Some(Bracket { low: 55, high: 70 }));
    assert_eq!(log.sent(0), 5, "before any token: the first record");
    assert_eq!(log.sent(5), 5);
    assert_eq!(log.bracket(1), None);
}

#[test]
fn silence_is_measured_between_frames_and_to_both_ends() {
    let alive = FromGuest::Alive {
        mono_ns: 0,
        token: 0,
    };
    let log = log(&[frame(10, 0, &alive), frame(40, 0, &alive)]).expect("consistent");
    assert_eq!(log.longest_silence(0, 100), 60);
    assert_eq!(log.longest_silence(10, 45), 30);
    assert_eq!(log.longest_silence(50, 60), 10);
    assert_eq!(log.last_frame_at(39), Some(10));
    assert_eq!(log.last_frame_at(9), None);
}

proptest! {
    /// Whatever a probe acks comes back write by write with its rank.
    #[test]
    fn the_code_loses_nothing(ranks in proptest::collection::vec(
        proptest::collection::btree_map(0u32..200, 1u64..300, 0..4), 1..40), cut in 1usize..10)
    {
        let mut marks = BTreeMap::new();
        let mut expected = Vec::new();
        let mut wire = Vec::new();
        for (rank, steps) in (1u64..).zip(&ranks) {
            let mut here = Vec::new();
            for (writer, step) in steps {
                let mark = marks.entry(*writer).or_insert(0u64);
                expected.extend((*mark + 1..=*mark + step).map(|wseq| (*writer, wseq, rank)));
                *mark += step;
                here.push((*writer, *mark));
            }
            wire.push(here);
        }
        let mut first_rank = 1;
        let mut records = Vec::new();
        for (seq, chunk) in (1u64..).zip(wire.chunks(cut)) {
            let marks: Vec<_> = chunk.iter().map(Vec::as_slice).collect();
            records.push(frame(seq, seq, &ack(first_rank, &marks)));
            first_rank += chunk.len() as u64;
        }
        let log = log(&records).expect("consistent");
        prop_assert_eq!(writes(&log), expected);
    }

    #[test]
    fn any_frame_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _answer = log(&[Record::Frame { at_ns: 0, seq: 1, bytes }]);
    }
}
