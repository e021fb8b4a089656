//! Each fault strikes, hits what its check is about, and without it the replica is an exact prefix.
//!
//! The load is what a strict probe writes: a log ring that ping-pongs over two volumes and a hot
//! writer on each, every write durable before the next is issued.

mod cache;
mod device;
mod moved;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Strike, has_ledger};
use crate::history::event::Site::{self, Primary, Secondary};
use crate::lab::array::Config;
use crate::lab::array::core::{Core, Key};
use crate::lab::array::pages::Pages;
use crate::lab::array::tests::{at, every};
use crate::lab::faults::{Board, Fault};
use crate::lab::world::PAGE;
use crate::probe::cell::{Header, Kind, payload_crc_holds, sector_stamps};
use crate::probe::layout::{
    Address, Layout, LayoutSpec, WRITER_FILL, WRITER_LOG, address, hot_writer,
};

const CELLS: u64 = 1024;
const SEED: u64 = 7;
const VOLUMES: [&str; 2] = ["data-a", "data-b"];

/// The identity of a write: writer and sequence number.
type Version = (u32, u64);

struct Load {
    core: Core,
    layouts: Vec<Layout>,
    rank: u64,
    wseq: BTreeMap<u32, u64>,
    /// Every acknowledged write in order: where, what, when issued and when durable, in ranks.
    acked: Vec<(Address, Version, u64, u64)>,
    /// After how many more writes the guest learns that one on the first volume is durable.
    lag: u64,
    /// Durable writes of which the guest does not know yet: that number, where, what, when issued.
    untold: Vec<(u64, Address, Version, u64)>,
    turns: u64,
    clock: u64,
    /// Where the guest writes.
    side: Site,
}

fn key(site: Site, volume: usize) -> Key {
    (site, VOLUMES[volume].into())
}

fn header(kind: Kind, (writer, wseq): Version, to: Address, dep: u64) -> Header {
    Header {
        kind,
        run_id: [1; 16],
        vol_id: [to.volume + 1; 16],
        incarnation: 5,
        writer,
        op_index: 0,
        op_len: 1,
        wseq,
        gseq: dep + 1,
        cell: to.cell,
        prev_wseq: 0,
        dep,
        chain: 0,
        mono_ns: 0,
        token: 0,
        real_s: 0,
    }
}

impl Load {
    /// Two mirrored volumes, filled, the first snapshots across.
    fn new(fault: Option<Fault>) -> Self {
        let board = Board::default();
        if let Some(fault) = fault {
            board.plant(fault);
        }
        let spec = LayoutSpec {
            cold_stride: 16,
            log: 32,
            hot: 64,
            ..LayoutSpec::default()
        };
        let mut load = Self {
            core: Core::new(Config::default(), Arc::new(board)),
            layouts: vec![Layout::fit(CELLS, &spec).unwrap(); 2],
            rank: 0,
            wseq: BTreeMap::new(),
            acked: Vec::new(),
            lag: 0,
            untold: Vec::new(),
            turns: 0,
            clock: 0,
            side: Primary,
        };
        for volume in 0..2 {
            let image = key(Primary, volume);
            load.core
                .create(image.clone(), CELLS * PAGE as u64)
                .unwrap();
            load.core.enable(&image, &every(60, "vm"), at(0)).unwrap();
            load.core
                .promote(&image, false, &every(60, "vm"), at(0))
                .unwrap();
        }
        for volume in 0..2_u8 {
            let cells: Vec<u64> = load.layouts[usize::from(volume)].cold_cells().collect();
            for cell in cells {
                load.put(Kind::Fill, WRITER_FILL, cell + 1, Address { volume, cell });
            }
        }
        load
    }

    fn put(&mut self, kind: Kind, writer: u32, wseq: u64, to: Address) {
        let header = header(kind, (writer, wseq), to, self.rank);
        let mut bytes = [0; PAGE];
        header.encode(SEED, &mut bytes);
        let image = key(self.side, usize::from(to.volume));
        let open = self.core.attach(&image, "n", true).unwrap();
        self.core
            .cut_within_write(&image, open, to.cell, &bytes, at(self.clock))
            .unwrap();
        self.core
            .write(&image, open, to.cell, &bytes, true)
            .unwrap();
        self.core.detach(&image, |id, _| id == open);
        let lag = if to.volume == 0 { self.lag } else { 0 };
        self.untold.push((lag, to, (writer, wseq), header.dep));
        self.tell();
    }

