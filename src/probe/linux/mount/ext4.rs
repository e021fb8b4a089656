//! ext4 by e2fsprogs.

use super::Tools;

/// `e2fsck(8)`, exit codes: 4 for errors left as they are, from 8 on for anything that kept it from
/// looking.
fn verdict(status: i32) -> Option<bool> {
    match status {
        0 => Some(true),
        1..=7 => Some(false),
        _ => None,
    }
}

pub(super) const TOOLS: Tools = Tools {
    make: &[
        "mkfs.ext4",
        "-q",
        "-F",
        // Below 512 MiB it would take blocks of 1 KiB (mke2fs.conf(5), `small`), and a cell would lie
        // across two units of storage: no write of it would be one write any more.
        "-b",
        "4096",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
    ],
    // Without `noload` even a read-only mount replays the journal (Linux `ext4.rst`).
    read: &["-o", "ro,noload"],
    write: &[],
    check: &["e2fsck", "-f", "-n"],
    verdict,
};
