//! Every check made to pass, to fail and to be unable to tell; legal histories under every seed; and
//! each planted fault with the check that must name it.

use proptest::prelude::*;

use super::testkit::*;
use super::verdict::Status::{self, Fail, Inconclusive, Pass};
use super::*;
use crate::history::acks::AckLog;
use crate::history::event::{Fact, Outcome, Residue, Site, Stage};
use crate::history::segment::Record;
use crate::probe::frame::{CellState, FromGuest};

mod cut;
mod database;
mod fence;
mod freeze;
mod growth;
mod hooks;
mod hotplug;
mod left;
mod lifecycle;
mod machine;
mod migration;
mod second;
mod table;
mod torn;

fn words(kit: &Kit) -> Vec<(String, Status, String)> {
    let verdicts = kit.judge().verdicts;
    verdicts
        .into_iter()
        .map(|v| (v.check, v.status, v.summary))
        .collect()
}

/// What does not pass of the checks that a move decides.
fn not_passed(kit: &Kit) -> Vec<(String, Status, String)> {
    let mut words = words(kit);
    words.retain(|(id, status, _)| MOVE.contains(&id.as_str()) && *status != Pass);
    words
}

#[test]
fn a_clean_move_passes_every_check() {
    let kit = Kit::relocate(3);
    assert_eq!(not_passed(&kit), []);
    assert_eq!(kit.judge().verdicts.len(), CATALOGUE.len());
    let mut kit = kit;
    kit.change(|fact| {
        if let Fact::TrialStarted { checks, .. } = fact {
            checks.retain(|id| MOVE.contains(&id.as_str()));
        }
    });
    assert_eq!(kit.judge().overall, Pass);
    assert_eq!(kit.judge().verdicts.len(), MOVE.len());
}

#[test]
fn a_clean_failover_passes_every_check_but_d1() {
    let kit = Kit::failover(3);
    let failed: Vec<_> = not_passed(&kit).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(
        failed,
        ["D1"],
        "an unplanned failover loses the tail: {:?}",
        not_passed(&kit)
    );
    let rpo = kit.verdict("R1");
    let measure = rpo
        .measures
        .iter()
        .find(|m| m.name == "rpo")
        .expect("measured");
    assert!(
        measure.low > 0.3 && measure.high < 1.2 && measure.high - measure.low < 0.2,
        "{measure:?}"
    );
}

#[test]
fn verdicts_are_the_same_bytes_each_time() {
    let kit = Kit::failover(5);
    let once = serde_json::to_string(&kit.judge()).expect("serialises");
    assert_eq!(
        once,
        serde_json::to_string(&kit.judge()).expect("serialises")
    );
    let back: Verdicts = serde_json::from_str(&once).expect("reads back");
    assert_eq!(back, kit.judge());
}

#[test]
fn nothing_passes_on_an_empty_history() {
    let empty = judge(&plan("{}"), &History::default());
    assert_eq!((empty.overall, empty.verdicts.len()), (Inconclusive, 0));
    let mut kit = Kit::relocate(3);
    kit.without(|fact| !matches!(fact, Fact::TrialStarted { .. }));
    let mut history = kit.history();
    history.incarnations.clear();
    history.scans.clear();
    let verdicts = judge(&kit.plan, &history);
    assert_eq!(verdicts.verdicts.len(), CATALOGUE.len());
    for verdict in verdicts.verdicts {
        assert_eq!(verdict.status, Inconclusive, "{verdict:?}");
    }
}

#[test]
fn a_trial_without_subjects_or_with_unknown_checks_is_no_pass() {
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::TrialStarted { checks, .. } = fact {
            checks.push("Z9".into());
        }
    });
    assert_eq!(kit.status("Z9"), Inconclusive);
    kit.change(|fact| {
        if let Fact::TrialStarted { subjects, .. } = fact {
            subjects.clear();
        }
    });
    assert!(
        words(&kit)
            .iter()
            .all(|(_, status, _)| *status == Inconclusive)
    );
    assert_eq!(words(&kit).len(), CATALOGUE.len() + 1);
}

#[test]
fn a_history_without_its_end_passes_nothing_and_still_fails() {
    let mut kit = Kit::relocate(3);
    kit.truncated = Some("events.jsonl does not end with the end of the run".into());
    assert!(
        words(&kit)
            .iter()
            .all(|(_, status, _)| *status == Inconclusive)
    );
    let write = kit.recent(false);
    let before = kit.before(&write);
    kit.disks[write.volume].insert(write.cell, before);
    assert_eq!(
        kit.status("D1"),
        Fail,
        "what was seen to be wrong stays wrong"
    );
}

