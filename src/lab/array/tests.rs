//! The array's life without faults.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Now};
use super::*;
use crate::history::event::Site::{Primary, Secondary};
use crate::lab::world::{PAGE, handle};

pub(super) const SIZE: u64 = 512 * PAGE as u64;

pub(super) fn at(seconds: u64) -> Now {
    Now {
        lab: Duration::from_secs(seconds),
        wall: jiff::Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap())
            .unwrap(),
    }
}

pub(super) fn every(seconds: u64, group: &str) -> MirrorSpec {
    MirrorSpec {
        interval: Some(Duration::from_secs(seconds)),
        group: Some(group.into()),
    }
}

fn array(grants: Grants) -> Array {
    let config = Config {
        grants,
        ..Config::default()
    };
    Array::new(config, LabClock::new(1.0), Arc::new(Board::default()))
}

fn volatile() -> Grants {
    Grants {
        direct: true,
        dsync: false,
        write_back: true,
    }
}

#[test]
fn a_power_cut_loses_what_was_not_flushed_and_kills_open_handles() {
    let array = array(volatile());
    let name = handle(Primary, "a");
    array.create(Primary, &name, SIZE).unwrap();
    let disk = array.attach(Primary, &name, "east-node-0", true).unwrap();
    disk.write_at(0, &[1; PAGE]).unwrap();
    disk.flush().unwrap();
    disk.write_at(0, &[2; PAGE]).unwrap();
    let mut seen = [0; PAGE];
    disk.read_at(0, &mut seen).unwrap();
    assert_eq!(seen, [2; PAGE], "a reader sees the cache");
    array.power_cut(Primary);
    assert_eq!(
        disk.read_at(0, &mut seen).unwrap_err().raw_os_error(),
        Some(5)
    );
    assert_eq!(
        array
            .attach(Primary, &name, "east-node-0", true)
            .err()
            .and_then(|e| e.raw_os_error()),
        Some(5)
    );
    array.power_on(Primary);
    assert!(disk.write_at(0, &[3; PAGE]).is_err(), "dead for good");
    let disk = array.attach(Primary, &name, "east-node-0", false).unwrap();
    disk.read_at(0, &mut seen).unwrap();
    assert_eq!(seen, [1; PAGE]);
    assert_eq!(
        disk.write_at(0, &seen).unwrap_err().raw_os_error(),
        Some(30)
    );
}

#[test]
fn with_dsync_a_returned_write_survives_the_power_cut() {
    let array = array(Config::default().grants);
    let name = handle(Primary, "a");
    array.create(Primary, &name, SIZE).unwrap();
    let disk = array.attach(Primary, &name, "n", true).unwrap();
    disk.write_at(SIZE - PAGE as u64, &[7; PAGE]).unwrap();
    array.power_cut(Primary);
    array.power_on(Primary);
    let disk = array.attach(Primary, &name, "n", false).unwrap();
    let mut seen = [0; PAGE];
    disk.read_at(SIZE - PAGE as u64, &mut seen).unwrap();
    assert_eq!(seen, [7; PAGE]);
    assert!(
        disk.read_at(SIZE, &mut seen).is_err(),
        "beyond the end is refused"
    );
}

#[test]
fn a_fence_stops_one_node_and_only_on_that_site() {
    let array = array(Config::default().grants);
    let name = handle(Primary, "a");
    array.create(Primary, &name, SIZE).unwrap();
    let fenced = array.attach(Primary, &name, "east-node-0", true).unwrap();
    let free = array.attach(Primary, &name, "east-node-1", true).unwrap();
    array.fence(Secondary, &["east-node-0".into()]);
    fenced.write_at(0, &[1; PAGE]).unwrap();
    array.fence(Primary, &["east-node-0".into()]);
    assert_eq!(array.fenced(Primary), ["east-node-0"]);
    assert_eq!(
        fenced.write_at(0, &[2; PAGE]).unwrap_err().raw_os_error(),
        Some(5)
    );
    free.write_at(0, &[3; PAGE]).unwrap();
    array.unfence(Primary, &["east-node-0".into()]);
    fenced.write_at(0, &[4; PAGE]).unwrap();
}

