//! Commands one by one, over both kinds of replies.

use std::io::Write;

use super::client::Client;
use super::disk::{Call, PAGE};
use super::{Fixture, until};

const P: u64 = PAGE as u64;
const PAGES: usize = 16;
const SIZE: u64 = PAGES as u64 * P;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST_ZERO: u16 = 16;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

fn fixture(dsync: bool, read_only: bool) -> Fixture {
    Fixture::new(PAGES, dsync, read_only)
}

#[test]
fn what_is_written_is_read_by_all_clients_and_holes_go_as_holes() {
    let f = fixture(true, false);
    let mut simple = Client::connect(&f.server, false);
    let mut structured = Client::connect(&f.server, true);
    let data: Vec<u8> = (1..=250).cycle().take(4 * PAGE).collect();
    assert_eq!(simple.write(0, 2 * P, &data).errno, 0);
    let mut wanted = vec![0; 2 * PAGE];
    wanted.extend(&data);
    wanted.resize(PAGES * PAGE, 0);
    let size = u32::try_from(SIZE).unwrap();
    let reply = simple.read(0, 0, size);
    assert!(reply.chunks.is_empty() && reply.data == wanted);
    let reply = structured.read(0, 0, size);
    assert!(reply.data == wanted);
    assert_eq!(reply.chunks, [2, 1, 2]);
    let reply = structured.read(DF, 0, size);
    assert!(reply.data == wanted);
    assert_eq!(reply.chunks, [1]);
    assert_eq!(structured.read(0, 0, 4096).chunks, [2]);
    assert_eq!(structured.read(DF, 0, 4096).chunks, [1]);
}

#[test]
fn durability_costs_what_the_disk_grants() {
    for (dsync, fua) in [
        (true, vec![Call::Write(P, PAGE)]),
        (false, vec![Call::Lazily(P, PAGE), Call::Flush]),
    ] {
        let f = fixture(dsync, false);
        let mut client = Client::connect(&f.server, true);
        for (kind, flags, wanted) in [
            (WRITE, 0, vec![Call::Lazily(P, PAGE)]),
            (TRIM, 0, vec![Call::Lazily(P, PAGE)]),
            (WRITE_ZEROES, NO_HOLE, vec![Call::Lazily(P, PAGE)]),
            (WRITE, FUA, fua.clone()),
            (TRIM, FUA, fua.clone()),
            (WRITE_ZEROES, FUA, fua.clone()),
            (FLUSH, 0, vec![Call::Flush]),
            (READ, FUA, vec![Call::Read(P, PAGE)]),
        ] {
            let payload: &[u8] = if kind == WRITE { &[9; PAGE] } else { &[] };
            let length = if kind == FLUSH { 0 } else { 4096 };
            let offset = if kind == FLUSH { 0 } else { P };
            assert_eq!(client.ask(flags, kind, offset, length, payload).errno, 0);
            assert_eq!(f.disk.calls(), wanted, "command {kind}, flags {flags}");
        }
    }
}

#[test]
fn a_flush_on_one_connection_covers_the_writes_of_another() {
    let f = fixture(false, false);
    let mut writes = Client::connect(&f.server, false);
    let mut flushes = Client::connect(&f.server, true);
    writes.write(0, 0, &[1; PAGE]);
    assert_eq!(f.disk.durable()[0], 0);
    assert_eq!(flushes.flush().errno, 0);
    assert_eq!(f.disk.durable()[0], 1);
}

