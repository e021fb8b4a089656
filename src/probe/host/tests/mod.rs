//! The host side against the real engine: whatever breaks, each frame is kept once and in order.

mod process;
mod world;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::attach::{Hearing, listen, lock, talk};
use super::ear::Ear;
use super::*;
use crate::guest::testing::{Cut, soon};
use crate::guest::{FactsError, GuestError};
use crate::history::recorder::{Recorder, Scope};
use crate::history::segment::{Ending, Record};
use crate::probe::frame::{FromGuest, ToGuest};
use crate::probe::layout::mix;
use crate::probe::testkit::{Bench, Heard, INCARNATION};
use crate::probe::wire::Decoder;
use world::{World, frames, records, scribble, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_is_heard_and_kept() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    assert_eq!(prober.identity().incarnation, INCARNATION);
    assert_eq!(prober.identity().volumes.len(), 2);
    assert_eq!(prober.layouts().unwrap(), world.guest.bench.layouts());
    assert_eq!(prober.host().pinned, None);

    let filled = prober.fill(&soon()).await.unwrap();
    assert!(
        filled.len() == 2 && filled.iter().all(|cells| *cells > 0),
        "{filled:?}"
    );
    prober.start(0, 0, &soon()).await.unwrap();
    let rank = prober.rank_above(50, &soon()).await.unwrap();
    let stopped = prober.stop(&soon()).await.unwrap();
    assert!(stopped.last_rank >= rank);
    assert_eq!(prober.stop(&soon()).await.unwrap(), stopped);
    let first = prober.canary(&soon()).await.unwrap();
    assert!(prober.canary(&soon()).await.unwrap() > first);
    assert_eq!(prober.progress().borrow().canaries, 4);

    let facts = prober.scan(&[INCARNATION], "vm-0", &soon()).await.unwrap();
    assert_eq!(facts.iter().map(|f| f.volume).collect::<Vec<_>>(), [0, 1]);
    assert!(world.run_dir().join(&facts[0].file).is_file());

    let segment = world.run_dir().join(prober.segment());
    prober.quit(&soon()).await.unwrap();
    let (records, ending) = records(&segment);
    assert!(matches!(ending, Ending::Closed { .. }));
    let frames = frames(&records);
    assert_eq!(Heard::of(&frames).rank, stopped.last_rank + 4);
    assert!(records.iter().any(|r| matches!(r, Record::Token { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Every connection breaks after some thousand bytes, in either direction, wherever that is.
    #[test]
    fn streams_that_always_break_lose_and_repeat_nothing(seed: u64, batch in 0..9_u32) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(Bench::new(2, 1, true, seed), move |n, stream| {
                let budget = 6000 + mix(seed ^ u64::from(n)) % 12_000;
                Box::new(Cut::after(stream, budget))
            });
            let prober = world.launch().await.unwrap();
            prober.fill(&soon()).await.unwrap();
            prober.start(2000, batch, &soon()).await.unwrap();
            let broken = |p: &Progress| (p.attaches > 4 && p.last_rank > 100).then_some(());
            prober.wait(&soon(), "several breaks under load", broken).await.unwrap();
            let stopped = prober.stop(&soon()).await.unwrap();
            prober.canary(&soon()).await.unwrap();
            let canaries = prober.progress().borrow().canaries;
            let segment = world.run_dir().join(prober.segment());
            prober.close().await.unwrap();

            let (records, ending) = records(&segment);
            assert!(matches!(ending, Ending::Closed { .. }));
            let heard = Heard::of(&frames(&records));
            // A canary order that is said again writes one more on each volume.
            assert_eq!(heard.rank, stopped.last_rank + canaries);
            for (writer, issued) in stopped.issued.iter().filter(|(_, issued)| *issued > 0) {
                assert!(heard.acked.contains_key(&(*writer, *issued)), "{writer} {issued}");
            }
            assert_eq!(world.guest.starts.load(Ordering::SeqCst), 1);
        });
    }
}

/// An ear with a segment of its own.
fn ear(dir: &std::path::Path) -> (Mutex<Ear>, std::path::PathBuf) {
    let recorder = Recorder::create(dir.join("run")).unwrap();
    let segment = recorder.segment("s").unwrap();
    let path = dir.join("run").join(segment.path());
    let scope = Scope::trial("t").subject("vm-0");
    let ear = Ear::new(recorder, scope, segment, INCARNATION, 1);
    (Mutex::new(ear), path)
}

/// Whoever needs no telling but the segment.
struct Silent<'a>(&'a Mutex<Ear>);

