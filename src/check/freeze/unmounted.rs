//! A3: did the recovered file systems come back as was claimed, before anybody mounted them?
//!
//! A mount replays the journal, even a read-only one, and hides what was there. Where a point claims
//! to be quiesced, ext4 is clean if its superblock does not ask for recovery; XFS leaves its log dirty
//! on purpose when it is frozen, so that alone says nothing: its checker must find it sound once the
//! log is recovered. Where nothing claims that, a journal to replay is what a power cut leaves: then a
//! file system must mount, and its checker find it sound.

use super::{freezes, point, seen};
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
    let claimed = claimed(case);
    if let Some(why) = claimed.then(|| baseless(case)).flatten() {
        return Finding::unsure(why);
    }
    // What was seen before the point was taken is of the live file system.
    let since = freezes(case)
        .last()
        .and_then(|freeze| freeze.thawed.map(|(event, _)| event).or(freeze.frozen))
        .map_or(0, |event| event.seq);
    let mut bad = Vec::new();
    let mut unseen = Vec::new();
    let mut limits = Vec::new();
    for volume in &volumes {
        let facts = facts(case, volume.ordinal, since);
        match judge(&facts, claimed) {
            Word::Clean(limit) => limits.extend(limit.map(|l| format!("{}: {l}", volume.name))),
            Word::Dirty(why) => bad.push(format!("{}: {why}", volume.name)),
            Word::Unseen(why) => unseen.push(format!("{}: {why}", volume.name)),
        }
    }
    let finding = if !bad.is_empty() {
        let said = if claimed {
            "a file system was not clean before it was mounted"
        } else {
            "a file system did not survive the crash"
        };
        Finding::fail(said).witnesses(&bad)
    } else if !unseen.is_empty() {
        Finding::unsure("not every file system was looked at before it was mounted")
            .witnesses(&unseen)
    } else if claimed {
        Finding::pass(format!(
            "all {} file systems were clean before they were mounted",
            volumes.len()
        ))
    } else {
        Finding::pass(format!(
            "all {} file systems were sound once their journals were replayed",
            volumes.len()
        ))
    };
    let finding = finding.limits(limits);
    if claimed {
        return finding;
    }
    finding.limit("nothing claims that they were quiesced: crash consistent only")
}

/// Whether a point of this trial claims quiesced file systems.
fn claimed(case: &Case<'_>) -> bool {
    case.events()
        .any(|event| matches!(&event.fact, Fact::Capture { capture, .. } if capture.quiesced))
}

/// Why what came back says nothing of a freeze.
fn baseless(case: &Case<'_>) -> Option<&'static str> {
    let freezes = freezes(case);
    let last = freezes.last()?;
    if seen::never_held(case, last) {
        return Some("the freeze was not real, see A1");
    }
    point::is_outside(case).then_some("the recovered point lies outside the freeze, see A2")
}

/// What was seen of a volume's file system after an event and where the subject is now, with the
/// events.
fn facts<'a>(case: &Case<'a>, ordinal: u8, since: u64) -> Vec<(u64, &'a FileSystemFact)> {
    let target = case.target();
    let later = case.events().filter(|event| event.seq > since);
    later
        .filter_map(|event| match &event.fact {
            Fact::FileSystem {
                site,
                volume,
                state,
            } if *volume == ordinal && target.is_none_or(|target| target == *site) => {
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

fn judge(facts: &[(u64, &FileSystemFact)], claimed: bool) -> Word {
    let unsound = facts.iter().find_map(|(seq, state)| match state {
        FileSystemFact::Checked {
            sound: false, said, ..
        } => Some(Word::Dirty(format!("it is not sound: {said}, event {seq}"))),
        _ => None,
    });
    if let Some(unsound) = unsound {
        return unsound;
    }
    let first = facts
        .iter()
        .find(|(_, state)| !matches!(state, FileSystemFact::Checked { .. }));
    let sound = facts
        .iter()
        .any(|(_, state)| matches!(state, FileSystemFact::Checked { sound: true, .. }));
    match first {
        None => Word::Unseen("nobody looked at it"),
        Some((_, FileSystemFact::Raw { kind, dirty, said })) if !claimed => {
            let replayed = (*dirty == Some(true)).then(|| {
                format!("its journal was replayed, as after a power cut ({kind}: {said})")
            });
            if sound {
                Word::Clean(replayed)
            } else {
                Word::Unseen("a crash is judged by its checker, which did not run")
            }
        }
        Some((_, FileSystemFact::Raw { kind, dirty, .. })) if kind == "xfs" => {
            let limit = match dirty {
                Some(true) => {
                    Some("its log was dirty, as a freeze of XFS leaves it; judged by its checker")
                }
                Some(false) => None,
                None => Some("its log could not be read; judged by its checker"),
            };
            if sound {
                Word::Clean(limit.map(str::to_owned))
            } else {
                Word::Unseen("XFS is judged by its checker, which did not run")
            }
        }
        Some((seq, FileSystemFact::Raw { kind, dirty, said })) if kind.starts_with("ext") => {
            match dirty {
                Some(true) => Word::Dirty(format!(
                    "{kind} needs its journal replayed ({said}), event {seq}"
                )),
                Some(false) => Word::Clean(None),
                None => Word::Unseen("its superblock could not be read"),
            }
        }
        Some((_, FileSystemFact::Raw { .. })) => {
            Word::Unseen("its type is not known to this check")
        }
        Some(_) => Word::Unseen("it was mounted before anybody looked at it"),
    }
}