#[test]
fn requests_that_cannot_be_served_say_why_and_touch_nothing() {
    let f = fixture(true, false);
    let over = (32 << 20) + 4096;
    for structured in [false, true] {
        let mut client = Client::connect(&f.server, structured);
        for (flags, kind, offset, length, wanted) in [
            (0, READ, 1, 4096, EINVAL),
            (0, READ, 0, 512, EINVAL),
            (0, READ, SIZE, 4096, EINVAL),
            (0, READ, u64::MAX - 4095, 4096, EINVAL),
            (0, READ, 0, over, EINVAL),
            (0, WRITE, 512, 4096, EINVAL),
            (0, WRITE, 0, 4095, EINVAL),
            (0, WRITE, SIZE - P, 8192, ENOSPC),
            (0, WRITE, u64::MAX - 4095, 4096, ENOSPC),
            (0, WRITE, 0, over, EINVAL),
            (0, TRIM, 0, 4097, EINVAL),
            (0, TRIM, SIZE, 4096, EINVAL),
            (0, TRIM, 0, over, EINVAL),
            (0, WRITE_ZEROES, 2, 4096, EINVAL),
            (0, WRITE_ZEROES, 0, over, EINVAL),
            (0, WRITE_ZEROES, SIZE, 4096, ENOSPC),
            (FAST_ZERO, WRITE_ZEROES, 0, 4096, ENOTSUP),
            (FAST_ZERO, WRITE_ZEROES, 0, over, ENOSPC),
            (0, BLOCK_STATUS, SIZE, 4096, EINVAL),
            (0, BLOCK_STATUS, 0, 0, EINVAL),
            (0, 5, 0, 4096, EINVAL),
            (0, 8, 0, 4096, EINVAL),
            (0, 999, 0, 4096, EINVAL),
            (NO_HOLE, WRITE, 0, 4096, EINVAL),
            (REQ_ONE, READ, 0, 4096, EINVAL),
            (DF, WRITE_ZEROES, 0, 4096, EINVAL),
            (FAST_ZERO, TRIM, 0, 4096, EINVAL),
            (1 << 15, FLUSH, 0, 0, EINVAL),
        ] {
            let payload = if kind == WRITE { length as usize } else { 0 };
            let reply = client.ask(flags, kind, offset, length, &vec![1; payload]);
            assert_eq!(reply.errno, wanted, "{flags} {kind} {offset} {length}");
            assert_eq!(reply.message.is_empty(), !structured);
        }
        assert_eq!(f.disk.calls(), []);
        assert_eq!(client.flush().errno, 0, "and goes on");
        f.disk.calls();
    }
    let mut simple = Client::connect(&f.server, false);
    assert_eq!(simple.read(DF, 0, 4096).errno, EINVAL, "not negotiated");
    let status = simple.ask(0, BLOCK_STATUS, 0, 4096, &[]);
    assert_eq!(status.errno, EINVAL, "not negotiated");
}

#[test]
fn nothing_is_served_as_nothing() {
    let f = fixture(true, false);
    for structured in [false, true] {
        let mut client = Client::connect(&f.server, structured);
        for kind in [READ, WRITE, TRIM, WRITE_ZEROES] {
            let reply = client.ask(0, kind, 0, 0, &[]);
            assert_eq!((reply.errno, reply.data), (0, vec![]));
        }
    }
    assert!(f.disk.content() == vec![0; PAGES * PAGE]);
}

#[test]
fn zeroing_is_done_in_pieces_and_over_its_whole_length() {
    let pages = 600;
    let f = Fixture::new(pages, false, false);
    let mut client = Client::connect(&f.server, true);
    let filled = vec![5; pages * PAGE];
    assert_eq!(client.write(0, 0, &filled).errno, 0);
    f.disk.calls();
    let length = u32::try_from((pages - 2) * PAGE).unwrap();
    assert_eq!(client.ask(FUA, TRIM, P, length, &[]).errno, 0);
    let calls = f.disk.calls();
    assert_eq!(calls.len(), 4, "three pieces and a flush: {calls:?}");
    let mut wanted = filled;
    wanted[PAGE..(pages - 1) * PAGE].fill(0);
    assert!(f.disk.durable() == wanted);
}

