//! O1: did the scenario come to its end as ordered, with the VM running where it should?

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Fact, Outcome, Purpose, Site};
use crate::history::read::Incarnation;

/// O1.
pub(super) fn check(case: &Case<'_>) -> Finding {
    match case.trial.outcome {
        Some(Outcome::Failed(why)) => {
            let (mut bad, unsure) = steps(case);
            bad.extend(unsure);
            return Finding::fail(format!("the trial failed: {why}")).witnesses(&bad);
        }
        Some(Outcome::Ok) => {}
        Some(Outcome::Unknown(_) | Outcome::Skipped(_)) | None => {
            return Finding::unsure(case.trial.unfinished().unwrap_or_default());
        }
    }
    let (mut bad, unsure) = steps(case);
    bad.extend(gates(case));
    bad.extend(boots(case));
    let running = running(case);
    if let Err(Some(why)) = &running {
        bad.push(why.clone());
    }
    if !bad.is_empty() {
        return Finding::fail("the trial ended, but not as ordered").witnesses(&bad);
    }
    if !unsure.is_empty() {
        return Finding::unsure("not every step is known to have been done").witnesses(&unsure);
    }
    let done = case
        .events()
        .filter(|event| matches!(event.fact, Fact::StepEnded { .. }))
        .count();
    match running {
        Ok(seq) if done > 0 => Finding::pass(format!(
            "all {done} steps are done and the VM runs, event {seq}"
        )),
        Ok(_) => Finding::unsure("the history names no step"),
        Err(_) => Finding::unsure("nobody looked whether the VM runs at the end"),
    }
}

/// Steps that did not end well, or did not end; and those of which nobody knows.
fn steps(case: &Case<'_>) -> (Vec<String>, Vec<String>) {
    let mut open: Vec<&str> = Vec::new();
    let (mut bad, mut unsure) = (Vec::new(), Vec::new());
    for event in case.events() {
        match &event.fact {
            Fact::StepStarted { step } => open.push(step),
            Fact::StepEnded { step, outcome } => {
                if let Some(at) = open.iter().rposition(|started| started == step) {
                    open.remove(at);
                }
                match outcome {
                    Outcome::Ok | Outcome::Skipped(_) => {}
                    Outcome::Failed(why) => bad.push(format!("step {step} failed: {why}")),
                    Outcome::Unknown(why) => {
                        unsure.push(format!("step {step} is uncertain: {why}"));
                    }
                }
            }
            _ => {}
        }
    }
    bad.extend(open.iter().map(|step| format!("step {step} did not end")));
    (bad, unsure)
}

/// Sites whose last gate decision was not to promote.
fn gates(case: &Case<'_>) -> Vec<String> {
    [Site::Primary, Site::Secondary]
        .into_iter()
        .filter_map(|wanted| {
            let last = case.events().filter_map(|event| match &event.fact {
                Fact::Gate {
                    site, open, why, ..
                } if *site == wanted => Some((*open, why)),
                _ => None,
            });
            match last.last() {
                Some((false, why)) => Some(format!("the gate of the {wanted} stayed shut: {why}")),
                _ => None,
            }
        })
        .collect()
}

/// The event that shows the VM running on its target. `Err(None)` if nobody looked.
fn running(case: &Case<'_>) -> Result<u64, Option<String>> {
    let target = case.target().ok_or(None)?;
    let seen = case.events().filter_map(|event| match &event.fact {
        Fact::Vm {
            site,
            status,
            phase,
            ..
        } if *site == target => Some((event.seq, status, phase)),
        _ => None,
    });
    let (seq, status, phase) = seen.last().ok_or(None)?;
    if phase == "Running" {
        Ok(seq)
    } else {
        Err(Some(format!(
            "the VM on the {target} is {status:?}, its VMI {phase:?}, event {seq}"
        )))
    }
}

/// Boots where the scenario's kind says there are some, and none where a VM must live on: read-backs
/// by the same kernel could come from its cache, a new kernel after a migration is a crash. A VM that
/// is read back on the other site was started there.
fn boots(case: &Case<'_>) -> Option<String> {
    let family = case.trial.scenario.split('.').next().unwrap_or_default();
    let lives: Vec<&Incarnation> = case.incarnations().collect();
    let last = lives.iter().rfind(|life| life.purpose == Purpose::Verify)?;
    let before = lives
        .iter()
        .rfind(|life| life.purpose == Purpose::Load && life.seq < last.seq)?;
    let fresh = match family {
        "migrate" | "storage" => before.site != last.site,
        "boot" | "lifecycle" | "relocate" | "failover" | "failback" => true,
        _ => return None,
    };
    let same = before.identity.boot_id == last.identity.boot_id;
    (same == fresh).then(|| {
        let word = if fresh {
            "the guest was read back by the boot that wrote"
        } else {
            "the guest rebooted"
        };
        format!(
            "{word}: boot id {} while writing, {} while reading",
            before.identity.boot_id, last.identity.boot_id
        )
    })
}
