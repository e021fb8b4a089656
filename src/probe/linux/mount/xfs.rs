//! XFS by xfsprogs.

use super::Tools;

/// `xfs_repair(8)`: with `-n` 1 says that it found corruption, and 2 that a dirty log kept it from
/// looking.
fn verdict(status: i32) -> Option<bool> {
    match status {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

pub(super) const TOOLS: Tools = Tools {
    make: &["mkfs.xfs", "-q", "-f"],
    // `norecovery` needs `ro`. The UUID of a clone is its original's, and XFS mounts no UUID twice.
    read: &["-o", "ro,norecovery,nouuid"],
    write: &["-o", "nouuid"],
    check: &["xfs_repair", "-n"],
    verdict,
};
