//! Mirroring: snapshots cut on a schedule, their transfer, and what a replica holds.
//!
//! A replica is the last mirror snapshot that arrived whole. All images of a consistency group are
//! cut under one lock and become visible on the peer together, so that a group's replicas always
//! show one instant; an image alone in its group has a schedule of its own. Snapshots travel in
//! order, one at a time per group.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::core::{Core, Key, Now};
use super::image::{Image, Mirror, Point, SyncInfo, Write, bound};
use super::pages::{Page, Pages};
use super::strike::{Skew, carries_load, slowdown};
use crate::history::event::Site;
use crate::lab::faults::Moment;
use crate::lab::world::PAGE;

/// Mirror snapshots kept for a peer that cannot be reached; RBD keeps five and unlinks older ones.
const KEPT: usize = 5;
/// Complete states kept on a replica besides the newest.
const OLDER: usize = 8;
/// Overwrites remembered on a replica.
const RECENT: usize = 1024;

/// One image in a mirror snapshot.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Bytes of the image.
    pub(super) size: u64,
    pub(super) pages: Pages,
    /// Durable writes since the snapshot before, oldest first, bounded.
    pub(super) log: Vec<Write>,
    /// Whether this is the last snapshot before a demotion.
    pub(super) demoted: bool,
}

/// A mirror snapshot of a consistency group.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) id: u64,
    pub(super) at: Timestamp,
    pub(super) members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone, Copy)]
struct Transfer {
    started: Duration,
    due: Duration,
}

/// The mirroring of one consistency group away from one site.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    pub(super) interval: Option<Duration>,
    pub(super) due: Option<Duration>,
    pub(super) cuts: VecDeque<Cut>,
    transfer: Option<Transfer>,
    /// A member was promoted by force on the peer: the others stay where they are, so that the
    /// group comes up at one instant.
    pub(super) broken: bool,
    /// A snapshot is due and taken within the next write (fault `torn-in-flight`).
    pub(super) within_write: bool,
    pub(super) skew: Option<Skew>,
}

/// Why a replica takes or refuses a snapshot of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Its content is in the peer's past, or it has none.
    Yes,
    /// Both went on from a common past.
    SplitBrain,
    /// It takes writes itself, or is not mirrored.
    No,
}

impl Core {
    /// Whether snapshots and status pass between the sites.
    pub(super) fn connected(&self) -> bool {
        self.link && self.down.is_empty()
    }

    /// The consistency group of a mirrored image.
    pub(super) fn group_of(&self, key: &Key) -> Option<String> {
        Some(self.images.get(key)?.mirror.as_ref()?.group.clone())
    }

    /// Images of a group that are primary on a site.
    pub(super) fn members(&self, site: Site, group: &str) -> Vec<String> {
        let of = self.images.iter().filter(|(key, image)| {
            key.0 == site && (image.mirror.as_ref()).is_some_and(|m| m.primary && m.group == group)
        });
        of.map(|(key, _)| key.1.clone()).collect()
    }

    /// Takes a mirror snapshot of every primary image of a group, at one instant.
    pub(super) fn cut(&mut self, site: Site, group: &str, now: Now) {
        self.close_skew(site, group);
        let mut members = self.members(site, group);
        let skew = self.skew(site, &members);
        members.retain(|id| skew.as_ref().is_none_or(|s| s.image != *id));
        if members.is_empty() {
            return;
        }
        let id = self.fresh();
        let mut cut = Cut {
            id,
            at: now.wall,
            members: BTreeMap::new(),
        };
        for name in members {
            if let Some(member) = self.snapshot(&(site, name.clone()), id, false) {
                cut.members.insert(name, member);
            }
        }
        if cut.members.is_empty() {
            return;
        }
        self.push(site, group, cut).skew = skew;
    }

