use std::io::Cursor;

use proptest::prelude::*;

use super::super::recorder::Recorder;
use super::*;

fn sample(n: u32) -> Vec<Record> {
    (0..n)
        .map(|i| {
            let at_ns = u64::from(i) * 1000;
            match i % 3 {
                0 => Record::Token { at_ns, n: i },
                1 => Record::Frame {
                    at_ns,
                    seq: u64::from(i),
                    bytes: vec![0x5A; (i as usize * 7) % 90],
                },
                _ => Record::Link {
                    at_ns,
                    up: i % 2 == 0,
                },
            }
        })
        .collect()
}

fn written(records: &[Record], close: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut writer = recorder.segment("0100000100000001").expect("a segment");
    for record in records {
        writer.append(record).expect("appends");
    }
    let path = dir.path().join(writer.path());
    if close {
        let closed = writer.close().expect("closes");
        assert_eq!(closed.records, records.len() as u64);
    }
    std::fs::read(path).expect("reads")
}

fn read(bytes: &[u8]) -> (Vec<Record>, Result<Ending, SegmentError>) {
    let mut records = Vec::new();
    let mut reader = match Reader::new(Cursor::new(bytes), bytes.len() as u64) {
        Ok(reader) => reader,
        Err(error) => return (records, Err(error)),
    };
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, Ok(reader.ending().expect("an ending").clone())),
            Err(error) => return (records, Err(error)),
        }
    }
}

#[test]
fn a_closed_segment_reads_back_whole() {
    let records = sample(50);
    let (back, ending) = read(&written(&records, true));
    assert_eq!(back, records);
    assert!(matches!(ending, Ok(Ending::Closed { .. })));
}

#[test]
fn a_segment_that_was_not_closed_is_torn_at_its_end() {
    let records = sample(5);
    let bytes = written(&records, false);
    let (back, ending) = read(&bytes);
    assert_eq!(back, records);
    assert!(matches!(ending, Ok(Ending::Torn { at }) if at == bytes.len() as u64));
}

#[test]
fn every_cut_is_a_torn_tail_and_keeps_the_whole_records() {
    let records = sample(12);
    let bytes = written(&records, true);
    for cut in 0..bytes.len() {
        let (back, ending) = read(&bytes[..cut]);
        assert!(
            matches!(ending, Ok(Ending::Torn { .. })),
            "cut at {cut}: {ending:?}"
        );
        assert_eq!(back[..], records[..back.len()]);
    }
}

#[test]
fn every_flipped_bit_is_damage_or_a_torn_tail_and_never_a_whole_segment() {
    let bytes = written(&sample(6), true);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (_, ending) = read(&bad);
        assert!(!matches!(ending, Ok(Ending::Closed { .. })), "bit {bit}");
    }
}

#[test]
fn a_byte_in_the_middle_is_named_by_its_record() {
    let bytes = written(&sample(6), true);
    let mut bad = bytes.clone();
    bad[MAGIC.len() + 8] ^= 1;
    let (_, ending) = read(&bad);
    assert!(
        matches!(ending, Err(SegmentError::Corrupt { at: 8, .. })),
        "{ending:?}"
    );
}

#[test]
fn a_record_taken_out_of_the_middle_is_seen() {
    let bytes = written(&sample(3), true);
    // The first record is a token: 4 length, 9 head, 4 body, 20 tail.
    let mut bad = bytes[..8].to_vec();
    bad.extend_from_slice(&bytes[8 + 37..]);
    let (_, ending) = read(&bad);
    assert!(
        matches!(ending, Err(SegmentError::Corrupt { .. })),
        "{ending:?}"
    );
}

#[test]
fn zeros_after_a_power_cut_are_a_torn_tail() {
    let mut bytes = written(&sample(3), false);
    let whole = bytes.len() as u64;
    bytes.extend_from_slice(&[0; 500]);
    let (back, ending) = read(&bytes);
    assert_eq!(back.len(), 3);
    assert!(matches!(ending, Ok(Ending::Torn { at }) if at == whole));
}

#[test]
fn a_full_disk_ends_the_history_with_a_clear_word() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut writer = recorder.segment("a").expect("a segment");
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    writer.file = Arc::new(Synced::new("/dev/full".into(), full));
    let error = writer
        .append(&Record::Token { at_ns: 0, n: 1 })
        .expect_err("no space");
    assert_eq!(error.kind, io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(recorder.failure().borrow().is_some());
    let error = recorder.segment("b").expect_err("final");
    assert_eq!(error.kind, io::ErrorKind::StorageFull);
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend_from_slice(&bytes);
        let (_, ending) = read(&with_magic);
        let closed = matches!(ending, Ok(Ending::Closed { .. }));
        prop_assert!(!closed);
        let (_, ending) = read(&bytes);
        let closed = matches!(ending, Ok(Ending::Closed { .. }));
        prop_assert!(!closed);
    }
}
