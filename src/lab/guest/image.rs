//! What makes a simulated root volume bootable, and what a guest keeps on it between boots.
//!
//! Cell 0 carries the operating-system marker that an import writes, and a partition table with one
//! partition, which a real guest makes its root file system on. Cells 1 to 15 carry the state that a
//! real distribution keeps under `/etc` and `/var/lib/cloud`: machine-id, host key, the cloud-init
//! instance that was applied, and the users with their keys. Everything travels with the volume, so
//! a replica boots as the guest that it is a replica of.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::probe::disk::Disk;
use crate::probe::layout::CELL;

const OS_MAGIC: [u8; 8] = *b"vp-os-01";
const STATE_MAGIC: [u8; 8] = *b"vp-st-01";
const STATE_CELLS: usize = 15;
const HEADER: usize = 8 + 4 + 16;

/// Where the partition begins: 1 MiB, as partitioning tools align it.
pub const PARTITION_AT: u64 = 1 << 20;
/// The master boot record's only entry, and its signature behind the table of four.
const MBR_ENTRY: usize = 446;
const MBR_SIGNATURE: usize = 510;
const SECTOR: u64 = 512;
/// Partition type of Linux file systems.
const LINUX: u8 = 0x83;

/// The operating system on a root volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// The `ID` of `/etc/os-release`, such as `fedora` or `cirros`; names the default user.
    pub id: String,
    /// Instruction set in the words of `uname -m`.
    pub arch: String,
    /// Whether the image carries qemu-guest-agent.
    pub agent: bool,
}

impl Os {
    /// The operating system that an image reference or URL names. Cloud images carry the guest
    /// agent, cirros does not; an unknown name is taken for a general cloud image.
    pub fn from_reference(reference: &str) -> Self {
        const KNOWN: [&str; 8] = [
            "fedora", "cirros", "ubuntu", "debian", "centos", "rhel", "alpine", "opensuse",
        ];
        let lower = reference.to_ascii_lowercase();
        let id = KNOWN.iter().find(|id| lower.contains(*id));
        let arm = lower.contains("aarch64") || lower.contains("arm64");
        Self {
            id: (*id.unwrap_or(&"linux")).to_owned(),
            arch: if arm { "aarch64" } else { "x86_64" }.to_owned(),
            agent: id != Some(&"cirros"),
        }
    }

    /// The user that the image's cloud-init creates when user data names none.
    pub fn default_user(&self) -> &str {
        match self.id.as_str() {
            "linux" | "rhel" => "cloud-user",
            id => id,
        }
    }
}

/// One login of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Authorised public keys in OpenSSH form.
    pub keys: Vec<String>,
    /// Whether `sudo -n` works.
    pub sudo: bool,
}

/// What a guest keeps on its root volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `/etc/machine-id`, 32 hexadecimal digits.
    pub machine_id: String,
    /// Seed of the Ed25519 host key.
    pub host_key: [u8; 32],
    /// The cloud-init instance that the users and the host key come from.
    pub instance_id: Option<String>,
    /// The users of that instance.
    pub users: Vec<User>,
}

/// Writes the operating-system marker, as an import of a disk image does, and makes it durable.
pub fn install(disk: &dyn Disk, os: &Os) -> io::Result<()> {
    let mut block = block(1, OS_MAGIC, os)?;
    partition(&mut block, disk.size());
    disk.write_at(0, &block)?;
    disk.flush()
}

/// Writes a partition table with one partition from [`PARTITION_AT`] to the end, if there is room.
fn partition(block: &mut [u8], size: u64) {
    let sectors = size.saturating_sub(PARTITION_AT) / SECTOR;
    let (Ok(first), Ok(sectors)) = (u32::try_from(PARTITION_AT / SECTOR), u32::try_from(sectors))
    else {
        return;
    };
    if sectors == 0 {
        return;
    }
    let entry = &mut block[MBR_ENTRY..MBR_ENTRY + 16];
    entry[4] = LINUX;
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    block[MBR_SIGNATURE..MBR_SIGNATURE + 2].copy_from_slice(&[0x55, 0xaa]);
}

/// Whether the partition holds an ext4 file system with this label.
pub fn has_root(disk: &dyn Disk, label: &str) -> io::Result<bool> {
    // The superblock begins 1024 bytes into the file system (Linux `ext4.h`): magic at 0x38, label of
    // 16 bytes at 0x78.
    if disk.size() < PARTITION_AT + CELL as u64 {
        return Ok(false);
    }
    let mut cell = vec![0; CELL];
    disk.read_at(PARTITION_AT, &mut cell)?;
    let superblock = &cell[1024..];
    let name = superblock[0x78..0x88].split(|byte| *byte == 0).next();
    Ok(superblock[0x38..0x3a] == [0x53, 0xef] && name == Some(label.as_bytes()))
}

/// The operating system on a volume, or `None` if the volume does not boot.
pub fn os(disk: &dyn Disk) -> io::Result<Option<Os>> {
    fetch(disk, 0, 1, OS_MAGIC)
}

