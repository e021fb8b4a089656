use std::collections::BTreeMap;

use super::*;
use crate::check::verdict::{Status, Verdict};
use crate::check::{CATALOGUE, Verdicts};
use crate::lab::faults::{FaultSpec, Ordained, by_name, table as faults};

fn ids() -> Vec<&'static str> {
    CATALOGUE.iter().map(|spec| spec.id).collect()
}

/// What a run shows if all is as the row ordains.
fn as_ordained(row: &FaultSpec) -> Vec<Seen> {
    let wired = scenario_checks()
        .into_iter()
        .chain(row.red().iter().copied());
    let mut checks: BTreeMap<String, Status> = wired
        .map(|check| (check.to_owned(), Status::Pass))
        .collect();
    let exit = match row.ordained {
        Ordained::Fires(red) => {
            for check in red {
                checks.insert((*check).into(), Status::Fail);
            }
            1
        }
        Ordained::Inconclusive => {
            checks.insert("R1".into(), Status::Inconclusive);
            4
        }
        Ordained::Refused => 2,
        Ordained::Green => 0,
        Ordained::Unreachable(_) => return Vec::new(),
    };
    for check in row.doubts {
        checks.insert((*check).into(), Status::Inconclusive);
    }
    vec![Seen {
        exit: Some(exit),
        refused: exit == 2,
        checks,
        longest_stage: row.blames.map(str::to_owned),
        ..Seen::default()
    }]
}

fn rows(
    change: impl Fn(&FaultSpec, Vec<Seen>) -> Vec<Seen>,
) -> (Vec<&'static FaultSpec>, Vec<Row>) {
    let specs: Vec<_> = faults().collect();
    let rows = specs
        .iter()
        .map(|spec| Row::new(spec, change(spec, as_ordained(spec))))
        .collect();
    (specs, rows)
}

fn seen(exit: i32, checks: &[(&str, Status)]) -> Seen {
    Seen {
        exit: Some(exit),
        checks: checks.iter().map(|(id, s)| ((*id).into(), *s)).collect(),
        ..Seen::default()
    }
}

#[test]
fn a_table_that_comes_out_as_ordained_holds() {
    let (specs, rows) = rows(|_, seen| seen);
    let matrix = Matrix {
        checks: ids().into_iter().map(str::to_owned).collect(),
        gaps: gaps(&specs, &rows, &ids()),
        rows,
        simulated: None,
    };
    assert!(matrix.holds(), "{:?} {:?}", matrix.tally(), matrix.gaps);
    assert!(matrix.tally().unreachable > 0);
}

#[test]
fn removing_any_check_from_the_catalogue_is_noticed() {
    for removed in ids() {
        let (specs, rows) = rows(|_, seen| seen.iter().map(|s| without(s, removed)).collect());
        let rest: Vec<_> = ids().into_iter().filter(|id| *id != removed).collect();
        let gaps = gaps(&specs, &rows, &rest);
        let bad = rows.iter().any(|row| row.word.is_bad());
        assert!(bad || !gaps.is_empty(), "nobody misses {removed}");
        assert!(
            gaps.contains(&Gap::NoSuchCheck(removed.into())),
            "{removed}: {gaps:?}"
        );
    }
}

#[test]
fn a_check_that_no_fault_turns_red_is_a_gap() {
    for check in scenario_checks() {
        let (specs, rows) = rows(|row, seen| {
            let touches = row.red().contains(&check) || row.doubts.contains(&check);
            if touches { Vec::new() } else { seen }
        });
        // A row without a run is judged as broken, so its check has nothing that turned it red.
        assert!(
            gaps(&specs, &rows, &ids()).contains(&Gap::NeverRed(check.into())),
            "{check}"
        );
    }
}

#[test]
fn what_only_real_guests_play_is_neither_held_nor_missed_by_simulated_ones() {
    let (specs, simulated) = rows(|row, seen| if row.real_only { Vec::new() } else { seen });
    assert_eq!(gaps(&specs, &simulated, &ids()), []);
    let real = specs
        .iter()
        .zip(&simulated)
        .filter(|(spec, _)| spec.real_only);
    let words: Vec<&Word> = real.map(|(_, row)| &row.word).collect();
    assert!(!words.is_empty());
    for word in words {
        assert!(matches!(word, Word::Unreachable(why) if why.contains("--guests qemu")));
    }
    // Once one of them was played, what the others are to show is missed.
    let (specs, some) = rows(|row, seen| {
        let left_out = row.real_only && row.name != "clean-db";
        if left_out { Vec::new() } else { seen }
    });
    let missed = gaps(&specs, &some, &ids());
    for check in ["A6", "A7"] {
        assert!(missed.contains(&Gap::NeverRed(check.into())), "{missed:?}");
    }
}

