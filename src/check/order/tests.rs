//! The rule against an exhaustive search over which writes reached the disk.

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand_shim::Random;

use super::*;
use crate::history::acks::AckLog;
use crate::history::segment::Record;
use crate::probe::frame::{Ack, FromGuest, Rank};

/// proptest brings the only random numbers that the tests have.
mod rand_shim {
    use proptest::prelude::Rng;
    pub(super) trait Random: Rng {
        fn below(&mut self, n: u64) -> u64 {
            self.next_u64() % n
        }
        fn chance(&mut self, percent: u64) -> bool {
            self.below(100) < percent
        }
    }
    impl<R: Rng> Random for R {}
}

/// Cells per writer: writer `w` owns the cells `w * LANE ..`, as hot lanes do.
const LANE: u64 = 2;

#[derive(Debug, Clone)]
struct Made {
    writer: u32,
    wseq: u64,
    volume: usize,
    cell: u64,
    dep: u64,
    /// Rank at which it was durable, `u64::MAX` for never.
    ack: u64,
}

#[derive(Debug, Default)]
struct World {
    writes: Vec<Made>,
    ranks: Vec<Vec<(u32, u64)>>,
}

/// Where the toy writers write; writer `w` is on volume `w % 2`.
fn place(writer: u32, wseq: u64) -> (usize, u64) {
    let draw = crate::probe::layout::mix(u64::from(writer) << 32 | wseq) % LANE;
    ((writer % 2) as usize, u64::from(writer) * LANE + draw)
}

/// A random run of up to three writers, each with one write in flight, strict or batched.
fn world(rng: &mut TestRng, batched: bool) -> World {
    let writers = 1 + rng.below(3);
    let most = 1 + rng.below(7);
    let mut world = World::default();
    let mut flying: Vec<Option<usize>> = vec![None; 3];
    let mut done: Vec<(u32, u64)> = Vec::new();
    let mut flush: Option<Vec<(u32, u64)>> = None;
    for _ in 0..40 {
        let writer = rng.below(writers);
        let lane = usize::try_from(writer).expect("small");
        match flying[lane] {
            None if rng.chance(60) && (world.writes.len() as u64) < most => {
                let writer = u32::try_from(writer).expect("small");
                let wseq = 1 + world.writes.iter().filter(|w| w.writer == writer).count() as u64;
                let (volume, cell) = place(writer, wseq);
                flying[lane] = Some(world.writes.len());
                world.writes.push(Made {
                    writer,
                    wseq,
                    volume,
                    cell,
                    dep: world.ranks.len() as u64,
                    ack: u64::MAX,
                });
            }
            Some(write) if rng.chance(60) => {
                flying[lane] = None;
                let mark = (world.writes[write].writer, world.writes[write].wseq);
                if batched {
                    done.retain(|(writer, _)| *writer != mark.0);
                    done.push(mark);
                } else {
                    world.ranks.push(vec![mark]);
                }
            }
            _ if batched && rng.chance(50) => match flush.take() {
                // A flush covers only what had returned when it was submitted.
                None => flush = Some(done.clone()),
                Some(marks) => world.ranks.push(marks),
            },
            _ => {}
        }
    }
    for (rank, marks) in (1u64..).zip(&world.ranks) {
        for (writer, mark) in marks {
            for write in &mut world.writes {
                if write.writer == *writer && write.wseq <= *mark && write.ack == u64::MAX {
                    write.ack = rank;
                }
            }
        }
    }
    world
}

/// What each cell holds: for each cell the wseq of one of its writes or 0.
fn image(rng: &mut TestRng, world: &World) -> Vec<u64> {
    (0..3 * LANE)
        .map(|cell| {
            let mut versions = vec![0];
            versions.extend(
                world
                    .writes
                    .iter()
                    .filter(|w| w.cell == cell)
                    .map(|w| w.wseq),
            );
            let at = usize::try_from(rng.below(versions.len() as u64)).expect("small");
            versions[at]
        })
        .collect()
}

/// Is there a set of writes, closed under what must come before, that leaves this image?
fn possible(writes: &[Made], image: &[u64]) -> bool {
    let n = writes.len();
    (0..1u32 << n).any(|set| {
        let has = |i: usize| set >> i & 1 == 1;
        let closed = (0..n).filter(|i| has(*i)).all(|i| {
            (0..n).filter(|j| !has(*j)).all(|j| {
                let before = writes[j].ack <= writes[i].dep;
                let same = writes[j].cell == writes[i].cell && writes[j].wseq < writes[i].wseq;
                !before && !same
            })
        });
        closed
            && (0..image.len()).all(|cell| {
                let kept = (0..n).filter(|i| has(*i) && writes[*i].cell == cell as u64);
                kept.map(|i| writes[i].wseq).max().unwrap_or(0) == image[cell]
            })
    })
}

