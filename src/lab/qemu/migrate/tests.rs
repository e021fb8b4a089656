use super::*;
use crate::lab::qemu::process::{Launch, Process};
use crate::lab::qemu::qmp::{EventKind, MigrationStatus};
use crate::lab::qemu::testing::guest::Then;
use crate::lab::qemu::testing::nbd::NbdDisk;
use crate::lab::qemu::testing::{Bench, drive, see};

/// Slow enough that nothing is over before it is cut off.
const SLOW: u64 = 4096;

/// A counting guest and somewhere to go.
struct Pair {
    bench: Bench,
    source: Process,
    target: Process,
}

impl Pair {
    async fn new(change: impl FnOnce(&mut Launch)) -> Option<Self> {
        let bench = Bench::new(Then::CountOn).await?;
        let source = bench.counting(&bench.launch()).await;
        let mut twin = source.twin();
        change(&mut twin);
        let target = arrive(&bench, &twin, "target").await;
        Some(Self {
            bench,
            source,
            target,
        })
    }

    /// The source runs, and writes.
    async fn lives(&self) {
        assert!(self.source.status().await.unwrap().running);
        let writes = self.bench.disk.writes();
        let at = self.source.console().length();
        let on = see(&self.source, at, "+").await;
        see(&self.source, on, "+").await;
        assert!(self.bench.disk.writes() > writes);
        let said = self.source.console().tail(0).await.unwrap();
        assert!(!said.contains(&b'!'));
        assert!(self.target.exit().is_some());
    }
}

async fn arrive(bench: &Bench, launch: &Launch, dir: &str) -> Process {
    let dir = bench.folder.path().join(dir);
    Process::start(&bench.host, launch, &dir).await.unwrap()
}

/// Numbers that a guest said whole.
async fn numbers(process: &Process) -> Vec<u32> {
    let said = String::from_utf8(process.console().tail(0).await.unwrap()).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    lines
        .iter()
        .filter_map(|line| line.strip_prefix('+').filter(|digits| digits.len() == 8))
        .map(|digits| u32::from_str_radix(digits, 16).unwrap())
        .collect()
}

fn slow() -> Options {
    Options {
        max_bandwidth: SLOW,
        ..Options::default()
    }
}

async fn active(process: &Process) {
    let mut events = process.events();
    let found = events
        .find(|event| (event.kind == EventKind::Migration(MigrationStatus::Active)).then_some(()));
    found.await.unwrap();
}

#[tokio::test]
async fn a_guest_counts_on_at_the_target() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let (progress, mut seen) = watch::channel(Progress::default());
    let options = Options {
        progress: Some(progress),
        ..Options::default()
    };
    let migrated = migrate(&pair.source, &pair.target, options).await.unwrap();
    let switchover = migrated.switchover.unwrap();
    assert!(switchover.resumed >= switchover.stopped);
    assert!(migrated.transferred > 0 && migrated.iterations > 0);
    assert!(migrated.total >= migrated.downtime);
    assert!(seen.has_changed().is_err() || !seen.borrow_and_update().status.is_empty());
    assert_eq!(pair.source.status().await.unwrap().status, "postmigrate");
    let on = see(&pair.target, 0, "\n").await;
    see(&pair.target, on, "+").await;
    see(&pair.target, on, "\n").await;
    let (before, after) = (numbers(&pair.source).await, numbers(&pair.target).await);
    assert!(after[0] > *before.last().unwrap());
    assert!(
        after[0] <= before.last().unwrap() + 2,
        "{before:?} {after:?}"
    );
    pair.source.kill().await;
    // And back, with the disk still in the hands of one.
    let back = arrive(&pair.bench, &pair.target.twin(), "back").await;
    migrate(&pair.target, &back, Options::default())
        .await
        .unwrap();
    pair.target.kill().await;
    let writes = pair.bench.disk.writes();
    let on = see(&back, back.console().length(), "+").await;
    see(&back, on, "+").await;
    assert!(pair.bench.disk.writes() > writes);
}

#[tokio::test]
async fn a_disk_that_was_plugged_goes_along() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let source = bench.counting(&bench.launch()).await;
    let second = NbdDisk::serve(&bench.folder.path().join("second.sock"), vec![0; 1 << 20]);
    source.hotplug(drive("disk1", second.path())).await.unwrap();
    let target = arrive(&bench, &source.twin(), "target").await;
    migrate(&source, &target, Options::default()).await.unwrap();
    assert_eq!(target.drives().len(), 2);
    see(&target, 0, "+").await;
}

