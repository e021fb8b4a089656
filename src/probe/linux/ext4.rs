//! The file system of a file volume: made on a blank disk only, and the ledger file on it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use super::super::buffer::Aligned;
use super::super::disk::Disk;
use super::super::layout::CELL;
use super::super::platform::{Access, OpenError};
use super::FileDisk;

/// Where ext4 keeps its magic: the superblock at 1024, the field at 0x38 (Linux `ext4.h`).
const EXT_MAGIC_AT: usize = 1024 + 0x38;
const EXT_MAGIC: [u8; 2] = [0x53, 0xEF];
/// Where tools are, whatever the login shell thinks.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts the file system of a file volume, after making it if this may be.
///
/// For reading it is mounted `ro,noload`: without `noload` even a read-only mount replays the
/// journal, which writes, and which a read-only device refuses (Linux `ext4.rst`). A journal that
/// was not replayed hides no ledger cell: the file was made and mounted anew before, and by default
/// no data is journaled.
pub(super) fn mount(
    device: &Path,
    at: &str,
    may_format: bool,
    access: Access,
) -> Result<(), OpenError> {
    if is_mounted(device, at)? {
        return Ok(());
    }
    match content(device)? {
        Content::Ext => {}
        Content::Blank if may_format => run(
            "mkfs.ext4",
            // Nothing may write in the background once the clock runs.
            &[
                "-q",
                "-F",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
                &device.to_string_lossy(),
            ],
        )?,
        Content::Blank => {
            let device = device.display();
            return Err(OpenError::new(format!(
                "{device} is blank: no file system to mount"
            )));
        }
        Content::Other => {
            let device = device.display();
            return Err(OpenError::new(format!(
                "{device} holds data that is no ext4 file system, so it is left alone"
            )));
        }
    }
    fs::create_dir_all(at).map_err(|error| OpenError::io(format!("creating {at}"), error))?;
    run("mount", &arguments(access, &device.to_string_lossy(), at))
}

fn arguments<'a>(access: Access, device: &'a str, at: &'a str) -> Vec<&'a str> {
    let options: &[&str] = match access {
        Access::Read => &["-o", "ro,noload"],
        Access::Write => &[],
    };
    [&["-t", "ext4"], options, &[device, at]].concat()
}

/// What a device holds, as far as the probe cares.
enum Content {
    Blank,
    Ext,
    Other,
}

fn content(device: &Path) -> Result<Content, OpenError> {
    let failed = |error| OpenError::io(format!("reading {}", device.display()), error);
    let disk = FileDisk::open(device, Access::Read, false).map_err(failed)?;
    let cells = usize::try_from(disk.size() / CELL as u64).unwrap_or(usize::MAX);
    let mut buffer = Aligned::new(cells.min(17));
    disk.read_at(0, buffer.bytes_mut()).map_err(failed)?;
    let bytes = buffer.bytes();
    Ok(if bytes.iter().all(|&byte| byte == 0) {
        Content::Blank
    } else if bytes.get(EXT_MAGIC_AT..EXT_MAGIC_AT + 2) == Some(&EXT_MAGIC) {
        Content::Ext
    } else {
        Content::Other
    })
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

fn run(tool: &str, arguments: &[&str]) -> Result<(), OpenError> {
    let words = format!("{tool} {}", arguments.join(" "));
    let output = Command::new(tool)
        .args(arguments)
        .env("PATH", PATH)
        .output()
        .map_err(|error| OpenError::io(format!("running {words}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (status, said) = (output.status, said.trim());
    Err(OpenError::new(format!("{words}: {status}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_has_the_journal_replayed() {
        let words = |access| arguments(access, "/dev/vdc", "/mnt").join(" ");
        assert_eq!(words(Access::Read), "-t ext4 -o ro,noload /dev/vdc /mnt");
        assert_eq!(words(Access::Write), "-t ext4 /dev/vdc /mnt");
    }
}
