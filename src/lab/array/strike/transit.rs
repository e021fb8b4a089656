//! Faults that damage a mirror snapshot on its way to the replica.

use std::collections::{BTreeMap, BTreeSet};

use super::{CERTAIN, fills, intact, loaded};
use crate::history::event::Site;
use crate::lab::array::core::{Core, Key};
use crate::lab::array::mirror::{Cut, Member};
use crate::lab::array::pages::Page;
use crate::lab::faults::Fault;
use crate::probe::cell::Kind;

/// By how many pages a misdirected write misses.
const MISS: u64 = 8;
/// Pages in a storage object, 4 MiB as on RBD.
const OBJECT: u64 = 1024;

type Deltas = BTreeMap<String, Vec<(u64, Page)>>;

/// A write whose loss a check can see: its image, its page, what it wrote.
#[derive(Debug, Clone)]
struct Victim {
    image: String,
    index: u64,
    page: Page,
}

impl Core {
    /// Damages what is about to be delivered to replicas on `site`.
    pub(in crate::lab::array) fn strike_in_transit(
        &mut self,
        site: Site,
        cut: &Cut,
        deltas: &mut Deltas,
    ) {
        self.fall_behind(site, deltas);
        for fault in [
            Fault::DropAckedWrite,
            Fault::ReorderAcrossBarrier,
            Fault::MisdirectedWrite,
            Fault::SkippedExtent,
            Fault::ReplicaCorruptIdle,
        ] {
            if !self.board.armed(fault) || self.stands(fault, site, cut, deltas) {
                continue;
            }
            match fault {
                Fault::DropAckedWrite => self.drop_write(fault, site, cut, deltas, false),
                Fault::ReorderAcrossBarrier => self.drop_write(fault, site, cut, deltas, true),
                Fault::MisdirectedWrite => self.misdirect(site, cut, deltas),
                Fault::ReplicaCorruptIdle => self.lose_delta(site, cut, deltas),
                _ => self.skip_extent(site, cut, deltas),
            }
        }
    }

    /// What the replica will hold at a page once the delta is applied.
    fn arrives(&self, key: &Key, index: u64, deltas: &Deltas) -> Page {
        let delta = deltas.get(&key.1).map(Vec::as_slice).unwrap_or_default();
        if let Ok(at) = delta.binary_search_by_key(&index, |(i, _)| *i) {
            return delta[at].1.clone();
        }
        let point = self
            .images
            .get(key)
            .and_then(|i| i.mirror.as_ref()?.point.as_ref());
        point.and_then(|p| p.pages.get(index))
    }

    /// Whether an earlier strike of this fault on this group is still there after this delta.
    fn stands(&self, fault: Fault, site: Site, cut: &Cut, deltas: &Deltas) -> bool {
        let group = |id: &str| self.group_of(&(site, id.to_owned()));
        let mine = cut.members.keys().next().and_then(|id| group(id));
        let earlier = self.strikes.iter().filter(|strike| {
            strike.fault == fault && strike.site == site && group(&strike.image) == mine
        });
        earlier.into_iter().any(|strike| {
            let key = (site, strike.image.clone());
            let truth = match cut.members.get(&strike.image) {
                Some(member) => member.pages.get(strike.page),
                None => (self.images.get(&key))
                    .and_then(|i| i.mirror.as_ref()?.point.as_ref())
                    .and_then(|p| p.truth.get(strike.page)),
            };
            !intact(&self.arrives(&key, strike.page, deltas), &truth)
        })
    }

    fn drop_write(
        &mut self,
        fault: Fault,
        site: Site,
        cut: &Cut,
        deltas: &mut Deltas,
        same_volume: bool,
    ) {
        let victims = self.victims(site, cut, deltas, same_volume);
        if victims.is_empty() {
            return;
        }
        let victim = victims[self.choose(fault, cut.id, victims.len())].clone();
        if let Some(delta) = deltas.get_mut(&victim.image) {
            delta.retain(|(index, _)| *index != victim.index);
        }
        self.struck(
            fault,
            &(site, victim.image),
            victim.index,
            "write not applied",
        );
    }