    /// Tells the guest what is due to be told.
    fn tell(&mut self) {
        for (left, to, version, dep) in std::mem::take(&mut self.untold) {
            if left > 0 {
                self.untold.push((left - 1, to, version, dep));
            } else {
                self.rank += 1;
                self.acked.push((to, version, dep, self.rank));
            }
        }
    }

    fn write(&mut self, n: u64) {
        for _ in 0..n {
            let turn = u32::try_from(self.turns % 3).unwrap();
            self.turns += 1;
            let (kind, writer) = match turn {
                0 => (Kind::Log, WRITER_LOG),
                k => (Kind::Hot, hot_writer(&self.layouts, k as usize - 1, 0)),
            };
            // A writer has one write in flight.
            if self.untold.iter().any(|untold| untold.2.0 == writer) {
                self.tell();
                continue;
            }
            let wseq = self.wseq.entry(writer).or_default();
            *wseq += 1;
            let wseq = *wseq;
            let to = address(&self.layouts, SEED, writer, wseq).unwrap();
            self.put(kind, writer, wseq, to);
        }
    }

    /// Writes while lab time passes, across at least two scheduled snapshots.
    fn run(&mut self) {
        for _ in 0..200 {
            self.clock += 1;
            self.core.tick(at(self.clock));
            self.write(3);
        }
    }

    fn settle(&mut self) {
        for _ in 0..5 {
            self.clock += 1;
            self.core.tick(at(self.clock));
        }
    }

    /// Stops writing, demotes, waits, promotes without force.
    fn relocate(&mut self) {
        for volume in 0..2 {
            self.core
                .demote(&key(Primary, volume), at(self.clock))
                .unwrap();
        }
        self.settle();
        for volume in 0..2 {
            self.core
                .promote(
                    &key(Secondary, volume),
                    false,
                    &every(60, "vm"),
                    at(self.clock),
                )
                .unwrap();
        }
    }

    /// The primary goes dark under load; the replicas are promoted by force.
    fn fail_over(&mut self) {
        self.core.down.insert(Primary);
        self.side = Secondary;
        for volume in 0..2 {
            self.core
                .promote(
                    &key(Secondary, volume),
                    true,
                    &every(60, "vm"),
                    at(self.clock),
                )
                .unwrap();
        }
    }

    fn pages(&self, volume: usize) -> Pages {
        self.core
            .image(&key(Secondary, volume))
            .unwrap()
            .pages
            .clone()
    }

    /// The versions found on the promoted side, by address; damaged and foreign cells are missing.
    fn found(&self) -> BTreeMap<Address, Version> {
        let mut found = BTreeMap::new();
        for volume in 0..2_u8 {
            for (cell, page) in self.pages(usize::from(volume)).iter() {
                if let Some(h) = Header::decode(page).filter(|h| h.cell == cell) {
                    found.insert(Address { volume, cell }, (h.writer, h.wseq));
                }
            }
        }
        found
    }

    /// Acked writes whose cell holds an older version or none, and acked writes that are there.
    fn missing_and_present(&self) -> (Vec<usize>, Vec<usize>) {
        let found = self.found();
        let newest = |to: &Address| {
            let version = found.get(to)?;
            let at = self
                .acked
                .iter()
                .rposition(|w| w.0 == *to && w.1 == *version);
            Some(at.expect("a version that nobody wrote"))
        };
        let held: Vec<Option<usize>> = self.acked.iter().map(|w| newest(&w.0)).collect();
        let all = 0..self.acked.len();
        let missing = all.clone().filter(|n| held[*n].is_none_or(|h| h < *n));
        let present = all.filter(|n| held[*n] == Some(*n));
        (missing.collect(), present.collect())
    }

    /// The exact order check over the given volumes: no missing write was durable before a present
    /// one was issued.
    fn ordered(&self, volumes: &[u8]) -> bool {
        let (missing, present) = self.missing_and_present();
        let of = |n: &usize| volumes.contains(&self.acked[*n].0.volume);
        let ack = missing.iter().filter(|n| of(n)).map(|n| self.acked[*n].3);
        let dep = present.iter().filter(|n| of(n)).map(|n| self.acked[*n].2);
        match (ack.min(), dep.max()) {
            (Some(ack), Some(dep)) => ack > dep,
            _ => true,
        }
    }

    fn struck(&self, fault: Fault) -> Vec<&Strike> {
        let of = self.core.strikes.iter();
        of.filter(|s| s.fault == fault).collect()
    }

    /// Whether every ledger cell of a volume is whole and where it was meant to be.
    fn clean(&self, volume: usize) -> bool {
        self.pages(volume).iter().all(|(cell, page)| {
            Header::decode(page).is_some_and(|h| {
                h.cell == cell
                    && h.vol_id == [u8::try_from(volume).unwrap() + 1; 16]
                    && h.run_id == [1; 16]
                    && payload_crc_holds(page)
            })
        })
    }
}