#[test]
fn a_torn_segment_or_a_hole_in_the_stream_is_inconclusive() {
    let mut kit = Kit::relocate(3);
    kit.torn = Some("acks/x.seg has no end".into());
    for check in ["D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "G1"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
    let mut kit = Kit::relocate(3);
    let acks = kit
        .load
        .iter()
        .position(|r| matches!(r, Record::Frame { seq: 9, .. }));
    kit.load.remove(acks.expect("a frame"));
    for check in ["D1", "D2", "R1", "R2"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
}

#[test]
fn without_a_read_back_no_data_check_passes() {
    let mut kit = Kit::relocate(3);
    kit.scanned = false;
    for check in ["D1", "D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2", "G1"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
}

#[test]
fn skipped_interrupted_and_failed_trials_pass_nothing() {
    for outcome in [
        Outcome::Unknown("interrupted".into()),
        Outcome::Skipped("no class".into()),
    ] {
        let mut kit = Kit::relocate(3);
        kit.change(|fact| {
            if let Fact::TrialEnded { outcome: old } = fact {
                *old = outcome.clone();
            }
        });
        assert!(
            words(&kit)
                .iter()
                .all(|(_, status, _)| *status == Inconclusive)
        );
    }
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::TrialEnded { outcome } = fact {
            *outcome = Outcome::Failed("timed out".into());
        }
    });
    assert_eq!(kit.status("O1"), Fail);
}

#[test]
fn a_dropped_acked_write_is_d1_and_a_reordered_one_d2() {
    let mut kit = Kit::relocate(3);
    let write = kit.recent(false);
    let before = kit.before(&write);
    kit.disks[write.volume].insert(write.cell, before);
    let verdict = kit.verdict("D1");
    assert_eq!(verdict.status, Fail);
    assert!(
        verdict.witness[0].contains(&format!("write {}", write.wseq)),
        "{verdict:?}"
    );

    let mut kit = Kit::failover(3);
    // An early write goes missing while later ones of the same volume are there.
    let early = kit
        .writes
        .iter()
        .find(|w| kit.disks[w.volume].get(&w.cell) == Some(&state(w)));
    let early = early.expect("present").clone();
    let before = kit.before(&early);
    kit.disks[early.volume].insert(early.cell, before);
    let verdict = kit.verdict("D2");
    assert_eq!(verdict.status, Fail);
    assert!(
        verdict.witness[0].starts_with("missing: volume"),
        "{verdict:?}"
    );
    assert!(
        verdict.witness[1].starts_with("present: volume"),
        "{verdict:?}"
    );
    assert_eq!(kit.status("D3"), Fail);
}

#[test]
fn volumes_cut_at_different_times_are_d3_and_not_d2() {
    let mut kit = Kit::failover(3);
    let mut later = kit.clone();
    let last = kit
        .writes
        .iter()
        .filter(|w| w.ack != u64::MAX)
        .map(|w| w.ack)
        .max();
    later.cut(last.expect("acked") * 9 / 10, &mut Draw(9));
    kit.disks[1].clone_from(&later.disks[1]);
    assert_eq!(kit.status("D2"), Pass);
    assert_eq!(kit.status("D3"), Fail);
    assert_eq!(kit.status("D6"), Pass, "skew is not a stale extent");
}

#[test]
fn without_a_present_write_order_says_nothing() {
    let mut kit = Kit::failover(3);
    kit.cut(0, &mut Draw(3));
    for disk in &mut kit.disks {
        disk.retain(|_, state| {
            !matches!(
                state,
                CellState::Ok {
                    kind: crate::probe::cell::Kind::Hot | crate::probe::cell::Kind::Log,
                    ..
                }
            )
        });
    }
    let layouts = kit.layouts.clone();
    for (disk, layout) in kit.disks.iter_mut().zip(layouts) {
        for cell in layout.log.start..layout.hot.end {
            disk.entry(cell).or_insert(CellState::Zeroed);
        }
    }
    assert_eq!(kit.status("D2"), Inconclusive);
    assert_eq!(kit.status("D3"), Inconclusive);
}

#[test]
fn a_torn_cell_is_d4_unless_its_write_was_under_way() {
    let torn = |write: &Made| CellState::Torn {
        sectors: 0x0F,
        wseq: write.wseq,
        writer: write.writer,
    };
    let mut kit = Kit::relocate(3);
    let write = kit.recent(false);
    kit.disks[write.volume].insert(write.cell, torn(&write));
    assert_eq!(kit.status("D4"), Fail);
    assert_eq!(kit.status("D1"), Fail);

    // Control: the last write of a hot writer was never acked.
    let mut kit = Kit::relocate(3);
    let flying = kit
        .writes
        .iter()
        .find(|w| w.ack == u64::MAX)
        .expect("in flight")
        .clone();
    kit.disks[flying.volume].insert(flying.cell, torn(&flying));
    assert_eq!(not_passed(&kit), []);

    // In a failover the write may have been acked later than the point that came back, if it was
    // issued before.
    let mut kit = Kit::failover(3);
    let last = kit.ranks.len() as u64 * 4 / 5;
    let under_way = |w: &&Made| w.dep <= last && last < w.ack;
    let after = kit.writes.iter().find(under_way);
    let after = after.expect("under way").clone();
    kit.disks[after.volume].insert(after.cell, torn(&after));
    assert_eq!(kit.status("D4"), Pass);
    // A torn cell that no writer of the ledger addresses is damage.
    kit.disks[after.volume].insert(
        after.cell,
        CellState::Torn {
            sectors: 1,
            wseq: 1,
            writer: 77,
        },
    );
    assert_eq!(kit.status("D4"), Fail);
}

#[test]
fn flipped_misdirected_swapped_and_foreign_cells_are_named() {
    let mut kit = Kit::relocate(3);
    kit.disks[0].insert(0, CellState::Corrupt);
    assert_eq!(kit.status("D4"), Fail);
    assert_eq!(kit.status("D7"), Pass);

    let mut kit = Kit::relocate(3);
    let cell = kit.layouts[0].hot.start + 8;
    kit.disks[0].insert(
        cell,
        CellState::Misdirected {
            same_volume: true,
            cell: cell - 8,
            vol: 0,
        },
    );
    assert_eq!(kit.status("D5"), Fail);
    assert_eq!(kit.status("G1"), Pass);

    let mut kit = Kit::relocate(3);
    for (index, other) in [(0, 1), (1, 0)] {
        let cells: Vec<u64> = kit.disks[index].keys().copied().collect();
        for cell in cells {
            let vol = 0;
            let state = CellState::Misdirected {
                same_volume: false,
                cell,
                vol,
            };
            kit.disks[index].insert(cell, state);
        }
        assert!(other < 2);
    }
    let verdict = kit.verdict("D5");
    assert!(
        verdict.status == Fail && verdict.summary.contains("volume 0 and 1"),
        "{verdict:?}"
    );

    let mut kit = Kit::relocate(3);
    kit.disks[1].insert(0, CellState::Foreign { run: 5 });
    assert_eq!(kit.status("D6"), Fail);
}

#[test]
fn cells_that_nothing_can_have_written_are_d6() {
    let mut kit = Kit::relocate(3);
    let write = kit.recent(false);
    let mut stranger = state(&write);
    if let CellState::Ok { incarnation, .. } = &mut stranger {
        *incarnation = 0xDEAD;
    }
    kit.disks[write.volume].insert(write.cell, stranger);
    assert_eq!(kit.status("D6"), Fail);

    let mut kit = Kit::relocate(3);
    let free = (kit.layouts[0].hot.clone())
        .find(|cell| *cell != write.cell)
        .expect("a cell");
    let mut misplaced = state(&write);
    if let CellState::Ok { wseq, .. } = &mut misplaced {
        *wseq += 100_000;
    }
    kit.disks[0].insert(free, misplaced);
    assert_eq!(kit.status("D6"), Fail);
}

#[test]
fn an_extent_kept_from_an_older_point_is_d6() {
    for mut kit in [Kit::relocate(3), Kit::failover(3)] {
        let mut older = kit.clone();
        let last = kit
            .writes
            .iter()
            .filter(|w| w.ack != u64::MAX)
            .map(|w| w.ack)
            .max();
        older.cut(last.expect("acked") / 3, &mut Draw(4));
        let log = kit.layouts[0].log.clone();
        for cell in log.start..log.start + 8 {
            kit.disks[0].insert(cell, older.disks[0][&cell]);
        }
        let verdict = kit.verdict("D6");
        assert_eq!(verdict.status, Fail, "{verdict:?}");
        assert!(
            verdict.witness[0].contains("older than the point"),
            "{verdict:?}"
        );
    }
}

/// The load ran on volumes that already carried an earlier load's data.
fn second_life(spoil: impl Fn(u64, CellState) -> CellState) -> History {
    const OLD: u64 = 0x0000_0001_0000_0077;
    let mut kit = Kit::failover(3);
    kit.cut(12, &mut Draw(3));
    let layouts = kit.layouts.clone();
    for (volume, layout) in (0u64..).zip(&layouts) {
        let disk = &mut kit.disks[usize::try_from(volume).expect("small")];
        for cell in layout.log.clone() {
            // The log ring's second lap: position p of volume v is write 2p + v + 1 of each lap.
            let wseq = 2 * (cell - layout.log.start) + volume + 1 + 32;
            let old = CellState::Ok {
                kind: crate::probe::cell::Kind::Log,
                incarnation: OLD,
                writer: 0,
                wseq,
                dep: 0,
                token: 0,
            };
            if disk[&cell] == CellState::Zeroed {
                disk.insert(cell, old);
            }
        }
    }
    let mut history = kit.history();
    let mut base = history.scans[0].clone();
    base.seq = 0;
    base.trial = Some("t0".into());
    for volume in &mut base.volumes {
        // Before the load there was none of its data.
        for seen in &mut volume.cells {
            if matches!(seen.state, CellState::Ok { incarnation, .. } if incarnation == LOAD) {
                seen.state = CellState::Zeroed;
            }
        }
    }
    history.scans.insert(0, base);
    let mut old = history.incarnations[0].clone();
    old.name = format!("{OLD:016x}");
    (old.number, old.seq) = (OLD, 0);
    old.trial = Some("t0".into());
    history.incarnations.insert(0, old);
    let scan = &mut history.scans[1];
    scan.judges.insert(0, format!("{OLD:016x}"));
    for seen in scan.volumes.iter_mut().flat_map(|v| &mut v.cells) {
        seen.state = spoil(seen.cell, seen.state);
    }
    history
}

#[test]
fn what_was_there_before_the_load_must_not_go_back() {
    let plan = plan("{rpo: 10s}");
    let status = |history: &History, id: &str| {
        let verdicts = judge(&plan, history).verdicts;
        verdicts
            .into_iter()
            .find(|v| v.check == id)
            .map(|v| v.status)
    };
    let whole = second_life(|_, state| state);
    for check in ["D2", "D3", "D4", "D5", "D6", "D7"] {
        assert_eq!(status(&whole, check), Some(Pass), "{check}");
    }
    let gone = second_life(|_, mut state| {
        if let CellState::Ok {
            writer: 0, wseq, ..
        } = &mut state
            && *wseq == 61
        {
            *wseq = 29;
        }
        state
    });
    assert_eq!(status(&gone, "D2"), Some(Fail));
    assert_eq!(status(&gone, "D6"), Some(Fail));
}

#[test]
fn an_older_point_as_a_whole_is_not_a_stale_extent() {
    let mut kit = Kit::relocate(3);
    kit.cut(300, &mut Draw(3));
    assert_eq!(kit.status("D1"), Fail);
    assert_eq!(kit.status("D2"), Pass);
    assert_eq!(kit.status("D6"), Pass);
    assert_eq!(kit.status("D7"), Pass);
}

#[test]
fn lost_cold_cells_zero_extents_and_changed_sizes_are_d7() {
    let mut kit = Kit::relocate(3);
    let cold = kit.layouts[1].cold.start;
    kit.disks[1].insert(cold, CellState::Zeroed);
    assert_eq!(kit.status("D7"), Fail);

    let mut kit = Kit::relocate(3);
    let log = kit.layouts[0].log.clone();
    for cell in log.start..log.start + 8 {
        kit.disks[0].insert(cell, CellState::Zeroed);
    }
    let verdict = kit.verdict("D7");
    assert_eq!(verdict.status, Fail);
    assert!(
        verdict.witness[0].contains("written cells are zero"),
        "{verdict:?}"
    );
    assert_eq!(kit.status("D6"), Pass);

    for size in [255, 257, 512] {
        let mut kit = Kit::relocate(3);
        kit.sizes[0] = size * 4096;
        assert_eq!(kit.status("D7"), Fail);
    }
    let mut kit = Kit::relocate(3);
    let hot = kit.layouts[0].hot.start;
    kit.disks[0].insert(hot, CellState::Unreadable { errno: 5 });
    assert_eq!(kit.status("D7"), Fail);

    // An empty volume in place of the replica.
    let mut kit = Kit::relocate(3);
    kit.disks[0]
        .values_mut()
        .for_each(|state| *state = CellState::Zeroed);
    assert_eq!(kit.status("D7"), Fail);
    assert_eq!(kit.status("D1"), Fail);

    // Not filled, as far as the host heard.
    let mut kit = Kit::relocate(3);
    let mut acks: Vec<Record> = kit.load.clone();
    acks.retain(|record| !is_fill(record));
    kit.load = renumber(acks);
    assert_eq!(kit.status("D7"), Inconclusive);
}

fn decode(record: &Record) -> Option<FromGuest> {
    let Record::Frame { bytes, .. } = record else {
        return None;
    };
    let raw = crate::probe::wire::Raw::parse(bytes).expect("a frame");
    Some(FromGuest::decode(&raw).expect("decodes"))
}

fn is_fill(record: &Record) -> bool {
    matches!(decode(record), Some(FromGuest::Filled { .. }))
}

fn renumber(records: Vec<Record>) -> Vec<Record> {
    let mut next = 0;
    records
        .into_iter()
        .map(|record| match (decode(&record), record) {
            (Some(frame), Record::Frame { at_ns, .. }) => {
                next += 1;
                Record::Frame {
                    at_ns,
                    seq: next,
                    bytes: frame.encode(next),
                }
            }
            (_, other) => other,
        })
        .collect()
}

#[test]
fn missing_cells_in_a_read_back_are_inconclusive() {
    let mut kit = Kit::relocate(3);
    let hot = kit.layouts[0].hot.start;
    kit.disks[0].remove(&hot);
    for check in ["D1", "D2", "D3", "D6", "D7"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
    let mut kit = Kit::relocate(3);
    kit.disks[0].remove(&0);
    assert_eq!(kit.status("D7"), Inconclusive);
}

#[test]
fn the_loss_is_judged_by_its_bracket() {
    let mut kit = Kit::failover(3);
    assert_eq!(kit.status("R1"), Pass);
    kit.plan = plan("{rpo: 100ms}");
    assert_eq!(kit.status("R1"), Fail);
    let rpo = kit.verdict("R1").measures[0].clone();
    let inside = f64::midpoint(rpo.low, rpo.high) * 1000.0;
    kit.plan = plan(&format!("{{rpo: {inside:.0}ms}}"));
    assert_eq!(kit.status("R1"), Inconclusive, "{rpo:?}");
    kit.plan = plan("{}");
    let verdict = kit.verdict("R1");
    assert_eq!(verdict.status, Pass);
    assert!(
        verdict.measures[0].target == Some(4.0),
        "twice the interval"
    );
}

#[test]
fn loss_needs_hearing_and_a_rate() {
    // The stream breaks three seconds before the fault.
    let mut kit = Kit::failover(3);
    kit.load
        .retain(|record| record.at_ns() < FAULT - 2_500 * MS);
    assert_eq!(kit.status("R1"), Inconclusive);
    let mut kit = Kit::failover(3);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::StageReached {
                stage: Stage::Fault
            }
        )
    });
    assert_eq!(kit.status("R1"), Inconclusive, "no fault, no loss");
    // A fault that only a Fault event tells of.
    kit.add(
        FAULT,
        Fact::Fault {
            name: "power-off".into(),
            site: Some(Site::Primary),
            active: true,
            detail: String::new(),
        },
    );
    assert_eq!(kit.status("R1"), Pass);
}