#[tokio::test]
async fn a_paused_guest_arrives_paused() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    pair.source.pause().await.unwrap();
    let migrated = migrate(&pair.source, &pair.target, Options::default())
        .await
        .unwrap();
    assert_eq!(migrated.switchover, None);
    assert_eq!(pair.target.status().await.unwrap().status, "paused");
    pair.source.kill().await;
    pair.target.resume().await.unwrap();
    see(&pair.target, 0, "+").await;
}

#[tokio::test]
async fn an_aborted_migration_leaves_the_source_running_and_can_be_tried_again() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let options = slow();
    let abort = options.abort.clone();
    let (result, ()) = tokio::join!(migrate(&pair.source, &pair.target, options), async {
        active(&pair.source).await;
        abort.cancel();
    });
    let error = result.unwrap_err();
    assert!(matches!(error.why, Why::Aborted), "{error}");
    assert_eq!(error.after, After::Runs);
    pair.lives().await;
    let again = arrive(&pair.bench, &pair.source.twin(), "again").await;
    let (result, changed) = tokio::join!(migrate(&pair.source, &again, slow()), async {
        active(&pair.source).await;
        set_bandwidth(&pair.source, 0).await
    });
    changed.unwrap();
    result.unwrap();
    see(&again, 0, "+").await;
}

#[tokio::test]
async fn a_migration_has_a_limit() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let options = Options {
        limit: Duration::from_millis(500),
        ..slow()
    };
    let error = migrate(&pair.source, &pair.target, options)
        .await
        .unwrap_err();
    assert!(
        matches!(&error.why, Why::TimedOut { last, .. } if last.status == "active"),
        "{error}"
    );
    assert_eq!(error.after, After::Runs);
    pair.lives().await;
}

#[tokio::test]
async fn the_source_survives_its_target() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let (result, _exit) = tokio::join!(migrate(&pair.source, &pair.target, slow()), async {
        active(&pair.source).await;
        pair.target.kill().await
    });
    let error = result.unwrap_err();
    assert!(matches!(error.why, Why::TargetDied(_)), "{error}");
    assert_eq!(error.after, After::Runs);
    pair.lives().await;
}

#[tokio::test]
async fn the_target_does_not_survive_its_source() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let (result, _exit) = tokio::join!(migrate(&pair.source, &pair.target, slow()), async {
        active(&pair.source).await;
        pair.source.kill().await
    });
    let error = result.unwrap_err();
    assert!(matches!(error.why, Why::SourceDied(_)), "{error}");
    assert_eq!(error.after, After::Gone);
    assert!(pair.target.exit().is_some());
}

/// The target finds out at the end, when the source has stopped the guest and let go of its disks.
#[tokio::test]
async fn the_source_writes_again_when_the_switchover_failed() {
    let Some(pair) = Pair::new(|twin| twin.ports = 1).await else {
        return;
    };
    let mut events = pair.source.events();
    let error = migrate(&pair.source, &pair.target, Options::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error.why, Why::TargetDied(words) if words.contains("pcie-root-port")),
        "{error}"
    );
    assert_eq!(error.after, After::Runs);
    let stopped = events.find(|event| (event.kind == EventKind::Stop).then_some(()));
    tokio::time::timeout(Duration::from_secs(5), stopped)
        .await
        .expect("a switchover")
        .unwrap();
    pair.lives().await;
}

#[tokio::test]
async fn the_memory_of_another_guest_is_refused() {
    let Some(pair) = Pair::new(|twin| twin.uuid = uuid::Uuid::from_u128(8)).await else {
        return;
    };
    let error = migrate(&pair.source, &pair.target, Options::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error.why, Why::TargetDied(words) if words.contains("UUID")),
        "{error}"
    );
    assert_eq!(error.after, After::Runs);
    pair.lives().await;
}

#[tokio::test]
async fn an_end_that_refuses_is_named() {
    let Some(pair) = Pair::new(|_| {}).await else {
        return;
    };
    let options = Options {
        downtime_limit: Duration::from_secs(3000),
        ..Options::default()
    };
    let error = migrate(&pair.source, &pair.target, options)
        .await
        .unwrap_err();
    assert!(
        matches!(&error.why, Why::Control { end: "source", .. }),
        "{error}"
    );
    assert_eq!(error.after, After::Runs);
    pair.lives().await;
}