#[test]
fn block_status_tells_zeroes_from_data() {
    let f = fixture(true, false);
    let mut client = Client::connect(&f.server, true);
    client.write(0, 2 * P, &[1; 3 * PAGE]);
    // Written, but zero.
    client.write(0, 6 * P, &[0; PAGE]);
    let mut status = |flags, offset, length: u64| {
        let length = u32::try_from(length).unwrap();
        let reply = client.ask(flags, BLOCK_STATUS, offset, length, &[]);
        assert_eq!((reply.errno, reply.chunks), (0, vec![5]));
        reply.extents
    };
    let all = [(8192, 3), (12288, 0), (11 * 4096, 3)];
    assert_eq!(status(0, 0, SIZE), all);
    assert_eq!(status(REQ_ONE, 0, SIZE), [(8192, 3)]);
    assert_eq!(status(REQ_ONE, 3 * P, P), [(4096, 0)]);
    assert_eq!(status(0, P, 2 * P), [(4096, 3), (4096, 0)]);
}

#[test]
fn block_status_looks_only_so_far() {
    let f = Fixture::new(5000, true, false);
    let mut client = Client::connect(&f.server, true);
    let reply = client.ask(0, BLOCK_STATUS, 0, 5000 * 4096, &[]);
    assert_eq!(reply.extents, [(16 << 20, 3)]);
    assert_eq!(f.disk.calls().len(), 16);
}

#[test]
fn a_read_only_export_is_not_written() {
    let f = fixture(true, true);
    for structured in [false, true] {
        let mut client = Client::connect(&f.server, structured);
        assert_eq!(client.write(0, 0, &[1; PAGE]).errno, EPERM);
        assert_eq!(client.write(0, 1, &[1; 10]).errno, EPERM);
        for flags in [0, FAST_ZERO, NO_HOLE, FUA] {
            let reply = client.ask(flags, WRITE_ZEROES, 0, 4096, &[]);
            assert_eq!(reply.errno, EPERM);
        }
        assert_eq!(client.ask(0, TRIM, 0, 4096, &[]).errno, EPERM);
        assert_eq!(f.disk.calls(), []);
        assert_eq!(client.read(0, 0, 4096).errno, 0);
        assert_eq!(client.flush().errno, 0);
        assert_eq!(f.disk.calls(), [Call::Read(0, PAGE), Call::Flush]);
    }
}

#[test]
fn failures_of_the_disk_reach_the_client_and_leave_the_connection() {
    let f = fixture(true, false);
    let (eio, erofs, enospc, etimedout) = (5, 30, 28, 110);
    for structured in [false, true] {
        let mut client = Client::connect(&f.server, structured);
        for (errno, wanted) in [
            (eio, EIO),
            (erofs, EPERM),
            (enospc, ENOSPC),
            (etimedout, EIO),
        ] {
            f.disk.fail(Some(errno));
            assert_eq!(client.write(0, 0, &[1; PAGE]).errno, wanted);
            assert_eq!(client.write(FUA, 0, &[1; PAGE]).errno, wanted);
            assert_eq!(client.read(0, 0, 8192).errno, wanted);
            assert_eq!(client.flush().errno, wanted);
            assert_eq!(client.ask(0, TRIM, 0, 4096, &[]).errno, wanted);
            assert_eq!(client.ask(0, WRITE_ZEROES, 0, 4096, &[]).errno, wanted);
            if structured {
                let reply = client.ask(0, BLOCK_STATUS, 0, 4096, &[]);
                assert_eq!(reply.errno, wanted);
                assert!(!reply.message.is_empty());
            }
        }
        f.disk.fail(None);
        assert_eq!(client.write(FUA, 0, &[1; PAGE]).errno, 0);
        assert_eq!(client.read(0, 0, 4096).data, [1; PAGE]);
    }
}

#[test]
fn disconnecting_ends_without_a_reply() {
    let f = fixture(true, false);
    let mut client = Client::connect(&f.server, false);
    let bytes = super::client::request(0, DISC, 0, 0, 0);
    client.stream.write_all(&bytes).unwrap();
    assert!(client.ended());
    until("it has left", || f.server.connections() == 0);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let f = fixture(true, false);
    let mut client = Client::connect(&f.server, false);
    client.stream.write_all(&[0x25; 28]).unwrap();
    assert!(client.ended());
    assert_eq!(f.disk.calls(), []);
}
