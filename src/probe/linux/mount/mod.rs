//! The file system of a file volume: made on a blank disk only, mounted and checked by its own tools,
//! and the ledger file on it. What differs between kinds stands in a file each.

mod ext4;
mod xfs;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Output};

use super::super::config::FileTarget;
use super::super::disk::Disk;
use super::super::filesystem::{Content, Kind, content};
use super::super::layout::CELL;
use super::super::platform::{Access, OpenError};
use super::FileDisk;

/// Where tools are, whatever the login shell thinks.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How a kind of file system is made, mounted and checked.
struct Tools {
    /// Makes one; the device follows. Nothing of it may write in the background once the clock runs.
    make: &'static [&'static str],
    /// Options of a mount that replays no journal and writes nothing.
    read: &'static [&'static str],
    /// Options of any other mount.
    write: &'static [&'static str],
    /// Looks without changing anything; the device follows.
    check: &'static [&'static str],
    /// What an exit status of the checker says: sound, or not, or neither.
    verdict: fn(i32) -> Option<bool>,
}

const fn tools(kind: Kind) -> &'static Tools {
    match kind {
        Kind::Ext4 => &ext4::TOOLS,
        Kind::Xfs => &xfs::TOOLS,
    }
}

/// Mounts the file system of a file volume, after making it if this may be. For reading nothing is
/// replayed: a replay writes, and a journal that was not replayed hides no ledger cell, because the
/// file was made and mounted anew before (see [`remount`]), and file data is not journaled.
pub(super) fn mount(
    device: &Path,
    target: &FileTarget,
    may_format: bool,
    access: Access,
) -> Result<(), OpenError> {
    let (at, kind) = (target.mount.as_str(), target.kind);
    if is_mounted(device, at)? {
        return Ok(());
    }
    let shown = device.display();
    let failed = |error| OpenError::io(format!("reading {shown}"), error);
    let disk = FileDisk::open(device, Access::Read, false).map_err(failed)?;
    let found = content(&disk).map_err(failed)?;
    drop(disk);
    match found {
        Content::Known(seen) if seen == kind => {}
        Content::Blank if may_format => run(tools(kind).make, &[&device.to_string_lossy()])?,
        Content::Blank => {
            let what = format!("{shown} is blank: no file system to mount");
            return Err(OpenError::new(what));
        }
        Content::Known(_) | Content::Other => {
            let what = format!("{shown} holds data that is no {kind}, so it is left alone");
            return Err(OpenError::new(what));
        }
    }
    mount_as(device, target, access)
}

fn mount_as(device: &Path, target: &FileTarget, access: Access) -> Result<(), OpenError> {
    let at = target.mount.as_str();
    fs::create_dir_all(at).map_err(|error| OpenError::io(format!("creating {at}"), error))?;
    let device = device.to_string_lossy();
    run(&arguments(target.kind, access), &[&device, at])
}

/// Unmounts a file system and mounts it again. What was made on it stands in its place afterwards, and not
/// in the journal alone: until then a sync makes it durable, but a copy of the device that is mounted
/// without a replay does not show it.
pub(super) fn remount(device: &Path, target: &FileTarget, access: Access) -> Result<(), OpenError> {
    run(&["umount"], &[target.mount.as_str()])?;
    mount_as(device, target, access)
}

fn arguments(kind: Kind, access: Access) -> Vec<&'static str> {
    let options = match access {
        Access::Read => tools(kind).read,
        Access::Write | Access::Beside => tools(kind).write,
    };
    [&["mount", "-t", kind.name()], options].concat()
}

/// Has a file system's own checker look at it after its journal or log was recovered by a mount.
/// Whether it is sound, `None` if that cannot be told, and what was said.
pub(super) fn check(
    device: &Path,
    target: &FileTarget,
) -> Result<(Option<bool>, String), OpenError> {
    let at = target.mount.as_str();
    if is_mounted(device, at)? {
        let what = format!("{} is mounted, so it cannot be checked", device.display());
        return Err(OpenError::new(what));
    }
    if let Err(error) = mount_as(device, target, Access::Write) {
        return Ok((Some(false), format!("it does not mount: {error}")));
    }
    run(&["umount"], &[at])?;
    let tools = tools(target.kind);
    let output = match output(tools.check, &[&device.to_string_lossy()]) {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((None, format!("the guest has no {}", tools.check[0])));
        }
        Err(error) => return Err(OpenError::io(format!("running {}", tools.check[0]), error)),
    };
    let well = output.status.code().and_then(tools.verdict);
    Ok((well, format!("{}: {}", tools.check[0], said(&output))))
}

/// Has `fsfreeze` freeze or thaw the file system of a file volume. It takes any folder and acts on the
/// file system that this lies on, which would be the root's where nothing is mounted.
pub(super) fn fsfreeze(flag: &str, device: &Path, target: &FileTarget) -> io::Result<()> {
    let at = target.mount.as_str();
    if !is_mounted(device, at).map_err(io::Error::other)? {
        let what = format!("{} is not mounted at {at}", device.display());
        return Err(io::Error::new(ErrorKind::NotFound, what));
    }
    let output = output(&["fsfreeze", flag], &[at])?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output);
    Err(io::Error::new(refusal(&said), format!("fsfreeze: {said}")))
}

