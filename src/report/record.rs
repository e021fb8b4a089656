//! The record of the exercise, as auditors ask for it: who, what exactly ran, what departed from the
//! plan, what the evidence is, and what is left for people to fill in.

use std::collections::BTreeMap;

use super::view::{Open, Preflight, Record};
use crate::check::verdict::{Status, Verdict};
use crate::history::event::{Event, Fact, Outcome, Reprotect};
use crate::history::read::History;
use crate::plan::Plan;

/// Draws up the record of a run.
pub(super) fn record(plan: &Plan, history: &History, verdicts: &[Verdict]) -> Record {
    let evidence = plan.evidence();
    let mut record = Record {
        invoker: evidence.invoker.clone(),
        approver: evidence.approver.clone(),
        change: evidence.change.clone(),
        findings: open(verdicts),
        ..Record::default()
    };
    for event in &history.events {
        absorb(&mut record, event);
    }
    if let Some(cut) = &history.truncated {
        record.deviations.push(cut.clone());
    }
    record
}

fn absorb(record: &mut Record, event: &Event) {
    match &event.fact {
        Fact::Tool {
            sha256,
            probe_blake3,
        } => {
            record.sha256.clone_from(sha256);
            record.probe_blake3 = Some(probe_blake3.clone());
        }
        Fact::RunStarted { plan_blake3, .. } => {
            put(&mut record.artefacts, "plan.yaml", plan_blake3);
        }
        Fact::Preflight { asked, missing } => {
            record.preflight = Some(Preflight {
                asked: *asked,
                missing: missing.clone(),
            });
        }
        Fact::SegmentClosed { segment, root, .. } => put(&mut record.artefacts, segment, root),
        Fact::Scanned { volumes, .. } => {
            for volume in volumes {
                put(&mut record.artefacts, &volume.file, &volume.blake3);
            }
        }
        Fact::StepEnded { step, outcome } => depart(record, event, step, outcome),
        Fact::TrialEnded { outcome } => depart(record, event, "the trial", outcome),
        Fact::RunEnded { reason } if reason != "completed" => {
            record.deviations.push(format!("the run ended: {reason}"));
        }
        _ => {}
    }
}

fn put(artefacts: &mut BTreeMap<String, String>, file: &str, digest: &str) {
    artefacts.insert(file.to_owned(), digest.to_owned());
}

/// Notes what did not go as planned, with its place.
fn depart(record: &mut Record, event: &Event, what: &str, outcome: &Outcome) {
    let (verb, why) = match outcome {
        Outcome::Ok => return,
        Outcome::Failed(why) => ("failed", why),
        Outcome::Unknown(why) => ("ended unknown", why),
        Outcome::Skipped(why) => ("was skipped", why),
    };
    let place = [event.trial.as_deref(), event.subject.as_deref()];
    let mut line: String = place
        .into_iter()
        .flatten()
        .flat_map(|part| [part, " "])
        .collect();
    line.extend([what, " ", verb, ": ", why]);
    record.deviations.push(line);
}

/// What is not passed, each to get an owner and a date.
fn open(verdicts: &[Verdict]) -> Vec<Open> {
    let open = verdicts.iter().filter(|v| v.status != Status::Pass);
    open.map(|verdict| Open {
        check: verdict.check.clone(),
        trial: verdict.trial.clone(),
        subject: verdict.subject.clone(),
        status: verdict.status,
        summary: verdict.summary.clone(),
        owner: String::new(),
        due: String::new(),
    })
    .collect()
}

/// How long the volumes of these events had no healthy replica: from the order to replicate the other
/// way until it had synced anew, seconds. `None` when either was not seen.
pub(super) fn unprotected(events: &[&Event]) -> Option<f64> {
    let at = |wanted: fn(&Reprotect) -> bool| {
        move |event: &&&Event| match &event.fact {
            Fact::Reprotection { progress, .. } => wanted(progress),
            _ => false,
        }
    };
    let ordered = events
        .iter()
        .find(at(|p| matches!(p, Reprotect::Ordered)))?;
    let restored = events
        .iter()
        .rfind(at(|p| matches!(p, Reprotect::Restored { .. })))?;
    Some(super::build::secs(
        restored.at_ns.checked_sub(ordered.at_ns)?,
    ))
}

/// How much of the volumes the last read-back of these events read, percent.
#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more than 52 bits"
)]
pub(super) fn coverage(events: &[&Event]) -> Option<f64> {
    /// Bytes of a ledger cell.
    const CELL: u64 = 4096;
    let volumes = events.iter().rev().find_map(|event| match &event.fact {
        Fact::Scanned { volumes, .. } => Some(volumes),
        _ => None,
    })?;
    let cells: u64 = volumes.iter().map(|volume| volume.size / CELL).sum();
    let read: u64 = volumes.iter().map(|volume| volume.read).sum();
    (cells > 0).then(|| read as f64 / cells as f64 * 100.0)
}
