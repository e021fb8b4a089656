//! The replication verbs with the outcomes of ceph-csi on RBD mirroring (replication.md §2, §3).

use std::time::Duration;

use super::core::{Core, Key, Now};
use super::image::{Mirror, Point, SyncInfo};
use super::mirror::{Cut, Follow, times};
use super::status::Outcome;
use super::strike::slowdown;
use super::{Code, DemoteInUse, Status};
use crate::lab::faults::{Fault, Moment};

/// How an image is to be mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorSpec {
    /// Lab time between mirror snapshots; `None` takes none but those at enable, promote, demote.
    pub interval: Option<Duration>,
    /// Consistency group, `None` for an image on its own.
    pub group: Option<String>,
}

/// The state that the local mirror daemon reports for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorState {
    /// Primary: nothing to replay.
    Stopped,
    /// Follows its peer.
    Replaying,
    /// Follows its peer and has no complete state yet.
    Syncing,
    /// Nothing to follow: the peer is demoted too or cannot be reached.
    Unknown,
    /// Diverged from its peer.
    SplitBrain,
}

/// Lab time for which an image deleted by a resync is absent.
const ABSENCE: Duration = Duration::from_secs(2);
/// Lab time that a promotion takes besides rolling back.
const PROMOTION: Duration = Duration::from_secs(1);

fn status<T>(code: Code, text: impl Into<String>) -> Outcome<T> {
    Err(Status::new(code, text))
}

impl Core {
    fn mirror(&self, key: &Key) -> Outcome<&Mirror> {
        let mirror = self.image(key)?.mirror.as_ref();
        mirror.ok_or_else(|| not_enabled(key))
    }

    /// Starts mirroring; the first snapshot is taken now. A member that joins a group makes the
    /// whole group be cut again, so that the group has an instant in common.
    pub(super) fn enable(&mut self, key: &Key, spec: &MirrorSpec, now: Now) -> Outcome {
        let group = spec.group.clone().unwrap_or_else(|| key.1.clone());
        let image = self.image_mut(key)?;
        if let Some(mirror) = image.mirror.as_mut() {
            if !mirror.primary || mirror.group == group {
                return Ok(());
            }
            mirror.group.clone_from(&group);
        } else {
            image.mirror = Some(Mirror {
                primary: true,
                group: group.clone(),
                ..Mirror::default()
            });
            self.leave_unprotected(key, &group);
            self.leave_out_joiner(key, &group);
        }
        self.cut(key.0, &group, now);
        Ok(())
    }

    /// How long a promotion takes from now, `Err` where it would be refused.
    pub(super) fn promotion_takes(
        &mut self,
        key: &Key,
        force: bool,
        now: Now,
    ) -> Outcome<Duration> {
        let mirror = self.mirror(key)?;
        if mirror.primary {
            return Ok(Duration::ZERO);
        }
        let partial = mirror.partial;
        self.promotable(key, force)?;
        if self.board.armed(Fault::PromoteStalls) {
            let stall = self.config.promote_stall;
            let until = *self.stalls.entry(key.clone()).or_insert(now.lab + stall);
            if until > now.lab {
                self.struck(Fault::PromoteStalls, key, 0, "promotion hangs");
                return Ok(until.saturating_sub(now.lab));
            }
        }
        let takes = PROMOTION + times(self.config.transfer_page, partial);
        Ok(takes * slowdown(&self.board).unwrap_or(1))
    }

    fn promotable(&self, key: &Key, force: bool) -> Outcome {
        let mirror = self.mirror(key)?;
        let clean = mirror.demoted.is_some() || mirror.point.as_ref().is_some_and(|p| p.demoted);
        if force {
            if mirror.point.is_none() && mirror.demoted.is_none() {
                let text = "failed to force promote image: no complete mirror snapshot";
                return status(Code::Internal, text);
            }
        } else if !clean {
            let text = format!(
                "failed to promote image {}: (16) Device or resource busy",
                key.1
            );
            return status(Code::FailedPrecondition, text);
        }
        Ok(())
    }

