use std::sync::Mutex;
use std::sync::PoisonError;

use super::super::read::{HistoryError, events};
use super::*;

fn note(text: &str) -> Fact {
    Fact::Note { text: text.into() }
}

fn ended() -> Fact {
    Fact::RunEnded {
        reason: "completed".into(),
    }
}

#[tokio::test]
async fn events_are_in_the_file_when_record_returns() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut live = recorder.subscribe();
    for n in 0..20_u64 {
        let scope = Scope::trial("t").subject(format!("s{n}"));
        assert_eq!(recorder.record(&scope, note("x")).await, Ok(n));
        let told = events(&dir.path().join(EVENTS)).expect("a good history");
        assert_eq!(told.events.len() as u64, n + 1);
        assert_eq!(live.recv().await.expect("live").seq, n);
    }
}

#[tokio::test]
async fn concurrent_recorders_share_one_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    recorder.record(&Scope::run(), note("x")).await?;
                }
                Ok::<_, RecordError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("joins").expect("records");
    }
    recorder
        .record(&Scope::run(), ended())
        .await
        .expect("records");
    assert_eq!(
        events(&dir.path().join(EVENTS)).expect("good").events.len(),
        201
    );
}

#[tokio::test]
async fn a_second_history_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let _first = Recorder::create(dir.path()).expect("a history");
    let error = Recorder::create(dir.path()).expect_err("taken");
    assert!(error.to_string().contains("--resume"), "{error}");
}

#[tokio::test]
async fn a_resumed_history_goes_on_after_an_unfinished_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(EVENTS);
    let recorder = Recorder::create(dir.path()).expect("a history");
    recorder
        .record(&Scope::run(), ended())
        .await
        .expect("records");
    let before = recorder.now_ns();
    drop(recorder);
    let mut file = File::options().append(true).open(&path).expect("opens");
    file.write_all(b"{\"v\":1,\"se").expect("writes");
    assert_eq!(events(&path).expect("readable").torn, 10);
    let recorder = Recorder::resume(dir.path()).expect("resumes");
    assert!(recorder.now_ns() > before);
    assert_eq!(recorder.record(&Scope::run(), ended()).await, Ok(2));
    let told = events(&path).expect("good again");
    assert_eq!(told.torn, 0);
    assert!(matches!(&told.events[1].fact, Fact::Note { text } if text.starts_with("10 bytes")));
}

#[tokio::test]
async fn an_edited_history_is_not_resumed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(EVENTS);
    let recorder = Recorder::create(dir.path()).expect("a history");
    recorder
        .record(&Scope::run(), note("one"))
        .await
        .expect("records");
    recorder
        .record(&Scope::run(), ended())
        .await
        .expect("records");
    drop(recorder);
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text.replacen("one", "two", 1)).expect("writes");
    let error = Recorder::resume(dir.path()).expect_err("edited");
    assert!(
        matches!(&error, HistoryError::Damaged { at, what, .. } if at == "line 1" && what.contains("edited")),
        "{error}"
    );
}

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    room: usize,
    syncs: usize,
    sync_fails: bool,
    bytes: Vec<u8>,
}

impl Disk {
    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Disk {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        let take = buf.len().min(state.room);
        if take == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        state.room -= take;
        state.bytes.extend_from_slice(&buf[..take]);
        Ok(take)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Disk {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        if state.sync_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

fn over(disk: &Disk) -> Recorder {
    let start = Position {
        seq: 0,
        link: chain::GENESIS,
        last_ns: 0,
    };
    Recorder::over("/nowhere".into(), Box::new(disk.clone()), start, 0).expect("starts")
}

#[tokio::test]
async fn a_full_disk_stops_the_history_for_good() {
    let disk = Disk::default();
    disk.state().room = 700;
    let recorder = over(&disk);
    let mut failure = recorder.failure();
    assert_eq!(recorder.record(&Scope::run(), note("fits")).await, Ok(0));
    let error = loop {
        if let Err(error) = recorder.record(&Scope::run(), note("x")).await {
            break error;
        }
    };
    assert_eq!(error.kind, io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("free space"), "{error}");
    failure.changed().await.expect("told");
    disk.state().room = 1 << 20;
    let again = recorder.record(&Scope::run(), note("x")).await;
    assert_eq!(
        again,
        Err(error),
        "room that comes later does not mend a torn line"
    );
}

#[tokio::test]
async fn a_failing_fsync_is_told_even_if_nobody_waits_for_it() {
    let disk = Disk::default();
    disk.state().room = 1 << 20;
    let recorder = over(&disk);
    let mut failure = recorder.failure();
    disk.state().sync_fails = true;
    assert_eq!(recorder.record(&Scope::run(), note("x")).await, Ok(0));
    failure.changed().await.expect("the group fsync fails");
    assert!(recorder.record(&Scope::run(), note("x")).await.is_err());
}

#[tokio::test]
async fn phase_facts_are_on_the_disk_when_record_returns() {
    let disk = Disk::default();
    disk.state().room = 1 << 20;
    let recorder = over(&disk);
    recorder
        .record(&Scope::run(), ended())
        .await
        .expect("records");
    assert!(disk.state().syncs >= 1);
    disk.state().sync_fails = true;
    assert!(recorder.record(&Scope::run(), ended()).await.is_err());
}
