//! Listening, standing still, losing the storage, closing.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::client::{Client, reply, request};
use super::disk::{PAGE, TestDisk};
use super::{Fixture, export, until};
use crate::lab::qemu::nbd::{ListenError, Server};

fn fixture() -> Fixture {
    Fixture::new(256, false, false)
}

#[test]
fn a_path_that_does_not_fit_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::new(1, true));
    let fill = |total: usize| {
        let rest = total - dir.path().as_os_str().len() - 1;
        dir.path().join("s".repeat(rest))
    };
    Server::listen(&fill(107), export(&disk)).unwrap().close();
    let error = Server::listen(&fill(108), export(&disk)).unwrap_err();
    assert!(matches!(
        error,
        ListenError::PathTooLong { length: 108, .. }
    ));
    assert!(error.to_string().contains("107 at most"), "{error}");
}

#[test]
fn a_path_in_use_and_an_export_that_breaks_the_rules_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let disk = Arc::new(TestDisk::new(1, true));
    let first = Server::listen(&path, export(&disk)).unwrap();
    let error = Server::listen(&path, export(&disk)).unwrap_err();
    assert!(matches!(error, ListenError::Socket { .. }), "{error}");
    assert!(path.exists(), "the first one's socket stays");
    first.close();
    assert!(!path.exists());
    let mut named = export(&disk);
    named.name = "a\0b".into();
    let mut wordy = export(&disk);
    wordy.description = "a".repeat(4097);
    let empty = export(&Arc::new(TestDisk::new(0, true)));
    for bad in [named, wordy, empty] {
        let error = Server::listen(&path, bad).unwrap_err();
        assert!(matches!(error, ListenError::Export { .. }), "{error}");
        assert!(!path.exists());
    }
    Server::listen(&path, export(&disk)).unwrap().close();
}

#[test]
fn clients_are_counted() {
    let f = fixture();
    let one = Client::connect(&f.server, true);
    let two = Client::connect(&f.server, false);
    assert_eq!(f.server.connections(), 2);
    drop(one);
    until("one has left", || f.server.connections() == 1);
    drop(two);
    until("both have left", || f.server.connections() == 0);
}

#[test]
fn paused_requests_wait_and_go_on() {
    let f = fixture();
    let mut client = Client::connect(&f.server, true);
    f.server.pause(true);
    let mut write = request(0, 1, 7, 0, 4096);
    write.resize(28 + PAGE, 1);
    client.stream.write_all(&write).unwrap();
    let mut other = Client::connect(&f.server, false);
    other.stream.write_all(&request(0, 3, 8, 0, 0)).unwrap();
    // Long enough to notice a request that did not wait; too short never fails.
    let patience = Some(Duration::from_millis(50));
    for stream in [&mut client.stream, &mut other.stream] {
        stream.set_read_timeout(patience).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
    }
    assert_eq!(f.disk.calls(), []);
    f.server.pause(false);
    for (stream, cookie) in [(&mut client.stream, 7), (&mut other.stream, 8)] {
        let reply = reply(stream, None);
        assert_eq!((reply.cookie, reply.errno), (cookie, 0));
    }
    assert_eq!(f.disk.content()[0], 1);
}

#[test]
fn after_a_cut_every_request_fails_with_eio_and_none_is_under_way() {
    let f = fixture();
    let cut = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (f, cut) = (&f, &cut);
            scope.spawn(move || {
                let mut client = Client::connect(&f.server, writer % 2 == 0);
                let page = [writer + 1; PAGE];
                loop {
                    let was_cut = cut.load(Ordering::SeqCst);
                    let reply = client.write(0, u64::from(writer) * 4096, &page);
                    if reply.errno == 5 {
                        break;
                    }
                    assert!(!was_cut, "a write passed after the cut");
                    assert_eq!(reply.errno, 0);
                }
                assert_eq!(client.read(0, 0, 4096).errno, 5);
                assert_eq!(client.flush().errno, 5);
                assert_eq!(client.ask(0, 4, 0, 8192, &[]).errno, 5);
            });
        }
        until("all write", || {
            let content = f.disk.content();
            (0..4).all(|writer| content[writer * PAGE] != 0)
        });
        f.server.cut();
        cut.store(true, Ordering::SeqCst);
        assert_eq!(f.disk.inside(), 0);
        f.disk.calls();
    });
    assert_eq!(f.disk.calls(), [], "the Disk was touched after the cut");
    let mut late = Client::connect(&f.server, true);
    assert_eq!(late.read(0, 0, 4096).errno, 5, "a new client is no better");
}