/// What the kernel answered, by the words of the C library for it.
fn refusal(said: &str) -> ErrorKind {
    if said.contains("busy") {
        ErrorKind::ResourceBusy
    } else if said.contains("Invalid argument") {
        ErrorKind::InvalidInput
    } else {
        ErrorKind::Other
    }
}

/// The end of what a tool said, on both of its streams, or how it ended if it said nothing.
fn said(output: &Output) -> String {
    const MOST: usize = 400;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let all = words.join(" ");
    let from = all.chars().count().saturating_sub(MOST);
    match all.chars().skip(from).collect::<String>() {
        end if end.is_empty() => output.status.to_string(),
        end => format!("{}: {end}", output.status),
    }
}

/// The size of a device in bytes.
pub(super) fn size_of(device: &Path) -> Result<u64, OpenError> {
    let disk = FileDisk::open(device, Access::Read, false)
        .map_err(|error| OpenError::io(format!("sizing {}", device.display()), error))?;
    Ok(disk.size())
}

/// Whether `device` is mounted at `at`; something else mounted there is an error.
fn is_mounted(device: &Path, at: &str) -> Result<bool, OpenError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| OpenError::io("reading /proc/self/mounts", error))?;
    let mut here = mounts.lines().rev().filter_map(|line| {
        let mut words = line.split(' ');
        let source = words.next()?;
        (words.next()? == at).then_some(source)
    });
    match here.next() {
        None => Ok(false),
        Some(source) if Path::new(source) == device => Ok(true),
        Some(source) => Err(OpenError::new(format!(
            "{at} is taken by a mount of {source}"
        ))),
    }
}

/// Makes a file of real zeros, durable with its name: `fallocate` would leave extents that turn
/// from unwritten to written later, which is a change of metadata at every first write.
pub(super) fn make_ledger(path: &Path, size: u64) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = File::create(&staged)?;
    let zeros = vec![0; 1 << 20];
    let mut left = size - size % CELL as u64;
    while left > 0 {
        let take = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all(&zeros[..take])?;
        left -= take as u64;
    }
    file.sync_all()?;
    fs::rename(&staged, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn output(words: &[&str], more: &[&str]) -> io::Result<Output> {
    let (tool, arguments) = words.split_first().ok_or(ErrorKind::InvalidInput)?;
    let mut command = Command::new(tool);
    command.args(arguments).args(more);
    command.env("PATH", PATH).env("LC_ALL", "C");
    command.output()
}

fn run(words: &[&str], more: &[&str]) -> Result<(), OpenError> {
    let shown = [words, more].concat().join(" ");
    let output =
        output(words, more).map_err(|error| OpenError::io(format!("running {shown}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (status, said) = (output.status, said.trim());
    Err(OpenError::new(format!("{shown}: {status}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger cell is one block of the file and so one unit of what lies below, however small the disk.
    #[test]
    fn a_small_ext4_has_blocks_of_one_cell() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        match output(tools(Kind::Ext4).make, &[&image.to_string_lossy()]) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("SKIPPED: no mkfs.ext4 here");
                return;
            }
            made => assert!(made.as_ref().unwrap().status.success(), "{made:?}"),
        }
        let bytes = fs::read(&image).unwrap();
        // `s_log_block_size` of the superblock (Linux `ext4/globals.rst`): 1024 shifted by it.
        let shift = u32::from_le_bytes(bytes[1024 + 24..1024 + 28].try_into().unwrap());
        assert_eq!(1024 << shift, CELL);
    }

    #[test]
    fn a_reader_never_has_a_journal_replayed() {
        let words = |kind, access| arguments(kind, access).join(" ");
        assert_eq!(
            words(Kind::Ext4, Access::Read),
            "mount -t ext4 -o ro,noload"
        );
        assert_eq!(words(Kind::Ext4, Access::Write), "mount -t ext4");
        assert_eq!(
            words(Kind::Xfs, Access::Read),
            "mount -t xfs -o ro,norecovery,nouuid"
        );
    }

    #[test]
    fn what_fsfreeze_says_is_known_by_its_words() {
        let said = |text| refusal(&format!("exit status: 1: fsfreeze: /m: {text}"));
        let (busy, not) = (ErrorKind::ResourceBusy, ErrorKind::InvalidInput);
        assert_eq!(said("freeze failed: Device or resource busy"), busy);
        assert_eq!(said("unfreeze failed: Invalid argument"), not);
        let other = said("freeze failed: Operation not permitted");
        assert_eq!(other, ErrorKind::Other);
    }

    #[test]
    fn what_is_not_mounted_is_never_frozen() {
        let target = FileTarget {
            on: super::super::super::config::Locator::Path("/dev/none".into()),
            mount: "/run/virtproof-is-not-mounted".into(),
            kind: Kind::Ext4,
        };
        let refused = fsfreeze("--freeze", Path::new("/dev/none"), &target);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_checker_s_word_is_told_from_its_failure_to_look() {
        let verdict = |kind, code| (tools(kind).verdict)(code);
        assert_eq!(verdict(Kind::Ext4, 0), Some(true));
        assert_eq!(verdict(Kind::Ext4, 4), Some(false));
        assert_eq!(verdict(Kind::Ext4, 8), None);
        assert_eq!(verdict(Kind::Ext4, 12), None);
        assert_eq!(verdict(Kind::Xfs, 0), Some(true));
        assert_eq!(verdict(Kind::Xfs, 1), Some(false));
        assert_eq!(verdict(Kind::Xfs, 2), None);
    }
}
