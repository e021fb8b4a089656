//! The real static executable on real files: start, attach, load, a broken attachment, stop, scan.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use super::super::buffer::Aligned;
use super::super::config::{Config, DEFAULT_SCRATCH, Locator, Purpose, Target, Volume};
use super::super::disk::Disk;
use super::super::frame::{CellState, FromGuest, ToGuest};
use super::super::layout::{CELL, Layout, LayoutSpec};
use super::super::platform::Access;
use super::super::testkit::{Heard, INCARNATION, found_in};
use super::super::wire::Raw;
use super::super::{embedded, remote};
use super::FileDisk;

const CELLS: u64 = 512;

/// A guest made of a directory: the executable, two volumes, a socket.
struct Guest {
    dir: tempfile::TempDir,
    config: Config,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let probe = dir.path().join("probe");
        fs::write(&probe, embedded::BINARY).unwrap();
        fs::set_permissions(&probe, fs::Permissions::from_mode(0o700)).unwrap();
        let volume = |ordinal: u8| {
            let path = dir.path().join(format!("disk{ordinal}"));
            let file = fs::File::create(&path).unwrap();
            file.set_len(CELLS * CELL as u64).unwrap();
            Volume {
                vol_id: [ordinal; 16],
                target: Target::Raw(Locator::Path(path.to_str().unwrap().to_owned())),
                cells: None,
                from: 0,
            }
        };
        let config = Config {
            run_id: [0x77; 16],
            seed: 5,
            incarnation: INCARNATION,
            purpose: Purpose::Load,
            layout: LayoutSpec {
                canary: 8,
                log: 32,
                hot: 64,
                cold_stride: 16,
                hot_writers: 1,
            },
            volumes: vec![volume(0), volume(1)],
            scratch: DEFAULT_SCRATCH,
            expect: vec![INCARNATION],
        };
        Self { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("probe"));
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end with the config on standard input.
    fn run(&self, words: &[&str], config: &str) -> Output {
        let mut child = self.command(words).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that takes no config may have ended by now.
        stdin.write_all(config.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn start(&self) -> Output {
        let socket = self.path("sock");
        self.run(
            &["start", socket.to_str().unwrap()],
            &self.config.to_string(),
        )
    }
}

impl Drop for Guest {
    /// A test that fails half way must not leave a daemon behind.
    fn drop(&mut self) {
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.path("sock")) {
            let hello = ToGuest::Hello { heard: 0 }.encode();
            stream
                .write_all(&[hello, ToGuest::Quit.encode()].concat())
                .ok();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    }
}

/// One `probe attach`.
struct Attached {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    heard: u64,
    frames: Vec<FromGuest>,
}

impl Attached {
    fn new(guest: &Guest, heard: u64) -> Self {
        let socket = guest.path("sock");
        let mut child = guest
            .command(&["attach", socket.to_str().unwrap()])
            .spawn()
            .unwrap();
        let mut attached = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().unwrap(),
            child,
            heard,
            frames: Vec::new(),
        };
        attached.send(&ToGuest::Hello { heard });
        attached
    }

    fn send(&mut self, frame: &ToGuest) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(&frame.encode()).unwrap();
    }

    fn until(&mut self, fits: impl Fn(&FromGuest) -> bool) -> FromGuest {
        loop {
            let raw = Raw::read(&mut self.stdout)
                .unwrap()
                .expect("the probe goes on");
            let frame = FromGuest::decode(&raw).unwrap();
            if raw.seq > 0 {
                assert_eq!(raw.seq, self.heard + 1);
                self.heard = raw.seq;
                self.frames.push(frame.clone());
            }
            if fits(&frame) {
                return frame;
            }
        }
    }
}

fn is_ack(frame: &FromGuest) -> bool {
    matches!(frame, FromGuest::Ack(_))
}

