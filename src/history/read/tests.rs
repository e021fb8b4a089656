use super::super::event::{ReadVia, ScanFact};
use super::super::recorder::{Recorder, Scope};
use super::super::scanfile::ScanWriter;
use super::super::segment::{Record, SegmentWriter};
use super::*;
use crate::probe::frame::{Ack, FromGuest, Opened, Rank};
use crate::probe::layout::LayoutSpec;
use crate::probe::wire::Raw;

const NAME: &str = "0100000112345678";

fn identity() -> Identity {
    Identity {
        incarnation: 0x0100_0001_1234_5678,
        boot_id: "b".into(),
        machine_id: "m".into(),
        pid: 1,
        volumes: vec![Opened {
            volume: 0,
            path: "/dev/vdb".into(),
            size: 256 * 4096,
            grants: crate::probe::disk::Grants::default(),
        }],
    }
}

fn started(segment: &str) -> Fact {
    Fact::IncarnationStarted {
        incarnation: NAME.into(),
        site: Site::Primary,
        purpose: Purpose::Load,
        parent: None,
        identity: identity(),
        layouts: vec![Layout::fit(256, &LayoutSpec::default()).expect("fits")],
        segment: segment.into(),
    }
}

fn ended() -> Fact {
    Fact::RunEnded {
        reason: "completed".into(),
    }
}

fn heard(segment: &mut SegmentWriter) {
    let ack = FromGuest::Ack(Ack {
        first_rank: 1,
        ranks: vec![Rank {
            marks: vec![(0, 1)],
        }],
        mono_ns: 0,
        real_ns: 0,
        token: 0,
        max_gap_ns: 0,
    });
    for (seq, frame) in [(1, FromGuest::Opened(identity())), (2, ack)] {
        let record = Record::Frame {
            at_ns: seq,
            seq,
            bytes: frame.encode(seq),
        };
        segment.append(&record).expect("appends");
    }
}

fn scan(recorder: &Recorder) -> Vec<ScanFact> {
    let mut writer = ScanWriter::create(recorder, "s").expect("creates");
    for frame in [
        FromGuest::ScanBegin {
            volume: 0,
            size: 256 * 4096,
        },
        FromGuest::ScanEnd {
            volume: 0,
            read: 256,
            cold_ok: 3,
        },
    ] {
        let raw = Raw::parse(&frame.encode(0)).expect("a frame");
        writer.push(&raw).expect("appends");
    }
    writer.finish().expect("complete")
}

async fn run(close: bool, end: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let scope = Scope::trial("t").subject("vm");
    let mut segment = recorder.segment(NAME).expect("a segment");
    let path = segment.path().to_owned();
    recorder
        .record(&scope, started(&path))
        .await
        .expect("records");
    heard(&mut segment);
    if close {
        let closed = segment.close().expect("closes");
        let fact = Fact::SegmentClosed {
            incarnation: NAME.into(),
            segment: closed.path,
            records: closed.records,
            root: closed.root,
        };
        recorder.record(&scope, fact).await.expect("records");
    }
    let fact = Fact::Scanned {
        site: Site::Secondary,
        incarnation: NAME.into(),
        judges: vec![NAME.into()],
        via: ReadVia::Guest,
        zero_loss: None,
        cut: None,
        volumes: scan(&recorder),
    };
    recorder.record(&scope, fact).await.expect("records");
    if end {
        recorder
            .record(&Scope::run(), ended())
            .await
            .expect("records");
    }
    dir
}

#[tokio::test]
async fn a_whole_run_reads_back() {
    let dir = run(true, true).await;
    let history = History::open(dir.path()).expect("good");
    assert_eq!(history.truncated, None);
    assert_eq!(history.events.len(), 4);
    let incarnation = history.incarnation(NAME).expect("known");
    assert_eq!(incarnation.acks.writes(), 1);
    assert_eq!(incarnation.acks.identity(), Some(&identity()));
    assert_eq!(incarnation.number, identity().incarnation);
    assert_eq!(history.scans[0].volumes[0].read, 256);
    assert_eq!(history.head.len(), 64);
}

