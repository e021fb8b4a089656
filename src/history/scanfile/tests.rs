use super::*;
use crate::probe::frame::CellState;

fn frames() -> Vec<FromGuest> {
    let cell = |cell| Seen {
        cell,
        state: CellState::Zeroed,
    };
    let begin = |volume| FromGuest::ScanBegin {
        volume,
        size: 1 << 20,
    };
    let end = |volume| FromGuest::ScanEnd {
        volume,
        read: 200,
        cold_ok: 30,
    };
    vec![
        begin(0),
        FromGuest::Cells(vec![cell(1), cell(2)]),
        FromGuest::Cells(vec![cell(9)]),
        end(0),
        begin(1),
        end(1),
    ]
}

fn raw(frame: &FromGuest) -> Raw {
    Raw::parse(&frame.encode(0)).expect("a frame")
}

fn write(frames: &[FromGuest]) -> Result<(tempfile::TempDir, Vec<ScanFact>), ScanError> {
    let dir = tempfile::tempdir()?;
    let recorder = Recorder::create(dir.path())?;
    let mut writer = ScanWriter::create(&recorder, "s")?;
    for frame in frames {
        writer.push(&raw(frame))?;
    }
    let facts = writer.finish()?;
    Ok((dir, facts))
}

#[test]
fn a_scan_reads_back_as_it_was_written() {
    let (dir, facts) = write(&frames()).expect("complete");
    let (volumes, hash) = read(&dir.path().join(&facts[0].file)).expect("reads");
    assert_eq!(hash, facts[0].blake3);
    assert_eq!(volumes.len(), 2);
    assert_eq!(
        volumes[0].cells.iter().map(|s| s.cell).collect::<Vec<_>>(),
        [1, 2, 9]
    );
    assert_eq!(
        (facts[1].volume, facts[1].read, facts[1].cold_ok),
        (1, 200, 30)
    );
}

#[test]
fn incomplete_and_disordered_scans_are_refused() {
    let all = frames();
    let mut swapped = all.clone();
    swapped.swap(1, 2);
    let twice = [&all[..4], &all[..4]].concat();
    let gave_up = [&all[..2], &[FromGuest::Failed("EIO".into())]].concat();
    for (frames, word) in [
        (&all[..3], "no end"),
        (&all[1..2], "out of place"),
        (&[], "no volume"),
        (&swapped[..], "ascend"),
        (&twice[..], "twice"),
        (&gave_up[..], "EIO"),
    ] {
        let error = write(frames).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_frame_that_was_skipped_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut writer = ScanWriter::create(&recorder, "s").expect("creates");
    let numbered = |at: usize, seq| Raw::parse(&frames()[at].encode(seq)).expect("a frame");
    writer.push(&numbered(0, 1)).expect("first");
    writer.push(&numbered(1, 2)).expect("second");
    let error = writer.push(&numbered(3, 4)).expect_err("third is missing");
    assert!(error.to_string().contains("follows"), "{error}");
}

#[test]
fn every_cut_of_the_file_is_refused() {
    let (dir, facts) = write(&frames()).expect("complete");
    let path = dir.path().join(&facts[0].file);
    let bytes = std::fs::read(&path).expect("reads");
    let whole_volume = frames()[..4]
        .iter()
        .map(|f| f.encode(0).len())
        .sum::<usize>();
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).expect("writes");
        // A cut between volumes leaves a scan that is whole in itself; its hash tells.
        match read(&path) {
            Ok((_, hash)) => {
                assert_eq!(cut, whole_volume);
                assert_ne!(hash, facts[0].blake3);
            }
            Err(_) => assert_ne!(cut, whole_volume),
        }
    }
}
