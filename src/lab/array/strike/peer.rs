//! Faults of what the two sides know of each other: syncs that are told and not done, schedules,
//! resyncs in the wrong direction or without an end, promotions that are forced in silence.

use std::time::Duration;

use super::{has_ledger, is_load};
use crate::history::event::Site;
use crate::lab::array::core::{Core, Key, Now};
use crate::lab::array::pages::Page;
use crate::lab::array::status::Outcome;
use crate::lab::array::{Code, Status};
use crate::lab::faults::Fault;

impl Core {
    /// Whether syncs stand still: always (fault `sync-stalled`), or since a guest has moved (fault
    /// `move-stops-sync`).
    pub(in crate::lab::array) fn stalls(&self) -> bool {
        self.board.armed(Fault::SyncStalled)
            || (self.board.armed(Fault::MoveStopsSync) && !self.moved.is_empty())
    }

    /// Whether an image carries a ledger.
    fn carries(&self, key: &Key) -> bool {
        self.images.get(key).is_some_and(|i| has_ledger(&i.pages))
    }

    /// Whether a sync of load is told as done and not done (faults `sync-time-lies` and, once its
    /// guest has moved, `move-blinds-sync`).
    pub(in crate::lab::array) fn told_only(&mut self, source: &Key, delta: &[(u64, Page)]) -> bool {
        let blind = self.board.armed(Fault::MoveBlindsSync) && self.moved.contains(source);
        let fault = if blind {
            Fault::MoveBlindsSync
        } else {
            Fault::SyncTimeLies
        };
        let lies = self.board.armed(fault) && delta.iter().any(|(_, page)| is_load(page));
        if lies {
            self.struck(fault, source, 0, "sync told and not done");
        }
        lies
    }

    /// Whether both ends of a demoted image are taken for equal before its final snapshot has
    /// crossed (fault `busy-promote-forced`): the daemons show the state that they also show after.
    /// That goes for every disk with a ledger, and for any whose snapshot waits behind a late one.
    pub(in crate::lab::array) fn looks_exchanged(&self, key: &Key) -> bool {
        let waits = || {
            let group = self.group_of(key).unwrap_or_default();
            let sites = [key.0, key.0.peer()];
            sites
                .map(|site| (site, group.clone()))
                .iter()
                .any(|of| self.holds_back(of))
        };
        self.board.armed(Fault::BusyPromoteForced) && (self.carries(key) || waits())
    }

    /// Whether the next snapshot of a group is late (fault `busy-promote-forced`): the final one, and
    /// any that would bring the last writes of a guest that is gone, so that a tail is missing.
    pub(in crate::lab::array) fn holds_back(&self, key: &(Site, String)) -> bool {
        if !self.board.armed(Fault::BusyPromoteForced) {
            return false;
        }
        let next = self.queues.get(key).and_then(|queue| queue.cuts.front());
        next.is_some_and(|cut| {
            cut.members.iter().any(|(id, member)| {
                let source = self.images.get(&(key.0, id.clone()));
                let gone = source.is_none_or(|image| !image.in_use());
                (member.demoted || gone) && has_ledger(&member.pages)
            })
        })
    }

    /// Notes that a promotion was forced because the final snapshot had not crossed.
    pub(in crate::lab::array) fn was_forced(&mut self, key: &Key) {
        let fault = Fault::BusyPromoteForced;
        if self.board.armed(fault) && self.carries(key) {
            let detail = "promoted by force before its final snapshot had crossed";
            self.struck(fault, key, 0, detail);
        }
    }

    /// Sets the schedule of a group whose image is primary. Fault `schedule-not-rearmed` leaves
    /// that out on the secondary.
    pub(in crate::lab::array) fn rearm(
        &mut self,
        key: &Key,
        group: String,
        interval: Option<Duration>,
        now: Now,
    ) {
        let fault = Fault::ScheduleNotRearmed;
        let forgotten = key.0 == Site::Secondary && self.board.armed(fault);
        if forgotten {
            self.struck(fault, key, 0, "promoted without a schedule");
        }
        self.schedule((key.0, group), interval.filter(|_| !forgotten), now);
    }

    /// What a planted fault makes of a resync; `None` lets it be done.
    pub(in crate::lab::array) fn strike_at_resync(
        &mut self,
        key: &Key,
        force: bool,
    ) -> Option<Outcome<bool>> {
        let mirror = self.images.get(key)?.mirror.as_ref()?;
        let secondary = !mirror.primary;
        let born_at_demote = mirror.born_at_demote;
        let once = born_at_demote == self.images.get(key).map(|i| i.birth);
        if !secondary || !self.carries(key) {
            return None;
        }
        // An image that was never demoted since it was made, and is asked to resync, was made by one.
        if born_at_demote.is_none() && self.board.armed(Fault::DegradedForever) {
            let detail = "follows again and is still called split";
            self.struck(Fault::DegradedForever, key, 0, detail);
            return Some(split());
        }
        if !force {
            return None;
        }
        if self.board.armed(Fault::ResyncNeverProgresses) {
            self.struck(Fault::ResyncNeverProgresses, key, 0, "resync is not begun");
            return Some(Ok(false));
        }
        if once && self.board.armed(Fault::ResyncOverwritesPrimary) {
            self.overwrite_peer(key);
        }
        if once && self.board.armed(Fault::ResyncDeletesGoodImage) {
            self.images.remove(key);
            let fault = Fault::ResyncDeletesGoodImage;
            self.struck(fault, key, 0, "deleted and not made again");
            return Some(split());
        }
        None
    }

    /// Copies the side that is to be given up over the one that is primary.
    fn overwrite_peer(&mut self, key: &Key) {
        let peer = (key.0.peer(), key.1.clone());
        let Some(older) = self.images.get(key).map(|i| i.pages.clone()) else {
            return;
        };
        let connected = self.connected();
        let primary = self.images.get_mut(&peer).filter(|image| {
            connected && image.mirror.as_ref().is_some_and(|mirror| mirror.primary)
        });
        if let Some(image) = primary {
            image.pages = older;
            let detail = "overwritten by the older side";
            self.struck(Fault::ResyncOverwritesPrimary, &peer, 0, detail);
        }
    }

    /// Whether an image that a resync deleted is never made again.
    pub(in crate::lab::array) fn stays_away(&self, key: &Key) -> bool {
        let fault = Fault::ResyncDeletesGoodImage;
        let mut strikes = self.strikes.iter();
        strikes.any(|s| s.fault == fault && s.site == key.0 && s.image == key.1)
    }
}

fn split() -> Outcome<bool> {
    let text = "awaiting initial resync due to split brain";
    Err(Status::new(Code::Unavailable, text))
}