#[test]
fn a_claimed_sync_must_hold() {
    let pvcs: Vec<String> = vec!["root".into(), "pvc-0".into(), "pvc-1".into()];
    let mut kit = Kit::failover(3);
    kit.cut(100, &mut Draw(3));
    assert_eq!(kit.status("R2"), Fail, "an older point than claimed");
    let mut kit = Kit::failover(3);
    kit.without(|fact| matches!(fact, Fact::Replication { .. }));
    assert_eq!(kit.status("R2"), Inconclusive);
    let mut kit = Kit::failover(3);
    kit.without(|fact| matches!(fact, Fact::SiteSeen { .. }));
    assert_eq!(kit.status("R2"), Inconclusive, "clocks were never compared");
    // A claim from before the load owes nothing.
    let mut kit = Kit::failover(3);
    kit.without(|fact| matches!(fact, Fact::Replication { .. }));
    kit.add(
        FAULT - 100 * MS,
        replication(Site::Primary, &pvcs, Some(second(MS))),
    );
    assert_eq!(kit.status("R2"), Inconclusive);
    // A claim that was made after the promotion is not counted.
    kit.add(
        FAULT + 900 * MS,
        replication(Site::Secondary, &pvcs, Some(second(FAULT + 800 * MS))),
    );
    assert_eq!(kit.status("R2"), Inconclusive);
}

