//! Reading a run directory back into memory: verified whole, so that checks are pure.
//!
//! An edited byte, a missing line or a file that does not belong is an error that names file and
//! place. A tail that is missing, as a crash or a cut leaves it, is no error: the history says so in
//! [`History::truncated`] for the events and in [`Incarnation::torn`] for an ack segment, and nothing
//! that rests on it may pass.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::acks::AckLog;
use super::event::{Event, Fact, Purpose, ReadVia, Site};
use super::recorder::EVENTS;
use super::scanfile::{ScanError, VolumeScan};
use super::segment::{Ending, Reader, SegmentError};
use super::sync::RecordError;
use super::{chain, scanfile};
use crate::probe::frame::Identity;
use crate::probe::layout::Layout;

mod damage;
mod events;
pub use damage::damage;
pub use events::MAX_EVENTS_BYTES;
pub(super) use events::events;

/// The largest ack segment that is read, bytes.
pub const MAX_SEGMENT_BYTES: u64 = 8 << 30;

/// Why a history is not to be believed, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file is damaged or was edited, or does not belong to this history.
    #[error("{}, {at}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Line or byte.
        at: String,
        /// What is wrong there.
        what: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The history cannot be gone on with.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl HistoryError {
    fn io(file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            file: file.to_owned(),
            source,
        }
    }

    fn damaged(file: &Path, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            at: at.into(),
            what: what.into(),
        }
    }
}

/// One probe run: what the events say of it and what its stream carried.
#[derive(Debug, Clone, PartialEq)]
pub struct Incarnation {
    /// 16 hex digits, as in the events.
    pub name: String,
    /// The same as it stands in cells.
    pub number: u64,
    /// Seq of the event that began it.
    pub seq: u64,
    /// When that was.
    pub at_ns: u64,
    /// Its trial.
    pub trial: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Where.
    pub site: Site,
    /// Why.
    pub purpose: Purpose,
    /// The incarnation whose data it found on the disk.
    pub parent: Option<String>,
    /// The guest and its volumes.
    pub identity: Identity,
    /// Ledger layout per volume ordinal.
    pub layouts: Vec<Layout>,
    /// Its stream.
    pub acks: AckLog,
    /// Why its stream may lack its end, if it may.
    pub torn: Option<String>,
}

/// One read-back of all volumes of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Seq of the event.
    pub seq: u64,
    /// When it was complete.
    pub at_ns: u64,
    /// Its trial.
    pub trial: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Where.
    pub site: Site,
    /// The incarnation that read.
    pub reader: String,
    /// The load incarnations it is evidence of, oldest first.
    pub judges: Vec<String>,
    /// Through which eyes.
    pub via: ReadVia,
    /// Overrides the trial's `zero_loss` for this scan.
    pub zero_loss: Option<bool>,
    /// The cut that the volumes were made from.
    pub cut: Option<String>,
    /// By volume ordinal.
    pub volumes: Vec<VolumeScan>,
}

/// Everything that happened in a run, in memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// The events in order.
    pub events: Vec<Event>,
    /// The last hash of the event chain, hex: the fingerprint of the history.
    pub head: String,
    /// What is missing at the end of the events, if anything is.
    pub truncated: Option<String>,
    /// Probe runs in the order in which they began.
    pub incarnations: Vec<Incarnation>,
    /// Read-backs in order.
    pub scans: Vec<Scan>,
}

impl History {
    /// Reads and verifies the run directory `dir`.
    pub fn open(dir: &Path) -> Result<Self, HistoryError> {
        let path = dir.join(EVENTS);
        let told = events(&path)?;
        let mut history = Self {
            head: chain::hex(&told.link),
            truncated: cut(&told),
            ..Self::default()
        };
        let mut ends = BTreeMap::new();
        for event in &told.events {
            history.take(dir, &path, event, &mut ends)?;
        }
        history.events = told.events;
        Ok(history)
    }

