//! Where a file that is not as it was sealed was changed, as exactly as can be known: by its own
//! chain or checksums, by deriving it again, by the marks of its lines, and in the end by its size.

use std::path::Path;

use super::derived::Derived;
use super::manifest::{FileEntry, Manifest};
use super::members::{self, Digests, MARK};
use crate::history::read::{HistoryError, damage};

/// A place, if one is known, and what is wrong there.
pub(super) type Place = (Option<String>, String);

/// Places the change of `path`, whose bytes now have the digests `now`.
pub(super) fn locate(
    dir: &Path,
    path: &str,
    entry: &FileEntry,
    now: &Digests,
    manifest: &Manifest,
    derived: Option<&Derived>,
) -> Place {
    let other = |listed: &&(&String, &FileEntry)| {
        listed.0 != path && listed.1.blake3 == now.blake3 && now.bytes > 0
    };
    if let Some((other, _)) = manifest.files.iter().collect::<Vec<_>>().iter().find(other) {
        return (None, format!("it holds what was sealed as {other}"));
    }
    let size = sizes(entry, now);
    if let Some(HistoryError::Damaged { at, what, .. }) = damage(dir, path) {
        return (Some(at), format!("{what}{size}"));
    }
    let text = || std::fs::read(dir.join(path)).unwrap_or_default();
    if let Some(derived) = derived.and_then(|derived| derived.text(path)) {
        let text = text();
        if let Some(at) = differs(&text, derived.as_bytes()) {
            return (
                Some(at),
                format!("it does not say what the evidence says{size}"),
            );
        }
    }
    if let Some(marks) = &entry.lines
        && let Some(line) = marked(&text(), marks)
    {
        let what = format!("the line is not as it was sealed{size}");
        return (Some(format!("line {line}")), what);
    }
    let at = (now.bytes < entry.bytes).then(|| format!("byte {}", now.bytes));
    (at, format!("it is not the file that was sealed{size}"))
}

fn sizes(entry: &FileEntry, now: &Digests) -> String {
    match now.bytes.cmp(&entry.bytes) {
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Less => format!(
            " ({} of {} bytes are missing)",
            entry.bytes - now.bytes,
            entry.bytes
        ),
        std::cmp::Ordering::Greater => format!(
            " ({} bytes more than the {} sealed)",
            now.bytes - entry.bytes,
            entry.bytes
        ),
    }
}

/// The first line and byte in which two texts differ.
pub(super) fn differs(found: &[u8], expected: &[u8]) -> Option<String> {
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b);
    let at = same.count();
    if at == found.len() && at == expected.len() {
        return None;
    }
    let before = expected.get(..at).unwrap_or_default();
    let line = before.split(|byte| *byte == b'\n').count();
    Some(format!("line {line} (byte {at})"))
}

/// The first line that does not carry its mark.
fn marked(text: &[u8], marks: &str) -> Option<usize> {
    let now = members::line_marks(text);
    let pairs = now
        .as_bytes()
        .chunks(MARK)
        .zip(marks.as_bytes().chunks(MARK));
    let same = pairs.take_while(|(a, b)| a == b).count();
    let all = marks.len() / MARK;
    (same < all || now.len() > marks.len()).then_some(same + 1)
}
