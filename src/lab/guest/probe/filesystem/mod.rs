//! The least file system that can hold a ledger file on a simulated disk: what ext4 and XFS keep where
//! Linux keeps it, a journal, and the place of one preallocated file. It stands in for the kernel's
//! code, which a simulated guest does not have.
//!
//! Contract: a device shows at every moment what Linux would have left on it. Mounting for writing
//! replays the journal and marks the device as in use; a freeze and an unmount flush and say so; a
//! thaw marks it again before the first write; mounting for reading changes nothing.

mod ext4;
mod journal;
mod xfs;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use self::journal::Journal;
use crate::lab::guest::Planted;
use crate::lab::guest::freeze::{Freezer, Mount};
use crate::probe::disk::{Disk, Grants};
use crate::probe::filesystem::{Content, Kind, content};
use crate::probe::layout::CELL;
use crate::probe::platform::OpenError;

const MAGIC: &[u8; 8] = b"vp-fs-01";
/// Where the place of the ledger file stands: in the first block behind either superblock, where ext4
/// and XFS have nothing that the probe reads.
const PLACE: usize = 2048;
/// The cell in which a kind keeps its journal or log, behind the ring of data.
const JOURNAL: u64 = 15;
/// Cells before the ledger file: the superblock and room for what a file system keeps there.
const FIRST: u64 = 16;
const _: () = assert!(
    journal::RING <= JOURNAL && JOURNAL < FIRST,
    "they lie apart"
);
/// The largest ledger file that is made unless the config pins its cells, as in a real guest.
const MOST_CELLS: u64 = (256 << 20) / CELL as u64;

/// What a device says of the file system on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Made, or unmounted in order.
    Clean,
    /// Frozen: flushed, and its writers stopped.
    Frozen,
    /// Mounted for writing, nothing in its journal yet.
    Mounted,
    /// Mounted for writing, with something in its journal.
    Active,
}

/// Makes the marks of a kind in the first cell.
fn format(kind: Kind, cell: &mut [u8], cells: u64) {
    match kind {
        Kind::Ext4 => ext4::format(cell, cells),
        Kind::Xfs => xfs::format(cell, cells),
    }
}

/// Makes a device say what state it is in, durably.
fn mark(kind: Kind, disk: &dyn Disk, state: State) -> io::Result<()> {
    match kind {
        Kind::Ext4 => ext4::mark(disk, state)?,
        Kind::Xfs => xfs::mark(disk, state)?,
    }
    disk.flush()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    first: u64,
    cells: u64,
}

/// Says that a file system and its ledger file may be made on a blank device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Make {
    /// Of how many cells, `None` for as many as are usual.
    pub(super) cells: Option<u64>,
}

/// The place of the ledger file on a device that carries a file system of this kind; on a blank one
/// both are made if that may be.
///
/// A new image reads as zeros, so preallocation writes the first cells only.
fn place(
    disk: &dyn Disk,
    device: &str,
    kind: Kind,
    make: Option<Make>,
) -> Result<Place, OpenError> {
    let read = |error| OpenError::io(format!("reading {device}"), error);
    let place = match (content(disk).map_err(read)?, make) {
        (Content::Blank, Some(make)) => new(disk, device, kind, make)?,
        (Content::Known(found), _) if found == kind => {
            let mut cell = vec![0; CELL];
            disk.read_at(0, &mut cell).map_err(read)?;
            decode(&cell).ok_or_else(|| OpenError::new(format!("the {kind} on {device} is bad")))?
        }
        (Content::Blank, None) => {
            return Err(OpenError::new(format!("{device} carries no file system")));
        }
        _ => {
            let what = format!("{device} is not blank and carries no {kind}");
            return Err(OpenError::new(what));
        }
    };
    let end = place.first.saturating_add(place.cells);
    if end > disk.size() / CELL as u64 {
        let what = format!("the file system on {device} is larger than the disk");
        return Err(OpenError::new(what));
    }
    Ok(place)
}

