//! The seed disk as a block device: given bytes that nobody may change.

use std::io;

use crate::probe::disk::{Disk, Grants};

/// A read-only disk in memory.
pub(super) struct SeedDisk(Vec<u8>);

impl SeedDisk {
    /// A disk with these bytes, whole pages.
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Disk for SeedDisk {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn grants(&self) -> Grants {
        Grants::default()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = from
            .checked_add(buf.len())
            .and_then(|to| self.0.get(from..to))
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_was_given_and_takes_nothing() {
        let disk = SeedDisk::new((0..8192_u32).map(|n| (n % 251) as u8).collect());
        let mut page = vec![0; 4096];
        disk.read_at(4096, &mut page).unwrap();
        assert_eq!(page[0], (4096 % 251) as u8);
        assert!(disk.read_at(8192, &mut page).is_err());
        assert!(disk.write_at(0, &page).is_err());
    }
}