    fn misdirect(&mut self, site: Site, cut: &Cut, deltas: &mut Deltas) {
        let mut victims = self.victims(site, cut, deltas, false);
        victims.retain(|v| {
            let pages = cut.members.get(&v.image).map(|m| &m.pages);
            pages.is_some_and(|p| loaded(&p.get(v.index + MISS)).is_some())
        });
        if victims.is_empty() {
            return;
        }
        let fault = Fault::MisdirectedWrite;
        let victim = victims[self.choose(fault, cut.id, victims.len())].clone();
        let wrong = victim.index + MISS;
        if let Some(delta) = deltas.get_mut(&victim.image) {
            delta.retain(|(index, _)| *index != victim.index && *index != wrong);
            let at = delta.partition_point(|(index, _)| *index < wrong);
            delta.insert(at, (wrong, victim.page));
        }
        self.struck(
            fault,
            &(site, victim.image),
            wrong,
            "write landed 8 pages further on",
        );
    }

    /// Loses everything of the load that a delta brings. Later deltas are made against a snapshot that
    /// holds it, so nothing but an overwrite heals the replica, which still counts as idle and whole.
    fn lose_delta(&mut self, site: Site, cut: &Cut, deltas: &mut Deltas) {
        if cut.members.values().any(|member| member.demoted) {
            // Nothing comes after it that could show the loss as anything but an older point.
            return;
        }
        for (id, delta) in deltas {
            let kept = |page: &Page| loaded(page).is_none();
            let gone = delta.iter().filter(|(_, page)| !kept(page));
            // A log cell stays damaged longest: its ring comes round last.
            let (mut log, mut any) = (None, None);
            for (index, page) in gone {
                any.get_or_insert(*index);
                if loaded(page).is_some_and(|h| h.kind == Kind::Log) {
                    log.get_or_insert(*index);
                }
            }
            if let Some(first) = log.or(any) {
                delta.retain(|(_, page)| kept(page));
                let key = (site, id.clone());
                let detail = "a delta lost with the snapshot that was trimmed under it";
                self.struck(Fault::ReplicaCorruptIdle, &key, first, detail);
            }
        }
    }

    fn skip_extent(&mut self, site: Site, cut: &Cut, deltas: &mut Deltas) {
        let carriers: Vec<(&String, Vec<u64>)> = (cut.members.iter())
            .map(|(id, member)| (id, fills(&member.pages)))
            .filter(|(_, fills)| !fills.is_empty())
            .collect();
        let fault = Fault::SkippedExtent;
        let Some((id, fills)) = carriers.get(self.choose(fault, 0, carriers.len())) else {
            return;
        };
        let first = fills[self.choose(fault, 1, fills.len())];
        let object = first / OBJECT;
        let gone: BTreeSet<u64> = fills
            .iter()
            .copied()
            .filter(|i| i / OBJECT == object)
            .collect();
        if let Some(delta) = deltas.get_mut(*id) {
            delta.retain(|(index, _)| !gone.contains(index));
            // An extent that is there from an earlier snapshot goes too: it was never to arrive.
            delta.extend(gone.iter().map(|index| (*index, None)));
            delta.sort_by_key(|(index, _)| *index);
        }
        self.struck(fault, &(site, (*id).clone()), first, "extent never written");
    }

    /// Writes in the delta that are the newest of their cell, were acknowledged before another
    /// write that arrives too was issued, the later half of them. Writes that replace an older
    /// version of a ledger cell come first, if there are any.
    fn victims(&self, site: Site, cut: &Cut, deltas: &Deltas, same_volume: bool) -> Vec<Victim> {
        let newest_dep = |member: &Member| {
            let deps = member
                .log
                .iter()
                .filter_map(|w| loaded(&w.new).map(|h| h.dep));
            deps.max().unwrap_or(0)
        };
        let group = cut.members.values().map(newest_dep).max().unwrap_or(0);
        let mut over: Vec<(u64, Victim)> = Vec::new();
        let mut first: Vec<(u64, Victim)> = Vec::new();
        for (id, member) in &cut.members {
            let horizon = if same_volume {
                newest_dep(member)
            } else {
                group
            };
            let key = (site, id.clone());
            for write in &member.log {
                let Some(header) = loaded(&write.new) else {
                    continue;
                };
                let newest = intact(&member.pages.get(write.index), &write.new)
                    && intact(&self.arrives(&key, write.index, deltas), &write.new);
                if !newest || header.dep + CERTAIN > horizon {
                    continue;
                }
                let victim = Victim {
                    image: id.clone(),
                    index: write.index,
                    page: write.new.clone(),
                };
                let versions = if loaded(&write.old).is_some() {
                    &mut over
                } else {
                    &mut first
                };
                versions.push((header.dep, victim));
            }
        }
        let mut chosen = if over.is_empty() { first } else { over };
        chosen.sort_by_key(|(dep, _)| *dep);
        let recent = chosen.len() / 2;
        chosen.into_iter().skip(recent).map(|(_, v)| v).collect()
    }
}