fn new(disk: &dyn Disk, device: &str, kind: Kind, make: Make) -> Result<Place, OpenError> {
    let all = disk.size() / CELL as u64;
    let cells = make.cells.unwrap_or_else(|| (all / 2).min(MOST_CELLS));
    if FIRST + cells > all {
        let what = format!("a ledger of {cells} cells does not fit on {device}");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        return Err(OpenError::io(what, full));
    }
    let place = Place {
        first: FIRST,
        cells,
    };
    let mut cell = vec![0; CELL];
    format(kind, &mut cell, all);
    let written = encode(place, &mut cell)
        .and_then(|()| disk.write_at(0, &cell))
        .and_then(|()| mark(kind, disk, State::Clean));
    written.map_err(|error| OpenError::io(format!("making {kind} on {device}"), error))?;
    Ok(place)
}

fn encode(place: Place, cell: &mut [u8]) -> io::Result<()> {
    let body = serde_json::to_vec(&place).map_err(io::Error::other)?;
    let block = &mut cell[PLACE..];
    block[..8].copy_from_slice(MAGIC);
    block[8..24].copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
    block[24] = u8::try_from(body.len()).map_err(io::Error::other)?;
    block[25..25 + body.len()].copy_from_slice(&body);
    Ok(())
}

fn decode(cell: &[u8]) -> Option<Place> {
    let block = cell.get(PLACE..)?;
    let body = block.get(25..25 + usize::from(*block.get(24)?))?;
    let whole = block[..8] == *MAGIC && block[8..24] == blake3::hash(body).as_bytes()[..16];
    whole.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// A file system that is mounted for writing.
pub(in crate::lab::guest) struct Mounted {
    disk: Arc<dyn Disk>,
    kind: Kind,
    place: Place,
    /// Whether the device says that there is something in the journal.
    active: Mutex<bool>,
    journal: Option<Journal>,
    unmounted: AtomicBool,
    planted: Planted,
    /// What `fsfreeze` holds of it: the kernel's own account, of which the agent knows nothing.
    held: Freezer,
}

impl Mounted {
    /// Mounts the file system on a device, after making it if it may be made.
    pub(super) fn mount(
        disk: Arc<dyn Disk>,
        device: &str,
        kind: Kind,
        make: Option<Make>,
        planted: Planted,
    ) -> Result<Arc<Self>, OpenError> {
        let place = place(disk.as_ref(), device, kind, make)?;
        let failed = |error| OpenError::io(format!("mounting {device}"), error);
        let rewritten = journal::replay(disk.as_ref()).map_err(failed)?;
        if rewritten > 0 {
            tracing::debug!(device, rewritten, "a journal was replayed");
        }
        mark(kind, disk.as_ref(), State::Mounted).map_err(failed)?;
        Ok(Arc::new(Self {
            disk,
            kind,
            place,
            active: Mutex::default(),
            journal: planted.journals().then(Journal::default),
            unmounted: AtomicBool::new(false),
            planted,
            held: Freezer::default(),
        }))
    }

    /// As `FIFREEZE`: it is busy if it is frozen already, whoever froze it. Blocks for writes that are
    /// under way.
    pub(super) fn freeze(&self, agent: &Freezer) -> io::Result<()> {
        if agent.frozen() || self.held.freeze()?.is_none() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.still().inspect_err(|_| {
            self.held.thaw();
        })
    }

    /// As `FITHAW`, of what `fsfreeze` froze or the agent: it is invalid for what is not frozen.
    pub(super) fn thaw(&self, agent: &Freezer) -> io::Result<()> {
        if !self.held.frozen() {
            // The agent's hold is one over all file systems; one of them cannot be taken out of it.
            return Err(if agent.frozen() {
                io::ErrorKind::Unsupported.into()
            } else {
                io::ErrorKind::InvalidInput.into()
            });
        }
        self.moves()?;
        self.held.thaw();
        Ok(())
    }

    /// Writes everything to its place for a freeze.
    fn still(&self) -> io::Result<()> {
        if self.planted.freezes_unclean() {
            return Ok(());
        }
        self.rest(State::Frozen)
    }

    /// Says that it takes writes again.
    fn moves(&self) -> io::Result<()> {
        let active = self.active();
        if *active {
            return Ok(());
        }
        mark(self.kind, self.disk.as_ref(), State::Mounted)
    }

    /// Unmounts it in order, once. A device that is gone is left as it is.
    pub(in crate::lab::guest) fn unmount(&self) -> io::Result<()> {
        // A frozen one is left as it is: it was flushed.
        if self.held.frozen() || self.unmounted.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.rest(State::Clean)
    }

    fn active(&self) -> std::sync::MutexGuard<'_, bool> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first write brings something into the journal.
    fn touch(&self) -> io::Result<()> {
        let mut active = self.active();
        if !*active {
            mark(self.kind, self.disk.as_ref(), State::Active)?;
            *active = true;
        }
        Ok(())
    }

    /// Writes everything to its place and says so.
    fn rest(&self, state: State) -> io::Result<()> {
        let mut active = self.active();
        self.disk.flush()?;
        if self.journal.is_some() {
            journal::wipe(self.disk.as_ref())?;
        }
        mark(self.kind, self.disk.as_ref(), state)?;
        *active = false;
        Ok(())
    }
}

impl Mount for Mounted {
    /// For the agent a file system that is frozen already is no error.
    fn quiesce(&self) -> io::Result<()> {
        if self.held.frozen() {
            return Ok(());
        }
        self.still()
    }

    /// The agent thaws until there is nothing left to thaw, whoever froze it.
    fn resume(&self) -> io::Result<()> {
        self.held.thaw();
        self.moves()
    }

    fn lose_power(&self) {
        self.held.power_off();
    }
}

/// A preallocated file: a run of cells of a disk.
pub(super) struct File {
    disk: Arc<dyn Disk>,
    place: Place,
    /// Behind what it is written, `None` for reading only.
    writing: Option<(Arc<Mounted>, Arc<Freezer>)>,
}

impl File {
    /// The ledger file of a mounted file system of a guest.
    pub(super) fn of(mounted: Arc<Mounted>, freezer: Arc<Freezer>) -> Self {
        Self {
            disk: Arc::clone(&mounted.disk),
            place: mounted.place,
            writing: Some((mounted, freezer)),
        }
    }

    /// The ledger file on a device that nobody mounts for writing; nothing on it is replayed.
    pub(super) fn read(disk: Arc<dyn Disk>, device: &str, kind: Kind) -> Result<Self, OpenError> {
        Ok(Self {
            place: place(disk.as_ref(), device, kind, None)?,
            disk,
            writing: None,
        })
    }

    fn at(&self, offset: u64, length: usize) -> io::Result<u64> {
        if offset + length as u64 > self.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.place.first * CELL as u64 + offset)
    }

    /// Writes through the file system: not while it is frozen, and not without its journal knowing.
    fn through(&self, write: impl FnOnce(&Mounted) -> io::Result<()>) -> io::Result<()> {
        let (mounted, freezer) = self
            .writing
            .as_ref()
            .ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        if mounted.planted.freezes() {
            freezer.freeze()?;
        }
        let held = mounted.held.enter();
        let under_way = freezer.enter();
        mounted.touch()?;
        let written = write(mounted);
        drop((under_way, held));
        written
    }
}

impl Disk for File {
    fn size(&self) -> u64 {
        self.place.cells * CELL as u64
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(self.at(offset, buf.len())?, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let at = self.at(offset, buf.len())?;
        self.through(|mounted| match &mounted.journal {
            Some(journal) => journal.write(self.disk.as_ref(), at, buf),
            None => self.disk.write_at(at, buf),
        })
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let at = self.at(offset, buf.len())?;
        self.through(|_| self.disk.write_lazily_at(at, buf))
    }

    fn flush(&self) -> io::Result<()> {
        self.through(|_| self.disk.flush())
    }
}

#[cfg(test)]
mod tests;