/// The same through the stream of acks and the rule.
fn lawful(world: &World, image: &[u64], volume: Option<usize>) -> bool {
    let mut acks = AckLog::default();
    if !world.ranks.is_empty() {
        let ranks = world.ranks.iter().map(|marks| Rank {
            marks: marks.clone(),
        });
        let frame = FromGuest::Ack(Ack {
            first_rank: 1,
            ranks: ranks.collect(),
            mono_ns: 0,
            real_ns: 0,
            token: 0,
            max_gap_ns: 0,
        });
        let record = Record::Frame {
            at_ns: 1,
            seq: 1,
            bytes: frame.encode(1),
        };
        acks.absorb(&record).expect("consistent");
    }
    let cell = |cell: u64| usize::try_from(cell).expect("small");
    let mut rule = Rule::new(2);
    for acked in acks.acked() {
        let (volume, at) = place(acked.writer, acked.wseq);
        let write = Write {
            volume,
            slot: cell(at),
            writer: acked.writer,
            wseq: acked.wseq,
            rank: acked.rank,
            batch: acked.batch,
        };
        rule.acked(write, image[cell(at)]);
    }
    for made in &world.writes {
        if image[cell(made.cell)] == made.wseq {
            rule.holds(Write {
                volume: made.volume,
                slot: cell(made.cell),
                writer: made.writer,
                wseq: made.wseq,
                rank: made.dep,
                batch: 0,
            });
        }
    }
    rule.breach(|v| volume.is_none_or(|wanted| wanted == v))
        .is_none()
}

#[test]
fn the_rule_agrees_with_exhaustive_search() {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let (mut illegal, mut volume_illegal, mut group_only) = (0, 0, 0);
    for trial in 0..24_000 {
        let world = world(&mut rng, trial % 2 == 0);
        let image = image(&mut rng, &world);
        let whole = possible(&world.writes, &image);
        assert_eq!(
            lawful(&world, &image, None),
            whole,
            "trial {trial}: {world:?} {image:?}"
        );
        let mut parts = true;
        for volume in 0..2 {
            let on: Vec<_> = world
                .writes
                .iter()
                .filter(|w| w.volume == volume)
                .cloned()
                .collect();
            let mut part = image.clone();
            for (cell, version) in part.iter_mut().enumerate() {
                if !on.iter().any(|w| w.cell == cell as u64) {
                    *version = 0;
                }
            }
            let legal = possible(&on, &part);
            assert_eq!(lawful(&world, &image, Some(volume)), legal, "trial {trial}");
            parts &= legal;
        }
        illegal += u32::from(!whole);
        volume_illegal += u32::from(!parts);
        group_only += u32::from(parts && !whole);
    }
    // The comparison means nothing if hardly any image is illegal.
    assert!(illegal > 2_000, "{illegal}");
    assert!(volume_illegal > 500, "{volume_illegal}");
    assert!(group_only > 500, "{group_only}");
}

#[test]
fn a_breach_names_the_pair_that_decides() {
    let write = |volume, wseq, rank| Write {
        volume,
        slot: 0,
        writer: 1,
        wseq,
        rank,
        batch: 0,
    };
    let mut rule = Rule::new(2);
    rule.acked(write(0, 5, 9), 4);
    rule.acked(write(0, 6, 12), 4);
    rule.holds(write(1, 3, 9));
    rule.holds(write(1, 2, 8));
    assert_eq!(rule.breach(|v| v == 0), None);
    assert_eq!(rule.breach(|v| v == 1), None);
    assert_eq!(
        rule.breach(|_| true),
        Some((write(0, 5, 9), write(1, 3, 9)))
    );
    let mut later = Rule::new(1);
    later.acked(write(0, 5, 10), 4);
    later.holds(write(0, 4, 9));
    assert_eq!(
        later.breach(|_| true),
        None,
        "durable only after the present one was issued"
    );
    let mut damaged = Rule::new(1);
    damaged.acked(write(0, 5, 1), DAMAGED);
    damaged.holds(write(0, 4, 9));
    assert_eq!(
        damaged.breach(|_| true),
        None,
        "damaged cells are not judged here"
    );
}