    /// The state of one image as of now, entered into its history as snapshot `id`.
    pub(super) fn snapshot(&mut self, key: &Key, id: u64, demoted: bool) -> Option<Member> {
        let image = self.images.get_mut(key)?;
        let mirror = image.mirror.as_mut()?;
        mirror.history.push(id);
        if mirror.unprotected {
            return None;
        }
        let member = Member {
            size: image.size,
            pages: image.pages.clone(),
            log: std::mem::take(&mut image.log),
            demoted,
        };
        Some(self.with_unflushed(key, id, member))
    }

    /// Queues a snapshot for the peer. Beyond what is kept, the oldest is folded into its
    /// successor, unless the successor lacks one of its images.
    pub(super) fn push(&mut self, site: Site, group: &str, cut: Cut) -> &mut Queue {
        let queue = self.queues.entry((site, group.to_owned())).or_default();
        queue.cuts.push_back(cut);
        if queue.cuts.len() > KEPT && queue.transfer.is_none() {
            let covered = queue.cuts[0]
                .members
                .keys()
                .all(|id| queue.cuts[1].members.contains_key(id));
            if covered && let Some(oldest) = queue.cuts.pop_front() {
                for (id, mut member) in oldest.members {
                    if let Some(next) = queue.cuts[0].members.get_mut(&id) {
                        member.log.append(&mut next.log);
                        bound(&mut member.log);
                        next.log = member.log;
                    }
                }
            }
        }
        queue
    }

    /// Whether the peer's image can take a snapshot of the image on `site`.
    pub(super) fn follow(&self, site: Site, id: &str) -> Follow {
        let Some(target) = self.images.get(&(site.peer(), id.to_owned())) else {
            return Follow::Yes;
        };
        let Some(mirror) = target.mirror.as_ref().filter(|m| !m.primary) else {
            return Follow::No;
        };
        let source = self.images.get(&(site, id.to_owned()));
        let past = source.and_then(|s| s.mirror.as_ref()).map(|m| &m.history);
        match mirror.history.last() {
            Some(head) if !past.is_some_and(|p| p.contains(head)) => Follow::SplitBrain,
            _ => Follow::Yes,
        }
    }

    /// Lets time pass: cuts what is due, moves what can move.
    pub(super) fn tick(&mut self, now: Now) {
        if self.connected() {
            let due: Vec<Key> = {
                let (due, later) = std::mem::take(&mut self.recreations)
                    .into_iter()
                    .partition(|(at, _)| *at <= now.lab);
                self.recreations = later;
                let due: Vec<(Duration, Key)> = due;
                due.into_iter().map(|(_, key)| key).collect()
            };
            for (site, id) in due {
                if let Some(group) = self.group_of(&(site.peer(), id)) {
                    self.cut(site.peer(), &group, now);
                }
            }
        }
        let keys: Vec<_> = self.queues.keys().cloned().collect();
        for (site, group) in keys {
            self.tick_schedule(site, &group, now);
            self.tick_transfer(site, &group, now);
        }
    }

    fn tick_schedule(&mut self, site: Site, group: &str, now: Now) {
        if self.down.contains(&site) {
            return;
        }
        let Some(queue) = self.queues.get_mut(&(site, group.to_owned())) else {
            return;
        };
        let (Some(interval), Some(due)) = (queue.interval, queue.due) else {
            return;
        };
        if due <= now.lab {
            // A late daemon takes one snapshot, not one for each that it missed.
            let next = due + interval;
            queue.due = Some(if next > now.lab {
                next
            } else {
                now.lab + interval
            });
            if self.awaits_write(site, group) || self.awaits_thaw() {
                return;
            }
            self.cut(site, group, now);
        }
    }

    fn tick_transfer(&mut self, site: Site, group: &str, now: Now) {
        if !self.connected() || self.stalls() {
            return;
        }
        let key = (site, group.to_owned());
        loop {
            let Some(queue) = self.queues.get(&key).filter(|q| !q.broken) else {
                return;
            };
            match queue.transfer {
                Some(transfer) if transfer.due <= now.lab => self.commit(&key, transfer),
                Some(_) => return,
                None if queue.cuts.is_empty()
                    || (queue.skew.is_some() && queue.cuts.len() == 1) =>
                {
                    return;
                }
                None if self.holds_back(&key) => return,
                None => self.start(&key, now),
            }
        }
    }