    fn take(
        &mut self,
        dir: &Path,
        path: &Path,
        event: &Event,
        ends: &mut BTreeMap<String, Option<(u64, String)>>,
    ) -> Result<(), HistoryError> {
        let line = || format!("line {}", event.seq + 1);
        match &event.fact {
            Fact::IncarnationStarted { segment, .. } => {
                let file = inside(dir, segment)
                    .map_err(|what| HistoryError::damaged(path, line(), what))?;
                let incarnation =
                    begun(event).map_err(|what| HistoryError::damaged(path, line(), what))?;
                if self.incarnation(&incarnation.name).is_some() {
                    let what = format!("incarnation {} begins twice", incarnation.name);
                    return Err(HistoryError::damaged(path, line(), what));
                }
                let (acks, ending) = stream(&file)?;
                let (end, torn) = match ending {
                    Ending::Closed { root } => (Some((acks.0, root)), None),
                    Ending::Torn { at } => {
                        (None, Some(format!("{segment} has no end after byte {at}")))
                    }
                };
                ends.insert(segment.clone(), end);
                self.incarnations.push(Incarnation {
                    acks: acks.1,
                    torn,
                    ..incarnation
                });
            }
            Fact::SegmentClosed {
                segment,
                records,
                root,
                ..
            } => {
                // A segment that lost its end since is torn; a whole one must be the one closed.
                if let Some(Some(end)) = ends.get(segment)
                    && *end != (*records, root.clone())
                {
                    let file = dir.join(segment);
                    let what = format!("it is not the segment that {EVENTS} {} closed", line());
                    return Err(HistoryError::damaged(&file, "as a whole", what));
                }
            }
            Fact::Scanned {
                site,
                incarnation,
                judges,
                via,
                zero_loss,
                cut,
                volumes,
            } => {
                let mut scan = Scan {
                    seq: event.seq,
                    at_ns: event.at_ns,
                    trial: event.trial.clone(),
                    subject: event.subject.clone(),
                    site: *site,
                    reader: incarnation.clone(),
                    judges: judges.clone(),
                    via: *via,
                    zero_loss: *zero_loss,
                    cut: cut.clone(),
                    volumes: Vec::new(),
                };
                for fact in volumes {
                    let file = inside(dir, &fact.file)
                        .map_err(|what| HistoryError::damaged(path, line(), what))?;
                    scan.volumes.push(scanned(&file, fact)?);
                }
                scan.volumes.sort_by_key(|volume| volume.volume);
                self.scans.push(scan);
            }
            _ => {}
        }
        Ok(())
    }

    /// A probe run by name.
    pub fn incarnation(&self, name: &str) -> Option<&Incarnation> {
        self.incarnations.iter().find(|known| known.name == name)
    }
}

/// What the events alone say to be missing.
fn cut(told: &events::Told) -> Option<String> {
    if told.torn > 0 {
        let bytes = told.torn;
        return Some(format!(
            "{EVENTS} ends in {bytes} bytes of an unfinished event"
        ));
    }
    match told.events.last().map(|last| &last.fact) {
        Some(Fact::RunEnded { .. }) => None,
        Some(_) => Some(format!("{EVENTS} does not end with the end of the run")),
        None => Some(format!("{EVENTS} is empty")),
    }
}

/// A path that stays within the run directory.
fn inside(dir: &Path, relative: &str) -> Result<PathBuf, String> {
    let path = Path::new(relative);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !plain {
        return Err(format!(
            "{relative:?} is not a path within the run directory"
        ));
    }
    Ok(dir.join(path))
}

/// The number of an incarnation by its name.
pub fn incarnation_number(name: &str) -> Option<u64> {
    (name.len() == 16)
        .then(|| u64::from_str_radix(name, 16).ok())
        .flatten()
}