impl Hearing for Silent<'_> {
    async fn up(&self) -> Result<(), ProbeError> {
        Ok(lock(self.0).link(true)?)
    }
    fn heard(&self) {}
}

fn filled(seq: u64) -> FromGuest {
    FromGuest::Filled {
        volume: 0,
        cells: seq,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A stream cut at any byte, delivered again from anywhere not later than was heard.
    #[test]
    fn each_frame_is_journaled_once_and_in_order(cuts in prop::collection::vec((0..3000_usize, 0..9_u64), 1..12)) {
        const FRAMES: u64 = 60;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (ear, path) = ear(dir.path());
            let whole = (usize::MAX, 0);
            for (cut, again) in cuts.into_iter().chain([whole]) {
                let heard = lock(&ear).progress().last_seq;
                let from = heard.saturating_sub(again) + 1;
                let bytes: Vec<u8> = (from..=FRAMES).flat_map(|n| filled(n).encode(n)).collect();
                let mut stream = &bytes[..cut.min(bytes.len())];
                let mut any = false;
                let end = listen(&mut stream, &ear, &Notify::new(), &Silent(&ear), &mut any).await;
                if let Err(error) = &end {
                    assert!(error.is_break(), "{error}");
                }
                if any {
                    lock(&ear).link(false).unwrap();
                }
            }
            assert_eq!(lock(&ear).progress().last_seq, FRAMES);
            let (records, _) = records(&path);
            let expected: Vec<FromGuest> = (1..=FRAMES).map(filled).collect();
            assert_eq!(frames(&records), expected);
        });
    }
}

#[tokio::test]
async fn the_journal_is_ahead_of_every_word_to_the_probe() {
    let dir = tempfile::tempdir().unwrap();
    let (ear, path) = ear(dir.path());
    let (speak, (mut stdin, mut at_probe)) = (Notify::new(), tokio::io::duplex(1 << 16));
    let (mut from_probe, mut stdout) = tokio::io::duplex(1 << 16);
    let hello = lock(&ear).hello();
    let mut any = false;
    let silent = Silent(&ear);
    let probe = async {
        let (mut decoder, mut chunk) = (Decoder::default(), [0; 4096]);
        let (mut tokens, mut next, mut heard) = (0, 1, 0);
        while tokens < 3 || next <= 20 {
            let read = at_probe.read(&mut chunk).await.unwrap();
            decoder.push(&chunk[..read]);
            while let Some(raw) = decoder.next_frame().unwrap() {
                let (kept, _) = records(&path);
                match ToGuest::decode(&raw).unwrap() {
                    ToGuest::Hello { heard: said } => assert_eq!(said, 0),
                    ToGuest::Token(n) => {
                        tokens += 1;
                        assert!(
                            kept.iter()
                                .any(|r| matches!(r, Record::Token { n: k, .. } if *k == n))
                        );
                    }
                    ToGuest::Heard(n) => {
                        assert!(n > heard && n < next, "{heard} {n} {next}");
                        heard = n;
                        assert!(
                            kept.iter()
                                .any(|r| matches!(r, Record::Frame { seq, .. } if *seq == n))
                        );
                    }
                    other => panic!("unasked: {other:?}"),
                }
            }
            if next <= 20 && lock(&ear).progress().last_seq == next - 1 {
                stdout.write_all(&filled(next).encode(next)).await.unwrap();
                next += 1;
            }
        }
    };
    tokio::select! {
        () = probe => {}
        end = talk(&mut stdin, &hello, &ear, &speak) => panic!("{end:?}"),
        end = listen(&mut from_probe, &ear, &speak, &silent, &mut any) => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn what_no_probe_says_is_told_from_a_break() {
    let hear = |frames: Vec<u8>| async move {
        let dir = tempfile::tempdir().unwrap();
        let (ear, _) = ear(dir.path());
        let mut any = false;
        let mut stream = &frames[..];
        listen(&mut stream, &ear, &Notify::new(), &Silent(&ear), &mut any).await
    };
    let gap = [filled(1).encode(1), filled(3).encode(3)].concat();
    let error = hear(gap).await.unwrap_err();
    assert!(
        matches!(
            error,
            ProbeError::Gap {
                expected: 2,
                seen: 3
            }
        ) && !error.is_break()
    );

    let error = hear(b"Last login: Sun Nov 22 on tty1\n".to_vec())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ProbeError::Garbled(_)) && error.is_break(),
        "{error}"
    );

    let failed = FromGuest::Failed("the host says that it has heard frame 9".into());
    let error = hear(failed.encode(0)).await.unwrap_err();
    assert!(
        matches!(error, ProbeError::Failed { .. }) && !error.is_break(),
        "{error}"
    );

    let odd = crate::probe::wire::seal(0x7F, 1, b"");
    let error = hear(odd).await.unwrap_err();
    assert!(
        matches!(error, ProbeError::Unreadable { seq: 1, .. }),
        "{error}"
    );
    assert!(hear(Vec::new()).await.is_ok());
}