    /// Starts moving the oldest waiting snapshot; makes the replica if there is none.
    fn start(&mut self, key: &(Site, String), now: Now) {
        let Some(cut) = self.queues.get(key).and_then(|q| q.cuts.front().cloned()) else {
            return;
        };
        let mut pages = 0;
        let mut useful = false;
        for (id, member) in &cut.members {
            if self.follow(key.0, id) == Follow::Yes && self.ensure_replica(key, id) {
                useful = true;
                pages += self.pending(key.0, id, member).len() as u64;
            }
        }
        let takes = self.config.transfer_fixed + times(self.config.transfer_page, pages);
        let takes = takes * slowdown(&self.board).unwrap_or(1);
        if useful && carries_load(&cut) {
            self.board.moment(Moment::SyncStart);
        }
        if let Some(queue) = self.queues.get_mut(key) {
            if useful {
                queue.transfer = Some(Transfer {
                    started: now.lab,
                    due: now.lab + takes,
                });
            } else {
                queue.cuts.pop_front();
            }
        }
    }

    fn ensure_replica(&mut self, (site, group): &(Site, String), id: &str) -> bool {
        let target = (site.peer(), id.to_owned());
        if self.images.contains_key(&target) {
            return true;
        }
        if self.stays_away(&target) {
            return false;
        }
        let Some(source) = self.images.get(&(*site, id.to_owned())) else {
            return false;
        };
        let mut image = Image::new(source.size, self.fresh());
        image.mirror = Some(Mirror {
            group: group.clone(),
            ..Mirror::default()
        });
        self.images.insert(target, image);
        true
    }

    /// What must cross so that the replica of an image becomes `member`.
    fn pending(&self, site: Site, id: &str, member: &Member) -> Vec<(u64, Page)> {
        let empty = Pages::default();
        let target = self.images.get(&(site.peer(), id.to_owned()));
        let point = target.and_then(|t| t.mirror.as_ref()?.point.as_ref());
        point.map_or(&empty, |p| &p.truth).delta(&member.pages)
    }