#[test]
fn a_fault_is_caught_only_by_the_check_that_must_catch_it() {
    let row = by_name("drop-acked-write").expect("a row");
    let caught = seen(1, &[("D1", Status::Fail), ("D2", Status::Pass)]);
    assert_eq!(judge(row, &caught), Word::AsOrdained);
    for (exit, status) in [
        (1, Status::Pass),
        (0, Status::Pass),
        (4, Status::Inconclusive),
    ] {
        let missed = seen(exit, &[("D1", status), ("D2", Status::Fail)]);
        assert!(matches!(judge(row, &missed), Word::Miss(_)), "{exit}");
    }
    assert!(matches!(judge(row, &seen(0, &[])), Word::Miss(_)));
    assert!(matches!(judge(row, &Seen::default()), Word::Broken(_)));
    let wrong_exit = seen(0, &[("D1", Status::Fail)]);
    assert!(matches!(judge(row, &wrong_exit), Word::Miss(_)));
}

#[test]
fn of_each_check_the_worst_verdict_says_why() {
    let verdict = |check: &str, status, summary: &str| Verdict {
        check: check.into(),
        trial: "t1".into(),
        scenario: "relocate.zero-loss".into(),
        subject: "ledger-0".into(),
        status,
        summary: summary.into(),
        witness: vec![],
        warnings: vec![],
        limits: vec![],
        measures: vec![],
    };
    let mut seen = Seen::default();
    seen.take(&Verdicts {
        overall: Status::Fail,
        history: String::new(),
        verdicts: vec![
            verdict("D1", Status::Inconclusive, "nothing was read"),
            verdict("D1", Status::Fail, "a write is missing"),
            verdict("D1", Status::Fail, "another is missing"),
            verdict("D1", Status::Pass, "all is there"),
            verdict("D2", Status::Pass, "in order"),
        ],
    });
    assert_eq!(seen.because("D1"), " (a write is missing)");
    assert_eq!(seen.because("D2"), "");
    assert_eq!(seen.because("D3"), "");
}

#[test]
fn a_miss_says_why_each_check_came_out_as_it_did() {
    let row = by_name("drop-acked-write").expect("a row");
    let mut missed = seen(1, &[("D1", Status::Inconclusive), ("O1", Status::Fail)]);
    missed.why = [("D1", "nothing was read"), ("O1", "no promotion came")]
        .map(|(check, why)| (check.to_owned(), why.to_owned()))
        .into();
    let said = "D1 said inconclusive (nothing was read); failed: [O1 (no promotion came)]";
    assert_eq!(judge(row, &missed), Word::Miss(said.into()));
}

#[test]
fn what_only_blinds_must_neither_pass_nor_fail() {
    let row = by_name("ack-stream-cut").expect("a row");
    let unsure = [("R1", Status::Inconclusive), ("T2", Status::Inconclusive)];
    assert_eq!(judge(row, &seen(4, &unsure)), Word::AsOrdained);
    let fails = [("R1", Status::Fail), ("T2", Status::Inconclusive)];
    assert!(matches!(judge(row, &seen(1, &fails)), Word::FalseAlarm(_)));
    let passes = [("R1", Status::Pass), ("T2", Status::Pass)];
    assert!(matches!(judge(row, &seen(0, &passes)), Word::Miss(_)));
    let doubtless = [("R1", Status::Inconclusive), ("T2", Status::Pass)];
    assert!(matches!(judge(row, &seen(4, &doubtless)), Word::Miss(_)));
}

#[test]
fn a_control_must_pass_whole() {
    let row = faults()
        .find(|row| row.ordained == Ordained::Green)
        .expect("a control");
    assert_eq!(
        judge(row, &seen(0, &[("D1", Status::Pass)])),
        Word::AsOrdained
    );
    let alarm = seen(1, &[("D1", Status::Fail)]);
    assert!(matches!(judge(row, &alarm), Word::FalseAlarm(_)));
    let unsure = seen(4, &[("D1", Status::Inconclusive)]);
    assert!(matches!(judge(row, &unsure), Word::Miss(_)));
    assert!(matches!(judge(row, &seen(0, &[])), Word::Miss(_)));
    assert!(matches!(
        judge(row, &seen(5, &[("D1", Status::Pass)])),
        Word::Miss(_)
    ));
}

