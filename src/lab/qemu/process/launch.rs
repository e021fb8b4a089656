//! What a QEMU is started with, in the terms of a guest.

use std::path::PathBuf;

use uuid::Uuid;

use crate::lab::qemu::host::Accel;

/// The longest serial number that a guest sees of a virtio disk: `VIRTIO_BLK_ID_BYTES` of the virtio
/// specification, 5.2.
pub const SERIAL_BYTES: usize = 20;

/// The longest drive name: QEMU's node names have 31 bytes, and the NBD node under a drive has the
/// drive's name and a suffix.
pub const NAME_BYTES: usize = 20;

/// Root ports a q35 machine can have for disks. Each takes a slot of the root bus and a range of I/O
/// ports, of which there are few.
pub const MAX_PORTS: u8 = 14;

/// One QEMU to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name of the guest, as QEMU shows it.
    pub name: String,
    /// The machine's UUID in its firmware. Both ends of a migration must have the same.
    pub uuid: Uuid,
    /// Who runs the instructions.
    pub accel: Accel,
    /// RAM in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Boots this kernel; without one the firmware boots from a drive.
    pub kernel: Option<Kernel>,
    /// Disks.
    pub drives: Vec<Drive>,
    /// Root ports for disks, at most [`MAX_PORTS`]; those that no drive takes are for hotplug. Both
    /// ends of a migration must have the same number.
    pub ports: u8,
    /// Network card.
    pub nic: Option<Nic>,
    /// A virtio-serial port for the guest agent.
    pub agent: bool,
    /// Seconds by which its real-time clock is ahead of the host's.
    pub clock_off: i64,
    /// What the machine does at first.
    pub begin: Begin,
}

/// A kernel to boot without a boot loader.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// bzImage, PVH ELF or Multiboot.
    pub image: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
}

/// What the machine does at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It runs.
    Running,
    /// Its CPUs stand still.
    Paused,
    /// It waits for a migration.
    Incoming,
}

/// A virtio network card on a stream socket that the lab's switch listens on.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The switch's socket.
    pub socket: PathBuf,
    /// Hardware address.
    pub mac: [u8; 6],
}

/// What becomes of a failed request to a disk (`werror`, `rerror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The guest gets the error.
    Report,
    /// The guest is paused before it learns of it; resumed, it tries again. libvirt's and so
    /// KubeVirt's default.
    #[default]
    Stop,
    /// The guest is told that all went well.
    Ignore,
}

/// A virtio disk that lives behind an NBD server on a Unix socket.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Node name, at most [`NAME_BYTES`] letters, digits, `-`, `.` and `_`, the first a letter.
    pub name: String,
    /// Serial number as the guest sees it, at most [`SERIAL_BYTES`] bytes.
    pub serial: String,
    /// The NBD server's socket. Its default export is the disk.
    pub socket: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
    /// The guest sees a volatile write cache, and flushes it.
    pub write_cache: bool,
    /// What becomes of failed requests.
    pub errors: OnError,
    /// Rank among the drives that the firmware tries to boot, each given once; a kernel comes before all.
    pub boot_index: Option<u8>,
    /// The root port it sits on. `None` takes the lowest that is free; [`super::Process::drives`]
    /// tells which that was, for the other end of a migration.
    pub port: Option<u8>,
}
