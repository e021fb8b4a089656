//! Where a file of the history is damaged, each file looked at by itself: what comes before the
//! place is as it was written, what comes after it may be too.

use std::io::{BufReader, Read};
use std::path::Path;

use super::{HistoryError, events};
use crate::history::recorder::EVENTS;
use crate::history::segment::{Ending, Reader, SegmentError};
use crate::probe::wire::Raw;

/// The first damage in `relative`, a file of the history in `dir`, as an error that names line or
/// byte. `None` when the file is whole by its own chain or checksums, or is no file of the history.
/// An unfinished end counts as damage here, though a history may be read without it.
pub fn damage(dir: &Path, relative: &str) -> Option<HistoryError> {
    let path = dir.join(relative);
    if relative == EVENTS {
        return lines(&path);
    }
    if relative.starts_with("acks/") {
        return records(&path);
    }
    relative
        .starts_with("scans/")
        .then(|| frames(&path))
        .flatten()
}

fn lines(path: &Path) -> Option<HistoryError> {
    match events(path) {
        Err(error) => Some(error),
        Ok(told) if told.torn > 0 => {
            let at = format!("line {}", told.events.len() + 1);
            let what = format!("it ends after {} bytes, without its end of line", told.torn);
            Some(HistoryError::damaged(path, at, what))
        }
        Ok(_) => None,
    }
}

fn records(path: &Path) -> Option<HistoryError> {
    let failed = |error: SegmentError| match error {
        SegmentError::Corrupt { at, what } => {
            HistoryError::damaged(path, format!("the record at byte {at}"), what)
        }
        SegmentError::Io(source) => HistoryError::io(path)(source),
    };
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(error) => return Some(failed(error)),
    };
    loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => return Some(failed(error)),
        }
    }
    match reader.ending() {
        Some(Ending::Torn { at }) => {
            let what = "from here on there is no whole record";
            Some(HistoryError::damaged(path, format!("byte {at}"), what))
        }
        _ => None,
    }
}

fn frames(path: &Path) -> Option<HistoryError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(HistoryError::io(path)(error)),
    };
    let mut input = BufReader::with_capacity(1 << 16, file);
    let mut at = 0_u64;
    loop {
        match Raw::read(&mut input.by_ref()) {
            Ok(Some(raw)) => at += u64::try_from(raw.bytes.len()).unwrap_or(u64::MAX),
            Ok(None) => return None,
            Err(error) => {
                let place = format!("the frame at byte {at}");
                return Some(HistoryError::damaged(path, place, error.to_string()));
            }
        }
    }
}