/// Whoever needs no telling at all.
struct Mute;
impl Hearing for Mute {
    async fn up(&self) -> Result<(), ProbeError> {
        Ok(())
    }
    fn heard(&self) {}
}

#[tokio::test]
async fn what_cannot_be_kept_is_never_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(dir.path().join("run")).unwrap();
    let segment = recorder.segment("s").unwrap();
    let scope = Scope::trial("t").subject("vm-0");
    let ear = Mutex::new(Ear::new(recorder.clone(), scope, segment, INCARNATION, 1));
    // The first failure to keep anything ends the keeping of everything.
    std::fs::remove_dir_all(dir.path().join("run/acks")).unwrap();
    recorder.segment("other").unwrap_err();
    let bytes = filled(1).encode(1);
    let mut any = false;
    let end = listen(&mut &bytes[..], &ear, &Notify::new(), &Mute, &mut any).await;
    let error = end.unwrap_err();
    assert!(
        matches!(error, ProbeError::Journal(_)) && !error.is_break(),
        "{error}"
    );
    assert_eq!(lock(&ear).speak(), b"", "nothing is said to be heard");
    assert!(lock(&ear).token().is_err(), "no token leaves unkept");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_cannot_host_a_probe_are_refused_by_reason() {
    let world = World::sound();
    *world.guest.uname.lock().unwrap() = "Linux aarch64".into();
    let error = world.launch_error().await;
    assert!(
        matches!(error, ProbeError::Facts(FactsError::Arch { .. })),
        "{error}"
    );
    *world.guest.uname.lock().unwrap() = "Linux x86_64".into();

    let disks = world.guest.disks.lock().unwrap().clone();
    *world.guest.disks.lock().unwrap() = disks.replace("serial=1 ", "serial=other ");
    let error = world.launch_error().await;
    assert!(
        matches!(&error, ProbeError::Facts(FactsError::NoDisk { serial, .. }) if serial == "1")
    );
    *world.guest.disks.lock().unwrap() = disks.replace("ro=0", "ro=1");
    let error = world.launch_error().await;
    assert!(
        matches!(error, ProbeError::Facts(FactsError::ReadOnly { .. })),
        "{error}"
    );
    *world.guest.disks.lock().unwrap() = disks;

    scribble(&world.guest.bench);
    let error = world.launch_error().await;
    assert!(
        matches!(&error, ProbeError::Refused { said } if said.contains("no ledger")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_noexec_run_directory_is_worked_around() {
    let world = World::sound();
    *world.guest.noexec.lock().unwrap() = true;
    let prober = world.launch().await.unwrap();
    assert!(!*world.guest.noexec.lock().unwrap());
    prober.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_canary_is_an_error_not_a_wait() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    world.guest.bench.rack.disk(0).fail_writes(1);
    let error = prober.canary(&within(30)).await.unwrap_err();
    assert!(
        matches!(error, ProbeError::WriteFailed { errno: 5 }),
        "{error}"
    );
    prober.canary(&soon()).await.unwrap();
    prober.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_died_is_gone_and_its_segment_whole() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    prober.fill(&soon()).await.unwrap();
    let daemon = world.guest.daemon.lock().unwrap().take().unwrap();
    daemon.kill();
    let error = prober.rank_above(u64::MAX - 1, &soon()).await.unwrap_err();
    assert!(
        matches!(&error, ProbeError::Gone { why } if why.contains("no such file")),
        "{error}"
    );
    let segment = world.run_dir().join(prober.segment());
    prober.guest_gone("the guest was destroyed");
    let mut progress = prober.progress();
    let over = |p: &Progress| matches!(&p.link, LinkState::Over { why } if why == "the guest was destroyed");
    progress.wait_for(over).await.unwrap();
    prober.close().await.unwrap();
    let (records, ending) = records(&segment);
    assert!(matches!(ending, Ending::Closed { .. }));
    // Opened, and the fill of two volumes.
    assert_eq!(frames(&records).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_of_the_probe_is_not_taken_for_this_one() {
    let world = World::sound();
    let other = crate::probe::config::Config {
        incarnation: INCARNATION + 1,
        ..world.setup.config.clone()
    };
    let prober = world.launch().await.unwrap();
    let daemon = crate::probe::session::Daemon::open(&other, &world.guest.bench).unwrap();
    let old = world.guest.daemon.lock().unwrap().replace(Arc::new(daemon));
    old.unwrap().kill();
    let error = prober.rank_above(u64::MAX - 1, &soon()).await.unwrap_err();
    let ProbeError::Closed { why } = &error else {
        panic!("{error}");
    };
    assert!(why.contains(&format!("{:016x}", INCARNATION + 1)), "{why}");
    prober.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_breaks_off_is_made_again() {
    let world = World::sound();
    world.guest.half_scans.store(2, Ordering::SeqCst);
    let prober = world.launch().await.unwrap();
    prober.fill(&soon()).await.unwrap();
    let facts = prober.scan(&[], "vm-0", &soon()).await.unwrap();
    assert_eq!(facts.len(), 2);
    let scans = std::fs::read_dir(world.run_dir().join("scans"))
        .unwrap()
        .count();
    assert_eq!(scans, 1, "what was broken off is thrown away");
    assert_eq!(world.guest.scans.load(Ordering::SeqCst), 3);
    let error = prober.scan(&[], "vm-0", &soon()).await.unwrap_err();
    assert!(
        matches!(error, ProbeError::Journal(_)),
        "an earlier scan is never overwritten: {error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_tells_what_it_reaches() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    let asked = ["near:443".to_owned(), "far:5432".to_owned()];
    let tried = prober.try_reaching(&asked, &soon()).await.unwrap();
    let words: Vec<_> = tried
        .iter()
        .map(|t| (t.address.as_str(), t.reached))
        .collect();
    assert_eq!(words, [("near:443", Some(true)), ("far:5432", Some(false))]);
    let nonsense = ["no port".to_owned()];
    assert!(prober.try_reaching(&nonsense, &soon()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_gives_up_with_the_last_state_seen() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    let never = |_: &Progress| None::<()>;
    let error = prober
        .wait(&within(1), "a miracle", never)
        .await
        .unwrap_err();
    let ProbeError::Guest(GuestError::Timeout {
        waiting_for,
        last_seen,
    }) = &error
    else {
        panic!("{error}");
    };
    assert_eq!(waiting_for, "a miracle");
    assert!(
        last_seen.starts_with("the probe is heard, 1 frames, rank 0"),
        "{last_seen}"
    );
    assert!(world.sshd.accepted.load(Ordering::SeqCst) >= 1);
    prober.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_become_facts_of_the_subject() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    prober.fill(&soon()).await.unwrap();
    prober.start(100, 0, &soon()).await.unwrap();
    prober.ack_from_now(&soon()).await.unwrap();
    prober.stop(&soon()).await.unwrap();
    let events = world.run_dir().join("events.jsonl");
    prober.quit(&soon()).await.unwrap();
    let text = std::fs::read_to_string(events).unwrap();
    for volume in 0..2 {
        let said = format!(
            "\"type\":\"lease\",\"incarnation\":\"{INCARNATION:016x}\",\"volume\":{volume}"
        );
        assert!(text.contains(&said), "{text}");
    }
    assert!(text.contains("\"subject\":\"vm-0\"") && text.contains("\"foreign\":[]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn echoes_are_counted_over_streams_that_break() {
    // The stream of the probe is the first; later ones break after some thousand bytes.
    let world = World::new(Bench::new(1, 1, false, 7), |n, stream| match n {
        0 => Box::new(stream),
        _ => Box::new(Cut::after(stream, 30_000)),
    });
    let prober = world.launch().await.unwrap();
    let echo = prober.echo(1, &soon()).await.unwrap();
    let before = world.sshd.accepted.load(Ordering::SeqCst);
    prober.fill(&soon()).await.unwrap();
    // Some streams later …
    prober.start(0, 0, &soon()).await.unwrap();
    let later =
        |_: &Progress| (world.sshd.accepted.load(Ordering::SeqCst) > before + 1).then_some(());
    prober
        .wait(&soon(), "two streams for echoes", later)
        .await
        .unwrap();
    let echoes = echo.stop().await.unwrap();
    assert!(
        echoes.answered > 0 && echoes.answered <= echoes.sent,
        "{echoes:?}"
    );
    assert!(
        echoes.unbroken_ns <= echoes.longest_ns && echoes.longest_ns > 0,
        "{echoes:?}"
    );
    assert_eq!(echoes.interval_ns, 2_000_000);
    prober.quit(&soon()).await.unwrap();
}

/// Passes the server's banner on, waits for more than the client's, says so, and waits for a word before
/// anything else passes.
async fn slow_login(
    mut server: tokio::io::DuplexStream,
    mut client: tokio::io::DuplexStream,
    answered: Arc<Notify>,
    go_on: Arc<Notify>,
) -> std::io::Result<()> {
    loop {
        let byte = server.read_u8().await?;
        client.write_u8(byte).await?;
        if byte == b'\n' {
            break;
        }
    }
    let mut said = Vec::new();
    while !said.contains(&b'\n') || said.last() == Some(&b'\n') {
        said.push(client.read_u8().await?);
    }
    answered.notify_one();
    go_on.notified().await;
    server.write_all(&said).await?;
    tokio::io::copy_bidirectional(&mut server, &mut client).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_answered_is_not_given_up_for_another() {
    let (answered, go_on) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let slow = (Arc::clone(&answered), Arc::clone(&go_on));
    let world = World::new(Bench::new(1, 1, false, 7), move |n, stream| match n {
        1 => {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (answered, go_on) = slow.clone();
            tokio::spawn(slow_login(stream, far, answered, go_on));
            Box::new(near)
        }
        _ => Box::new(stream),
    });
    let prober = world.launch().await.unwrap();
    prober.reach_anew(prober.reach());
    answered.notified().await;
    prober.reach_anew(prober.reach());
    go_on.notify_one();
    let again = |p: &Progress| (p.attaches == 2).then_some(());
    prober
        .wait(&soon(), "a second stream", again)
        .await
        .unwrap();
    assert_eq!(world.sshd.accepted.load(Ordering::SeqCst), 2);
    prober.quit(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_given_up_for_a_new_way() {
    let world = World::sound();
    let prober = world.launch().await.unwrap();
    prober.fill(&soon()).await.unwrap();
    prober.start(100, 0, &soon()).await.unwrap();
    prober.reach_anew(prober.reach());
    let again = |p: &Progress| (p.attaches == 2).then_some(());
    prober
        .wait(&soon(), "a second stream", again)
        .await
        .unwrap();
    prober.ack_from_now(&soon()).await.unwrap();
    assert_eq!(
        prober.stop(&soon()).await.unwrap().last_rank,
        prober.progress().borrow().last_rank
    );
    prober.quit(&soon()).await.unwrap();
}
