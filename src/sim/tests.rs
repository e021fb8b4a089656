use std::collections::{BTreeMap, BTreeSet};

use super::cells::Cell;
use super::family::{FAMILIES, REASONS};
use super::shape::Shape;
use super::world::World;
use super::*;
use crate::check::verdict::Status;
use crate::check::{CATALOGUE, judge, judge_with};
use crate::probe::frame::CellState;

fn campaign(kind: Kind, seeds: Range<u64>, threads: usize) -> Tally {
    run(&Campaign { seeds, kind }, threads, |_| {}).expect("a plan")
}

fn told(tally: &Tally) -> String {
    let failures = tally.misses.iter().chain(&tally.false_failures);
    let lines = failures
        .take(5)
        .map(|failure| format!("{}: {}\n", failure.command(), failure.what));
    lines.collect()
}

#[test]
fn legal_histories_are_never_condemned() {
    let tally = campaign(Kind::Legal, 0..1_500, 2);
    assert!(tally.is_clean(), "{}", told(&tally));
    assert_eq!(tally.histories, 1_500);
    for check in [
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "T1", "T2", "S1", "S3", "O1", "O2",
        "O4", "G1",
    ] {
        let green = tally.green.get(check).copied().unwrap_or(0);
        assert!(green > 50, "{check} passed {green} times only");
    }
}

#[test]
fn detectable_faults_are_never_missed() {
    let tally = campaign(Kind::Faulty, 0..1_500, 2);
    assert!(tally.is_clean(), "{}", told(&tally));
    let known: BTreeSet<_> = reasons().map(|(name, _)| name).collect();
    for spec in families() {
        let count = &tally.by_family[spec.name];
        assert!(count.caught > 0, "{} was never caught", spec.name);
        let unseen: u64 = count.undetectable.values().sum();
        assert_eq!(
            count.planted,
            count.caught + count.elsewhere + unseen,
            "{}",
            spec.name
        );
        assert!(count.undetectable.keys().all(|name| known.contains(name)));
        let red = spec
            .ordained
            .iter()
            .any(|check| count.red.contains_key(check));
        assert!(red, "{} turned none of {:?} red", spec.name, spec.ordained);
    }
}

#[test]
fn a_seed_is_a_history() {
    for kind in [Kind::Legal, Kind::Faulty] {
        let one = campaign(kind, 40..340, 1);
        let many = campaign(kind, 40..340, 3);
        assert_eq!(one, many);
        assert_ne!(one.fingerprint, campaign(kind, 41..341, 1).fingerprint);
        let story = replay(7, kind).expect("a plan");
        assert_eq!(story, replay(7, kind).expect("a plan"));
        assert_ne!(story.text, replay(8, kind).expect("a plan").text);
        assert!(!story.fails, "{story}");
    }
}

/// The real judge with every failure of the checks that `blind` selects turned into a pass.
fn blinded(blind: impl Fn(&str) -> bool + Sync) -> impl Fn(&Plan, &History) -> Verdicts + Sync {
    move |plan, history| {
        let mut verdicts = judge(plan, history);
        for verdict in &mut verdicts.verdicts {
            if blind(&verdict.check) && verdict.status == Status::Fail {
                verdict.status = Status::Pass;
            }
        }
        verdicts
    }
}

#[test]
fn a_check_that_cannot_fail_is_noticed() {
    let seeds = 0..900;
    let kind = Kind::Faulty;
    let tally = run_with(&Campaign { seeds, kind }, 2, |_| {}, &blinded(|_| true)).expect("a plan");
    let mut missed: BTreeMap<&str, u64> = BTreeMap::new();
    for failure in &tally.misses {
        *missed.entry(failure.check).or_default() += 1;
    }
    // The first hundred misses of nine hundred histories.
    for check in [
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "S1", "S3",
    ] {
        assert!(missed.contains_key(check), "{check}: {missed:?}");
    }
    assert_eq!(tally.false_failure_count, 0);
}