#[test]
fn clock_skew_moves_the_claim_and_its_bound_widens_it() {
    let skewed = |ms: i64, bound: u64| {
        let mut kit = Kit::failover(3);
        // The point that came back is at about 3.4 s; the site claims 4 s by its own clock.
        kit.change(|fact| match fact {
            Fact::SiteSeen {
                clock_skew_ms,
                clock_bound_ms,
                ..
            } => {
                *clock_skew_ms = ms;
                *clock_bound_ms = bound;
            }
            Fact::Replication {
                site: Site::Primary,
                volumes,
            } => {
                for volume in volumes {
                    volume.last_sync_time = Some(second(FAULT));
                }
            }
            _ => {}
        });
        kit.status("R2")
    };
    assert_eq!(skewed(0, 2), Fail);
    assert_eq!(skewed(2_000, 2), Pass, "its clock is two seconds ahead");
    assert_eq!(skewed(0, 2_000), Pass, "or may be");
    assert_eq!(skewed(-300_000, 2), Fail);
}

#[test]
fn the_outage_is_judged_by_its_bracket() {
    let mut kit = Kit::failover(3);
    let verdict = kit.verdict("T1");
    let rto = verdict
        .measures
        .iter()
        .find(|m| m.name == "rto")
        .expect("measured");
    assert!(rto.low > 2.9 && rto.high < 3.2, "{rto:?}");
    kit.plan = plan("{rto: 2s}");
    assert_eq!(kit.status("T1"), Fail);
    kit.plan = plan("{rto: 3s}");
    assert_eq!(kit.status("T1"), Inconclusive);
    kit.plan = plan("{}");
    assert_eq!(kit.status("T1"), Pass);
    let mut kit = Kit::failover(3);
    kit.verify.clear();
    assert_eq!(kit.status("T1"), Inconclusive, "never came back");
}