fn relocated(fault: Option<Fault>) -> Load {
    let mut load = Load::new(fault);
    load.run();
    load.relocate();
    load
}

fn failed_over(fault: Option<Fault>) -> Load {
    let mut load = Load::new(fault);
    load.run();
    load.fail_over();
    load
}

#[test]
fn without_faults_a_relocation_keeps_everything() {
    let load = relocated(None);
    assert_eq!(load.missing_and_present().0, [0_usize; 0]);
    for volume in 0..2 {
        assert!(load.clean(volume));
        assert_eq!(
            load.pages(volume),
            load.core.image(&key(Primary, volume)).unwrap().pages
        );
    }
    assert!(load.core.strikes.is_empty());
}

#[test]
fn without_faults_a_failover_keeps_an_exact_prefix_across_volumes() {
    let load = failed_over(None);
    let (missing, _) = load.missing_and_present();
    let first = *missing
        .first()
        .expect("a failover under load loses the tail");
    assert!(missing.len() > 30 && first > 300, "{first}");
    assert!(load.ordered(&[0, 1]));
    assert!(load.clean(0) && load.clean(1));
    // An exact prefix: every cell holds its newest version among the first `first` writes.
    let mut expected = BTreeMap::new();
    for (to, version, ..) in &load.acked[..first] {
        expected.insert(*to, *version);
    }
    assert_eq!(load.found(), expected);
}

#[test]
fn a_dropped_write_is_the_only_one_missing() {
    let load = relocated(Some(Fault::DropAckedWrite));
    let strikes = load.struck(Fault::DropAckedWrite);
    let last = *strikes.last().unwrap();
    let (missing, present) = load.missing_and_present();
    let newest = *missing.last().unwrap();
    let to = load.acked[newest].0;
    assert!(missing.iter().all(|n| load.acked[*n].0 == to), "one cell");
    assert_eq!(VOLUMES[usize::from(to.volume)], last.image);
    assert_eq!(to.cell, last.page);
    let ack = load.acked[newest].3;
    assert!(present.iter().any(|n| load.acked[*n].2 >= ack));
    assert!(load.clean(0) && load.clean(1));
}

#[test]
fn a_dropped_write_stays_dropped_when_nothing_is_written_after_it() {
    let mut load = Load::new(Some(Fault::DropAckedWrite));
    load.run();
    for _ in 0..200 {
        load.clock += 1;
        load.core.tick(at(load.clock));
    }
    load.relocate();
    let (missing, _) = load.missing_and_present();
    let cells: BTreeSet<_> = missing.iter().map(|n| load.acked[*n].0).collect();
    assert_eq!(cells.len(), 1);
}

#[test]
fn reordering_breaks_the_order_within_one_volume() {
    let load = failed_over(Some(Fault::ReorderAcrossBarrier));
    assert!(!load.struck(Fault::ReorderAcrossBarrier).is_empty());
    assert!(
        load.ordered(&[0]) != load.ordered(&[1]),
        "exactly one volume"
    );
    assert!(load.clean(0) && load.clean(1));
}

#[test]
fn a_skewed_group_is_ordered_within_each_volume_and_not_across() {
    let load = failed_over(Some(Fault::GroupSkew));
    assert!(!load.struck(Fault::GroupSkew).is_empty());
    assert!(load.ordered(&[0]) && load.ordered(&[1]));
    assert!(!load.ordered(&[0, 1]));
    assert!(load.clean(0) && load.clean(1));
}

/// A kernel takes its time to say that a write is durable, and other writes go on meanwhile.
#[test]
fn a_skewed_group_is_not_ordered_either_when_the_guest_learns_late_of_its_writes() {
    for lag in [1, 10, 40] {
        let mut load = Load::new(Some(Fault::GroupSkew));
        load.lag = lag;
        load.run();
        load.fail_over();
        assert!(!load.struck(Fault::GroupSkew).is_empty());
        assert!(load.ordered(&[0]) && load.ordered(&[1]));
        assert!(!load.ordered(&[0, 1]), "told {lag} writes later");
    }
}

#[test]
fn without_a_group_the_volumes_are_not_consistent_with_each_other() {
    let mut load = Load::new(None);
    let alone = |seconds| {
        let mut spec = every(seconds, "");
        spec.group = None;
        spec
    };
    for volume in 0..2 {
        let image = key(Primary, volume);
        load.core.enable(&image, &alone(60), at(0)).unwrap();
        let seconds = 60 + 7 * volume as u64;
        load.core
            .promote(&image, false, &alone(seconds), at(0))
            .unwrap();
    }
    load.run();
    load.fail_over();
    assert!(load.ordered(&[0]) && load.ordered(&[1]));
    assert!(!load.ordered(&[0, 1]));
}

