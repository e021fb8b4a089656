//! A block device or a file as a [`Disk`], past the page cache where the system allows it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::super::buffer::{Aligned, is_aligned};
use super::super::disk::{Disk, Grants};
use super::super::layout::CELL;
use super::super::platform::Access;

/// `O_DIRECT` as the kernel of this architecture numbers it.
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECT: i32 = 0o200_000;
#[cfg(target_arch = "powerpc64")]
const O_DIRECT: i32 = 0o400_000;
#[cfg(not(any(
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "powerpc64"
)))]
const O_DIRECT: i32 = 0o40_000;
const O_DSYNC: i32 = 0o10_000;
/// On a block device: fail if anybody else holds it exclusively, such as a mounted file system.
const O_EXCL: i32 = 0o200;
const EINVAL: i32 = 22;

/// An open device or file.
#[derive(Debug)]
pub struct FileDisk {
    /// With `O_DSYNC` if opened for writing.
    durable: File,
    /// Without it, for writes that a flush follows.
    lazy: File,
    size: u64,
    grants: Grants,
}

impl FileDisk {
    /// Opens `path` past the page cache, or through it where `O_DIRECT` is refused; the grants say
    /// which. What is opened for writing is taken exclusively: two probes on it would look like a
    /// split brain that the storage has no part in.
    pub fn open(path: &Path, access: Access, write_back: bool) -> io::Result<Self> {
        match Self::open_with(path, access, write_back, O_DIRECT) {
            // tmpfs before Linux 6.6 and some FUSE file systems refuse at open, others at first use.
            Err(error) if error.raw_os_error() == Some(EINVAL) => {
                Self::open_with(path, access, write_back, 0)
            }
            outcome => outcome,
        }
    }

    fn open_with(path: &Path, access: Access, write_back: bool, direct: i32) -> io::Result<Self> {
        let write = access != Access::Read;
        let alone = access == Access::Write;
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(write).custom_flags(flags);
            options.open(path)
        };
        let is_device = std::fs::metadata(path)?.file_type().is_block_device();
        let exclusive = if alone && is_device { O_EXCL } else { 0 };
        let sync = if write { O_DSYNC } else { 0 };
        let mut durable = open(direct | sync | exclusive)?;
        if alone && !is_device {
            durable.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => {
                    io::Error::new(io::ErrorKind::ResourceBusy, "another probe holds it")
                }
                TryLockError::Error(error) => error,
            })?;
        }
        let size = durable.seek(SeekFrom::End(0))?;
        let disk = Self {
            durable,
            lazy: open(direct)?,
            size: size - size % CELL as u64,
            grants: Grants {
                direct: direct != 0,
                dsync: write,
                write_back,
            },
        };
        if disk.size >= CELL as u64 {
            disk.read_at(0, Aligned::new(1).bytes_mut())?;
        }
        Ok(disk)
    }

    /// Calls `io` with bytes that the open flags accept: `buf` itself or an aligned copy.
    fn write(&self, file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
        if !self.grants.direct || is_aligned(buf) {
            return file.write_all_at(buf, offset);
        }
        let mut copy = Aligned::new(buf.len().div_ceil(CELL));
        copy.bytes_mut()[..buf.len()].copy_from_slice(buf);
        file.write_all_at(&copy.bytes()[..buf.len()], offset)
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn grants(&self) -> Grants {
        self.grants
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if !self.grants.direct || is_aligned(buf) {
            return self.lazy.read_exact_at(buf, offset);
        }
        let mut copy = Aligned::new(buf.len().div_ceil(CELL));
        let bytes = &mut copy.bytes_mut()[..buf.len()];
        self.lazy.read_exact_at(bytes, offset)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(&self.durable, offset, buf)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(&self.lazy, offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.lazy.sync_data()
    }
}