#[test]
fn stages_must_be_all_there_in_order_and_close() {
    let mut kit = Kit::failover(3);
    kit.without(|fact| {
        matches!(
            fact,
            Fact::StageReached {
                stage: Stage::SshAuth
            }
        )
    });
    assert_eq!(kit.status("T2"), Inconclusive);
    kit.add(
        FAULT + 100 * MS,
        Fact::StageReached {
            stage: Stage::SshAuth,
        },
    );
    assert_eq!(kit.status("T2"), Inconclusive, "out of order");
    let said_at = |ms: u64| {
        let mut kit = Kit::failover(3);
        let stage = Stage::FirstAck;
        kit.without(|fact| matches!(fact, Fact::StageReached { stage: told } if *told == stage));
        kit.add(FAULT + ms * MS, Fact::StageReached { stage });
        kit.status("T2")
    };
    assert_eq!(
        said_at(2_850),
        Inconclusive,
        "what came before the ack is not accounted for"
    );
    assert_eq!(
        said_at(4_000),
        Pass,
        "who notices late changes nothing of what is on record"
    );
    let mut kit = Kit::failover(3);
    kit.hear_at_once(FAULT - 300 * MS..FAULT + 100 * MS);
    assert_eq!(
        kit.status("T2"),
        Inconclusive,
        "silent before the fault as never before"
    );
    kit.hear_at_once(FAULT - 800 * MS..FAULT - 450 * MS);
    assert_eq!(kit.status("T2"), Pass, "what is heard comes in pieces");
    let verdict = Kit::failover(3).verdict("T2");
    let promoted = verdict
        .measures
        .iter()
        .find(|m| m.name == "rto.promoted")
        .expect("measured");
    assert!((promoted.low - 0.1).abs() < 1e-6, "{promoted:?}");
}