#[test]
fn a_torn_cell_has_sectors_of_two_writes() {
    let load = relocated(Some(Fault::TornAckedWrite));
    let strike = load.struck(Fault::TornAckedWrite)[0].clone();
    let volume = VOLUMES.iter().position(|v| *v == strike.image).unwrap();
    let page = load.pages(volume).get(strike.page).unwrap();
    let stamps = sector_stamps(&page).map(|stamp| stamp.map(|s| s.wseq));
    assert!(stamps[0].is_some() && stamps[7].is_some() && stamps[0] != stamps[7]);
    assert!(stamps[..4].iter().all(|s| *s == stamps[0]));
    assert!(stamps[4..].iter().all(|s| *s == stamps[7]));
    assert!(!payload_crc_holds(&page));
}

#[test]
fn a_flipped_bit_is_in_the_payload_of_one_cold_cell() {
    let load = relocated(Some(Fault::BitFlipCold));
    let broken: Vec<_> = (0..2_u8)
        .flat_map(|volume| {
            let pages = load.pages(usize::from(volume));
            let of = pages.iter().filter(|(_, page)| !payload_crc_holds(page));
            of.map(|(cell, page)| (volume, cell, Header::decode(page).unwrap().kind))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].2, Kind::Fill);
}

#[test]
fn a_misdirected_write_lies_eight_cells_further_on() {
    let load = relocated(Some(Fault::MisdirectedWrite));
    let strays: Vec<_> = (0..2)
        .flat_map(|volume| {
            let pages = load.pages(volume);
            let of = pages
                .iter()
                .map(|(cell, page)| (cell, Header::decode(page).unwrap().cell));
            of.filter(|(cell, meant)| cell != meant).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(strays.len(), 1);
    assert_eq!(strays[0].0, strays[0].1 + 8);
}

#[test]
fn swapped_volumes_carry_each_other() {
    let load = relocated(Some(Fault::SwapVolumes));
    for volume in 0..2 {
        let other = load.core.image(&key(Primary, 1 - volume)).unwrap();
        assert_eq!(load.pages(volume), other.pages);
    }
}

#[test]
fn a_stale_extent_holds_older_versions_only_there() {
    let load = relocated(Some(Fault::StaleExtent));
    let strike = load.struck(Fault::StaleExtent)[0].clone();
    let (missing, _) = load.missing_and_present();
    let found = load.found();
    let cells: BTreeSet<_> = missing.iter().map(|n| load.acked[*n].0).collect();
    let older = cells.iter().filter(|to| found.contains_key(to)).count();
    assert!(older >= 8, "{older}");
    assert!(
        cells
            .iter()
            .all(|to| VOLUMES[usize::from(to.volume)] == strike.image)
    );
    // The volume is seen to be newer than what the extent lacks.
    let volume = load.acked[missing[0]].0.volume;
    assert!(!load.ordered(&[volume]));
}

#[test]
fn a_recycled_volume_is_a_whole_ledger_of_another_run() {
    let load = relocated(Some(Fault::RecycledVolume));
    let foreign: Vec<_> = (0..2)
        .filter(|volume| {
            load.pages(*volume).iter().all(|(cell, page)| {
                let header = Header::decode(page).unwrap();
                header.run_id != [1; 16] && header.cell == cell && payload_crc_holds(page)
            })
        })
        .collect();
    assert_eq!(foreign.len(), 1);
    assert!(load.clean(1 - foreign[0]));
}

#[test]
fn a_skipped_extent_is_blank_and_cold() {
    let load = relocated(Some(Fault::SkippedExtent));
    let (missing, _) = load.missing_and_present();
    let found = load.found();
    assert!(!missing.is_empty());
    for n in missing {
        let (to, (writer, _), ..) = load.acked[n];
        assert_eq!(writer, WRITER_FILL);
        assert!(!found.contains_key(&to));
        assert!(to.cell != 0 && to.cell != CELLS - 1);
    }
}

#[test]
fn an_older_point_is_a_prefix_that_lacks_what_was_claimed() {
    let load = failed_over(Some(Fault::OlderPoint));
    let honest = failed_over(None);
    assert_eq!(load.struck(Fault::OlderPoint).len(), 2);
    let first = |l: &Load| *l.missing_and_present().0.first().unwrap();
    assert!(first(&load) + 100 < first(&honest));
    assert!(load.ordered(&[0, 1]), "only the claim is wrong");
}

#[test]
fn stalled_syncs_freeze_the_replica_and_still_report_primary() {
    let mut load = Load::new(None);
    load.run();
    let told = load.core.info(&key(Primary, 0)).unwrap();
    load.core.board.plant(Fault::SyncStalled);
    let before = load.core.image(&key(Secondary, 0)).unwrap().pages.clone();
    load.run();
    assert_eq!(load.core.info(&key(Primary, 0)).unwrap(), told);
    assert_eq!(load.core.image(&key(Secondary, 0)).unwrap().pages, before);
    load.core.board.heal(Fault::SyncStalled);
    load.settle();
    assert!(load.core.info(&key(Primary, 0)).unwrap().time > told.time);
}

#[test]
fn without_the_final_sync_a_clean_relocation_loses_acked_writes() {
    let load = relocated(Some(Fault::RelocateWithoutFinalSync));
    let (missing, _) = load.missing_and_present();
    assert!(!missing.is_empty());
    assert!(load.ordered(&[0, 1]) && load.clean(0) && load.clean(1));
    assert!(!load.struck(Fault::RelocateWithoutFinalSync).is_empty());
}

#[test]
fn a_fresh_empty_disk_carries_no_ledger() {
    let load = relocated(Some(Fault::FreshEmptyDisk));
    let carriers = (0..2).filter(|v| has_ledger(&load.pages(*v))).count();
    assert_eq!(carriers, 1);
}

#[test]
fn a_stalled_promotion_takes_half_an_hour_unless_healed() {
    let mut load = Load::new(Some(Fault::PromoteStalls));
    load.run();
    let now = at(load.clock);
    let image = key(Secondary, 0);
    let stalled = load.core.promotion_takes(&image, true, now).unwrap();
    assert_eq!(stalled, load.core.config.promote_stall);
    let later = at(load.clock + 60);
    let left = load.core.promotion_takes(&image, true, later).unwrap();
    assert_eq!(left + std::time::Duration::from_secs(60), stalled);
    load.core.board.heal(Fault::PromoteStalls);
    let healed = load.core.promotion_takes(&image, true, later).unwrap();
    assert!(healed < std::time::Duration::from_secs(5));
}

#[test]
fn an_unprotected_volume_is_one_of_its_group_and_has_no_replica() {
    let mut load = Load::new(Some(Fault::UnprotectedVolume));
    load.run();
    assert_eq!(load.struck(Fault::UnprotectedVolume).len(), 1);
    let told = |v| load.core.info(&key(Primary, v)).map_err(|e| e.code);
    assert!(told(0).is_ok());
    assert_eq!(told(1), Err(crate::lab::array::Code::NotFound));
    assert!(load.core.image(&key(Secondary, 0)).is_ok());
    assert!(load.core.image(&key(Secondary, 1)).is_err());
    let (image, now) = (key(Primary, 1), at(load.clock));
    load.core.demote(&image, now).unwrap();
    load.settle();
    assert_eq!(load.core.resync(&image, false, at(load.clock)), Ok(false));
}

#[test]
fn the_same_seed_strikes_the_same() {
    for fault in [
        Fault::DropAckedWrite,
        Fault::BitFlipCold,
        Fault::SkippedExtent,
    ] {
        let (a, b) = (relocated(Some(fault)), relocated(Some(fault)));
        assert_eq!(a.core.strikes, b.core.strikes);
        assert_eq!(a.pages(0), b.pages(0));
        assert_eq!(a.pages(1), b.pages(1));
    }
}

#[test]
fn an_image_without_a_ledger_is_spared() {
    let board = Board::default();
    for fault in [
        Fault::FreshEmptyDisk,
        Fault::BitFlipCold,
        Fault::RecycledVolume,
    ] {
        board.plant(fault);
    }
    let mut core = Core::new(Config::default(), Arc::new(board));
    let root: Key = (Primary, "root".into());
    core.create(root.clone(), 64 * PAGE as u64).unwrap();
    let open = core.attach(&root, "n", true).unwrap();
    core.write(&root, open, 0, &[9; PAGE], true).unwrap();
    core.enable(&root, &every(60, "vm"), at(0)).unwrap();
    for t in 0..5 {
        core.tick(at(t));
    }
    let replica = (Secondary, "root".to_owned());
    core.promote(&replica, true, &every(60, "vm"), at(5))
        .unwrap();
    assert_eq!(
        core.image(&replica).unwrap().pages,
        core.image(&root).unwrap().pages
    );
    assert!(core.strikes.is_empty());
}
