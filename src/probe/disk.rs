//! What the ledger is written on: a real block device or file in the guest, an array image in the
//! lab, memory in the property tests. The same engine runs over all of them.

use std::io;

/// What the opened target grants, as found, not as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Grants {
    /// Reads and writes bypass the page cache (O_DIRECT).
    pub direct: bool,
    /// Each write returns only when durable (O_DSYNC); otherwise a flush must follow it.
    pub dsync: bool,
    /// The device reports a volatile write cache (`/sys/block/*/queue/write_cache`).
    pub write_back: bool,
}

/// A random-access store of 4 KiB cells. Offsets and lengths are bytes and multiples of 4096.
///
/// `write_at` on a target with [`Grants::dsync`] returns only when the data is durable; otherwise
/// durability comes from the next `flush` submitted after it returned.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// What this target grants.
    fn grants(&self) -> Grants;
    /// Reads exactly `buf.len()` bytes at `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf` at `offset`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Writes all of `buf` at `offset` without waiting for it to become durable, whatever the
    /// target grants; the next `flush` submitted after it returned makes it so. A target without a
    /// cheaper way writes as `write_at` does.
    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_at(offset, buf)
    }
    /// Makes every completed write durable.
    fn flush(&self) -> io::Result<()>;
}