#[test]
fn acks_of_the_old_side_after_the_new_one_are_s1() {
    let late = |kit: &mut Kit, at: u64| {
        let last = kit.history().incarnations[0].acks.last_rank();
        let seq = 1 + kit
            .load
            .iter()
            .filter(|r| matches!(r, Record::Frame { .. }))
            .count() as u64;
        let frame = FromGuest::Ack(crate::probe::frame::Ack {
            first_rank: last + 1,
            ranks: vec![crate::probe::frame::Rank {
                marks: vec![(0, 100_000)],
            }],
            mono_ns: 0,
            real_ns: 0,
            token: 777,
            max_gap_ns: 0,
        });
        kit.load.push(Record::Token {
            at_ns: at - MS,
            n: 777,
        });
        kit.load.push(Record::Frame {
            at_ns: at,
            seq,
            bytes: frame.encode(seq),
        });
    };
    let mut kit = Kit::failover(3);
    late(&mut kit, FAULT + 4_000 * MS);
    let verdict = kit.verdict("S1");
    assert_eq!(verdict.status, Fail);
    assert_eq!(verdict.witness.len(), 2);
    let mut kit = Kit::failover(3);
    late(&mut kit, FAULT + 2_000 * MS);
    assert_eq!(kit.status("S1"), Pass, "before the new side began");
}

#[test]
fn silence_of_the_old_side_needs_a_reason() {
    let mut kit = Kit::failover(3);
    kit.without(|fact| matches!(fact, Fact::Fencing { .. }));
    assert_eq!(kit.status("S1"), Inconclusive);
    let off = |active| Fact::Fault {
        name: "power-off".into(),
        site: Some(Site::Primary),
        active,
        detail: String::new(),
    };
    kit.add(FAULT, off(true));
    assert_eq!(kit.status("S1"), Pass);
    kit.add(FAULT + 200 * MS, off(false));
    assert_eq!(
        kit.status("S1"),
        Inconclusive,
        "it was healed before the new side began"
    );
    // Listened to all along.
    let frames = kit
        .load
        .iter()
        .filter(|r| matches!(r, Record::Frame { .. }))
        .count() as u64;
    for n in 1..=4 {
        let alive = FromGuest::Alive {
            mono_ns: 0,
            token: 0,
        };
        let at_ns = FAULT + n * 1_000 * MS;
        kit.load.push(Record::Frame {
            at_ns,
            seq: 0,
            bytes: alive.encode(0),
        });
    }
    assert!(frames > 0);
    assert_eq!(kit.status("S1"), Pass);
    // Said to be stopped and seen running.
    let mut kit = Kit::failover(3);
    kit.add(FAULT + 3_500 * MS, running(Site::Primary));
    assert_eq!(kit.status("S1"), Inconclusive);
    // Back there after the new side's last word.
    let mut kit = Kit::failover(3);
    kit.add(FAULT + 60_000 * MS, running(Site::Primary));
    assert_eq!(kit.status("S1"), Pass);
    // Back there because its site was promoted again.
    let mut kit = Kit::failover(3);
    let gate = Fact::Gate {
        site: Site::Primary,
        forced: false,
        open: true,
        why: String::new(),
    };
    kit.add(FAULT + 3_300 * MS, gate);
    kit.add(FAULT + 3_400 * MS, running(Site::Primary));
    assert_eq!(kit.status("S1"), Pass);
    // One site only.
    let mut kit = Kit::failover(3);
    kit.verify_site = Site::Primary;
    assert_eq!(kit.status("S1"), Inconclusive);
}

