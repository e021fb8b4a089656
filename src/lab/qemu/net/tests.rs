//! The segment with a guest behind it. Time is paused where no real socket takes part, so waits are
//! exact and take none.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

use super::testing::*;
use super::*;

struct Lab {
    segment: Segment,
    guest: FakeGuest,
    _dir: tempfile::TempDir,
}

fn segment() -> (Segment, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.sock");
    (
        Segment::open(&path, &CancellationToken::new()).unwrap(),
        dir,
    )
}

fn lab() -> Lab {
    let (segment, dir) = segment();
    let guest = FakeGuest::start(plug(&segment));
    Lab {
        segment,
        guest,
        _dir: dir,
    }
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

impl Lab {
    async fn open(&self, port: u16) -> DuplexStream {
        self.segment.connect(port, after(60)).await.unwrap()
    }
}

async fn echoes(stream: &mut DuplexStream, words: &[u8]) {
    stream.write_all(words).await.unwrap();
    let mut got = vec![0; words.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, words);
}

/// Reads to the end.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    got
}

#[tokio::test]
async fn bytes_and_ends_go_both_ways_over_the_socket() {
    let (segment, _dir) = segment();
    let socket = UnixStream::connect(segment.socket()).await.unwrap();
    let mut guest = FakeGuest::start(socket);
    segment.reachable(after(60)).await.unwrap();
    assert_eq!(segment.ports(), 1);
    let mut stream = segment.connect(ECHO, after(60)).await.unwrap();
    echoes(&mut stream, b"hello").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    assert_eq!(
        segment.connect(CLOSED, after(60)).await.unwrap_err(),
        Dial::Refused
    );
    assert_eq!(
        segment.connect(0, after(60)).await.unwrap_err(),
        Dial::Refused
    );
    guest.until(|seen| seen.open == 0).await;
    assert_eq!(guest.seen.borrow().resets, 0);
    assert_eq!(segment.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_to_arp_there_is_no_route() {
    let (segment, _dir) = segment();
    let _silent = plug(&segment);
    let start = Instant::now();
    assert_eq!(
        segment.connect(22, after(60)).await.unwrap_err(),
        Dial::NoRoute
    );
    assert_eq!(start.elapsed().as_secs(), 3);
    let start = Instant::now();
    assert_eq!(
        segment.connect(22, after(1)).await.unwrap_err(),
        Dial::NoRoute
    );
    assert_eq!(start.elapsed().as_secs(), 1);
    let unheard = segment.reachable(after(2)).await.unwrap_err();
    assert_eq!((unheard.ports, unheard.asked, unheard.heard), (1, 10, None));
    assert_eq!(
        unheard.to_string(),
        "the guest did not answer ARP for 10.0.2.2 within 2s: 10 requests went out, 1 QEMU processes \
         are plugged in, it was never heard"
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_answers_arp_only_times_out_and_a_dead_one_is_no_route() {
    let lab = lab();
    echoes(&mut lab.open(ECHO).await, b"there").await;
    lab.guest.deaf(true);
    let start = Instant::now();
    let dialled = lab.segment.connect(ECHO, after(20)).await;
    assert_eq!(dialled.unwrap_err(), Dial::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 20);
    lab.guest.kill();
    let start = Instant::now();
    let dialled = lab.segment.connect(ECHO, after(20)).await;
    assert_eq!(dialled.unwrap_err(), Dial::NoRoute);
    assert!(start.elapsed() < Duration::from_secs(6));
    let unheard = lab.segment.reachable(after(1)).await.unwrap_err();
    assert!(unheard.heard.is_some() && unheard.ports == 0);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_reached_when_it_comes_up() {
    let (segment, _dir) = segment();
    let start = Instant::now();
    let (found, _guest) = tokio::join!(segment.reachable(after(60)), async {
        let early = segment.connect(ECHO, after(60)).await;
        assert_eq!(early.unwrap_err(), Dial::NoRoute);
        FakeGuest::start(plug(&segment))
    });
    found.unwrap();
    assert!(start.elapsed() < Duration::from_millis(3300));
    echoes(&mut segment.connect(ECHO, after(1)).await.unwrap(), b"up").await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_its_writer_and_nothing_is_lost() {
    let mut lab = lab();
    lab.guest.read(false);
    let mut stream = lab.open(DISCARD).await;
    let mut sent = 0;
    let chunk = vec![1; 64 * 1024];
    // Nothing moves for an hour: everything between the two is full.
    let hour = Duration::from_hours(1);
    while let Ok(written) = tokio::time::timeout(hour, stream.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent <= 1024 * 1024, "nobody holds the writer back");
    }
    lab.guest.read(true);
    stream.write_all(&chunk).await.unwrap();
    sent += chunk.len();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    assert_eq!(lab.guest.until(|seen| seen.open == 0).await.discarded, sent);
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_arrives_whole_at_a_client_that_reads_late() {
    let lab = lab();
    let mut stream = lab.open(CHARGEN).await;
    lab.segment.reachable(after(60)).await.unwrap();
    let got = rest(&mut stream).await;
    assert_eq!(got.len(), STREAM);
    assert!(
        got.iter()
            .enumerate()
            .all(|(at, byte)| *byte == pattern(at))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_comes_back_while_both_directions_are_full() {
    let lab = lab();
    let stream = lab.open(ECHO).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let writer = tokio::spawn(async move {
        let bytes: Vec<u8> = (0..STREAM).map(pattern).collect();
        write.write_all(&bytes).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    writer.await.unwrap();
    assert_eq!(got.len(), STREAM);
    assert!(
        got.iter()
            .enumerate()
            .all(|(at, byte)| *byte == pattern(at))
    );
}

#[tokio::test(start_paused = true)]
async fn a_direction_ends_alone() {
    let mut lab = lab();
    let mut stream = lab.open(COUNT).await;
    stream.write_all(&vec![7; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"300000");
    lab.guest
        .until(|seen| seen.open == 0 && seen.resets == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_ends_the_stream_and_a_client_that_goes_away_closes() {
    let mut lab = lab();
    let mut stream = lab.open(RESET).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    assert!(stream.write_all(b"x").await.is_err());
    drop(lab.open(ECHO).await);
    lab.guest
        .until(|seen| seen.open == 0 && seen.resets == 0)
        .await;
    let mut stream = lab.open(CHARGEN).await;
    stream.read_u8().await.unwrap();
    drop(stream);
    lab.guest
        .until(|seen| seen.open == 0 && seen.resets == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_the_guest_keeps_is_reset_in_the_end() {
    let mut lab = lab();
    lab.guest.read(false);
    let mut stream = lab.open(DISCARD).await;
    stream.write_all(b"never read").await.unwrap();
    lab.guest.until(|seen| seen.open == 1).await;
    let start = Instant::now();
    drop(stream);
    lab.guest.until(|seen| seen.open == 0).await;
    assert!(
        (60..70).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn many_connections_at_once_and_one_after_the_other() {
    let mut lab = lab();
    let mut streams = Vec::new();
    for _ in 0..48 {
        streams.push(lab.open(ECHO).await);
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        echoes(stream, format!("stream {n}").as_bytes()).await;
    }
    assert_eq!(lab.guest.until(|seen| seen.open == 48).await.resets, 0);
    drop(streams);
    for n in 0..200 {
        echoes(&mut lab.open(ECHO).await, format!("short {n}").as_bytes()).await;
    }
    lab.guest
        .until(|seen| seen.open == 0 && seen.resets == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_its_guests_migration() {
    let mut lab = lab();
    let mut quiet = lab.open(ECHO).await;
    let mut busy = lab.open(CHARGEN).await;
    echoes(&mut quiet, b"before").await;
    let mut got = vec![0; STREAM / 4];
    busy.read_exact(&mut got).await.unwrap();
    let target = plug(&lab.segment);
    lab.guest.pause(true);
    lab.guest.move_to(target);
    lab.guest.pause(false);
    echoes(&mut quiet, b"after").await;
    got.extend(rest(&mut busy).await);
    assert_eq!(got.len(), STREAM);
    assert!(
        got.iter()
            .enumerate()
            .all(|(at, byte)| *byte == pattern(at))
    );
    assert_eq!(lab.segment.ports(), 2);
    echoes(&mut lab.open(ECHO).await, b"new").await;
    assert_eq!(lab.guest.until(|_| true).await.resets, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_streams_end_on_both_sides_and_new_ones_are_made() {
    let mut lab = lab();
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(lab.open(ECHO).await);
    }
    lab.guest.until(|seen| seen.open == 40).await;
    lab.segment.drop_streams();
    let mut new = lab.open(ECHO).await;
    for stream in &mut streams {
        assert_eq!(rest(stream).await, b"");
    }
    echoes(&mut new, b"new").await;
    lab.guest
        .until(|seen| seen.open == 1 && seen.resets == 40)
        .await;
}

#[tokio::test(start_paused = true)]
async fn frames_wait_while_the_link_is_stalled() {
    let lab = lab();
    let mut stream = lab.open(ECHO).await;
    lab.segment.set_link(Link::Stalled);
    stream.write_all(b"late").await.unwrap();
    let minute = Duration::from_mins(1);
    let mut got = [0; 4];
    let read = tokio::time::timeout(minute, stream.read_exact(&mut got)).await;
    assert!(read.is_err(), "a stalled guest answered");
    let dialled = lab.segment.connect(ECHO, after(5)).await;
    assert_eq!(dialled.unwrap_err(), Dial::TimedOut);
    lab.segment.set_link(Link::Up);
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"late");
    echoes(&mut lab.open(ECHO).await, b"up").await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_guest_closes_nothing_and_is_not_reached() {
    let lab = lab();
    let mut stream = lab.open(ECHO).await;
    lab.segment.set_link(Link::Silent);
    assert_eq!(lab.segment.link(), Link::Silent);
    stream.write_all(b"lost?").await.unwrap();
    let start = Instant::now();
    assert_eq!(
        lab.segment.connect(ECHO, after(9)).await.unwrap_err(),
        Dial::NoRoute
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(lab.segment.reachable(after(2)).await.is_err());
    let mut got = [0; 5];
    let minute = Duration::from_mins(1);
    let read = tokio::time::timeout(minute, stream.read_exact(&mut got)).await;
    assert!(read.is_err(), "a silent guest answered or closed");
    // Power never comes back to a guest, but a cable may: TCP goes on.
    lab.segment.set_link(Link::Up);
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"lost?");
}

#[tokio::test(start_paused = true)]
async fn a_closed_link_ends_streams_and_refuses_new_ones() {
    let mut lab = lab();
    let mut stream = lab.open(ECHO).await;
    lab.guest.until(|seen| seen.open == 1).await;
    lab.segment.set_link(Link::Closed);
    assert_eq!(
        lab.segment.connect(ECHO, after(9)).await.unwrap_err(),
        Dial::Refused
    );
    assert_eq!(rest(&mut stream).await, b"");
    lab.guest
        .until(|seen| seen.open == 0 && seen.resets == 1)
        .await;
    lab.segment.set_link(Link::Up);
    let mut stream = lab.open(ECHO).await;
    // Closed for no time at all is closed all the same.
    lab.segment.set_link(Link::Closed);
    lab.segment.set_link(Link::Up);
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_nothing_behind() {
    let mut lab = lab();
    lab.guest.deaf(true);
    let short = Duration::from_millis(100);
    let dial = lab.segment.connect(ECHO, after(60));
    assert!(tokio::time::timeout(short, dial).await.is_err());
    lab.guest.deaf(false);
    echoes(&mut lab.open(ECHO).await, b"x").await;
    lab.guest.until(|seen| seen.open == 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_echo_monitor_finds_the_silence_that_was_made() {
    let every = Duration::from_millis(2);
    let lab = lab();
    lab.segment.reachable(after(9)).await.unwrap();
    let monitor = lab.segment.echo(every);
    tokio::time::advance(Duration::from_millis(1)).await;
    let pass = |time| tokio::time::timeout(time, std::future::pending::<()>());
    pass(Duration::from_secs(1)).await.unwrap_err();
    lab.guest.pause(true);
    let paused = Instant::now();
    pass(Duration::from_millis(300)).await.unwrap_err();
    // The target of a migration begins with an empty queue.
    lab.guest.move_to(plug(&lab.segment));
    lab.guest.pause(false);
    let resumed = Instant::now();
    pass(Duration::from_secs(1)).await.unwrap_err();
    let report = monitor.stop();
    let longest = report.longest().unwrap();
    let (before, after) = (longest.before.unwrap(), longest.after.unwrap());
    assert!(
        before.arrived <= paused && paused <= longest.since + every,
        "{report:?}"
    );
    assert!(
        after.arrived >= resumed && after.arrived <= resumed + 2 * every,
        "{report:?}"
    );
    assert!(longest.at_most() >= Duration::from_millis(300));
    assert!(longest.length() <= Duration::from_millis(300) + 2 * every);
    assert!(
        report.silences[1].length() < Duration::from_millis(10),
        "{report:?}"
    );
    let lost = report.sent - report.answered;
    assert!((140..=155).contains(&lost), "{lost} lost");
    assert!(report.sent >= 1100, "{} sent", report.sent);
}

#[tokio::test(start_paused = true)]
async fn an_echo_monitor_without_a_guest_is_one_silence() {
    let (segment, _dir) = segment();
    let monitor = segment.echo(Duration::from_millis(10));
    let minute = tokio::time::timeout(Duration::from_mins(1), std::future::pending::<()>());
    minute.await.unwrap_err();
    let report = monitor.stop();
    let longest = report.longest().unwrap();
    assert_eq!(
        (report.answered, longest.before, longest.after),
        (0, None, None)
    );
    assert!(longest.length() >= Duration::from_secs(59) && report.sent >= 5000);
}

#[tokio::test]
async fn a_segment_goes_with_its_socket_and_its_streams() {
    let mut lab = lab();
    let path = lab.segment.socket().to_owned();
    let mut stream = lab.open(ECHO).await;
    let second = Segment::open(&path, &CancellationToken::new());
    assert!(second.unwrap_err().to_string().contains("cannot be made"));
    assert_eq!(
        lab.segment.netdev("n0"),
        format!(
            "stream,id=n0,server=off,addr.type=unix,addr.path={}",
            path.display()
        )
    );
    let mut port = plug(&lab.segment);
    lab.segment.close().await;
    assert!(!path.exists());
    assert_eq!(rest(&mut stream).await, b"");
    assert_eq!(rest(&mut port).await, b"");
    // Its QEMU is hung up on, so the guest ends.
    while lab.guest.seen.changed().await.is_ok() {}
    let stop = CancellationToken::new();
    let segment = Segment::open(&path, &stop).unwrap();
    stop.cancel();
    assert_eq!(
        segment.connect(ECHO, after(9)).await.unwrap_err(),
        Dial::NoRoute
    );
    drop(segment);
    assert!(!path.exists());
}

fn stream_of(frames: &[Vec<u8>]) -> BytesMut {
    let mut wire = BytesMut::new();
    for frame in frames {
        wire.put_u32(u32::try_from(frame.len()).unwrap());
        wire.put_slice(frame);
    }
    wire
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_length_that_no_frame_has_ends_its_port_alone() {
    let lab = lab();
    let mut stream = lab.open(ECHO).await;
    let lengths: [&[u8]; 3] = [&[0xff; 4], &[0, 0, 0, 0], &[0, 0, 0, 13]];
    for length in lengths {
        let mut port = plug(&lab.segment);
        port.write_all(length).await.unwrap();
        port.write_all(&[0; 13]).await.ok();
        assert_eq!(rest(&mut port).await, b"");
    }
    echoes(&mut stream, b"still here").await;
    assert_eq!(lab.segment.ports(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Frames of a hostile guest, some of them nearly right, end nothing but at most their own port.
    #[test]
    fn garbage_hurts_nobody(
        frames in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 15..120), 0_u8..4), 0..40),
        raw in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let frames: Vec<_> = frames.into_iter().map(|(mut bytes, kind)| {
            if kind > 0 { bytes[..6].copy_from_slice(&GATEWAY_MAC.0); }
            if kind > 1 { bytes[12..14].copy_from_slice(&[8, if kind == 2 { 6 } else { 0 }]); }
            if kind > 2 { bytes[14] = 0x45; }
            bytes
        }).collect();
        runtime().block_on(async {
            let lab = lab();
            let mut stream = lab.open(ECHO).await;
            let mut port = plug(&lab.segment);
            port.write_all(&stream_of(&frames)).await.unwrap();
            port.write_all(&raw).await.ok();
            echoes(&mut stream, b"well").await;
            drop(port);
            echoes(&mut lab.open(ECHO).await, b"and new").await;
        });
    }
}

/// A TCP segment of the guest to the gateway with good lengths and sums around any header and data.
fn segment_of(port: u16, tcp: &[u8]) -> Vec<u8> {
    let mut bytes = [&GATEWAY_MAC.0[..], &MAC.0, &[8, 0], &[0; 20], tcp].concat();
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: GATEWAY,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.len(),
        hop_limit: 64,
    };
    let sums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &sums);
    let mut packet = TcpPacket::new_unchecked(&mut bytes[34..]);
    packet.set_dst_port(port);
    packet.fill_checksum(&GUEST.into(), &GATEWAY.into());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Segments for a connection that is open, whatever they say, leave the gateway working.
    #[test]
    fn strange_segments_hurt_no_later_connection(
        segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 20..80), 0..40),
    ) {
        runtime().block_on(async {
            let lab = lab();
            let mut stream = lab.open(CHARGEN).await;
            let mut port = plug(&lab.segment);
            // The first port of a gateway.
            let frames: Vec<_> = segments.iter().map(|tcp| segment_of(49152, tcp)).collect();
            port.write_all(&stream_of(&frames)).await.unwrap();
            stream.read_u8().await.ok();
            drop(port);
            echoes(&mut lab.open(ECHO).await, b"and new").await;
        });
    }
}

/// A program that may not be there: with `VIRTPROOF_CI=1` it has to be.
fn qemu() -> Option<&'static str> {
    const QEMU: &str = "qemu-system-x86_64";
    let found = std::process::Command::new(QEMU).arg("--version").output();
    if found.is_ok() {
        return Some(QEMU);
    }
    assert!(
        std::env::var("VIRTPROOF_CI").as_deref() != Ok("1"),
        "{QEMU} is missing"
    );
    eprintln!("SKIPPED: {QEMU} is not installed");
    None
}

#[tokio::test]
async fn a_real_qemu_plugs_in_and_announces_its_guest() {
    let Some(qemu) = qemu() else { return };
    let (segment, _dir) = segment();
    let mut watcher = FramedRead::new(plug(&segment), frame::codec());
    let mac = [0x52, 0x54, 0, 0, 0, 2];
    let mut qemu = tokio::process::Command::new(qemu)
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "32",
            "-nodefaults",
            "-no-user-config",
        ])
        .args([
            "-display",
            "none",
            "-qmp",
            "stdio",
            "-netdev",
            &segment.netdev("n0"),
        ])
        .args([
            "-device",
            "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:02",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let announce = r#"{"execute":"qmp_capabilities"}
        {"execute":"announce-self",
         "arguments":{"initial":50,"max":550,"rounds":10,"step":50}}"#;
    let qmp = qemu.stdin.as_mut().unwrap();
    qmp.write_all(announce.as_bytes()).await.unwrap();
    let frame = tokio::time::timeout(Duration::from_mins(1), watcher.next());
    let frame = frame
        .await
        .expect("QEMU never announced its guest")
        .unwrap()
        .unwrap();
    assert_eq!(
        (&frame[..6], &frame[6..12], &frame[12..14]),
        (&[0xff; 6][..], &mac[..], &[0x80, 0x35][..])
    );
    assert_eq!(segment.ports(), 2);
    qemu.kill().await.unwrap();
}
