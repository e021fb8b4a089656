//! Whether a run came out as its row ordains.

use serde::{Deserialize, Serialize};

use super::seen::Seen;
use crate::check::verdict::Status;
use crate::lab::faults::{FaultSpec, Ordained};

/// What is to be said of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "word", content = "why")]
pub enum Word {
    /// It came out as ordained.
    AsOrdained,
    /// Nothing can show it yet.
    Unreachable(String),
    /// The run itself did not work.
    Broken(String),
    /// A check failed that must not.
    FalseAlarm(String),
    /// The fault was not caught, or a control did not pass.
    Miss(String),
}

impl Word {
    /// Whether it speaks against the checks, the lab or the tool.
    pub const fn is_bad(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::FalseAlarm(_) | Self::Miss(_))
    }
}

/// Judges one run of a row.
pub fn judge(row: &FaultSpec, seen: &Seen) -> Word {
    if let Ordained::Unreachable(why) = row.ordained {
        return Word::Unreachable(why.into());
    }
    let Some(exit) = seen.exit else {
        return Word::Broken(format!("it did not end by itself: {}", seen.said));
    };
    let word = match row.ordained {
        Ordained::Fires(checks) => fired(checks, exit, seen),
        Ordained::Inconclusive => unsure(exit, seen),
        Ordained::Refused if seen.refused => Word::AsOrdained,
        Ordained::Refused => Word::Miss(format!("it was not refused, exit code {exit}")),
        Ordained::Green | Ordained::Unreachable(_) => green(exit, seen),
    };
    if word.is_bad() {
        return word;
    }
    for check in row.doubts {
        let said = seen.checks.get(*check);
        if said != Some(&Status::Inconclusive) {
            return Word::Miss(format!("{check} said {} and should doubt", spoken(said)));
        }
    }
    match (row.blames, seen.longest_stage.as_deref()) {
        (Some(stage), found) if found != Some(stage) => Word::Miss(format!(
            "T2 blames {} and should blame {stage}",
            found.unwrap_or("nothing")
        )),
        _ => Word::AsOrdained,
    }
}

fn spoken(status: Option<&Status>) -> &'static str {
    match status {
        Some(Status::Pass) => "pass",
        Some(Status::Inconclusive) => "inconclusive",
        Some(Status::Fail) => "fail",
        None => "nothing",
    }
}

/// The checks that failed, and why.
fn failures(seen: &Seen) -> Vec<String> {
    let failed = seen.with(Status::Fail);
    failed
        .map(|check| format!("{check}{}", seen.because(check)))
        .collect()
}

fn fired(checks: &[&str], exit: i32, seen: &Seen) -> Word {
    let silent: Vec<_> = checks
        .iter()
        .filter(|check| seen.checks.get(**check) != Some(&Status::Fail))
        .map(|check| {
            let said = spoken(seen.checks.get(*check));
            format!("{check} said {said}{}", seen.because(check))
        })
        .collect();
    if !silent.is_empty() {
        let failed = failures(seen);
        return Word::Miss(format!(
            "{}; failed: [{}]",
            silent.join(", "),
            failed.join(", ")
        ));
    }
    if exit != 1 {
        return Word::Miss(format!("the exit code is {exit}, not 1"));
    }
    Word::AsOrdained
}

fn unsure(exit: i32, seen: &Seen) -> Word {
    let failed = failures(seen);
    if !failed.is_empty() {
        return Word::FalseAlarm(format!("failed on no evidence: {}", failed.join(", ")));
    }
    if exit != 4 {
        return Word::Miss(format!("the exit code is {exit}, not 4: {}", seen.said));
    }
    if seen.with(Status::Inconclusive).next().is_none() {
        return Word::Miss(format!("no check doubted: {}", seen.said));
    }
    Word::AsOrdained
}

fn green(exit: i32, seen: &Seen) -> Word {
    let failed = failures(seen);
    if !failed.is_empty() {
        return Word::FalseAlarm(format!("failed: {}", failed.join(", ")));
    }
    let unsure: Vec<_> = (seen.with(Status::Inconclusive))
        .map(|check| format!("{check}{}", seen.because(check)))
        .collect();
    if !unsure.is_empty() {
        return Word::Miss(format!("could not say: {}", unsure.join(", ")));
    }
    if exit != 0 || seen.checks.is_empty() {
        return Word::Miss(format!("the exit code is {exit}: {}", seen.said));
    }
    Word::AsOrdained
}