    /// Makes this side primary. Force discards what is not a complete snapshot and does not ask
    /// the peer, which may be primary too from then on.
    pub(super) fn promote(
        &mut self,
        key: &Key,
        force: bool,
        spec: &MirrorSpec,
        now: Now,
    ) -> Outcome {
        // A replica keeps its primary's group: at a failover the VM that names it is not there.
        let group = match &spec.group {
            Some(_) => self.mirror(key)?.group.clone(),
            None => key.1.clone(),
        };
        if self.mirror(key)?.primary {
            self.rearm(key, group, spec.interval, now);
            return Ok(());
        }
        self.promotable(key, force)?;
        let incoming = self.mirror(key)?.group.clone();
        let clean = self.mirror(key)?.point.as_ref().is_none_or(|p| p.demoted);
        self.board.moment(Moment::Promote);
        self.interrupt(key.0.peer(), &incoming, now);
        if force && !clean {
            let queue = self.queues.entry((key.0.peer(), incoming)).or_default();
            queue.broken = true;
            self.was_forced(key);
        }
        self.strike_at_promotion(key);
        let image = self.image_mut(key)?;
        image.log.clear();
        let Some(mirror) = image.mirror.as_mut() else {
            return Err(not_enabled(key));
        };
        if let Some(point) = &mirror.point {
            image.pages = point.pages.clone();
        }
        mirror.primary = true;
        mirror.demoted = None;
        mirror.partial = 0;
        mirror.told = None;
        mirror.group.clone_from(&group);
        if let Some(queue) = self.queues.get_mut(&(key.0, group.clone())) {
            queue.broken = false;
        }
        self.cut(key.0, &group, now);
        self.rearm(key, group, spec.interval, now);
        Ok(())
    }

    /// Makes this side stop taking writes and takes the final snapshot. The peer can be promoted
    /// without force once that has arrived, which this does not wait for.
    pub(super) fn demote(&mut self, key: &Key, now: Now) -> Outcome {
        let mirror = self.mirror(key)?;
        if !mirror.primary {
            return Ok(());
        }
        let group = mirror.group.clone();
        let refuses = self.config.demote_in_use == DemoteInUse::Refuse
            && !self.board.armed(Fault::DemoteUnderRunningVm);
        if self.image(key)?.in_use() && refuses {
            let text = format!("volume cannot be demoted: image {} is still in use", key.1);
            return status(Code::FailedPrecondition, text);
        }
        self.board.moment(Moment::Demote);
        self.close_skew(key.0, &group);
        self.image_mut(key)?.flush();
        let id = self.fresh();
        let stale = self.without_final_sync(key);
        let member = self.snapshot(key, id, true);
        let image = self.image_mut(key)?;
        let birth = image.birth;
        let own = Point {
            cut: id,
            demoted: true,
            pages: image.pages.clone(),
            truth: image.pages.clone(),
        };
        if let Some(mirror) = image.mirror.as_mut() {
            mirror.primary = false;
            mirror.demoted = Some(id);
            mirror.point = Some(own);
            mirror.older.clear();
            mirror.born_at_demote = Some(birth);
        }
        // Without a snapshot the peer waits for ever.
        let Some(mut member) = member else {
            return Ok(());
        };
        if let Some(pages) = stale {
            member.pages = pages;
            member.log.clear();
        }
        let cut = Cut {
            id,
            at: now.wall,
            members: std::iter::once((key.1.clone(), member)).collect(),
        };
        self.push(key.0, &group, cut);
        Ok(())
    }

    /// [`Self::repair`], unless a planted fault has its way.
    pub(super) fn resync(&mut self, key: &Key, force: bool, now: Now) -> Outcome<bool> {
        match self.strike_at_resync(key, force) {
            Some(answer) => answer,
            None => self.repair(key, force, now),
        }
    }

    /// Repairs a replica that diverged, if forced, and says whether both sides are demoted and
    /// hold the same final snapshot (`true`) or the replica is on its way (`false`).
    fn repair(&mut self, key: &Key, force: bool, now: Now) -> Outcome<bool> {
        let Some(image) = self.images.get(key) else {
            let text = format!("image {} is absent: resync recreates it", key.1);
            return status(Code::Aborted, text);
        };
        let Some(mirror) = image.mirror.as_ref() else {
            return Err(not_enabled(key));
        };
        if mirror.primary {
            let text = format!("image {} is in primary state", key.1);
            return status(Code::InvalidArgument, text);
        }
        let peer = (key.0.peer(), key.1.clone());
        if self.ready(key) {
            return Ok(true);
        }
        let peer_primary = self.connected() && self.mirror(&peer).is_ok_and(|m| m.primary);
        let once = mirror.born_at_demote == Some(image.birth);
        let state = self.state(key);
        if force && once && peer_primary {
            // rbd-mirror deletes the image and starts over from the primary, once per demotion.
            self.images.remove(key);
            self.recreations.push((now.lab + ABSENCE, key.clone()));
            let group = self.group_of(&peer).unwrap_or_default();
            self.interrupt(peer.0, &group, now);
            return status(
                Code::Unavailable,
                "awaiting initial resync due to split brain",
            );
        }
        match state {
            MirrorState::SplitBrain => status(
                Code::Unavailable,
                "awaiting initial resync due to split brain",
            ),
            MirrorState::Syncing => status(Code::Internal, "failed to get last sync info"),
            MirrorState::Stopped | MirrorState::Replaying | MirrorState::Unknown => Ok(false),
        }
    }

