//! The handshake.

use std::io::{Read, Write};

use super::client::{Client, MODERN, Told, contexts, info, option, told};
use super::disk::PAGE;
use super::{Fixture, until};

fn fixture(read_only: bool) -> Fixture {
    Fixture::new(16, true, read_only)
}

const SIZE: u64 = 16 * PAGE as u64;
/// HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_FAST_ZERO.
const FLAGS: u16 = 1 | 4 | 8 | 32 | 64 | 256 | 2048;
/// HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN.
const READ_ONLY: u16 = 1 | 2 | 4 | 8 | 256;
/// SEND_DF.
const DF: u16 = 128;

const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const UNSUP: u32 = 0x8000_0001;
const TOO_BIG: u32 = 0x8000_0009;

#[test]
fn go_tells_size_flags_and_block_sizes_and_begins() {
    let f = fixture(false);
    let wanted = Told {
        size: SIZE,
        flags: FLAGS,
        blocks: [4096, 4096, 32 << 20],
    };
    for name in ["", "data"] {
        let mut client = Client::greet(&f.server, MODERN);
        let looked = client.option(6, &info(name, &[3]));
        assert_eq!(told(&looked), wanted);
        assert_eq!(client.go(name), wanted);
        assert_eq!(client.read(0, 0, 4096).data, [0; PAGE]);
    }
    let mut client = Client::greet(&f.server, MODERN);
    client.option(8, &[]);
    assert_eq!(client.go("").flags, FLAGS | DF);
}

#[test]
fn a_read_only_export_offers_no_writing() {
    let f = fixture(true);
    let mut client = Client::greet(&f.server, MODERN);
    assert_eq!(client.go("").flags, READ_ONLY);
}

#[test]
fn names_and_descriptions_are_told_to_those_who_ask() {
    let f = fixture(false);
    let mut client = Client::greet(&f.server, MODERN);
    let silent = client.option(6, &info("", &[]));
    assert_eq!(silent.len(), 3, "export, block sizes, the end");
    let asked = client.option(6, &info("", &[3, 1, 2, 999]));
    assert!(asked.contains(&(3, b"\0\x01data".to_vec())));
    assert!(asked.contains(&(3, b"\0\x02a test".to_vec())));
    assert_eq!(asked.len(), 5);
    let list = client.option(3, &[]);
    assert_eq!(list, [(2, b"\0\0\0\x04dataa test".to_vec()), (1, vec![])]);
}

#[test]
fn export_name_begins_with_and_without_zeroes() {
    let f = fixture(false);
    for (flags, padding) in [(MODERN, 0), (1, 124), (0, 124)] {
        let mut client = Client::greet(&f.server, flags);
        client.stream.write_all(&option(1, b"data")).unwrap();
        let mut told = vec![0xff; 10 + padding];
        client.stream.read_exact(&mut told).unwrap();
        let mut wanted = SIZE.to_be_bytes().to_vec();
        wanted.extend(FLAGS.to_be_bytes());
        wanted.resize(10 + padding, 0);
        assert_eq!(told, wanted);
        assert_eq!(client.write(0, 0, &[7; PAGE]).errno, 0);
    }
}

#[test]
fn what_cannot_be_refused_in_words_ends_the_connection() {
    let f = fixture(false);
    let named = |bytes: &[u8]| {
        let mut client = Client::greet(&f.server, MODERN);
        client.stream.write_all(bytes).unwrap();
        client.ended()
    };
    assert!(named(&option(1, b"other")));
    assert!(named(&option(1, &[0xff])));
    assert!(named(&option(1, &vec![b'a'; 65537])));
    assert!(named(b"IHAVENOTOPTION.."));
    assert!(Client::greet(&f.server, 4).ended(), "an unknown flag");
    until("all have left", || f.server.connections() == 0);
}

#[test]
fn refused_options_leave_the_haggling_alive() {
    let f = fixture(false);
    let mut client = Client::greet(&f.server, MODERN);
    let huge = vec![0; 100_000];
    let long = info(&"a".repeat(4097), &[]);
    let name_too_far = [0, 0, 0, 200, b'x'];
    let mut trailing = info("data", &[3]);
    trailing.push(0);
    for (number, data, wanted) in [
        (5, &[][..], UNSUP),
        (11, &[], UNSUP),
        (0xffff_ffff, b"what", UNSUP),
        (4, &huge, TOO_BIG),
        (3, b"x", INVALID),
        (8, b"x", INVALID),
        (6, &info("other", &[]), UNKNOWN),
        (7, &info("other", &[]), UNKNOWN),
        (7, &[], INVALID),
        (7, &long, INVALID),
        (7, &name_too_far, INVALID),
        (7, &trailing, INVALID),
        (9, &contexts("data", &[]), INVALID),
        (10, &contexts("data", &["base:allocation"]), INVALID),
    ] {
        let replies = client.option(number, data);
        let [(error, text)] = &replies[..] else {
            panic!("option {number}: {replies:?}")
        };
        assert_eq!(*error, wanted, "option {number}");
        assert!(!str::from_utf8(text).unwrap().is_empty());
    }
    assert_eq!(client.go("data").size, SIZE);
}

#[test]
fn contexts_are_listed_by_wildcard_and_selected_by_name() {
    let f = fixture(false);
    let listed = [(4, b"\0\0\0\0base:allocation".to_vec()), (1, vec![])];
    let selected = [(4, b"\0\0\0\x01base:allocation".to_vec()), (1, vec![])];
    let nothing = [(1, vec![])];
    let mut client = Client::greet(&f.server, MODERN);
    client.option(8, &[]);
    for queries in [&[][..], &["base:"], &["qemu:", "base:allocation"]] {
        assert_eq!(client.option(9, &contexts("", queries)), listed);
    }
    assert_eq!(client.option(9, &contexts("", &["base:depth"])), nothing);
    for queries in [&[][..], &["base:"], &["qemu:dirty-bitmap:b"]] {
        assert_eq!(client.option(10, &contexts("data", queries)), nothing);
    }
    let name = ["x:y", "base:allocation"];
    assert_eq!(client.option(10, &contexts("data", &name)), selected);
    assert_eq!(client.option(9, &contexts("data", &[])), listed);
    client.go("data");
    assert_eq!(client.ask(0, 7, 0, 4096, &[]).extents, [(4096, 3)]);
    let mut lists_only = Client::greet(&f.server, MODERN);
    lists_only.option(8, &[]);
    assert_eq!(lists_only.option(9, &contexts("data", &[])), listed);
    lists_only.go("data");
    assert_eq!(lists_only.ask(0, 7, 0, 4096, &[]).errno, 22);
}

#[test]
fn a_failed_selection_undoes_the_one_before() {
    let f = fixture(false);
    let huge = vec![0; 70_000];
    for (data, error) in [(&contexts("other", &[])[..], UNKNOWN), (&huge, TOO_BIG)] {
        let mut client = Client::greet(&f.server, MODERN);
        client.option(8, &[]);
        client.option(10, &contexts("data", &["base:allocation"]));
        assert_eq!(client.option(10, data)[0].0, error);
        client.go("data");
        assert_eq!(client.ask(0, 7, 0, 4096, &[]).errno, 22);
    }
}

#[test]
fn abort_is_acknowledged_and_ends() {
    let f = fixture(false);
    let mut client = Client::greet(&f.server, MODERN);
    assert_eq!(client.option(2, b"ignored"), [(1, vec![])]);
    assert!(client.ended());
    until("it has left", || f.server.connections() == 0);
}
