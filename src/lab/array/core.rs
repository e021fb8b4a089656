//! The array's state behind its lock: images of both sites, power, links, fences and block I/O.
//! Everything here is synchronous and told what time it is, so that tests can drive it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::image::{Attachment, Image};
use super::mirror::Queue;
use super::pages::{Page, Pages, page};
use super::relocation::Copying;
use super::snapshots::Kept;
use super::strike::{Late, Strike, is_load};
use super::{Code, Config, Status};
use crate::history::event::Site;
use crate::lab::faults::{Board, Fault};
use crate::lab::world::{self, PAGE};

/// Linux `EIO`, which a guest sees on a fenced or powered-off path.
const EIO: i32 = 5;
/// Linux `EROFS`, which a guest sees when its image is not primary.
const EROFS: i32 = 30;

/// The instant of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Lab time since the array was made.
    pub(super) lab: Duration,
    /// Wall clock.
    pub(super) wall: Timestamp,
}

/// One image on one site.
pub(super) type Key = (Site, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) board: Arc<Board>,
    pub(super) images: BTreeMap<Key, Image>,
    /// Snapshots that users took, by site and name.
    pub(super) snapshots: BTreeMap<Key, Kept>,
    /// Mirror snapshots waiting to go to the peer, by source site and consistency group.
    pub(super) queues: BTreeMap<(Site, String), Queue>,
    /// Images deleted by a resync: when the source is asked for a snapshot to start over from.
    pub(super) recreations: Vec<(Duration, Key)>,
    /// Replicas whose primary was deleted or disabled while they could not be reached.
    pub(super) orphans: Vec<Key>,
    pub(super) down: BTreeSet<Site>,
    pub(super) link: bool,
    fenced: BTreeSet<Key>,
    pub(super) strikes: Vec<Strike>,
    /// Images made from snapshots whose writes go to the snapshots' sources too (fault
    /// `clone-shares-blocks`).
    pub(super) shared: BTreeMap<Key, Key>,
    /// What replicas held that were given up (fault `replica-of-the-discarded`).
    pub(super) given_up: Vec<Pages>,
    /// Images whose guest went on at another host, until what that leaves to do is done.
    pub(super) moved: BTreeSet<Key>,
    /// The member of a group snapshot that is cut later than its group (fault `group-snapshot-skew`).
    pub(super) late: Option<Late>,
    /// Copies that are made under a guest, by the image that it writes to.
    pub(super) copies: BTreeMap<Key, Copying>,
    /// Handles of guests that went on upon a copy, and where they lead.
    pub(super) relocated: BTreeMap<(Key, u64), (Key, u64)>,
    /// Lab time until which promotion of an image hangs (fault `promote-stalls`).
    pub(super) stalls: BTreeMap<Key, Duration>,
    next: u64,
}

impl Core {
    /// An array without images.
    pub(super) fn new(config: Config, board: Arc<Board>) -> Self {
        Self {
            config,
            board,
            images: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            queues: BTreeMap::new(),
            recreations: Vec::new(),
            orphans: Vec::new(),
            down: BTreeSet::new(),
            link: true,
            fenced: BTreeSet::new(),
            strikes: Vec::new(),
            shared: BTreeMap::new(),
            given_up: Vec::new(),
            moved: BTreeSet::new(),
            late: None,
            copies: BTreeMap::new(),
            relocated: BTreeMap::new(),
            stalls: BTreeMap::new(),
            next: 0,
        }
    }

    /// A number never given before.
    pub(super) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The image that a handle names.
    pub(super) fn image(&self, key: &Key) -> Result<&Image, Status> {
        self.images.get(key).ok_or_else(|| absent(key))
    }

    /// The image that a handle names, to change it.
    pub(super) fn image_mut(&mut self, key: &Key) -> Result<&mut Image, Status> {
        self.images.get_mut(key).ok_or_else(|| absent(key))
    }

    /// Makes an empty image. Idempotent for the same size, as CSI's CreateVolume is.
    pub(super) fn create(&mut self, key: Key, size: u64) -> Result<(), Status> {
        if size == 0 || !size.is_multiple_of(PAGE as u64) {
            let text = format!("size {size} is not a positive multiple of {PAGE}");
            return Err(Status::new(Code::InvalidArgument, text));
        }
        match self.images.get(&key) {
            Some(image) if image.size == size => Ok(()),
            Some(image) => {
                let text = format!("image {} exists with {} bytes", key.1, image.size);
                Err(Status::new(Code::InvalidArgument, text))
            }
            None => {
                let birth = self.fresh();
                self.images.insert(key, Image::new(size, birth));
                Ok(())
            }
        }
    }

    /// Makes `to` a copy of `from` on the same site, sharing its pages.
    pub(super) fn copy(&mut self, from: &Key, to: &Key, size: u64) -> Result<(), Status> {
        let source = self.image(from)?;
        if source.size > size {
            let text = format!("the source has {} bytes, more than {size}", source.size);
            return Err(Status::new(Code::InvalidArgument, text));
        }
        let pages = source.pages.clone();
        self.create(to.clone(), size)?;
        self.image_mut(to)?.pages = pages;
        Ok(())
    }