    fn ready(&self, key: &Key) -> bool {
        let peer = (key.0.peer(), key.1.clone());
        let (Ok(here), Ok(there)) = (self.mirror(key), self.mirror(&peer)) else {
            return false;
        };
        self.connected()
            && !here.primary
            && !there.primary
            && (here.history.last() == there.history.last() || self.looks_exchanged(key))
            && (here.demoted.is_some() || there.demoted.is_some())
    }

    /// What the mirror daemon of a site says about an image.
    pub(super) fn state(&self, key: &Key) -> MirrorState {
        let Ok(mirror) = self.mirror(key) else {
            return MirrorState::Unknown;
        };
        if mirror.primary {
            return MirrorState::Stopped;
        }
        let peer = (key.0.peer(), key.1.clone());
        if !self.connected() {
            return MirrorState::Unknown;
        }
        match (self.mirror(&peer), self.follow(peer.0, &key.1)) {
            (Ok(there), Follow::SplitBrain) if there.primary => MirrorState::SplitBrain,
            (Ok(there), _) if there.primary || !self.ready(key) => {
                if mirror.point.is_none() {
                    MirrorState::Syncing
                } else {
                    MirrorState::Replaying
                }
            }
            _ => MirrorState::Unknown,
        }
    }

    /// What the peer last reported about the replica of a primary image.
    pub(super) fn info(&self, key: &Key) -> Outcome<SyncInfo> {
        let mirror = self.mirror(key)?;
        if !mirror.primary {
            let text = format!("image {} is not in primary state", key.1);
            return status(Code::InvalidArgument, text);
        }
        let none = || Status::new(Code::NotFound, "no snapshot details: not synced yet");
        mirror.told.ok_or_else(none)
    }

    /// Ends mirroring. On the primary that deletes the replica; on a healthy secondary it does
    /// nothing.
    pub(super) fn disable(&mut self, key: &Key) -> Outcome {
        let Some(mirror) = self.image(key)?.mirror.as_ref() else {
            return Ok(());
        };
        if !mirror.primary {
            let state = self.state(key);
            if state == MirrorState::Replaying {
                return Ok(());
            }
            let up = !self.down.contains(&key.0);
            let text = format!("secondary image status is up={up} and state={state:?}");
            return status(Code::InvalidArgument, text.to_lowercase());
        }
        self.drop_replica(key);
        let image = self.image_mut(key)?;
        image.mirror = None;
        image.log.clear();
        self.forget(key);
        Ok(())
    }

    /// Deletes an image. The primary takes its replica with it; a secondary that follows its peer
    /// only loses its name in the catalogue of the site, which the caller keeps.
    pub(super) fn delete(&mut self, key: &Key) -> Outcome {
        let Some(image) = self.images.get(key) else {
            return Ok(());
        };
        if image.in_use() {
            let text = format!("image {} is still being used", key.1);
            return status(Code::Internal, text);
        }
        let secondary = image.mirror.as_ref().is_some_and(|m| !m.primary);
        if secondary {
            return Ok(());
        }
        self.drop_replica(key);
        self.images.remove(key);
        self.forget(key);
        Ok(())
    }

    fn drop_replica(&mut self, key: &Key) {
        let peer = (key.0.peer(), key.1.clone());
        let mirrored = self.image(key).is_ok_and(|i| i.mirror.is_some());
        if mirrored && self.mirror(&peer).is_ok_and(|m| !m.primary) {
            self.orphans.push(peer);
        }
        self.collect_orphans();
    }

    /// Deletes replicas whose primary is gone, as soon as the peer can be reached.
    pub(super) fn collect_orphans(&mut self) {
        if self.connected() {
            for key in std::mem::take(&mut self.orphans) {
                if self.images.get(&key).is_some_and(|i| !i.writable()) {
                    self.keep_given_up(&key);
                    self.images.remove(&key);
                }
            }
        }
    }

    /// Takes an image out of every waiting snapshot.
    fn forget(&mut self, key: &Key) {
        for ((site, _), queue) in &mut self.queues {
            if *site == key.0 {
                for cut in &mut queue.cuts {
                    cut.members.remove(&key.1);
                }
                if queue.skew.as_ref().is_some_and(|s| s.image == key.1) {
                    queue.skew = None;
                }
            }
        }
        let images = &self.images;
        self.queues.retain(|(site, group), queue| {
            !queue.cuts.iter().all(|cut| cut.members.is_empty())
                || images.iter().any(|(k, i)| {
                    k.0 == *site && i.mirror.as_ref().is_some_and(|m| m.group == *group)
                })
        });
    }
}

fn not_enabled(key: &Key) -> Status {
    let text = format!("mirroring is not enabled on image {}", key.1);
    Status::new(Code::InvalidArgument, text)
}
