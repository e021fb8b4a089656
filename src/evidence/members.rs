//! The files of a run directory and their digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use sha2::Digest as _;

use super::manifest::FileEntry;
use super::{MANIFEST_FILE, PUBLIC_KEY_FILE, SIGNATURE_FILE, SealError, UNDO_FILE, UNSEALED};

/// Files that have their own way to say where they were changed, or are derived again, need no
/// digests by line; nor do very large ones.
const LONGEST_BY_LINE: u64 = 4 << 20;

/// What a run directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Plain files by relative path, the seal's own and what is not sealed left out.
    pub(super) files: Vec<String>,
    /// Anything else, with what it is.
    pub(super) odd: Vec<(String, String)>,
}

/// Lists a run directory, sorted.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    walk(dir, "", &mut listing)?;
    let own = [MANIFEST_FILE, SIGNATURE_FILE, PUBLIC_KEY_FILE];
    listing.files.retain(|file| !own.contains(&file.as_str()));
    listing.files.sort();
    listing.odd.sort();
    Ok(listing)
}

fn walk(dir: &Path, prefix: &str, listing: &mut Listing) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        let kind = entry.file_type()?;
        if name.to_str().is_none() {
            listing.odd.push((path, "its name is not UTF-8".into()));
        } else if kind.is_dir() && path == UNSEALED {
            // Nobody judges what is in it.
        } else if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), listing)?;
        } else if kind.is_file() {
            listing.files.push(path);
        } else if kind.is_symlink() {
            listing.odd.push((path, "it is a symbolic link".into()));
        } else {
            listing.odd.push((path, "it is no plain file".into()));
        }
    }
    Ok(())
}

/// The manifest's entries for every file of a directory.
pub(super) fn entries(dir: &Path) -> Result<BTreeMap<String, FileEntry>, SealError> {
    let listing = list(dir).map_err(SealError::io(dir))?;
    if let Some((file, why)) = listing.odd.into_iter().next() {
        return Err(SealError::Odd { file, why });
    }
    let entry = |path: String| {
        let file = dir.join(&path);
        let entry = entry(&file, &path).map_err(SealError::io(file))?;
        Ok((path, entry))
    };
    listing.files.into_iter().map(entry).collect()
}

fn entry(file: &Path, path: &str) -> io::Result<FileEntry> {
    let Digests {
        bytes,
        blake3,
        sha256,
    } = digests(File::open(file)?)?;
    let lines = (by_line(path) && bytes <= LONGEST_BY_LINE)
        .then(|| std::fs::read(file).map(|text| line_marks(&text)))
        .transpose()?;
    Ok(FileEntry {
        blake3,
        bytes,
        grows: path == UNDO_FILE,
        lines,
        sha256,
    })
}

/// Whether only the manifest can tell where such a file was changed.
fn by_line(path: &str) -> bool {
    let derived = ["verdicts.json", "report.json", "report.md", "report.html"];
    !path.starts_with("acks/")
        && !path.starts_with("scans/")
        && !derived.contains(&path)
        && !["junit.xml", "events.jsonl"].contains(&path)
}

/// Hex digits of a line's mark.
pub(super) const MARK: usize = 8;

/// A mark for each line, its end included: the first digits of its BLAKE3, one after the other.
pub(super) fn line_marks(text: &[u8]) -> String {
    let mut marks = String::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let hash = blake3::hash(line).to_hex();
        marks.push_str(hash.get(..MARK).unwrap_or_default());
    }
    marks
}

/// Size and digests of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// How many bytes.
    pub bytes: u64,
    /// Their BLAKE3, hex.
    pub blake3: String,
    /// Their SHA-256, hex.
    pub sha256: String,
}

/// Reads to the end and digests what it read.
pub fn digests(mut input: impl Read) -> io::Result<Digests> {
    let mut blake3 = blake3::Hasher::new();
    let mut sha256 = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        blake3.update(&buffer[..read]);
        sha256.update(&buffer[..read]);
        bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
    let sha256: [u8; 32] = sha256.finalize().into();
    Ok(Digests {
        bytes,
        blake3: blake3.finalize().to_hex().to_string(),
        sha256: hex(&sha256),
    })
}

/// Digests of the first `bytes` of a file, and what follows them.
pub(super) fn grown(file: &Path, bytes: u64) -> io::Result<(Digests, Vec<u8>)> {
    let mut file = File::open(file)?;
    let head = digests((&mut file).take(bytes))?;
    file.seek(SeekFrom::Start(head.bytes))?;
    let mut tail = Vec::new();
    file.take(LONGEST_BY_LINE).read_to_end(&mut tail)?;
    Ok((head, tail))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from(*bytes).to_hex().to_string()
}