#[test]
fn a_cut_waits_for_the_access_under_way_and_fails_the_waiting_ones() {
    let f = fixture();
    let mut under_way = Client::connect(&f.server, true);
    let mut waiting = Client::connect(&f.server, true);
    f.disk.hold(true);
    let released = AtomicBool::new(false);
    thread::scope(|scope| {
        let first = scope.spawn(move || under_way.write(0, 0, &[1; PAGE]));
        until("the write is inside", || f.disk.inside() == 1);
        f.server.pause(true);
        let second = scope.spawn(move || waiting.write(0, 4096, &[2; PAGE]));
        let cut = scope.spawn(|| {
            f.server.cut();
            assert!(released.load(Ordering::SeqCst), "the cut did not wait");
        });
        assert_eq!(second.join().unwrap().errno, 5);
        released.store(true, Ordering::SeqCst);
        f.disk.hold(false);
        cut.join().unwrap();
        assert_eq!(
            first.join().unwrap().errno,
            0,
            "it was taken, so it says so"
        );
    });
    assert_eq!(f.disk.content()[4096], 0);
}

#[test]
fn closing_waits_for_no_client() {
    let f = fixture();
    let path = f.server.path().to_owned();
    let silent = UnixStream::connect(&path).unwrap();
    let idle = Client::connect(&f.server, true);
    // In the midst of a payload.
    let mut half = Client::connect(&f.server, false);
    half.stream.write_all(&request(0, 1, 1, 0, 4096)).unwrap();
    half.stream.write_all(&[1; 100]).unwrap();
    // Asks for more than any socket buffer holds and reads nothing.
    let mut deaf = Client::connect(&f.server, false);
    let read = request(0, 0, 1, 0, 256 * 4096);
    deaf.stream.write_all(&read.repeat(32)).unwrap();
    // At the gate.
    f.server.pause(true);
    let mut paused = Client::connect(&f.server, false);
    paused.stream.write_all(&request(0, 3, 1, 0, 0)).unwrap();
    assert_eq!(f.server.connections(), 5);
    f.server.close();
    assert_eq!(Arc::strong_count(&f.disk), 1, "the Disk is dropped");
    assert!(!path.exists());
    let mut rest = Vec::new();
    for mut stream in [silent, idle.stream, half.stream, paused.stream] {
        // A reset is an end too.
        stream.read_to_end(&mut rest).ok();
    }
    assert!(UnixStream::connect(&path).is_err());
    assert!(f.disk.content() == vec![0; 256 * PAGE]);
}

#[test]
fn closing_waits_for_the_access_inside_the_disk() {
    let f = fixture();
    let mut client = Client::connect(&f.server, false);
    f.disk.hold(true);
    client.stream.write_all(&request(0, 3, 1, 0, 0)).unwrap();
    until("the flush is inside", || f.disk.inside() == 1);
    let released = AtomicBool::new(false);
    let (server, disk, path) = (f.server, f.disk, f.dir.path().join("s"));
    thread::scope(|scope| {
        let closing = scope.spawn(|| {
            server.close();
            assert!(released.load(Ordering::SeqCst), "it did not wait");
        });
        // Refused means that the closing is under way.
        until("no client is accepted", || {
            UnixStream::connect(&path).is_err()
        });
        released.store(true, Ordering::SeqCst);
        disk.hold(false);
        closing.join().unwrap();
    });
    assert_eq!(Arc::strong_count(&disk), 1);
}

#[test]
fn dropping_closes() {
    let f = fixture();
    let path = f.server.path().to_owned();
    let client = Client::connect(&f.server, false);
    drop(f.server);
    assert!(client.ended());
    assert!(!path.exists());
    assert_eq!(Arc::strong_count(&f.disk), 1);
}