    /// Opens an image on a host.
    pub(super) fn attach(&mut self, key: &Key, host: &str, writable: bool) -> io::Result<u64> {
        if self.down.contains(&key.0) || self.fenced.contains(&(key.0, host.to_owned())) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let id = self.fresh();
        let image = self
            .images
            .get_mut(key)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, absent(key).message))?;
        if !image.writable() {
            let text = format!(
                "failed to map image {}: it is not primary on {}",
                key.1,
                world::short(key.0)
            );
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text));
        }
        let attachment = Attachment {
            host: host.to_owned(),
            writable,
            dead: false,
        };
        image.attached.insert(id, attachment);
        if writable {
            self.strike_at_open(key);
        }
        Ok(id)
    }

    /// Closes every handle of a host on an image; the last one writes the cache back.
    pub(super) fn detach(&mut self, key: &Key, mut gone: impl FnMut(u64, &Attachment) -> bool) {
        let Some(image) = self.images.get_mut(key) else {
            return;
        };
        let before = image.attached.len();
        image.attached.retain(|id, a| !gone(*id, a));
        if before > 0 && !image.in_use() && image.writable() {
            self.close(key);
        }
    }

    /// The last handle of an image is closed: its cache is written back.
    fn close(&mut self, key: &Key) {
        // Whoever wrote to both is gone.
        self.copies.remove(key);
        self.strike_at_close(key);
        if let Some(image) = self.images.get_mut(key) {
            image.flush();
        }
    }

    /// An open handle that still passes I/O, and its image.
    pub(super) fn port(&mut self, key: &Key, id: u64) -> io::Result<(&mut Image, Attachment)> {
        let down = self.down.contains(&key.0);
        let image = self
            .images
            .get_mut(key)
            .ok_or_else(|| io::Error::from_raw_os_error(EIO))?;
        let Some(a) = image
            .attached
            .get(&id)
            .filter(|a| !a.dead && !down)
            .cloned()
        else {
            return Err(io::Error::from_raw_os_error(EIO));
        };
        if self.fenced.contains(&(key.0, a.host.clone())) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok((image, a))
    }

    /// Reads pages through an open handle.
    pub(super) fn read(&mut self, key: &Key, id: u64, at: u64, n: u64) -> io::Result<Vec<Page>> {
        let (image, attachment) = self.port(key, id)?;
        inside(image, at, n)?;
        let bad = &image.unreadable;
        if at < bad.end && bad.start < at + n {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let seen = |index| match image.stale.get(&index) {
            Some(stale) if attachment.writable => stale.clone(),
            _ => image.read(index),
        };
        Ok((at..at + n).map(seen).collect())
    }

    /// Writes pages through an open handle.
    pub(super) fn write(
        &mut self,
        key: &Key,
        id: u64,
        at: u64,
        bytes: &[u8],
        durable: bool,
    ) -> io::Result<()> {
        let pages: Vec<Page> = bytes.chunks(PAGE).map(page).collect();
        self.demote_behind(key, &pages);
        let lies = self.flushes_lie();
        let (image, attachment) = self.port(key, id)?;
        inside(image, at, pages.len() as u64)?;
        if !attachment.writable || !image.writable() {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        for (index, page) in (at..).zip(&pages) {
            let durable = durable && !(lies && is_load(page));
            image.write(&attachment.host, index, page.clone(), durable);
        }
        self.drain(key);
        self.write_to_copy(key, at, &pages, durable);
        self.write_through(key, at, &pages);
        if durable {
            self.count_towards_skew(key, &pages);
            self.count_towards_late(key, &pages);
        }
        self.strike_after_move(key, at, &pages);
        Ok(())
    }

    /// Flushes the cache of an image through an open handle.
    pub(super) fn flush(&mut self, key: &Key, id: u64) -> io::Result<()> {
        let lies = self.flushes_lie();
        let skews = self.board.armed(Fault::GroupSkew) || self.late.is_some();
        let (image, attachment) = self.port(key, id)?;
        if !attachment.writable {
            return Ok(());
        }
        if !image.writable() {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        let goes = |page: &Page| !(lies && is_load(page));
        let mut flushed: Vec<Page> = Vec::new();
        if skews {
            let cached = image.cached().map(|(_, page)| page);
            flushed.extend(cached.filter(|page| goes(page)).cloned());
        }
        image.flush_all_but(0, goes);
        self.flush_copy(key);
        self.count_towards_skew(key, &flushed);
        self.count_towards_late(key, &flushed);
        Ok(())
    }

    /// Fences or releases hosts on a site's storage. A fenced host gets `EIO` on every image.
    pub(super) fn fence(&mut self, site: Site, hosts: &[String], on: bool) {
        for host in hosts {
            let key = (site, host.clone());
            if on {
                self.fenced.insert(key);
            } else {
                self.fenced.remove(&key);
            }
        }
    }

    /// The hosts that a site's storage refuses.
    pub(super) fn fenced(&self, site: Site) -> Vec<String> {
        let of = self.fenced.iter().filter(|key| key.0 == site);
        of.map(|key| key.1.clone()).collect()
    }

    /// A host loses power: its open handles are dead and what it had not flushed is gone.
    pub(super) fn cut_host(&mut self, site: Site, host: Option<&str>) {
        self.drop_copies(site, host);
        for (key, image) in &mut self.images {
            if key.0 == site {
                image.lose_cache(host);
                for a in image.attached.values_mut() {
                    a.dead |= host.is_none_or(|host| a.host == host);
                }
            }
        }
    }
}

fn absent(key: &Key) -> Status {
    let text = format!("image {} not found in {}", key.1, world::short(key.0));
    Status::new(Code::NotFound, text)
}

fn inside(image: &Image, at: u64, n: u64) -> io::Result<()> {
    let end = at
        .checked_add(n)
        .and_then(|end| end.checked_mul(PAGE as u64));
    if end.is_some_and(|end| end <= image.size) {
        Ok(())
    } else {
        let text = format!("page {at}+{n} is beyond the image's {} bytes", image.size);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}