#[test]
fn steps_gates_boots_and_the_vm_are_o1() {
    type Spoil = fn(&mut Kit);
    let outcomes: [(&str, Spoil); 5] = [
        ("step", |kit| {
            kit.change(|fact| {
                if let Fact::StepEnded { outcome, .. } = fact {
                    *outcome = Outcome::Failed("no".into());
                }
            });
        }),
        ("unended step", |kit| {
            kit.add(
                5,
                Fact::StepStarted {
                    step: "other".into(),
                },
            );
        }),
        ("gate", |kit| {
            kit.change(|fact| {
                if let Fact::Gate { open, .. } = fact {
                    *open = false;
                }
            });
        }),
        ("halted", |kit| {
            kit.change(|fact| {
                if let Fact::Vm { phase, .. } = fact {
                    phase.clear();
                }
            });
        }),
        ("migrated by rebooting", |kit| {
            *kit = Kit::migrated(3, 300, 0);
            assert_eq!(kit.status("O1"), Pass);
            kit.verify_boot = "another";
        }),
    ];
    for (name, spoil) in outcomes {
        let mut kit = Kit::relocate(3);
        spoil(&mut kit);
        assert_eq!(kit.status("O1"), Fail, "{name}");
    }
    let mut kit = Kit::relocate(3);
    kit.without(|fact| matches!(fact, Fact::Vm { .. }));
    assert_eq!(kit.status("O1"), Inconclusive);
    let mut kit = Kit::relocate(3);
    kit.without(|fact| matches!(fact, Fact::TrialEnded { .. }));
    assert_eq!(kit.status("O1"), Inconclusive);
}

#[test]
fn unprotected_and_exchanged_claims_are_o2() {
    type Spoil = fn(&mut Fact);
    let spoils: [(&str, Spoil); 5] = [
        ("no object", |fact| {
            if let Fact::Replication { volumes, .. } = fact {
                volumes.retain(|v| v.pvc != "pvc-1");
            }
        }),
        ("not primary", |fact| {
            if let Fact::Replication { volumes, .. } = fact {
                volumes[1].state = "Unknown".into();
            }
        }),
        ("never synced", |fact| {
            if let Fact::Replication { volumes, .. } = fact {
                volumes[1].last_sync_time = None;
            }
        }),
        ("stale status", |fact| {
            if let Fact::Replication { volumes, .. } = fact {
                volumes[0].current = false;
            }
        }),
        ("fresh volume", |fact| {
            if let Fact::Claim { pvc, handle, .. } = fact
                && pvc == "pvc-0"
            {
                *handle = "west-new".into();
            }
        }),
    ];
    for (name, spoil) in spoils {
        let mut kit = Kit::relocate(3);
        kit.change(spoil);
        assert_eq!(kit.status("O2"), Fail, "{name}");
    }
    for gone in ["claim", "replication"] {
        let mut kit = Kit::relocate(3);
        kit.without(|fact| match fact {
            Fact::Claim { .. } => gone == "claim",
            Fact::Replication { .. } => gone == "replication",
            _ => false,
        });
        assert_eq!(kit.status("O2"), Inconclusive, "no {gone}");
    }
}

#[test]
fn residue_is_o4_and_an_unswept_site_is_no_pass() {
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::Swept { residue, .. } = fact {
            residue.push(Residue {
                site: Site::Primary,
                kind: "v1/PersistentVolumeClaim".into(),
                name: "ns/pvc-0".into(),
                why: "finalizer".into(),
            });
        }
    });
    let verdict = kit.verdict("O4");
    assert_eq!((verdict.status, verdict.subject.as_str()), (Fail, ""));
    let heal = |outcome| Fact::StepEnded {
        step: "heal".into(),
        outcome,
    };
    let late = FAULT + 6_999 * MS;
    kit.add(late, heal(Outcome::Failed("it keeps its finalizer".into())));
    assert_eq!(kit.status("O4"), Fail);
    // No API took the orders to remove it, so nobody knows whether it can be removed.
    kit.change(|fact| {
        if let Fact::StepEnded { step, outcome } = fact
            && step == "heal"
        {
            *outcome = Outcome::Unknown("HTTP 429".into());
        }
    });
    assert_eq!(kit.status("O4"), Inconclusive);
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::Swept { sites, .. } = fact {
            sites.pop();
        }
    });
    assert_eq!(kit.status("O4"), Inconclusive);
    kit.without(|fact| matches!(fact, Fact::Swept { .. }));
    assert_eq!(kit.status("O4"), Inconclusive);
}

#[test]
fn another_guest_is_g1() {
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::Guest {
            host_key_pinned, ..
        } = fact
        {
            *host_key_pinned = host_key_pinned.map(|_| false);
        }
    });
    // New keys on a root disk whose machine id is the one before: cloud-init made them.
    assert_eq!(kit.status("G1"), Pass);
    let limits = kit.verdict("G1").limits;
    assert!(
        limits
            .iter()
            .any(|limit| limit.contains("new SSH host key"))
    );
    kit.change(|fact| {
        if let Fact::Guest { machine_id, .. } = fact {
            machine_id.clear();
        }
    });
    assert_eq!(kit.status("G1"), Fail);
    let mut kit = Kit::relocate(3);
    kit.change(|fact| {
        if let Fact::Guest {
            site: Site::Secondary,
            machine_id,
            ..
        } = fact
        {
            *machine_id = "other".into();
        }
    });
    assert_eq!(kit.status("G1"), Fail);
    // With a throw-away root disk the machine id is new on each boot.
    kit.change(|fact| {
        if let Fact::SubjectCreated { pvcs, .. } = fact {
            pvcs.retain(|pvc| pvc != "root");
        }
    });
    assert_eq!(kit.status("G1"), Pass);
    let mut kit = Kit::relocate(3);
    for disk in &mut kit.disks {
        for (cell, state) in disk {
            *state = CellState::Misdirected {
                same_volume: false,
                cell: *cell,
                vol: 0x1234,
            };
        }
    }
    assert_eq!(kit.status("G1"), Fail);
    let mut kit = Kit::relocate(3);
    kit.disks
        .iter_mut()
        .flat_map(|disk| disk.values_mut())
        .for_each(|state| *state = CellState::Corrupt);
    assert_eq!(
        kit.status("G1"),
        Inconclusive,
        "nothing whole says whose they are"
    );
    let mut kit = Kit::relocate(3);
    kit.without(|fact| matches!(fact, Fact::Guest { .. }));
    assert_eq!(kit.status("G1"), Inconclusive);
}