#[test]
fn open_handles_are_counted_until_dropped_or_detached() {
    let array = array(Config::default().grants);
    let name = handle(Primary, "a");
    array.create(Primary, &name, SIZE).unwrap();
    let disk = array.attach(Primary, &name, "n0", true).unwrap();
    let other = array.attach(Primary, &name, "n1", true).unwrap();
    assert_eq!(array.attachments(Primary, &name), ["n0", "n1"]);
    assert_eq!(
        array.delete(Primary, &name).unwrap_err().code,
        Code::Internal
    );
    drop(disk);
    array.detach(Primary, &name, "n1");
    assert!(other.flush().is_err(), "detached from under its holder");
    array.delete(Primary, &name).unwrap();
    assert!(!array.exists(Primary, &name));
    let foreign = handle(Secondary, "a");
    let refused = array.attach(Primary, &foreign, "n0", true).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
}

/// A core with image `a` mirrored from the first site every minute, its first sync done by t=10.
pub(super) fn mirrored() -> Core {
    let mut core = Core::new(Config::default(), Arc::new(Board::default()));
    core.create(key(Primary), SIZE).unwrap();
    core.enable(&key(Primary), &every(60, "vm"), at(0)).unwrap();
    core.promote(&key(Primary), false, &every(60, "vm"), at(0))
        .unwrap();
    for t in 0..10 {
        core.tick(at(t));
    }
    core
}

pub(super) fn key(site: Site) -> Key {
    (site, "a".into())
}

pub(super) fn put(core: &mut Core, site: Site, page: u64, byte: u8) {
    let id = core.attach(&key(site), "n", true).unwrap();
    core.write(&key(site), id, page, &[byte; PAGE], true)
        .unwrap();
    core.detach(&key(site), |open, _| open == id);
}

pub(super) fn byte(core: &Core, site: Site, page: u64) -> u8 {
    let page = core.image(&key(site)).unwrap().pages.get(page);
    page.map_or(0, |p| p[0])
}

pub(super) fn pass(core: &mut Core, seconds: std::ops::Range<u64>) {
    for t in seconds {
        core.tick(at(t));
    }
}

