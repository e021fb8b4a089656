//! Reading `events.jsonl`: every line verified before anything is made of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::HistoryError;
use crate::history::chain::{self, Link};
use crate::history::event::{Event, VERSION};
use crate::history::recorder::MAX_LINE;

/// The largest `events.jsonl` that is read, bytes.
pub const MAX_EVENTS_BYTES: u64 = 2 << 30;

/// The verified part of an event file.
#[derive(Debug)]
pub(in crate::history) struct Told {
    pub(in crate::history) events: Vec<Event>,
    /// Bytes of whole lines.
    pub(in crate::history) whole: u64,
    /// Bytes of an unfinished last line.
    pub(in crate::history) torn: u64,
    /// The link that the next line continues.
    pub(in crate::history) link: Link,
}

/// Reads and verifies an event file up to its end or to an unfinished last line.
pub(in crate::history) fn events(path: &Path) -> Result<Told, HistoryError> {
    let file = File::open(path).map_err(HistoryError::io(path))?;
    let size = file.metadata().map_err(HistoryError::io(path))?.len();
    if size > MAX_EVENTS_BYTES {
        let what = format!("it has {size} bytes and at most {MAX_EVENTS_BYTES} are read");
        return Err(HistoryError::damaged(path, "as a whole", what));
    }
    let mut input = BufReader::with_capacity(1 << 16, file);
    let mut told = Told {
        events: Vec::new(),
        whole: 0,
        torn: 0,
        link: chain::GENESIS,
    };
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
    loop {
        line.clear();
        let read = (&mut input)
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(HistoryError::io(path))?;
        if read == 0 {
            return Ok(told);
        }
        let size = u64::try_from(read).unwrap_or(u64::MAX);
        let Some(text) = line.strip_suffix(b"\n") else {
            if size < limit {
                told.torn = size;
                return Ok(told);
            }
            let what = format!("it is longer than {MAX_LINE} bytes");
            return Err(HistoryError::damaged(path, place(&told), what));
        };
        let event = verify(text, &mut told)
            .map_err(|what| HistoryError::damaged(path, place(&told), what))?;
        told.events.push(event);
        told.whole += size;
    }
}

fn place(told: &Told) -> String {
    format!("line {}", told.events.len() + 1)
}

fn verify(line: &[u8], told: &mut Told) -> Result<Event, String> {
    let line = std::str::from_utf8(line).map_err(|e| format!("it is not text: {e}"))?;
    let hash = chain::verify(line, &told.link)?;
    let version: Version =
        serde_json::from_str(line).map_err(|e| format!("it has no schema version: {e}"))?;
    if version.v != VERSION {
        return Err(format!(
            "its schema version is {} and this virtproof reads {VERSION}",
            version.v
        ));
    }
    let event: Event = serde_json::from_str(line).map_err(|e| format!("it is no event: {e}"))?;
    let expected = u64::try_from(told.events.len()).unwrap_or(u64::MAX);
    if event.seq != expected {
        return Err(format!("its seq is {} and must be {expected}", event.seq));
    }
    if let Some(before) = told.events.last()
        && event.at_ns < before.at_ns
    {
        return Err("its time is before the time of the line before".into());
    }
    told.link = hash;
    Ok(event)
}

#[derive(serde::Deserialize)]
struct Version {
    v: u32,
}