/// The checks that judge the data of a failover.
const DATA: [&str; 8] = ["D2", "D3", "D4", "D5", "D6", "D7", "R1", "R2"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No legal image is ever called anything but good, strict or batched.
    #[test]
    fn legal_cuts_never_fail(seed in any::<u64>(), batch in 0u64..12, at in 70u64..100) {
        let mut kit = Kit::failover_batched(seed, batch);
        let last = kit.writes.iter().filter(|w| w.ack != u64::MAX).map(|w| w.ack).max();
        kit.cut(last.expect("acked") * at / 100, &mut Draw(seed));
        let verdicts = kit.judge();
        for check in DATA {
            let verdict = verdicts.verdicts.iter().find(|v| v.check == check).expect("a verdict");
            prop_assert_eq!(verdict.status, Pass, "{:?}", verdict);
        }
    }

    #[test]
    fn planned_moves_that_lose_nothing_pass(seed in any::<u64>()) {
        prop_assert_eq!(not_passed(&Kit::relocate(seed)), []);
    }

    /// Any acked write that was the last on its cell and is taken away fails D1.
    #[test]
    fn each_lost_acked_write_is_d1(seed in any::<u64>(), pick in any::<prop::sample::Index>()) {
        let mut kit = Kit::relocate(seed);
        let last: Vec<Made> = kit.writes.iter()
            .filter(|w| w.ack != u64::MAX && kit.disks[w.volume].get(&w.cell) == Some(&state(w)))
            .cloned()
            .collect();
        let write = pick.get(&last);
        let before = kit.before(write);
        kit.disks[write.volume].insert(write.cell, before);
        prop_assert_eq!(kit.status("D1"), Fail);
    }

    /// Damage of any kind, anywhere in the written regions, fails its own check.
    #[test]
    fn each_damage_has_its_name(seed in any::<u64>(), volume in 0usize..2, cell in any::<prop::sample::Index>(), kind in 0usize..5) {
        let mut kit = Kit::failover(seed);
        let cells: Vec<u64> = kit.disks[volume].keys().copied().collect();
        let cell = *cell.get(&cells);
        let (state, check) = [
            (CellState::Corrupt, "D4"),
            (CellState::Misdirected { same_volume: true, cell: cell ^ 1, vol: 1 }, "D5"),
            (CellState::Foreign { run: 9 }, "D6"),
            (CellState::Unreadable { errno: 5 }, "D7"),
            (CellState::Torn { sectors: 3, wseq: 1, writer: 0xFFFF }, "D4"),
        ][kind];
        kit.disks[volume].insert(cell, state);
        prop_assert_eq!(kit.status(check), Fail);
    }

    /// Whatever the events and cells say, there is an answer.
    #[test]
    fn no_history_makes_a_check_panic(seed in any::<u64>(), gone in any::<u64>(), cut in any::<u64>()) {
        let mut kit = Kit::failover_batched(seed, cut % 5);
        let mut at = 0u32;
        kit.facts.retain(|_| { at += 1; gone >> (at % 64) & 1 == 0 });
        let mut draw = Draw(cut);
        for disk in &mut kit.disks {
            for state in disk.values_mut() {
                if draw.below(4) == 0 {
                    *state = CellState::Ok {
                        kind: crate::probe::cell::Kind::Hot,
                        incarnation: if draw.below(2) == 0 { LOAD } else { draw.below(u64::MAX) },
                        writer: u32::try_from(draw.below(1 << 32)).expect("fits"),
                        wseq: u64::MAX - draw.below(3),
                        dep: u64::MAX - draw.below(3),
                        token: u32::MAX,
                    };
                }
            }
            let cells: Vec<u64> = disk.keys().copied().collect();
            if draw.below(2) == 0 {
                disk.remove(&cells[usize::try_from(draw.below(cells.len() as u64)).expect("fits")]);
            }
        }
        let verdicts = kit.judge();
        prop_assert!(verdicts.verdicts.len() <= CATALOGUE.len());
    }
}

#[test]
fn an_empty_stream_proves_nothing() {
    let mut kit = Kit::relocate(3);
    kit.load.clear();
    assert_eq!(kit.history().incarnations[0].acks, AckLog::default());
    for check in ["D1", "D2", "D3", "D7", "R1", "R2", "T1", "S1"] {
        assert_eq!(kit.status(check), Inconclusive, "{check}");
    }
}