#[test]
fn a_check_that_is_taken_away_is_noticed() {
    let without: Vec<_> = CATALOGUE
        .iter()
        .copied()
        .filter(|spec| spec.id != "D3")
        .collect();
    let lame = |plan: &Plan, history: &History| judge_with(&without, plan, history);
    for kind in [Kind::Legal, Kind::Faulty] {
        let seeds = 0..60;
        let tally = run_with(&Campaign { seeds, kind }, 1, |_| {}, &lame).expect("a plan");
        assert!(!tally.is_clean());
        let failures = tally.misses.iter().chain(&tally.false_failures);
        assert!(failures.into_iter().all(|failure| failure.check == "D3"));
    }
}

#[test]
fn a_spoilt_image_is_noticed() {
    let spoil = |plan: &Plan, history: &History| {
        let mut history = history.clone();
        for volume in history.scans.iter_mut().flat_map(|scan| &mut scan.volumes) {
            let first = volume
                .cells
                .iter_mut()
                .find(|seen| matches!(seen.state, CellState::Ok { dep: 1.., .. }));
            if let Some(seen) = first {
                seen.state = CellState::Corrupt;
            }
        }
        judge(plan, &history)
    };
    let campaign = Campaign {
        seeds: 0..30,
        kind: Kind::Legal,
    };
    let tally = run_with(&campaign, 1, |_| {}, &spoil).expect("a plan");
    assert!(
        tally
            .false_failures
            .iter()
            .any(|failure| failure.check == "D4")
    );
}

#[test]
fn shrinking_keeps_the_failure_and_makes_it_small() {
    let blind = blinded(|check| check == "D2");
    let campaign = Campaign {
        seeds: 0..200,
        kind: Kind::Faulty,
    };
    let tally = run_with(&campaign, 1, |_| {}, &blind).expect("a plan");
    let failure = tally.misses.first().expect("a miss");
    assert_eq!(
        failure.command(),
        format!("virtproof selftest --replay faulty:{}", failure.seed)
    );
    let whole = replay_with(failure.seed, failure.kind, &blind).expect("a plan");
    let small = shrink_with(failure.seed, failure.kind, &blind).expect("a plan");
    assert!(whole.fails && small.fails);
    assert!(small.writes < whole.writes, "{small}");
    assert_eq!(
        small,
        shrink_with(failure.seed, failure.kind, &blind).expect("a plan")
    );
    // Nothing to shrink: told as it is.
    let fine = shrink(failure.seed, failure.kind).expect("a plan");
    assert!(!fine.fails);
    assert_eq!(fine, replay(failure.seed, failure.kind).expect("a plan"));
}

#[test]
fn whole_cells_are_classified_as_they_are_told() {
    let mut looked = 0;
    for seed in 0..24 {
        let world = World::new(Shape::drawn(seed, Kind::Faulty));
        for passage in &world.passages {
            for (volume, disk) in passage.disks.iter().enumerate() {
                for (cell, held) in (0u64..).zip(disk) {
                    let held: &Cell = held;
                    let [told, real] = [false, true]
                        .map(|exact| world.ids.state(&world.writes, volume, cell, held, exact));
                    assert_eq!(told, real, "seed {seed} volume {volume} cell {cell}");
                    looked += 1;
                }
            }
        }
    }
    assert!(looked > 1_000);
}

#[test]
fn the_tables_are_whole() {
    let names: BTreeSet<_> = families().map(|spec| spec.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
    for spec in FAMILIES {
        assert_eq!(spec.family.spec().name, spec.name);
        assert!(!spec.moves.is_empty());
        for check in spec.ordained {
            assert!(CATALOGUE.iter().any(|known| known.id == *check), "{check}");
        }
    }
    assert_eq!(reasons().collect::<BTreeSet<_>>().len(), REASONS.len());
    assert_eq!("faulty".parse(), Ok(Kind::Faulty));
    assert!("broken".parse::<Kind>().is_err());
}