#[test]
fn the_static_binary_loads_survives_a_broken_attachment_and_reads_back() {
    let guest = Guest::new();
    let started = guest.start();
    assert_eq!(
        String::from_utf8_lossy(&started.stdout),
        "ready\n",
        "{started:?}"
    );
    assert!(started.status.success());
    let mode = fs::metadata(guest.path("sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = guest.start();
    assert!(!again.status.success());
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        error.starts_with("error: opening ") && error.contains("disk0"),
        "{error}"
    );

    let mut first = Attached::new(&guest, 0);
    first.send(&ToGuest::Fill);
    for _ in 0..2 {
        first.until(|frame| matches!(frame, FromGuest::Filled { .. }));
    }
    first.send(&ToGuest::Token(1));
    first.send(&ToGuest::Start { rate: 0, batch: 0 });
    first.until(is_ack);
    first.child.kill().unwrap();
    first.child.wait().unwrap();

    let mut second = Attached::new(&guest, first.heard);
    let opened = second.until(|_| true);
    let FromGuest::Opened(identity) = opened else {
        panic!("expected opened, saw {opened:?}");
    };
    assert!(identity.volumes.iter().all(|volume| volume.grants.dsync));
    second.until(is_ack);
    second.send(&ToGuest::Stop);
    let stopped = second.until(|frame| matches!(frame, FromGuest::Stopped { .. }));
    second.send(&ToGuest::Quit);
    assert!(second.child.wait().unwrap().success());

    let frames = [first.frames, second.frames].concat();
    let heard = Heard::of(&frames);
    let FromGuest::Stopped { issued, last_rank } = stopped else {
        panic!("expected stopped, saw {stopped:?}");
    };
    assert_eq!(last_rank, heard.rank);
    let total: u64 = issued.iter().map(|(_, wseq)| wseq).sum();
    assert_eq!((total, heard.unknown.len()), (heard.acked.len() as u64, 0));

    let scanned = guest.run(&["scan"], &guest.config.to_string());
    assert!(scanned.status.success(), "{scanned:?}");
    let (cells, cold) = found_in(&scanned.stdout);
    let layout = Layout::fit(CELLS, &guest.config.layout).unwrap();
    assert_eq!(cold, 2 * layout.cold_cells().count() as u64);
    let newest = cells.values().filter_map(|state| match state {
        CellState::Ok {
            writer: 0, wseq, ..
        } => Some(*wseq),
        CellState::Ok { .. } | CellState::Zeroed => None,
        other => panic!("damaged: {other:?}"),
    });
    assert_eq!(newest.max().unwrap(), issued[0].1);
}

#[test]
fn start_says_what_is_wrong_and_leaves_nothing_behind() {
    let mut guest = Guest::new();
    let socket = guest.path("sock");
    let words = ["start", socket.to_str().unwrap()];
    let refused = |output: &Output, needle: &str| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            error.starts_with("error: ") && error.contains(needle),
            "{error}"
        );
        assert!(output.stdout.is_empty());
        assert!(!socket.exists());
    };
    refused(
        &guest.run(&words, "run 12\n"),
        "config line 1: expected 32 hex digits",
    );
    refused(&guest.run(&["bogus"], ""), "usage: probe info");

    let disk = fs::File::options()
        .write(true)
        .open(guest.path("disk1"))
        .unwrap();
    disk.write_all_at(b"somebody's", 4096).unwrap();
    refused(&guest.start(), "cell 1 holds data that is no ledger");

    let nowhere = Target::Raw(Locator::Serial("vp-none".to_owned()));
    guest.config.volumes[0].target = nowhere;
    refused(
        &guest.start(),
        "no disk has serial \"vp-none\"; the disks are: ",
    );
}

#[test]
fn info_and_version_match_the_host() {
    let guest = Guest::new();
    let info = String::from_utf8(guest.run(&["info"], "").stdout).unwrap();
    let value = |key: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} ")));
        line.unwrap_or_else(|| panic!("no {key} in {info}"))
            .to_owned()
    };
    assert_eq!(value("format"), remote::FORMAT.to_string());
    assert_eq!(value("arch"), embedded::ARCH);
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(value("boot_id"), boot_id.trim());
    let version = guest.run(&["version"], "").stdout;
    let expected = format!(
        "virtproof-probe format {} {}\n",
        remote::FORMAT,
        embedded::ARCH
    );
    assert_eq!(String::from_utf8(version).unwrap(), expected);
}

#[test]
fn a_file_is_read_and_written_through_aligned_and_other_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 * CELL as u64 + 100).unwrap();
    let disk = FileDisk::open(file.path(), Access::Write, false).unwrap();
    assert_eq!(disk.size(), 4 * CELL as u64);
    assert!(disk.grants().dsync);
    let mut aligned = Aligned::new(2);
    aligned.bytes_mut().fill(3);
    disk.write_at(0, aligned.bytes()).unwrap();
    let odd = vec![4; CELL + 1];
    disk.write_lazily_at(2 * CELL as u64, &odd[1..]).unwrap();
    disk.flush().unwrap();
    let mut back = vec![0; 4 * CELL + 1];
    disk.read_at(0, &mut back[1..]).unwrap();
    assert!(back[1..=2 * CELL].iter().all(|&byte| byte == 3));
    assert!(back[1 + 2 * CELL..=3 * CELL].iter().all(|&byte| byte == 4));
    assert!(back[1 + 3 * CELL..].iter().all(|&byte| byte == 0));
    let second = FileDisk::open(file.path(), Access::Write, false);
    assert!(second.is_err(), "two writers on one ledger");
    assert!(FileDisk::open(file.path(), Access::Read, false).is_ok());
}
