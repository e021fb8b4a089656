//! The whole probe, from the host's stream down to disks that lose power: what it acks is there,
//! what it calls ordered is ordered, what it sends arrives once.

use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use super::config::Purpose;
use super::frame::{CellState, FromGuest, ToGuest};
use super::layout::{WRITER_CANARY, address};
use super::session::Left;
use super::testkit::{Bench, Heard, Host, Op, explainable, history, image_of, in_order};

const ANY_VOLUMES: std::ops::Range<usize> = 1..4;

fn is_unknown(frame: &FromGuest) -> bool {
    matches!(frame, FromGuest::Unknown { .. })
}

/// Every cell of the load is whole, or torn by a write that was never acked; acked writes are there.
fn assert_kept(ops: &[Op], cells: &BTreeMap<super::layout::Address, CellState>) {
    let image = image_of(ops, cells);
    for op in ops {
        match cells[&op.at] {
            CellState::Ok { .. } | CellState::Zeroed => {
                if op.ack != u64::MAX {
                    assert!(image[&op.at] >= op.version, "lost: {op:?}");
                }
            }
            CellState::Torn { wseq, writer, .. } => {
                let acked = |other: &&Op| (other.writer, other.wseq) == (writer, wseq);
                let torn = ops
                    .iter()
                    .find(acked)
                    .expect("torn by a write that was issued");
                assert_eq!(torn.ack, u64::MAX, "torn although acked: {torn:?}");
            }
            other => panic!("{op:?} left {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Power loss at any write or flush, with writes and flushes failing before it.
    #[test]
    fn acked_writes_survive_power_loss(
        seed: u64, volumes in ANY_VOLUMES, hot_writers in 1u32..3, dsync: bool,
        batch in prop_oneof![Just(0), 1u32..20], steps in 1u64..300,
        failing_writes in 0u32..3, failing_flushes in 0u32..3,
    ) {
        let bench = Bench::new(volumes, hot_writers, dsync, seed);
        let daemon = bench.start();
        let mut host = Host::attach(&daemon, 0);
        host.fill(volumes);
        bench.rack.disk(0).fail_writes(failing_writes);
        bench.rack.disk(volumes - 1).fail_flushes(failing_flushes);
        bench.rack.cut_after(steps);
        host.send(&ToGuest::Start { rate: 0, batch });
        while !bench.rack.is_dead() {
            prop_assert!(host.next().is_some());
        }
        host.until("a failed write", is_unknown);
        daemon.kill();
        while host.next().is_some() {}
        bench.rack.power_on();

        let ops = history(&bench, &Heard::of(&host.frames));
        let (cells, cold) = bench.scan();
        let cold_cells: usize = bench.layouts().iter().map(|l| l.cold_cells().count()).sum();
        prop_assert_eq!(cold, cold_cells as u64);
        assert_kept(&ops, &cells);
        prop_assert!(in_order(&ops, &image_of(&ops, &cells)));
    }

    /// A replica cut at any moment of a load that goes on is a legal crash image of it.
    #[test]
    fn any_replica_cut_is_in_order(
        seed: u64, volumes in ANY_VOLUMES, dsync: bool,
        batch in prop_oneof![Just(0), 1u32..20], cut in 1u64..200,
    ) {
        let bench = Bench::new(volumes, 1, dsync, seed);
        let daemon = bench.start();
        let mut host = Host::attach(&daemon, 0);
        host.fill(volumes);
        bench.rack.replicate_after(cut);
        host.send(&ToGuest::Start { rate: 0, batch });
        let replica = loop {
            match bench.rack.replica() {
                Some(replica) => break replica,
                None => prop_assert!(host.next().is_some()),
            }
        };
        for _ in 0..3 {
            host.until("acks after the cut", |frame| matches!(frame, FromGuest::Ack(_)));
        }
        let (_, last_rank) = host.stop();
        let heard = Heard::of(&host.frames);
        prop_assert_eq!(heard.rank, last_rank);
        let ops = history(&bench, &heard);
        let replica = Bench { rack: replica, ..bench };
        let (cells, _) = replica.scan();
        let image = image_of(&ops, &cells);
        prop_assert!(in_order(&ops, &image));
    }

    /// On short histories that the engine really makes, the linear rule and the search over all
    /// subsets say the same of every image, and the image that was left is legal.
    #[test]
    fn ranks_mean_what_the_order_rule_takes_them_for(
        seed: u64, volumes in 1usize..3, dsync: bool, batch in 0u32..4, steps in 1u64..9,
        rolls in proptest::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let bench = Bench::new(volumes, 1, dsync, seed);
        let daemon = bench.start();
        let mut host = Host::attach(&daemon, 0);
        host.fill(volumes);
        bench.rack.cut_after(steps);
        host.send(&ToGuest::Start { rate: 0, batch });
        while !bench.rack.is_dead() {
            prop_assert!(host.next().is_some());
        }
        host.until("a failed write", is_unknown);
        daemon.kill();
        while host.next().is_some() {}
        bench.rack.power_on();
        let mut ops = history(&bench, &Heard::of(&host.frames));
        // What was tried on dead disks is neither acked nor there and changes no answer.
        ops.truncate(12);
        let image = image_of(&ops, &bench.scan().0);
        prop_assert!(explainable(&ops, &image) && in_order(&ops, &image));
        for rolls in rolls.chunks(4) {
            let mut image = image.clone();
            for (found, roll) in image.values_mut().zip(rolls) {
                *found = roll.index(*found + 1);
            }
            prop_assert_eq!(explainable(&ops, &image), in_order(&ops, &image));
        }
    }

    /// Everything issued is acked or unknown once the load has stopped, whatever failed.
    #[test]
    fn stopping_accounts_for_every_write(
        seed: u64, volumes in ANY_VOLUMES, hot_writers in 1u32..3, dsync: bool,
        batches in proptest::collection::vec(prop_oneof![Just(0), 1u32..9], 1..4),
        failing in 0u32..4, failing_flushes in 0u32..2,
    ) {
        let bench = Bench::new(volumes, hot_writers, dsync, seed);
        let daemon = bench.start();
        let mut host = Host::attach(&daemon, 0);
        host.fill(volumes);
        bench.rack.disk(0).fail_writes(failing);
        bench.rack.disk(0).fail_flushes(failing_flushes);
        for batch in batches {
            host.send(&ToGuest::Start { rate: 0, batch });
            host.until("an ack", |frame| matches!(frame, FromGuest::Ack(_)));
        }
        host.send(&ToGuest::Canary);
        let (issued, last_rank) = host.stop();
        let heard = Heard::of(&host.frames);
        prop_assert_eq!(heard.rank, last_rank);
        for (writer, last) in issued {
            for wseq in 1..=last {
                let id = (writer, wseq);
                prop_assert!(heard.acked.contains_key(&id) != heard.unknown.contains(&id), "{id:?}");
            }
        }
        bench.rack.cut();
        bench.rack.power_on();
        assert_kept(&history(&bench, &heard), &bench.scan().0);
    }

    /// The stream breaks again and again after any number of bytes, in either direction.
    #[test]
    fn every_frame_arrives_once_over_broken_streams(
        seed: u64, cuts in proptest::collection::vec((1usize..3000, 0usize..40), 1..8), confirms: bool,
    ) {
        let bench = Bench::new(2, 1, true, seed);
        let daemon = bench.start();
        let mut frames = Vec::new();
        let mut heard = 0;
        for (bytes, stray) in cuts {
            let mut host = Host::attach(&daemon, heard);
            host.confirms = confirms;
            host.send(&ToGuest::Start { rate: 0, batch: 0 });
            let before = frames.len();
            let mut taken = 0;
            while taken < bytes {
                let frame = host.next().unwrap();
                if taken == 0 {
                    prop_assert!(matches!(frame, FromGuest::Opened(_)));
                }
                taken += frame.encode(0).len();
            }
            // Part of a command on the way out, and everything unread on the way in, is lost.
            let command = ToGuest::Token(9).encode();
            host.stream.write_all(&command[..stray.min(command.len() - 1)]).unwrap();
            heard = host.heard;
            frames.append(&mut host.frames);
            prop_assert!(frames.len() >= before);
            drop(host);
        }
        let mut host = Host::attach(&daemon, heard);
        let (issued, last_rank) = host.stop();
        frames.append(&mut host.frames);
        let heard = Heard::of(&frames);
        prop_assert_eq!(heard.rank, last_rank);
        prop_assert_eq!(heard.acked.len() as u64, issued.iter().map(|(_, wseq)| wseq).sum::<u64>());
    }
}

#[test]
fn opened_comes_first_on_every_attachment() {
    let bench = Bench::new(2, 1, true, 1);
    let daemon = bench.start();
    for heard in [0, 1, 1] {
        let mut host = Host::attach(&daemon, heard);
        let first = host.next().unwrap();
        assert_eq!(first, FromGuest::Opened(daemon.identity().clone()));
        assert_eq!(host.heard, 1);
        assert_eq!(host.left().unwrap(), Left::Closed);
    }
}

#[test]
fn only_the_newest_attachment_is_served() {
    let bench = Bench::new(1, 1, true, 2);
    let daemon = bench.start();
    let mut older = Host::attach(&daemon, 0);
    older.next().unwrap();
    let mut newer = Host::attach(&daemon, 1);
    newer.next().unwrap();
    while older.next().is_some() {}
    assert_eq!(older.left().unwrap(), Left::Replaced);
    newer.send(&ToGuest::Canary);
    newer.until("a canary", |frame| matches!(frame, FromGuest::Ack(_)));
}

#[test]
fn a_host_out_of_step_or_out_of_its_mind_is_cut() {
    let bench = Bench::new(1, 1, true, 3);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 7);
    let frame = host.next().unwrap();
    assert!(
        matches!(&frame, FromGuest::Failed(text) if text.contains("heard frame 7")),
        "{frame:?}"
    );
    assert!(host.left().is_err());

    let mut host = Host::attach(&daemon, 0);
    host.next().unwrap();
    host.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    while host.next().is_some() {}
    assert_eq!(
        host.left().unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );

    let mut host = Host::attach(&daemon, 1);
    host.send(&ToGuest::Canary);
    host.until("a canary", |frame| matches!(frame, FromGuest::Ack(_)));
}

#[test]
fn writers_stall_while_nobody_hears_and_lose_nothing() {
    let mut bench = Bench::new(1, 1, true, 4);
    bench.config.scratch = 2000;
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.confirms = false;
    host.send(&ToGuest::Start { rate: 0, batch: 0 });
    host.until("the sign of life of a stalled probe", |f| {
        matches!(f, FromGuest::Alive { .. })
    });
    let held: usize = host.frames.iter().map(|frame| frame.encode(1).len()).sum();
    // One ack frame may be in the making when the room runs out.
    assert!((1000..4000).contains(&held), "{held}");
    let stalled_at = host.heard;
    host.confirms = true;
    host.send(&ToGuest::Heard(stalled_at));
    while host.heard < stalled_at + 20 {
        host.next().unwrap();
    }
    let (issued, _) = host.stop();
    let heard = Heard::of(&host.frames);
    assert_eq!(
        heard.acked.len() as u64,
        issued.iter().map(|(_, wseq)| wseq).sum::<u64>()
    );
}

#[test]
fn a_killed_probe_writes_no_more_and_quit_ends_it() {
    let bench = Bench::new(2, 1, true, 5);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.send(&ToGuest::Start { rate: 0, batch: 0 });
    host.until("an ack", |frame| matches!(frame, FromGuest::Ack(_)));
    daemon.kill();
    let written = bench.tried.lock().unwrap().len();
    while host.next().is_some() {}
    assert_eq!(host.left().unwrap(), Left::Ended);
    assert_eq!(bench.tried.lock().unwrap().len(), written);

    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.next().unwrap();
    host.send(&ToGuest::Quit);
    while host.next().is_some() {}
    assert_eq!(host.left().unwrap(), Left::Quit);
    assert!(daemon.has_ended());
}

/// A canary's flush fails and takes with it what the load had written before: the next flush, which
/// succeeds, proves nothing about those writes.
#[test]
fn a_failed_flush_is_never_made_good_by_a_later_one() {
    let bench = Bench::new(1, 1, false, 10);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(1);
    host.send(&ToGuest::Start {
        rate: 500,
        batch: 1_000_000,
    });
    let issued = || history(&bench, &Heard::default()).len();
    while issued() < 5 {
        host.next().unwrap();
    }
    bench.rack.disk(0).fail_flushes(1);
    host.send(&ToGuest::Canary);
    host.until("the canary's failure", is_unknown);
    host.stop();
    bench.rack.cut();
    bench.rack.power_on();
    let heard = Heard::of(&host.frames);
    let lost = heard
        .unknown
        .iter()
        .filter(|(writer, _)| *writer != WRITER_CANARY);
    assert!(lost.count() >= 5);
    assert_kept(&history(&bench, &heard), &bench.scan().0);
}

#[test]
fn a_verifying_probe_holds_and_writes_canaries_only_when_told() {
    let mut bench = Bench::new(2, 1, false, 6);
    bench.config.purpose = Purpose::Verify;
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.send(&ToGuest::Fill);
    let failed = host.until("a refusal", |frame| matches!(frame, FromGuest::Failed(_)));
    assert!(matches!(failed, FromGuest::Failed(text) if text.contains("opened to verify")));
    host.until("a sign of life", |frame| {
        matches!(frame, FromGuest::Alive { .. })
    });
    assert_eq!(bench.tried.lock().unwrap().len(), 0);
    host.send(&ToGuest::Token(44));
    host.send(&ToGuest::Canary);
    let (issued, last_rank) = host.stop();
    assert_eq!(last_rank, 2);
    assert!(issued.contains(&(WRITER_CANARY, 2)), "{issued:?}");
    let heard = Heard::of(&host.frames);
    let (cells, _) = bench.scan();
    for wseq in 1..=2 {
        assert!(heard.acked.contains_key(&(WRITER_CANARY, wseq)));
        let at = address(&bench.layouts(), bench.config.seed, WRITER_CANARY, wseq).unwrap();
        assert!(
            matches!(cells[&at], CellState::Ok { token: 44, .. }),
            "{:?}",
            cells[&at]
        );
    }
}

#[test]
fn filling_blanks_the_load_regions_and_repeats_itself_without_writing() {
    let bench = Bench::new(1, 1, true, 7);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(1);
    let layout = bench.layouts().remove(0);
    let written = bench.tried.lock().unwrap().len();
    assert_eq!(written, layout.cold_cells().count());
    host.fill(1);
    assert_eq!(bench.tried.lock().unwrap().len(), written);
    host.send(&ToGuest::Start { rate: 0, batch: 0 });
    host.until("an ack", |frame| matches!(frame, FromGuest::Ack(_)));
    host.stop();
    daemon.kill();

    // The next run finds the last one's ledger and must not inherit its load.
    let mut next = Bench::new(1, 1, true, 7);
    next.rack = bench.rack;
    next.config.run_id = [0xA5; 16];
    let daemon = next.start();
    Host::attach(&daemon, 0).fill(1);
    let (cells, cold) = next.scan();
    assert_eq!(cold, layout.cold_cells().count() as u64);
    assert!(
        cells.values().all(|state| *state == CellState::Zeroed),
        "{cells:?}"
    );
}

#[test]
fn somebody_elses_disk_is_refused() {
    let bench = Bench::new(2, 1, true, 8);
    bench
        .rack
        .disk(1)
        .damage(0, |cell| cell[1024 + 0x38] = 0x53);
    let error = super::session::Daemon::open(&bench.config, &bench)
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.starts_with("volume 1 (/dev/mem1): cell 0 holds data"),
        "{text}"
    );
}

#[test]
fn load_keeps_to_its_rate() {
    let bench = Bench::new(1, 1, true, 9);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    let begun = std::time::Instant::now();
    host.send(&ToGuest::Start {
        rate: 200,
        batch: 0,
    });
    while Heard::of(&host.frames).rank < 40 {
        host.next().unwrap();
    }
    // Slower than this is the machine's affair, faster would be ours: 40 writes take 39 intervals.
    assert!(begun.elapsed().as_millis() >= 190, "{:?}", begun.elapsed());
}

fn is_lease(frame: &FromGuest) -> bool {
    matches!(frame, FromGuest::Lease(_))
}

/// What the frames tell of a volume's lease: how often it was read, and what was not ours.
fn leases(frames: &[FromGuest], of: u8) -> (u64, Vec<String>) {
    let (mut reads, mut foreign) = (0, Vec::new());
    for frame in frames {
        if let FromGuest::Lease(lease) = frame
            && lease.volume == of
        {
            reads += lease.reads;
            foreign.extend(lease.foreign.iter().cloned());
        }
    }
    (reads, foreign)
}

#[test]
fn a_lease_is_kept_while_the_load_runs_and_nobody_else_shows() {
    let mut bench = Bench::new(2, 1, true, 3);
    // Small regions: the lease lies where marks of strangers are looked for.
    (bench.config.layout.log, bench.config.layout.hot) = (2, 2);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(2);
    assert!(!host.frames.iter().any(is_lease), "nothing runs yet");
    host.send(&ToGuest::Start { rate: 50, batch: 0 });
    host.until("a second of leases", is_lease);
    host.stop();
    for volume in 0..2 {
        let (reads, foreign) = leases(&host.frames, volume);
        assert!(reads >= 3, "{reads}");
        assert_eq!(foreign, Vec::<String>::new());
    }
    let stopped = host.frames.iter().position(is_stopped).unwrap();
    let last = host.frames.iter().rposition(is_lease).unwrap();
    assert!(last < stopped, "the account comes after what was seen");
    daemon.kill();
    // The next life of the ledger finds the stamp of the one before, which is nobody else's.
    let next = bench.start();
    let mut host = Host::attach(&next, 0);
    host.send(&ToGuest::Start { rate: 50, batch: 0 });
    host.until("its first acks", |frame| matches!(frame, FromGuest::Ack(_)));
    host.stop();
    assert_eq!(leases(&host.frames, 0).1, Vec::<String>::new());
}

fn is_stopped(frame: &FromGuest) -> bool {
    matches!(frame, FromGuest::Stopped { .. })
}

#[test]
fn what_somebody_else_put_into_a_lease_is_told() {
    let bench = Bench::new(1, 1, true, 3);
    let lease = bench.layouts()[0].lease.start;
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(1);
    host.send(&ToGuest::Start { rate: 50, batch: 8 });
    host.until("the first leases", is_lease);
    // A copy of the writer would write the same but for the nonce and the clocks. It may be overwritten
    // before it is seen, so it tries again.
    while leases(&host.frames, 0).1.is_empty() {
        bench.rack.disk(0).damage(lease, |cell| {
            let own = super::lease::Stamp::decode(cell).expect("a stamp");
            let twin = super::lease::Stamp {
                nonce: [7; 16],
                ..own
            };
            cell[..super::lease::STAMP].copy_from_slice(&twin.encode());
        });
        host.until("the next look", is_lease);
    }
    host.stop();
    let (_, foreign) = leases(&host.frames, 0);
    assert!(foreign[0].contains(&"07".repeat(16)), "{foreign:?}");
}

#[test]
fn garbage_in_a_lease_is_nobodys_damage() {
    let bench = Bench::new(1, 1, true, 3);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(1);
    daemon.kill();
    let before = bench.scan();
    let lease = bench.layouts()[0].lease.start;
    bench.rack.disk(0).damage(lease, |cell| cell.fill(0xAA));
    assert_eq!(bench.scan(), before);
}