#[test]
fn a_planned_move_needs_the_demote_snapshot_to_arrive_and_loses_nothing() {
    let mut core = mirrored();
    put(&mut core, Primary, 1, 1);
    let busy = core.promote(&key(Secondary), false, &every(60, "vm"), at(10));
    assert_eq!(busy.unwrap_err().code, Code::FailedPrecondition);
    core.demote(&key(Primary), at(11)).unwrap();
    let early = core.promote(&key(Secondary), false, &every(60, "vm"), at(11));
    assert_eq!(early.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(core.resync(&key(Primary), false, at(11)), Ok(false));
    pass(&mut core, 11..20);
    assert_eq!(core.resync(&key(Primary), false, at(20)), Ok(true));
    core.promote(&key(Secondary), false, &every(60, "vm"), at(20))
        .unwrap();
    assert_eq!(
        core.image(&key(Secondary)).unwrap().pages,
        core.image(&key(Primary)).unwrap().pages
    );
    // The old side follows the new one without a resync.
    put(&mut core, Secondary, 1, 2);
    pass(&mut core, 20..90);
    assert_eq!(byte(&core, Primary, 1), 2);
    assert_eq!(core.state(&key(Primary)), MirrorState::Replaying);
}

#[test]
fn a_forced_move_takes_the_last_whole_snapshot_and_rolls_the_partial_delta_back() {
    let mut core = mirrored();
    put(&mut core, Primary, 1, 1);
    pass(&mut core, 10..70);
    assert_eq!(byte(&core, Secondary, 1), 1);
    let held = core.info(&key(Primary)).unwrap();
    assert_eq!((held.time, held.bytes), (at(60).wall, PAGE as u64));
    for page in 1..100 {
        put(&mut core, Primary, page, 2);
    }
    core.tick(at(120));
    let midway = Now {
        lab: at(120).lab + Duration::from_millis(500),
        wall: at(120).wall,
    };
    core.interrupt_all(midway);
    assert_eq!(byte(&core, Secondary, 1), 2, "a partial delta lies there");
    core.promote(&key(Secondary), true, &every(60, "vm"), midway)
        .unwrap();
    assert_eq!(
        (byte(&core, Secondary, 1), byte(&core, Secondary, 2)),
        (1, 0)
    );
    // Both sides are primary now; the old one goes on writing.
    put(&mut core, Primary, 1, 3);
    assert_eq!(core.state(&key(Primary)), MirrorState::Stopped);
}

#[test]
fn split_brain_is_repaired_by_one_forced_resync() {
    let mut core = mirrored();
    core.promote(&key(Secondary), true, &every(60, "vm"), at(10))
        .unwrap();
    put(&mut core, Primary, 1, 9);
    put(&mut core, Secondary, 1, 5);
    pass(&mut core, 10..20);
    assert_eq!(
        core.resync(&key(Primary), true, at(20)).unwrap_err().code,
        Code::InvalidArgument
    );
    core.demote(&key(Primary), at(20)).unwrap();
    assert_eq!(core.state(&key(Primary)), MirrorState::SplitBrain);
    let waits = core.resync(&key(Primary), false, at(21)).unwrap_err();
    assert_eq!(waits.code, Code::Unavailable);
    let fired = core.resync(&key(Primary), true, at(21)).unwrap_err();
    assert_eq!(fired.code, Code::Unavailable);
    let absent = core.resync(&key(Primary), true, at(21)).unwrap_err();
    assert_eq!(absent.code, Code::Aborted);
    core.tick(at(23));
    let syncing = core.resync(&key(Primary), true, at(23)).unwrap_err();
    assert_eq!(syncing.code, Code::Internal);
    pass(&mut core, 23..30);
    let birth = core.image(&key(Primary)).unwrap().birth;
    assert_eq!(core.resync(&key(Primary), true, at(30)), Ok(false));
    assert_eq!(core.image(&key(Primary)).unwrap().birth, birth, "only once");
    assert_eq!(byte(&core, Primary, 1), 5);
    assert_eq!(core.state(&key(Primary)), MirrorState::Replaying);
}

#[test]
fn demotion_under_a_writer_is_refused_or_stops_the_writer() {
    let mut core = mirrored();
    let open = core.attach(&key(Primary), "n", true).unwrap();
    let refused = core.demote(&key(Primary), at(10)).unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    core.config.demote_in_use = DemoteInUse::Permit;
    core.demote(&key(Primary), at(10)).unwrap();
    let stopped = core.write(&key(Primary), open, 0, &[1; PAGE], true);
    assert_eq!(stopped.unwrap_err().raw_os_error(), Some(30));
    let refused = core.attach(&key(Secondary), "n", true).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn info_is_for_the_primary_and_empty_before_the_first_sync() {
    let mut core = Core::new(Config::default(), Arc::new(Board::default()));
    core.create(key(Primary), SIZE).unwrap();
    let off = core.info(&key(Primary)).unwrap_err();
    assert_eq!(off.code, Code::InvalidArgument);
    core.enable(&key(Primary), &every(60, "vm"), at(0)).unwrap();
    let early = core.info(&key(Primary)).unwrap_err();
    assert_eq!(early.code, Code::NotFound);
    pass(&mut core, 0..5);
    core.info(&key(Primary)).unwrap();
    let secondary = core.info(&key(Secondary)).unwrap_err();
    assert_eq!(secondary.code, Code::InvalidArgument);
}

#[test]
fn disabling_the_primary_deletes_the_replica_and_a_secondary_only_if_it_follows() {
    let mut core = mirrored();
    core.disable(&key(Secondary)).unwrap();
    assert!(core.image(&key(Secondary)).is_ok());
    core.delete(&key(Secondary)).unwrap();
    assert!(core.image(&key(Secondary)).is_ok(), "its primary owns it");
    core.link = false;
    let stuck = core.disable(&key(Secondary)).unwrap_err();
    assert_eq!(stuck.code, Code::InvalidArgument);
    core.disable(&key(Primary)).unwrap();
    assert!(core.image(&key(Secondary)).is_ok(), "cannot be reached yet");
    core.link = true;
    core.collect_orphans();
    assert!(core.image(&key(Secondary)).is_err());
    assert!(core.image(&key(Primary)).is_ok());
}

#[test]
fn a_group_comes_up_at_one_instant_even_if_promoted_one_by_one() {
    let mut core = mirrored();
    let b = |site| (site, "b".to_owned());
    core.create(b(Primary), SIZE).unwrap();
    core.enable(&b(Primary), &every(60, "vm"), at(10)).unwrap();
    pass(&mut core, 10..70);
    put(&mut core, Primary, 1, 7);
    core.promote(&key(Secondary), true, &every(60, "vm"), at(70))
        .unwrap();
    pass(&mut core, 70..200);
    core.promote(&b(Secondary), true, &every(60, "vm"), at(200))
        .unwrap();
    let past = |k: &Key| {
        let history = &core.image(k).unwrap().mirror.as_ref().unwrap().history;
        history.clone()
    };
    // Both were promoted from the same snapshot, though others were taken in between.
    let common = |k: &Key| {
        past(k)
            .into_iter()
            .filter(|c| past(&key(Primary)).contains(c))
            .max()
    };
    assert_eq!(common(&key(Secondary)), common(&b(Secondary)));
    assert_eq!(byte(&core, Secondary, 1), 0);
}

#[tokio::test(start_paused = true)]
async fn the_daemon_keeps_the_schedule_and_promotion_takes_lab_time() {
    let config = Config::default();
    let array = Array::new(config, LabClock::new(60.0), Arc::new(Board::default()));
    let stop = CancellationToken::new();
    let daemon = {
        let (array, stop) = (array.clone(), stop.clone());
        tokio::spawn(async move { array.run(stop).await })
    };
    let (here, there) = (handle(Primary, "a"), handle(Secondary, "a"));
    array.create(Primary, &here, SIZE).unwrap();
    let early = array
        .promote(Secondary, &there, true, &every(60, "vm"))
        .await;
    assert_eq!(early.unwrap_err().code, Code::NotFound);
    array.enable(Primary, &here, &every(60, "vm")).unwrap();
    let spec = every(60, "vm");
    array.promote(Primary, &here, false, &spec).await.unwrap();
    let disk = array.attach(Primary, &here, "n", true).unwrap();
    disk.write_at(0, &[1; PAGE]).unwrap();
    // Nobody calls the array for 65 s of lab time: only the daemon can have cut and moved.
    LabClock::new(60.0).pass(Duration::from_secs(65)).await;
    assert_eq!(byte(&array.shared.lock(), Secondary, 0), 1);
    array.power_cut(Primary);
    let before = Instant::now();
    array.promote(Secondary, &there, true, &spec).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1) / 60);
    let disk = array.attach(Secondary, &there, "n", true).unwrap();
    let mut seen = [0; PAGE];
    disk.read_at(0, &mut seen).unwrap();
    assert_eq!(seen, [1; PAGE]);
    stop.cancel();
    daemon.await.unwrap();
}

