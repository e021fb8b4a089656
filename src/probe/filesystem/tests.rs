use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::probe::linux::FileDisk;
use crate::probe::memory::MemDisk;
use crate::probe::platform::Access;

/// Runs a tool of e2fsprogs; `false` if this host has none, which is only let pass outside of CI.
fn tool(name: &str, arguments: &[&str], input: &str) -> bool {
    let spawned = Command::new(name)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        assert!(std::env::var_os("VIRTPROOF_CI").is_none(), "no {name}");
        eprintln!("SKIPPED: this host has no {name}");
        return false;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{name} {arguments:?}");
    true
}

fn told(path: &Path) -> Told {
    let disk = FileDisk::open(path, Access::Read, false).unwrap();
    Told::raw(1, &disk).unwrap()
}

#[test]
fn a_real_ext4_is_clean_until_its_journal_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("ext4.img");
    let path = image.to_str().unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(told(&image).kind, "none");
    if !tool("mkfs.ext4", &["-q", "-F", path], "") {
        return;
    }
    let new = told(&image);
    assert_eq!((new.kind.as_str(), new.well), ("ext4", Some(true)));
    assert!(new.said.contains("journal empty"), "{}", new.said);
    // A transaction in the journal, as a crash leaves it.
    let written = "jo\njw -b 333 /dev/zero\njc\n";
    tool("debugfs", &["-w", "-f", "-", path], written);
    let dirty = told(&image);
    assert_eq!(dirty.well, Some(false), "{}", dirty.said);
    assert!(dirty.said.contains("needs_recovery set"), "{}", dirty.said);
    assert!(dirty.said.contains("journal starts at"), "{}", dirty.said);
    tool("debugfs", &["-w", "-R", "jr", path], "");
    assert_eq!(told(&image).well, Some(true), "replayed");
    // The flag alone, as a mount with nothing in the journal leaves it.
    tool("debugfs", &["-w", "-R", "feature needs_recovery", path], "");
    let mounted = told(&image);
    assert_eq!(mounted.well, Some(false));
    assert!(mounted.said.contains("journal empty"), "{}", mounted.said);
}

#[test]
fn an_ext4_without_a_journal_is_clean_by_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("ext2.img");
    let path = image.to_str().unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    if !tool("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", path], "") {
        return;
    }
    assert_eq!(told(&image).well, Some(true));
    tool("debugfs", &["-w", "-R", "ssv state 0", path], "");
    assert_eq!(told(&image).well, Some(false));
}

/// A device with an XFS superblock and a log of 64 blocks of 512 bytes at 64 KiB.
fn xfs(log: &[u8]) -> MemDisk {
    let disk = MemDisk::new(1 << 20);
    disk.damage(0, |cell| {
        cell[..4].copy_from_slice(b"XFSB");
        for (at, word) in [(4, 4096_u32), (52, 16), (84, 256), (96, 8)] {
            cell[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        cell[124] = 8;
    });
    for (index, bytes) in log.chunks(CELL).enumerate() {
        disk.damage(16 + index as u64, |cell| {
            cell[..bytes.len()].copy_from_slice(bytes);
        });
    }
    disk
}

/// A log in its `turn`-th turn: records of so many operations and flags, of one block each, from
/// block `at`; what lies behind is of the turn before.
fn log(turn: u32, at: usize, records: &[(u32, u8)]) -> Vec<u8> {
    let mut log = vec![0; 64 * 512];
    let mut put = |at: usize, word: u32| log[at..at + 4].copy_from_slice(&word.to_be_bytes());
    let head = at + 2 * records.len();
    for block in 0..64 {
        put(block * 512, if block < head { turn } else { turn - 1 });
    }
    for (index, (operations, _)) in records.iter().enumerate() {
        let header = (at + 2 * index) * 512;
        for (field, word) in [
            (0, 0xFEED_BABE),
            (4, turn),
            (8, 2),
            (12, 512),
            (0x28, *operations),
            (0x140, 32 * 1024),
        ] {
            put(header + field, word);
        }
    }
    for (index, (_, flags)) in records.iter().enumerate() {
        log[(at + 2 * index + 1) * 512 + 9] = *flags;
    }
    log
}

fn xfs_told(log: &[u8]) -> Told {
    Told::raw(0, &xfs(log)).unwrap()
}

#[test]
fn an_xfs_is_clean_if_its_log_ends_with_an_unmount() {
    let made = xfs_told(&log(1, 0, &[(1, 0x20)]));
    assert_eq!((made.kind.as_str(), made.well), ("xfs", Some(true)));
    assert!(made.said.contains("block 2 in turn 1"), "{}", made.said);
    let used = xfs_told(&log(1, 0, &[(1, 0x20), (4, 0x01)]));
    assert_eq!(used.well, Some(false), "{}", used.said);
    let again = xfs_told(&log(7, 30, &[(4, 0x01), (1, 0x20)]));
    assert_eq!(again.well, Some(true), "{}", again.said);
    let full = xfs_told(&log(3, 62, &[(1, 0x20)]));
    assert_eq!(
        full.well,
        Some(true),
        "the head is the first block: {}",
        full.said
    );
    // A record whose end was not written.
    let mut torn = log(2, 10, &[(1, 0x20)]);
    torn[10 * 512 + 12..10 * 512 + 16].copy_from_slice(&2048_u32.to_be_bytes());
    assert_eq!(xfs_told(&torn).well, Some(false));
    assert_eq!(xfs_told(&[]).well, None, "never written");
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    let blank = Told::raw(0, &MemDisk::new(1 << 20)).unwrap();
    assert_eq!((blank.kind.as_str(), blank.well), ("none", None));
    let other = MemDisk::new(1 << 20);
    other.damage(1, |cell| cell[0] = 1);
    assert_eq!(Told::raw(0, &other).unwrap().kind, "other");
    let outside = xfs(&[]);
    outside.damage(0, |cell| cell[48..56].fill(0));
    assert_eq!(
        Told::raw(0, &outside).unwrap().well,
        None,
        "an external log"
    );
}

#[test]
fn lines_are_read_as_they_were_written() {
    let told = Told {
        volume: 3,
        kind: "ext4".into(),
        well: Some(false),
        said: "e2fsck:\n exit 4".into(),
    };
    let line = told.to_string();
    assert_eq!(line, "volume 3 ext4 ill e2fsck: exit 4");
    let back = Told::parse(&line).unwrap();
    assert_eq!(back[0].said, "e2fsck: exit 4");
    assert_eq!(Told::parse("volume 0 xfs unknown ").unwrap()[0].well, None);
    for bad in [
        "volume x ext4 well y",
        "volume 0 ext4 fine y",
        "disk 0 ext4 well y",
    ] {
        assert!(Told::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_device_panics(seed in prop::collection::vec(any::<u8>(), 0..4096), xfs_magic: bool) {
        let disk = MemDisk::new(64 * CELL as u64);
        for cell in 0..64 {
            disk.damage(cell, |bytes| {
                for (byte, from) in bytes.iter_mut().zip(seed.iter().cycle()) {
                    *byte = *from;
                }
                if cell == 0 && xfs_magic {
                    bytes[..4].copy_from_slice(b"XFSB");
                } else if cell == 0 {
                    bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
                }
            });
        }
        prop_assert!(Told::raw(0, &disk).is_ok());
    }
}