#[test]
fn the_wrong_stage_is_not_the_right_stage() {
    let row = by_name("promote-stalls").expect("a row");
    let mut one = seen(1, &[("T1", Status::Fail)]);
    one.longest_stage = row.blames.map(str::to_owned);
    assert_eq!(judge(row, &one), Word::AsOrdained);
    one.longest_stage = Some("ssh-banner".into());
    assert!(matches!(judge(row, &one), Word::Miss(_)));
}

#[test]
fn a_stalled_promotion_outlasts_the_objective_and_ends_before_the_deadline() {
    let dir = std::path::Path::new(".");
    let known = crate::plan::Known::nothing();
    for (real, loaded) in [
        (false, crate::plan::lab_with(dir, &[], &known)),
        (true, crate::plan::lab_qemu_with(dir, &[], &known)),
    ] {
        let plan = loaded.expect("the lab's plan").plan;
        let stall = crate::lab::promote_stall(real, 60.0) / 60;
        assert!(Some(stall) > plan.objectives().rto, "{stall:?}");
        assert!(stall < plan.deadlines().transition, "{stall:?}");
    }
}

#[test]
fn every_entry_of_the_catalogues_stands_in_a_row() {
    let known: Vec<&str> = faults().flat_map(|row| row.entries).copied().collect();
    let numbers = (1..=53).map(|n| n.to_string());
    let failures = (1..=30).map(|n| format!("F{n}"));
    let absent: Vec<String> = numbers
        .chain(failures)
        .filter(|entry| !known.contains(&entry.as_str()))
        .collect();
    assert!(absent.is_empty(), "no row stands for {absent:?}");
}

#[test]
fn rows_are_chosen_by_name_entry_and_check() {
    let names = |only: &str| {
        let only = [only.to_owned()];
        chosen(&only).map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
    };
    assert_eq!(names("drop-acked-write"), Ok(vec!["drop-acked-write"]));
    assert_eq!(names("45"), Ok(vec!["ack-stream-cut"]));
    assert!(names("G1").is_ok_and(|rows| rows.contains(&"wrong-guest")));
    assert!(names("nothing-like-it").is_err());
    assert_eq!(chosen(&[]).map(|rows| rows.len()), Ok(faults().count()));
}

fn sample() -> Matrix {
    let (_, rows) = rows(|row, mut seen| {
        if row.name == "bit-flip-cold" {
            seen[0].checks.insert("D4".into(), Status::Pass);
        }
        seen
    });
    let names = [
        "drop-acked-write",
        "bit-flip-cold",
        "ack-stream-cut",
        "vss-self-thaw",
    ];
    Matrix {
        checks: ["D1", "D2", "D4", "T2"].map(str::to_owned).to_vec(),
        rows: rows
            .into_iter()
            .filter(|row| names.contains(&row.name.as_str()))
            .map(|mut row| {
                for seen in &mut row.seen {
                    seen.checks
                        .retain(|check, _| ["D1", "D2", "D4", "T2"].contains(&check.as_str()));
                }
                row
            })
            .collect(),
        gaps: vec![Gap::NeverRed("D4".into())],
        simulated: Some(Simulated {
            legal: 3,
            faulty: 3,
            false_failures: 0,
            misses: 1,
            families: vec![Family {
                name: "bit-flip".into(),
                ordained: vec!["D4".into()],
                planted: 3,
                caught: 1,
                elsewhere: 0,
                undetectable: 1,
            }],
            wrong: vec![
                "virtproof selftest --replay faulty:2: D4 had to fail, and said pass".into(),
            ],
        }),
    }
}

#[test]
fn the_matrix_is_shown_as_recorded() {
    insta::assert_snapshot!("table", table(&sample(), |_, text| text.to_owned()));
    insta::assert_snapshot!("html", html(&sample()).expect("renders"));
}

#[test]
fn every_scenario_has_a_control_in_which_nothing_is_planted() {
    for spec in crate::scenario::catalogue::catalogue() {
        let clean = |row: &&FaultSpec| row.how == crate::lab::faults::How::Clean;
        let mut rows = faults().filter(clean);
        assert!(rows.any(|row| row.scenario == spec.id), "{}", spec.id);
    }
}