#[tokio::test]
async fn what_lacks_its_end_is_truncated() {
    let dir = run(false, true).await;
    let history = History::open(dir.path()).expect("readable");
    assert_eq!(history.truncated, None);
    let torn = &history.incarnation(NAME).expect("known").torn;
    assert!(torn.as_deref().is_some_and(|why| why.contains("acks/")));
    let dir = run(true, false).await;
    let history = History::open(dir.path()).expect("readable");
    assert!(
        history
            .truncated
            .is_some_and(|why| why.contains("end of the run"))
    );
}

#[tokio::test]
async fn every_cut_of_the_events_is_truncated_and_never_whole() {
    let dir = run(true, true).await;
    let path = dir.path().join(EVENTS);
    let bytes = std::fs::read(&path).expect("reads");
    for cut in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..cut]).expect("writes");
        let history = History::open(dir.path()).expect("readable");
        assert!(history.truncated.is_some(), "cut at {cut}");
    }
}

#[tokio::test]
async fn every_edit_of_the_events_is_an_error_that_names_the_line() {
    let dir = run(true, true).await;
    let path = dir.path().join(EVENTS);
    let bytes = std::fs::read(&path).expect("reads");
    for at in (0..bytes.len() - 1).step_by(41) {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).expect("writes");
        let error = History::open(dir.path()).expect_err("edited");
        let line = bytes[..=at].split(|byte| *byte == b'\n').count();
        let text = error.to_string();
        assert!(
            text.contains(&format!("line {line}:")) || bytes[at] == b'\n',
            "{text}"
        );
    }
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    std::fs::write(&path, [lines[0], lines[2], lines[3]].concat()).expect("writes");
    let error = History::open(dir.path()).expect_err("a line is missing");
    assert!(error.to_string().contains("line 2:"), "{error}");
}

#[tokio::test]
async fn files_that_were_changed_or_exchanged_are_errors_that_name_them() {
    for (file, word) in [
        ("acks/0100000112345678.seg", "acks/"),
        ("scans/s.bin", "scans/s.bin"),
    ] {
        let dir = run(true, true).await;
        let path = dir.path().join(file);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[30] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        let error = History::open(dir.path()).expect_err("changed");
        assert!(error.to_string().contains(word), "{error}");
        std::fs::remove_file(&path).expect("removes");
        let error = History::open(dir.path()).expect_err("gone");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_closed_segment_that_lost_its_tail_is_torn() {
    let dir = run(true, true).await;
    let path = dir.path().join("acks/0100000112345678.seg");
    let bytes = std::fs::read(&path).expect("reads");
    for cut in 8..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).expect("writes");
        let history = History::open(dir.path()).expect("readable");
        assert!(history.incarnations[0].torn.is_some(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_segment_rewritten_as_a_whole_is_not_the_one_that_was_closed() {
    let dir = run(true, true).await;
    let other = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(other.path()).expect("a history");
    let forged = recorder.segment(NAME).expect("a segment");
    let relative = forged.path().to_owned();
    forged.close().expect("closes");
    std::fs::copy(other.path().join(&relative), dir.path().join(&relative)).expect("copies");
    let error = History::open(dir.path()).expect_err("forged");
    assert!(error.to_string().contains("is not the segment"), "{error}");
}

#[tokio::test]
async fn hostile_facts_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    recorder
        .record(&Scope::run(), started("../../etc/passwd"))
        .await
        .expect("records");
    let error = History::open(dir.path()).expect_err("outside");
    assert!(
        error.to_string().contains("within the run directory"),
        "{error}"
    );

    let good = Layout::fit(256, &LayoutSpec::default()).expect("fits");
    assert_eq!(sane(&good), Ok(()));
    let broken: [fn(&mut Layout); 5] = [
        |l| l.hot_writers = 0,
        |l| l.hot = l.hot.start..l.hot.start,
        |l| l.log.end = 0,
        |l| l.cells += 1,
        |l| l.canary = 1..u64::MAX,
    ];
    for change in broken {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(sane(&bad).is_err(), "{bad:?}");
    }
}