/// What an earlier boot left on the volume; `None` before the first boot and after corruption,
/// which a guest treats as a first boot, as a distribution does with an unreadable machine-id.
pub fn state(disk: &dyn Disk) -> io::Result<Option<State>> {
    fetch(disk, 1, STATE_CELLS, STATE_MAGIC)
}

/// Makes the guest's state durable on its root volume.
pub fn save(disk: &dyn Disk, state: &State) -> io::Result<()> {
    store(disk, 1, STATE_CELLS, STATE_MAGIC, state)
}

fn store(
    disk: &dyn Disk,
    cell: u64,
    cells: usize,
    magic: [u8; 8],
    value: &impl Serialize,
) -> io::Result<()> {
    let block = block(cells, magic, value)?;
    disk.write_at(cell * CELL as u64, &block)?;
    disk.flush()
}

/// The cells that hold a value.
fn block(cells: usize, magic: [u8; 8], value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value).map_err(io::Error::other)?;
    if HEADER + body.len() > cells * CELL {
        let what = format!("{} bytes of guest state do not fit", body.len());
        return Err(io::Error::other(what));
    }
    let used = (HEADER + body.len()).div_ceil(CELL) * CELL;
    let mut block = vec![0; used];
    block[..8].copy_from_slice(&magic);
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    block[8..12].copy_from_slice(&length.to_le_bytes());
    block[12..HEADER].copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
    block[HEADER..HEADER + body.len()].copy_from_slice(&body);
    Ok(block)
}

fn fetch<T: DeserializeOwned>(
    disk: &dyn Disk,
    cell: u64,
    cells: usize,
    magic: [u8; 8],
) -> io::Result<Option<T>> {
    if disk.size() < (cell + cells as u64) * CELL as u64 {
        return Ok(None);
    }
    let mut block = vec![0; cells * CELL];
    disk.read_at(cell * CELL as u64, &mut block)?;
    let Some(body) = body(&block, magic) else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(body).ok())
}

fn body(block: &[u8], magic: [u8; 8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(block.get(8..12)?.try_into().ok()?);
    let body = block.get(HEADER..HEADER.checked_add(usize::try_from(length).ok()?)?)?;
    let whole = block[..8] == magic && blake3::hash(body).as_bytes()[..16] == block[12..HEADER];
    whole.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    #[test]
    fn a_blank_volume_does_not_boot_and_an_imported_one_does() {
        let disk = MemoryDisk::new(64);
        assert_eq!(os(&disk).unwrap(), None);
        let fedora = Os::from_reference("docker://registry.example/containerdisks/fedora:latest");
        install(&disk, &fedora).unwrap();
        assert_eq!(os(&disk).unwrap(), Some(fedora));
        assert_eq!(state(&disk).unwrap(), None);
        assert!(!has_root(&disk, "virtproof-root").unwrap());
    }

    #[test]
    fn an_imported_volume_has_one_partition_after_the_first_megabyte() {
        let disk = MemoryDisk::new(1024);
        install(&disk, &Os::from_reference("fedora")).unwrap();
        let mut cell = vec![0; CELL];
        disk.read_at(0, &mut cell).unwrap();
        let field = |at: usize| u32::from_le_bytes(cell[at..at + 4].try_into().unwrap());
        assert_eq!(field(MBR_ENTRY + 8), 2048);
        assert_eq!(field(MBR_ENTRY + 12), 1024 * 8 - 2048);
        assert_eq!(cell[MBR_SIGNATURE..512], [0x55, 0xaa]);
        let mut fs = vec![0; CELL];
        fs[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        fs[1024 + 0x78..1024 + 0x7e].copy_from_slice(b"a-root");
        disk.write_at(PARTITION_AT, &fs).unwrap();
        assert!(has_root(&disk, "a-root").unwrap());
        assert!(!has_root(&disk, "a-roo").unwrap());
        assert!(os(&disk).unwrap().is_some());
    }

    #[test]
    fn state_survives_and_a_flipped_bit_means_first_boot() {
        let disk = MemoryDisk::new(64);
        let kept = State {
            machine_id: "0".repeat(32),
            host_key: [7; 32],
            instance_id: Some("i-1".into()),
            users: vec![User {
                name: "root".into(),
                keys: vec!["ssh-ed25519 AAAA".into()],
                sudo: true,
            }],
        };
        save(&disk, &kept).unwrap();
        assert_eq!(state(&disk).unwrap(), Some(kept));
        let mut cell = vec![0; CELL];
        disk.read_at(CELL as u64, &mut cell).unwrap();
        cell[40] ^= 1;
        disk.write_at(CELL as u64, &cell).unwrap();
        assert_eq!(state(&disk).unwrap(), None);
    }

    #[test]
    fn references_name_the_default_user() {
        for (reference, user, arch) in [
            (
                "registry.example/kubevirt/cirros-container-disk-demo",
                "cirros",
                "x86_64",
            ),
            (
                "https://example.org/Fedora-Cloud-42.aarch64.qcow2",
                "fedora",
                "aarch64",
            ),
            ("registry.example/golden:1", "cloud-user", "x86_64"),
        ] {
            let os = Os::from_reference(reference);
            assert_eq!((os.default_user(), os.arch.as_str()), (user, arch));
        }
    }
}
