//! One image on one site: its durable pages, its volatile cache, who has it open and what its
//! mirroring knows. No policy; the verbs and the mirror daemon decide.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::pages::{Page, Pages};

/// Somebody who has an image open.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Node it is open on.
    pub(super) host: String,
    /// Whether it may write.
    pub(super) writable: bool,
    /// Its host lost power: nothing passes any more.
    pub(super) dead: bool,
}

/// A durable write in the order in which writes became durable.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// Page.
    pub(super) index: u64,
    /// What it replaced.
    pub(super) old: Page,
    /// What it put there.
    pub(super) new: Page,
}

/// Writes that a log keeps at most; the snapshot itself has all of them.
const LOGGED: usize = 8192;

/// Forgets the oldest writes of a log that grew too long.
pub(super) fn bound(log: &mut Vec<Write>) {
    if log.len() > LOGGED {
        log.drain(..log.len() - LOGGED / 2);
    }
}

#[derive(Debug, Clone)]
struct Cached {
    order: u64,
    host: String,
    page: Page,
}

/// When a replica got its content, and at what cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncInfo {
    /// The instant of the mirror snapshot: the point in time that the replica holds. This, not the
    /// end of the transfer, is `lastSyncTime`.
    pub time: Timestamp,
    /// Bytes transferred.
    pub bytes: u64,
    /// How long the transfer took, lab time.
    pub duration: Duration,
}

/// A complete state that a replica holds or held.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// The mirror snapshot it came from.
    pub(super) cut: u64,
    /// Whether that is the last one before a demotion.
    pub(super) demoted: bool,
    /// What is stored here.
    pub(super) pages: Pages,
    /// What the snapshot held; differs from `pages` only by planted faults.
    pub(super) truth: Pages,
}

/// What an image knows of its mirroring.
#[derive(Debug, Clone, Default)]
pub(super) struct Mirror {
    /// Whether this side takes writes.
    pub(super) primary: bool,
    /// Consistency group; its members are cut at one instant.
    pub(super) group: String,
    /// Mirror snapshots in this image's past, oldest first. A replica can follow a primary only if
    /// its newest one is in the primary's past; otherwise both diverged.
    pub(super) history: Vec<u64>,
    /// The snapshot taken when this side was demoted, until it is promoted again.
    pub(super) demoted: Option<u64>,
    /// The newest complete state of this side while it is not primary.
    pub(super) point: Option<Point>,
    /// Complete states before it, oldest first, bounded.
    pub(super) older: VecDeque<Point>,
    /// Pages of an unfinished transfer that were already applied.
    pub(super) partial: u64,
    /// Birth of the image when it was demoted: a resync deletes it only once (replication.md §3).
    pub(super) born_at_demote: Option<u64>,
    /// What the peer last said about its replica.
    pub(super) told: Option<SyncInfo>,
    /// Mirroring in name only (fault `unprotected-volume`).
    pub(super) unprotected: bool,
    /// Recent overwrites that arrived here, newest last, bounded.
    pub(super) recent: VecDeque<Write>,
}

/// An image on one site.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Bytes.
    pub(super) size: u64,
    /// Durable content.
    pub(super) pages: Pages,
    cache: BTreeMap<u64, Cached>,
    writes: u64,
    /// What a host's stale cache shows of pages instead of what is stored (fault
    /// `stale-read-cache`). Only whoever can write the image looks through it.
    pub(super) stale: BTreeMap<u64, Page>,
    /// Pages that cannot be read (fault `unreadable-extent`).
    pub(super) unreadable: Range<u64>,
    /// Open handles by id.
    pub(super) attached: BTreeMap<u64, Attachment>,
    /// The latest durable writes since the last mirror snapshot, kept while primary.
    pub(super) log: Vec<Write>,
    /// Distinguishes a recreated image from its predecessor.
    pub(super) birth: u64,
    /// Mirroring, if enabled.
    pub(super) mirror: Option<Mirror>,
}

