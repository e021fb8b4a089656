//! Faults of the volatile cache before an image, and the legal disorder that looks like them: what
//! no flush covered may be lost, kept in part, or torn, and no check may object.

use std::io;

use super::{coin, halves, is_load};
use crate::history::event::Site;
use crate::lab::array::core::{Core, Key, Now};
use crate::lab::array::image::Image;
use crate::lab::array::mirror::Member;
use crate::lab::array::pages::{Page, page};
use crate::lab::faults::Fault;

/// The faults that decide what a cache loses when its image is closed.
const AT_CLOSE: [(Fault, &str); 3] = [
    (Fault::LyingFlush, "flushed writes lost with the cache"),
    (
        Fault::UnsyncedRollback,
        "writes that no flush covered lost with the cache",
    ),
    (
        Fault::ReorderWithoutBarrier,
        "some of the writes that no flush covered lost with the cache",
    ),
];

impl Core {
    /// Whether a flush of load is acknowledged and not done (fault `lying-flush`).
    pub(in crate::lab::array) fn flushes_lie(&self) -> bool {
        self.board.armed(Fault::LyingFlush)
    }

    /// Writes back what a lying cache has no room for, oldest first, as write-back caches do.
    pub(in crate::lab::array) fn drain(&mut self, key: &Key) {
        let Some(held) = self.board.param(Fault::LyingFlush, "writes") else {
            return;
        };
        let held = usize::try_from(held).unwrap_or(0);
        if let Some(image) = self.images.get_mut(key) {
            image.flush_all_but(held, is_load);
        }
    }

    /// Loses what the cache of an image held when its last handle was closed: the process that kept
    /// the cache is gone with the guest.
    pub(in crate::lab::array) fn strike_at_close(&mut self, key: &Key) {
        let armed = |(fault, _): &&(Fault, &str)| self.board.armed(*fault);
        let Some((fault, detail)) = AT_CLOSE.iter().find(armed) else {
            return;
        };
        let seed = self.config.seed;
        let Some(image) = self.images.get_mut(key) else {
            return;
        };
        let all = *fault != Fault::ReorderWithoutBarrier;
        let lost = image.lose(|index, page| is_load(page) && (all || coin(seed, index, 0)));
        if let Some(first) = lost.first() {
            self.struck(*fault, key, *first, detail);
        }
    }

    /// Adds to a snapshot some of what no flush had covered when it was taken (fault
    /// `reorder-without-barrier`). Without it a snapshot holds nothing of that, which is as legal.
    pub(in crate::lab::array) fn with_unflushed(
        &mut self,
        key: &Key,
        cut: u64,
        mut member: Member,
    ) -> Member {
        let fault = Fault::ReorderWithoutBarrier;
        if !self.board.armed(fault) {
            return member;
        }
        let seed = self.config.seed;
        let cached: Vec<(u64, Page)> = (self.images.get(key).into_iter())
            .flat_map(Image::cached)
            .filter(|(index, page)| is_load(page) && coin(seed, *index, cut))
            .map(|(index, page)| (index, page.clone()))
            .collect();
        if let Some((first, _)) = cached.first() {
            self.struck(fault, key, *first, "kept out of order by a snapshot");
        }
        for (index, page) in cached {
            member.pages.set(index, page);
        }
        member
    }

    /// Whether a snapshot that is due waits for the next write of load, to be taken within it (fault
    /// `torn-in-flight`). It waits for one interval at most.
    pub(in crate::lab::array) fn awaits_write(&mut self, site: Site, group: &str) -> bool {
        if !self.board.armed(Fault::TornInFlight) {
            return false;
        }
        let loaded = self.members(site, group).into_iter().any(|id| {
            let image = self.images.get(&(site, id));
            image.is_some_and(|i| i.log.iter().any(|w| is_load(&w.new)))
        });
        let Some(queue) = self.queues.get_mut(&(site, group.to_owned())) else {
            return false;
        };
        queue.within_write = loaded && !queue.within_write;
        queue.within_write
    }

    /// Takes the snapshot that waits for a write when half of that write has been done. Nobody was
    /// told yet that the write is durable, so the snapshot may hold it torn.
    pub(in crate::lab::array) fn cut_within_write(
        &mut self,
        key: &Key,
        id: u64,
        at: u64,
        bytes: &[u8],
        now: Now,
    ) -> io::Result<()> {
        let new = page(bytes);
        let Some(group) = self.group_of(key).filter(|_| is_load(&new)) else {
            return Ok(());
        };
        let queue = self.queues.get_mut(&(key.0, group.clone()));
        let Some(queue) = queue.filter(|queue| queue.within_write) else {
            return Ok(());
        };
        queue.within_write = false;
        let (image, open) = self.port(key, id)?;
        if !open.writable || !image.writable() {
            return Ok(());
        }
        let before = image.pages.get(at);
        let torn = new.as_deref().and_then(|new| halves(new, &before));
        image.pages.set(at, torn);
        self.cut(key.0, &group, now);
        if let Some(image) = self.images.get_mut(key) {
            image.pages.set(at, before);
        }
        self.struck(Fault::TornInFlight, key, at, "cut in the middle of a write");
        Ok(())
    }
}