#[test]
fn a_peer_out_of_reach_costs_bounded_memory_and_catches_up() {
    let mut core = mirrored();
    core.link = false;
    let open = core.attach(&key(Primary), "n", true).unwrap();
    for t in 10..1000_u64 {
        core.tick(at(t));
        for n in 0..20 {
            let byte = u8::try_from(1 + (t + n) % 250).unwrap();
            core.write(&key(Primary), open, n, &[byte; PAGE], true)
                .unwrap();
        }
    }
    let waiting: usize = core
        .queues
        .values()
        .flat_map(|q| &q.cuts)
        .map(|c| c.members["a"].log.len())
        .sum();
    let cuts: usize = core.queues.values().map(|q| q.cuts.len()).sum();
    assert!(
        cuts <= 6 && waiting < 20_000,
        "{cuts} snapshots, {waiting} writes"
    );
    core.link = true;
    pass(&mut core, 1000..1040);
    let replica = core.image(&key(Secondary)).unwrap().pages.clone();
    let last = core.info(&key(Primary)).unwrap().time;
    assert!(last > at(950).wall);
    assert_eq!(replica.iter().count(), 20);
}

mod random {
    //! The replica is always the state at the point that it claims, whatever happens.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::mirror::Follow;
    use super::super::pages::{Pages, page};
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write { page: u64, byte: u8, durable: bool },
        Flush,
        Pass(u64),
        Crash,
        Link(bool),
        Move,
        FailOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..24_u64, 1..=255_u8, any::<bool>())
                .prop_map(|(page, byte, durable)| Step::Write { page, byte, durable }),
            2 => Just(Step::Flush),
            3 => (1..70_u64).prop_map(Step::Pass),
            1 => Just(Step::Crash),
            1 => any::<bool>().prop_map(Step::Link),
            1 => Just(Step::Move),
            1 => Just(Step::FailOver),
        ]
    }

    /// A mirrored image, what a correct one holds, and every state that a snapshot may show.
    struct World {
        core: Core,
        clock: u64,
        primary: Site,
        open: u64,
        /// What is durable, and what a reader sees.
        durable: Pages,
        seen: BTreeMap<u64, u8>,
        /// The durable states after each write that was made durable, oldest first.
        states: Vec<Pages>,
    }

    impl World {
        fn new() -> Self {
            let mut core = mirrored();
            let open = core.attach(&key(Primary), "n", true).unwrap();
            Self {
                core,
                clock: 10,
                primary: Primary,
                open,
                durable: Pages::default(),
                seen: BTreeMap::new(),
                states: vec![Pages::default()],
            }
        }

        fn flushed(&mut self) {
            // The order of a flush is that of the writes; only its result is checked here.
            for (index, byte) in std::mem::take(&mut self.seen) {
                self.durable.set(index, page(&[byte; PAGE]));
            }
            self.states.push(self.durable.clone());
        }

        fn now(&self) -> Now {
            at(self.clock)
        }

        fn reopen(&mut self) {
            self.open = (self.core.attach(&key(self.primary), "n", true)).unwrap();
        }

        fn promote(&mut self, force: bool) {
            let target = self.primary.peer();
            let now = self.now();
            self.core
                .promote(&key(target), force, &every(60, "vm"), now)
                .unwrap();
            self.primary = target;
            self.durable = self.core.image(&key(target)).unwrap().pages.clone();
            self.seen.clear();
            self.states.truncate(
                1 + self
                    .states
                    .iter()
                    .rposition(|s| *s == self.durable)
                    .unwrap(),
            );
            self.reopen();
        }

        fn step(&mut self, step: &Step) {
            let name = key(self.primary);
            match *step {
                Step::Write {
                    page: index,
                    byte,
                    durable,
                } => {
                    let bytes = [byte; PAGE];
                    self.core
                        .write(&name, self.open, index, &bytes, durable)
                        .unwrap();
                    if durable {
                        self.seen.remove(&index);
                        self.durable.set(index, page(&bytes));
                        self.states.push(self.durable.clone());
                    } else {
                        self.seen.insert(index, byte);
                    }
                }
                Step::Flush => {
                    self.core.flush(&name, self.open).unwrap();
                    self.flushed();
                }
                Step::Pass(seconds) => {
                    for _ in 0..seconds {
                        self.clock += 1;
                        let now = self.now();
                        self.core.tick(now);
                    }
                }
                Step::Crash => {
                    self.core.cut_host(self.primary, Some("n"));
                    self.seen.clear();
                    self.reopen();
                }
                Step::Link(up) => {
                    let now = self.now();
                    self.core.interrupt_all(now);
                    self.core.link = up;
                }
                Step::Move => self.relocate(),
                Step::FailOver => self.fail_over(),
            }
        }

        fn relocate(&mut self) {
            let (name, open) = (key(self.primary), self.open);
            self.core.detach(&name, |id, _| id == open);
            self.flushed();
            let now = self.now();
            self.core.demote(&name, now).unwrap();
            self.core.link = true;
            let source = self.primary;
            if self.core.follow(source, "a") == Follow::Yes {
                self.step(&Step::Pass(30));
                assert_eq!(self.core.resync(&name, false, self.now()), Ok(true));
                let full = self.durable.clone();
                self.promote(false);
                assert_eq!(self.durable, full, "a planned move loses nothing");
                assert_eq!(self.core.image(&key(source)).unwrap().pages, full);
            } else {
                // Diverged from an earlier forced move: repaired from this side, then again.
                let now = self.now();
                self.core
                    .promote(&name, false, &every(60, "vm"), now)
                    .unwrap();
                self.reopen();
            }
        }

        /// The other side takes over by force; this one is repaired from it.
        fn fail_over(&mut self) {
            let old = self.primary;
            let replica = self
                .core
                .image(&key(old.peer()))
                .unwrap()
                .mirror
                .clone()
                .unwrap();
            if replica.point.is_none() || self.core.follow(old, "a") != Follow::Yes {
                return;
            }
            let claimed = replica.point.unwrap().truth;
            self.promote(true);
            assert_eq!(self.durable, claimed, "exactly the point that it held");
            self.core.link = true;
            self.core.detach(&key(old), |_, _| true);
            let now = self.now();
            self.core.demote(&key(old), now).unwrap();
            let fired = self.core.resync(&key(old), true, now);
            assert_eq!(fired.unwrap_err().code, Code::Unavailable);
            self.step(&Step::Pass(30));
        }

        /// The replica never shows anything but a state that the primary once durably had.
        fn check(&self) {
            let replica = self.core.image(&key(self.primary.peer()));
            let Some(point) = replica.ok().and_then(|r| r.mirror.as_ref()?.point.as_ref()) else {
                return;
            };
            assert_eq!(point.pages, point.truth);
            assert!(self.states.contains(&point.pages), "not a prefix");
            let primary = self.core.image(&key(self.primary)).unwrap();
            assert_eq!(primary.pages, self.durable);
            for index in 0..24 {
                let expected = self.seen.get(&index).map(|b| page(&[*b; PAGE]));
                let expected = expected.unwrap_or_else(|| self.durable.get(index));
                assert_eq!(primary.read(index), expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_replica_is_always_an_exact_prefix(steps in prop::collection::vec(step(), 1..60)) {
            let mut world = World::new();
            for step in &steps {
                world.step(step);
                world.check();
            }
        }
    }
}
