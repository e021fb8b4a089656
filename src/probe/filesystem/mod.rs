//! The file systems of file volumes: which there are, what a device shows of one past any mount, and
//! the lines in which that is told.
//!
//! Contract: reads only, and only from the device: a mount, even a read-only one, may replay a
//! journal and hide what was there. What cannot be told is told as unknown, never guessed.

mod ext4;
mod xfs;

use std::fmt;
use std::io;

use super::buffer::Aligned;
use super::config::{Config, FileTarget, Target};
use super::disk::Disk;
use super::layout::CELL;
use super::platform::{FileSystems, OpenError};

/// A file system that the probe can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
}

impl Kind {
    /// Its name, as `mount -t` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The file system of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the head of a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing but zeros.
    Blank,
    /// A file system.
    Known(Kind),
    /// Something else.
    Other,
}

/// The first 68 KiB, where file systems, partition tables and volume managers leave their marks.
const MARKS: usize = 17;

/// What the head of a device is.
pub fn content(disk: &dyn Disk) -> io::Result<Content> {
    let cells = usize::try_from(disk.size() / CELL as u64).unwrap_or(usize::MAX);
    let mut buffer = Aligned::new(cells.min(MARKS));
    disk.read_at(0, buffer.bytes_mut())?;
    let bytes = buffer.bytes();
    Ok(if bytes.iter().all(|&byte| byte == 0) {
        Content::Blank
    } else if xfs::is_one(bytes) {
        Content::Known(Kind::Xfs)
    } else if ext4::is_one(bytes) {
        Content::Known(Kind::Ext4)
    } else {
        Content::Other
    })
}

/// What is told of the file system on a volume: whether it is clean, for a look past any mount, or
/// sound, for its checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Volume ordinal.
    pub volume: u8,
    /// Its type, `none` for a blank device and `other` for anything that is not known.
    pub kind: String,
    /// Whether all is well, `None` where that cannot be told.
    pub well: Option<bool>,
    /// What was seen.
    pub said: String,
}

impl Told {
    /// What a device shows past any mount: clean if its journal or log has nothing to replay.
    pub fn raw(volume: u8, disk: &dyn Disk) -> io::Result<Self> {
        let (kind, seen) = match content(disk)? {
            Content::Blank => ("none", Seen::unknown("the device is blank")),
            Content::Other => ("other", Seen::unknown("no known file system")),
            Content::Known(Kind::Ext4) => (Kind::Ext4.name(), ext4::look(disk)?),
            Content::Known(Kind::Xfs) => (Kind::Xfs.name(), xfs::look(disk)?),
        };
        Ok(Self {
            volume,
            kind: kind.to_owned(),
            well: seen.clean,
            said: seen.said,
        })
    }

    /// Reads what [`fmt::Display`] writes, a line each.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        text.lines().map(Self::line).collect()
    }

    fn line(line: &str) -> Result<Self, String> {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (key, volume, kind, well, said) = (word(), word(), word(), word(), word());
        let well = match (key, well) {
            ("volume", "well") => Some(true),
            ("volume", "ill") => Some(false),
            ("volume", "unknown") => None,
            _ => return Err(format!("no word about a file system: {line:?}")),
        };
        let volume = volume
            .parse()
            .map_err(|error| format!("no volume in {line:?}: {error}"))?;
        Ok(Self {
            volume,
            kind: kind.to_owned(),
            well,
            said: said.to_owned(),
        })
    }
}

/// Lines of what was told.
pub fn lines(told: &[Told]) -> String {
    let mut text = String::new();
    for one in told {
        text.push_str(&one.to_string());
        text.push('\n');
    }
    text
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let well = match self.well {
            Some(true) => "well",
            Some(false) => "ill",
            None => "unknown",
        };
        // A line each, whatever a checker said.
        let said: Vec<&str> = self.said.split_whitespace().collect();
        let Self { volume, kind, .. } = self;
        write!(f, "volume {volume} {kind} {well} {}", said.join(" "))
    }
}

/// What the file volumes show past any mount. Comes before [`check`] and before anything else that
/// mounts them.
pub fn look(config: &Config, guest: &dyn FileSystems) -> Result<Vec<Told>, OpenError> {
    each(config, |volume, target| {
        let device = guest.device(&target.on)?;
        Told::raw(volume, &*device.disk)
            .map_err(|error| OpenError::io(format!("reading {}", device.path), error))
    })
}

/// What their checkers say of the file volumes once their journals and logs are recovered.
pub fn check(config: &Config, guest: &dyn FileSystems) -> Result<Vec<Told>, OpenError> {
    each(config, |volume, target| {
        let (well, said) = guest.check(target)?;
        Ok(Told {
            volume,
            kind: target.kind.to_string(),
            well,
            said,
        })
    })
}

fn each(
    config: &Config,
    tell: impl Fn(u8, &FileTarget) -> Result<Told, OpenError>,
) -> Result<Vec<Told>, OpenError> {
    files(config)
        .map(|(ordinal, target)| tell(ordinal, target))
        .collect()
}

/// The file volumes of a config, by ordinal.
pub fn files(config: &Config) -> impl Iterator<Item = (u8, &FileTarget)> {
    let volumes = (0..).zip(&config.volumes);
    volumes.filter_map(|(ordinal, volume)| match &volume.target {
        Target::File(target) => Some((ordinal, target)),
        Target::Raw(_) => None,
    })
}

/// What one kind's own code saw.
struct Seen {
    clean: Option<bool>,
    said: String,
}

impl Seen {
    fn new(clean: bool, said: impl Into<String>) -> Self {
        Self {
            clean: Some(clean),
            said: said.into(),
        }
    }

    fn unknown(said: impl Into<String>) -> Self {
        Self {
            clean: None,
            said: said.into(),
        }
    }
}

/// Reads `length` bytes at any offset of a device that takes aligned reads only.
fn read(disk: &dyn Disk, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let cell = CELL as u64;
    let first = offset / cell;
    let end = offset
        .checked_add(length as u64)
        .filter(|end| *end <= disk.size())
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let cells = usize::try_from(end.div_ceil(cell) - first).map_err(io::Error::other)?;
    let mut buffer = Aligned::new(cells);
    disk.read_at(first * cell, buffer.bytes_mut())?;
    let skip = usize::try_from(offset % cell).map_err(io::Error::other)?;
    Ok(buffer.bytes()[skip..skip + length].to_vec())
}

/// `N` bytes at a place; zeros beyond the end, which no magic number is.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = from.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

#[cfg(test)]
mod tests;
