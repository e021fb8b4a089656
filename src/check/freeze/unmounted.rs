//! A3: were the recovered file systems clean before anybody mounted them?
//!
//! A mount replays the journal, even a read-only one, and hides what was there. ext4 is clean if its
//! superblock does not ask for recovery. XFS leaves its log dirty on purpose when it is frozen, so
//! that alone says nothing: its checker must find it sound once the log is recovered.

use super::freezes;
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::history::event::{Fact, FileSystemFact, LedgerMode, VolumeFact};

/// A3.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let Some(created) = case.created() else {
        return Finding::unsure("the history does not say how the subject was made");
    };
    let carries = |volume: &&VolumeFact| volume.ledger == LedgerMode::File;
    let volumes: Vec<&VolumeFact> = created.volumes.iter().filter(carries).collect();
    if volumes.is_empty() {
        return Finding::unsure("the subject has no volume with a file system");
    }
    // What was seen before the point was taken is of the live file system.
    let since = freezes(case)
        .last()
        .and_then(|freeze| freeze.thawed.map(|(event, _)| event.seq));
    let mut bad = Vec::new();
    let mut unseen = Vec::new();
    let mut limits = Vec::new();
    for volume in &volumes {
        let facts = facts(case, volume.ordinal, since.unwrap_or(0));
        match judge(&facts) {
            Word::Clean(limit) => limits.extend(limit.map(|l| format!("{}: {l}", volume.name))),
            Word::Dirty(why) => bad.push(format!("{}: {why}", volume.name)),
            Word::Unseen(why) => unseen.push(format!("{}: {why}", volume.name)),
        }
    }
    let finding = if !bad.is_empty() {
        Finding::fail("a file system was not clean before it was mounted").witnesses(&bad)
    } else if !unseen.is_empty() {
        Finding::unsure("not every file system was looked at before it was mounted")
            .witnesses(&unseen)
    } else {
        Finding::pass(format!(
            "all {} file systems were clean before they were mounted",
            volumes.len()
        ))
    };
    finding.limits(limits)
}

/// What was seen of a volume's file system after an event, with the events.
fn facts<'a>(case: &Case<'a>, ordinal: u8, since: u64) -> Vec<(u64, &'a FileSystemFact)> {
    let later = case.events().filter(|event| event.seq > since);
    later
        .filter_map(|event| match &event.fact {
            Fact::FileSystem { volume, state, .. } if *volume == ordinal => {
                Some((event.seq, state))
            }
            _ => None,
        })
        .collect()
}

enum Word {
    Clean(Option<String>),
    Dirty(String),
    Unseen(&'static str),
}

fn judge(facts: &[(u64, &FileSystemFact)]) -> Word {
    let unsound = facts.iter().find_map(|(seq, state)| match state {
        FileSystemFact::Checked {
            sound: false, said, ..
        } => Some(Word::Dirty(format!(
            "its checker found damage: {said}, event {seq}"
        ))),
        _ => None,
    });
    if let Some(unsound) = unsound {
        return unsound;
    }
    let first = facts
        .iter()
        .find(|(_, state)| !matches!(state, FileSystemFact::Checked { .. }));
    match first {
        None => Word::Unseen("nobody looked at it"),
        Some((_, FileSystemFact::Raw { kind, dirty })) if kind == "xfs" => {
            let sound = facts
                .iter()
                .any(|(_, state)| matches!(state, FileSystemFact::Checked { sound: true, .. }));
            if sound {
                Word::Clean(dirty.then(|| {
                    "its log was dirty, as a freeze of XFS leaves it; judged by its checker".into()
                }))
            } else {
                Word::Unseen("XFS is judged by its checker, which did not run")
            }
        }
        Some((seq, FileSystemFact::Raw { kind, dirty })) if kind.starts_with("ext") => {
            if *dirty {
                Word::Dirty(format!("{kind} needs its journal replayed, event {seq}"))
            } else {
                Word::Clean(None)
            }
        }
        Some((_, FileSystemFact::Raw { .. })) => {
            Word::Unseen("its type is not known to this check")
        }
        Some(_) => Word::Unseen("it was mounted before anybody looked at it"),
    }
}