impl Image {
    /// An empty image.
    pub(super) fn new(size: u64, birth: u64) -> Self {
        Self {
            size,
            pages: Pages::default(),
            cache: BTreeMap::new(),
            writes: 0,
            stale: BTreeMap::new(),
            unreadable: 0..0,
            attached: BTreeMap::new(),
            log: Vec::new(),
            birth,
            mirror: None,
        }
    }

    /// Whether writes are allowed: not mirrored, or primary.
    pub(super) fn writable(&self) -> bool {
        self.mirror.as_ref().is_none_or(|m| m.primary)
    }

    /// Whether anybody alive has it open.
    pub(super) fn in_use(&self) -> bool {
        self.attached.values().any(|a| !a.dead)
    }

    /// The page as a reader sees it, cache included.
    pub(super) fn read(&self, index: u64) -> Page {
        match self.cache.get(&index) {
            Some(cached) => cached.page.clone(),
            None => self.pages.get(index),
        }
    }

    /// Takes a write, into the cache unless it has to be durable at once.
    pub(super) fn write(&mut self, host: &str, index: u64, page: Page, durable: bool) {
        self.stale.remove(&index);
        if durable {
            self.cache.remove(&index);
            self.persist(index, page);
        } else {
            self.writes += 1;
            let cached = Cached {
                order: self.writes,
                host: host.to_owned(),
                page,
            };
            self.cache.insert(index, cached);
        }
    }

    /// Makes everything in the cache durable, in the order in which it was written.
    pub(super) fn flush(&mut self) {
        self.flush_all_but(0, |_| true);
    }

    /// Makes durable what `which` selects of the cache, in the order in which it was written, except
    /// for the `newest` of them.
    pub(super) fn flush_all_but(&mut self, newest: usize, which: impl Fn(&Page) -> bool) {
        let chosen = self.cache.iter().filter(|(_, c)| which(&c.page));
        let mut order: Vec<_> = chosen.map(|(index, c)| (c.order, *index)).collect();
        order.sort_unstable();
        order.truncate(order.len().saturating_sub(newest));
        for (_, index) in order {
            if let Some(c) = self.cache.remove(&index) {
                self.persist(index, c.page);
            }
        }
    }

    /// What is in the cache, in the order of pages.
    pub(super) fn cached(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.cache.iter().map(|(index, c)| (*index, &c.page))
    }

    /// Loses what `which` selects of the cache and says where it was.
    pub(super) fn lose(&mut self, mut which: impl FnMut(u64, &Page) -> bool) -> Vec<u64> {
        let mut lost = Vec::new();
        self.cache.retain(|index, c| {
            let gone = which(*index, &c.page);
            lost.extend(gone.then_some(*index));
            !gone
        });
        lost
    }

    /// Loses what is cached for a host, or for all of them.
    pub(super) fn lose_cache(&mut self, host: Option<&str>) {
        self.cache
            .retain(|_, c| host.is_some_and(|host| c.host != host));
    }

    /// Loses what is stored from page `end` on.
    pub(super) fn cut_off(&mut self, end: u64) {
        for pages in std::iter::once(&mut self.pages).chain(
            (self.mirror.as_mut())
                .and_then(|mirror| mirror.point.as_mut())
                .map(|point| &mut point.pages),
        ) {
            let beyond: Vec<u64> = pages
                .iter()
                .map(|(at, _)| at)
                .filter(|at| *at >= end)
                .collect();
            for index in beyond {
                pages.set(index, None);
            }
        }
    }

    fn persist(&mut self, index: u64, page: Page) {
        if self.mirror.as_ref().is_some_and(|m| m.primary) {
            let old = self.pages.get(index);
            self.log.push(Write {
                index,
                old,
                new: page.clone(),
            });
            bound(&mut self.log);
        }
        self.pages.set(index, page);
    }
}