    fn commit(&mut self, key: &(Site, String), transfer: Transfer) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        queue.transfer = None;
        let Some(mut cut) = queue.cuts.pop_front() else {
            return;
        };
        cut.members
            .retain(|id, _| self.follow(key.0, id) == Follow::Yes);
        let mut deltas: BTreeMap<String, Vec<(u64, Page)>> = BTreeMap::new();
        for (id, member) in &cut.members {
            deltas.insert(id.clone(), self.pending(key.0, id, member));
        }
        let sizes: BTreeMap<_, _> = deltas.iter().map(|(id, d)| (id.clone(), d.len())).collect();
        self.strike_in_transit(key.0.peer(), &cut, &mut deltas);
        let loaded = carries_load(&cut);
        for (id, member) in cut.members {
            let info = SyncInfo {
                time: cut.at,
                bytes: (sizes.get(&id).copied().unwrap_or(0) * PAGE) as u64,
                duration: transfer.due.saturating_sub(transfer.started),
            };
            let delta = deltas.remove(&id).unwrap_or_default();
            let source = (key.0, id);
            if self.told_only(&source, &delta) {
                let mirror = self.images.get_mut(&source).and_then(|i| i.mirror.as_mut());
                if let Some(mirror) = mirror {
                    mirror.told = Some(info);
                }
            } else {
                self.deliver(source, cut.id, member, delta, info);
            }
        }
        if loaded {
            self.board.moment(Moment::SyncEnd);
        }
    }

    /// Gives a replica its new state, all at once.
    fn deliver(
        &mut self,
        source: Key,
        cut: u64,
        member: Member,
        delta: Vec<(u64, Page)>,
        info: SyncInfo,
    ) {
        let Some(from) = self.images.get_mut(&source).and_then(|i| i.mirror.as_mut()) else {
            return;
        };
        from.told = Some(info);
        let upto = from.history.iter().position(|c| *c == cut);
        let past = upto.map(|p| from.history[..=p].to_vec());
        let group = from.group.clone();
        let target = (source.0.peer(), source.1);
        let Some(image) = self.images.get_mut(&target) else {
            return;
        };
        let (Some(mirror), Some(past)) = (image.mirror.as_mut(), past) else {
            return;
        };
        let mut pages = (mirror.point.as_ref()).map_or_else(Pages::default, |p| p.pages.clone());
        for (index, page) in delta {
            pages.set(index, page);
        }
        let point = Point {
            cut,
            demoted: member.demoted,
            pages: pages.clone(),
            truth: member.pages,
        };
        mirror.older.extend(mirror.point.replace(point));
        if mirror.older.len() > OLDER {
            mirror.older.pop_front();
        }
        mirror.recent.extend(member.log);
        while mirror.recent.len() > RECENT {
            mirror.recent.pop_front();
        }
        mirror.history = past;
        mirror.group = group;
        mirror.partial = 0;
        mirror.demoted = None;
        image.pages = pages;
        self.take_size(&target, member.size);
    }

    /// Breaks off the transfer of a group. What had crossed by then stays on the replicas as an
    /// unfinished delta, to be rolled back by a forced promotion or overwritten by the next one.
    pub(super) fn interrupt(&mut self, site: Site, group: &str, now: Now) {
        let key = (site, group.to_owned());
        let Some(transfer) = self.queues.get_mut(&key).and_then(|q| q.transfer.take()) else {
            return;
        };
        let Some(cut) = self.queues.get(&key).and_then(|q| q.cuts.front().cloned()) else {
            return;
        };
        let total = transfer
            .due
            .saturating_sub(transfer.started)
            .as_nanos()
            .max(1);
        let gone = now
            .lab
            .saturating_sub(transfer.started)
            .as_nanos()
            .min(total);
        for (id, member) in &cut.members {
            if self.follow(site, id) != Follow::Yes {
                continue;
            }
            let delta = self.pending(site, id, member);
            let crossed = usize::try_from(delta.len() as u128 * gone / total).unwrap_or(0);
            let Some(image) = self.images.get_mut(&(site.peer(), id.clone())) else {
                continue;
            };
            for (index, page) in delta.into_iter().take(crossed) {
                image.pages.set(index, page);
            }
            if let Some(mirror) = image.mirror.as_mut() {
                mirror.partial = crossed as u64;
            }
        }
    }

    /// Breaks off every transfer: a site or the link between them went down.
    pub(super) fn interrupt_all(&mut self, now: Now) {
        let keys: Vec<_> = self.queues.keys().cloned().collect();
        for (site, group) in keys {
            self.interrupt(site, &group, now);
        }
    }

    /// When [`Self::tick`] next has something to do, lab time.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let connected = self.connected() && !self.stalls();
        let recreations = self.recreations.iter().map(|(at, _)| *at);
        let queues = self.queues.iter().flat_map(|((site, _), queue)| {
            let cut = queue.due.filter(|_| !self.down.contains(site));
            let moves = connected && !queue.broken;
            let transfer = queue.transfer.filter(|_| moves).map(|t| t.due);
            [cut, transfer]
        });
        queues
            .flatten()
            .chain(recreations.filter(|_| connected))
            .min()
    }

    /// Sets the schedule of a group away from a site.
    pub(super) fn schedule(&mut self, key: (Site, String), interval: Option<Duration>, now: Now) {
        let queue = self.queues.entry(key).or_default();
        if queue.interval != interval || queue.due.is_none() {
            queue.interval = interval;
            queue.due = interval.map(|i| now.lab + i);
        }
    }
}

/// `n` times a duration, without overflow.
pub(super) fn times(one: Duration, n: u64) -> Duration {
    one.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX))
}