fn begun(event: &Event) -> Result<Incarnation, String> {
    let Fact::IncarnationStarted {
        incarnation,
        site,
        purpose,
        parent,
        identity,
        layouts,
        ..
    } = &event.fact
    else {
        return Err("no incarnation begins here".into());
    };
    let number = incarnation_number(incarnation)
        .ok_or_else(|| format!("{incarnation:?} is not an incarnation"))?;
    for layout in layouts {
        sane(layout)?;
    }
    Ok(Incarnation {
        name: incarnation.clone(),
        number,
        seq: event.seq,
        at_ns: event.at_ns,
        trial: event.trial.clone(),
        subject: event.subject.clone(),
        site: *site,
        purpose: *purpose,
        parent: parent.clone(),
        identity: identity.clone(),
        layouts: layouts.clone(),
        acks: AckLog::default(),
        torn: None,
    })
}

/// The most cells of the log and hot regions of one volume that are judged (1 TiB).
const MAX_REGION: u64 = 1 << 28;

/// Refuses layouts that no probe makes, on which address arithmetic would fail.
fn sane(layout: &Layout) -> Result<(), String> {
    let Layout {
        cells,
        canary,
        log,
        hot,
        lease,
        cold,
        hot_writers,
        ..
    } = layout;
    // Layouts had no lease cell once.
    let old = *lease == (0..0);
    let chained = canary.start == 1
        && canary.end == log.start
        && log.end == hot.start
        && hot.end == if old { cold.start } else { lease.start }
        && (old || (hot.end.checked_add(1) == Some(lease.end) && lease.end == cold.start))
        && cold.end.checked_add(1) == Some(*cells);
    let filled = canary.start < canary.end && log.start < log.end && cold.start <= cold.end;
    let lanes = u64::from(*hot_writers);
    let hot_len = hot.end.saturating_sub(hot.start);
    let whole = lanes > 0 && hot_len >= lanes && hot_len.is_multiple_of(lanes);
    let bounded = hot.end.saturating_sub(log.start) <= MAX_REGION;
    if chained && filled && whole && bounded {
        Ok(())
    } else {
        Err("its ledger layout is not one that a probe makes".into())
    }
}

/// Reads one segment: records and what they amount to, and how it ends.
fn stream(file: &Path) -> Result<((u64, AckLog), Ending), HistoryError> {
    let size = std::fs::metadata(file)
        .map_err(HistoryError::io(file))?
        .len();
    if size > MAX_SEGMENT_BYTES {
        let what = format!("it has {size} bytes and at most {MAX_SEGMENT_BYTES} are read");
        return Err(HistoryError::damaged(file, "as a whole", what));
    }
    let failed = |error: SegmentError| match error {
        SegmentError::Corrupt { at, what } => {
            HistoryError::damaged(file, format!("byte {at}"), what)
        }
        SegmentError::Io(source) => HistoryError::io(file)(source),
    };
    let mut reader = Reader::open(file).map_err(failed)?;
    let mut acks = AckLog::default();
    let mut records = 0_u64;
    while let Some(record) = reader.next().map_err(failed)? {
        records += 1;
        acks.absorb(&record)
            .map_err(|what| HistoryError::damaged(file, format!("record {records}"), what))?;
    }
    let ending = reader.ending().cloned().unwrap_or(Ending::Torn { at: 0 });
    Ok(((records, acks), ending))
}

fn scanned(file: &Path, fact: &super::event::ScanFact) -> Result<VolumeScan, HistoryError> {
    let bad = |what: String| HistoryError::damaged(file, "as a whole", what);
    let (volumes, hash) = scanfile::read(file).map_err(|error| match error {
        ScanError::Io(source) => HistoryError::io(file)(source),
        ScanError::Record(error) => HistoryError::Record(error),
        ScanError::Odd(what) => bad(what),
    })?;
    if hash != fact.blake3 {
        return Err(bad(format!(
            "its BLAKE3 is {hash} and must be {}",
            fact.blake3
        )));
    }
    let found = volumes
        .into_iter()
        .find(|volume| volume.volume == fact.volume)
        .ok_or_else(|| bad(format!("it holds no scan of volume {}", fact.volume)))?;
    if (found.size, found.read, found.cold_ok) != (fact.size, fact.read, fact.cold_ok) {
        return Err(bad(format!(
            "it says otherwise than {EVENTS} of volume {}",
            fact.volume
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
