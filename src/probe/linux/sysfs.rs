//! Which disks the guest has, from `/sys` and `/dev`.
//!
//! Contract: a serial that fits no disk or several is an error that lists what is there.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::platform::OpenError;

/// The virtio block device shows at most this much of a serial (`VIRTIO_BLK_ID_BYTES`).
const VIRTIO_SERIAL: usize = 20;

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Kernel name, for example `vdb`.
    pub name: String,
    /// Serial, empty if it has none.
    pub serial: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether it reports a volatile write cache.
    pub write_back: bool,
    /// Whether the medium can be removed.
    pub removable: bool,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// A view of `/sys` and `/dev`, elsewhere in tests.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The view under `root`, `/` on a real system.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// All disks but those without a medium, by name.
    pub fn disks(&self) -> io::Result<Vec<DiskInfo>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir(self.root.join("sys/block"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let disk = self.disk(name);
            if disk.size > 0 {
                disks.push(disk);
            }
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(disks)
    }

    /// The network cards, by name, each with its hardware address. What a kernel makes up for itself
    /// (bridges, tunnels, the loopback) has no device behind it.
    pub fn cards(&self) -> io::Result<Vec<(String, String)>> {
        let dir = self.root.join("sys/class/net");
        let mut cards = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let address = read_word(&dir.join(&name).join("address"));
            if dir.join(&name).join("device").exists() && !address.is_empty() {
                cards.push((name, address));
            }
        }
        cards.sort();
        Ok(cards)
    }

    fn disk(&self, name: String) -> DiskInfo {
        let dir = self.root.join("sys/block").join(&name);
        let text = |path: &str| read_word(&dir.join(path));
        // `size` counts sectors of 512 bytes whatever the device's own sector size.
        let size = text("size").parse::<u64>().unwrap_or(0) * 512;
        DiskInfo {
            serial: self.serial(&dir, &name),
            size,
            write_back: is_write_back(&dir),
            removable: text("removable") == "1",
            read_only: text("ro") == "1",
            name,
        }
    }

    /// virtio and NVMe have a file; SCSI has the unit serial number page (SPC-4 §7.8.16: four bytes
    /// of page header); else udev's name for it.
    fn serial(&self, dir: &Path, name: &str) -> String {
        for file in ["serial", "device/serial"] {
            let serial = read_word(&dir.join(file));
            if !serial.is_empty() {
                return serial;
            }
        }
        if let Ok(page) = fs::read(dir.join("device/vpd_pg80"))
            && page.len() > 4
        {
            let serial = String::from_utf8_lossy(&page[4..]);
            return serial.trim_matches(['\0', ' ']).to_owned();
        }
        self.udev_serial(name).unwrap_or_default()
    }

    fn udev_serial(&self, name: &str) -> Option<String> {
        let links = fs::read_dir(self.root.join("dev/disk/by-id")).ok()?;
        links.flatten().find_map(|link| {
            let target = fs::read_link(link.path()).ok()?;
            let id = link.file_name().to_string_lossy().into_owned();
            let serial = id.strip_prefix("virtio-")?;
            (target.file_name()?.to_str() == Some(name)).then(|| serial.to_owned())
        })
    }

    /// The device node of the disk with this serial.
    pub fn find(&self, serial: &str) -> Result<PathBuf, OpenError> {
        let disks = self
            .disks()
            .map_err(|error| OpenError::io("listing /sys/block", error))?;
        let short = serial.get(..VIRTIO_SERIAL).unwrap_or(serial);
        let fits = |disk: &&DiskInfo| disk.serial == serial || disk.serial == short;
        let found: Vec<&DiskInfo> = disks.iter().filter(fits).collect();
        match found.as_slice() {
            [disk] => Ok(self.root.join("dev").join(&disk.name)),
            [] => {
                let seen: Vec<String> = disks.iter().map(DiskInfo::to_string).collect();
                let seen = seen.join(", ");
                let what = format!("no disk has serial {serial:?}; the disks are: {seen}");
                Err(OpenError::new(what))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|disk| disk.name.as_str()).collect();
                let names = names.join(", ");
                let what = format!("several disks have serial {serial:?}: {names}");
                Err(OpenError::new(what))
            }
        }
    }

    /// Whether the device under a device node or a file reports a volatile write cache.
    pub fn has_write_cache(&self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        let device = if metadata.file_type().is_block_device() {
            metadata.rdev()
        } else {
            metadata.dev()
        };
        let (major, minor) = split_device(device);
        let dir = self.root.join(format!("sys/dev/block/{major}:{minor}"));
        // A partition's queue is its disk's, one directory up.
        is_write_back(&dir) || is_write_back(&dir.join(".."))
    }
}

impl std::fmt::Display for DiskInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let serial = match self.serial.as_str() {
            "" => "-",
            serial => serial,
        };
        // One word each, whatever the vendor put into the serial.
        let serial: String = serial
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '_' })
            .collect();
        write!(
            f,
            "{} serial={serial} size={} write_cache={} removable={} ro={}",
            self.name,
            self.size,
            if self.write_back {
                "writeback"
            } else {
                "writethrough"
            },
            u8::from(self.removable),
            u8::from(self.read_only),
        )
    }
}

fn is_write_back(dir: &Path) -> bool {
    read_word(&dir.join("queue/write_cache")) == "write back"
}

/// The trimmed text of a file, empty if there is none.
pub(super) fn read_word(path: &Path) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// Major and minor of a Linux device number as glibc packs it (`sys/sysmacros.h`).
const fn split_device(device: u64) -> (u64, u64) {
    let major = device >> 8 & 0xFFF | device >> 32 & !0xFFF;
    let minor = device & 0xFF | device >> 12 & !0xFF;
    (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(disks: &[(&str, &[(&str, &str)])]) -> (tempfile::TempDir, Sysfs) {
        let dir = tempfile::tempdir().unwrap();
        for (name, files) in disks {
            for (file, text) in *files {
                let path = dir.path().join("sys/block").join(name).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        let sysfs = Sysfs::new(dir.path());
        (dir, sysfs)
    }

    #[test]
    fn finds_by_serial_however_it_is_shown() {
        let (dir, sysfs) = tree(&[
            ("vda", &[("size", "100\n")]),
            (
                "vdb",
                &[
                    ("size", "8\n"),
                    ("serial", "vp-0"),
                    ("queue/write_cache", "write back\n"),
                ],
            ),
            (
                "vdc",
                &[("size", "8\n"), ("serial", "abcdefghij0123456789")],
            ),
            (
                "sda",
                &[
                    ("size", "8\n"),
                    ("device/vpd_pg80", "\0\u{1}\0\u{4}vp-s"),
                    ("ro", "1\n"),
                ],
            ),
            ("vdd", &[("size", "8\n")]),
            ("loop0", &[("size", "0\n")]),
        ]);
        let by_id = dir.path().join("dev/disk/by-id");
        fs::create_dir_all(&by_id).unwrap();
        std::os::unix::fs::symlink("../../vdd", by_id.join("virtio-vp-u")).unwrap();
        let find = |serial: &str| {
            sysfs
                .find(serial)
                .map(|path| path.file_name().unwrap().to_owned())
        };
        assert_eq!(find("vp-0").unwrap(), "vdb");
        assert_eq!(find("abcdefghij0123456789klm").unwrap(), "vdc");
        assert_eq!(find("vp-s").unwrap(), "sda");
        assert_eq!(find("vp-u").unwrap(), "vdd");
        let shown: Vec<String> = sysfs
            .disks()
            .unwrap()
            .iter()
            .map(DiskInfo::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "sda serial=vp-s size=4096 write_cache=writethrough removable=0 ro=1",
                "vda serial=- size=51200 write_cache=writethrough removable=0 ro=0",
                "vdb serial=vp-0 size=4096 write_cache=writeback removable=0 ro=0",
                "vdc serial=abcdefghij0123456789 size=4096 write_cache=writethrough removable=0 ro=0",
                "vdd serial=vp-u size=4096 write_cache=writethrough removable=0 ro=0",
            ]
        );
    }

    #[test]
    fn only_cards_with_a_device_count() {
        let (dir, sysfs) = tree(&[]);
        for (name, device) in [("lo", false), ("eth1", true), ("eth0", true)] {
            let card = dir.path().join("sys/class/net").join(name);
            fs::create_dir_all(&card).unwrap();
            fs::write(
                card.join("address"),
                format!("02:00:00:00:00:{}\n", name.len()),
            )
            .unwrap();
            if device {
                fs::create_dir(card.join("device")).unwrap();
            }
        }
        let cards = sysfs.cards().unwrap();
        let names: Vec<&str> = cards.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        assert_eq!(cards[0].1, "02:00:00:00:00:4");
    }

    #[test]
    fn no_match_and_two_matches_say_what_is_there() {
        let (_dir, sysfs) = tree(&[
            ("vda", &[("size", "8"), ("serial", "same")]),
            ("vdb", &[("size", "8"), ("serial", "same")]),
        ]);
        let error = sysfs.find("other").unwrap_err().to_string();
        assert!(
            error.contains("no disk has serial \"other\"") && error.contains("vdb serial=same")
        );
        let error = sysfs.find("same").unwrap_err().to_string();
        assert_eq!(error, "several disks have serial \"same\": vda, vdb");
    }

    #[test]
    fn device_numbers_split_as_in_glibc() {
        assert_eq!(split_device(0x0810), (8, 16));
        assert_eq!(split_device(0xFD00), (253, 0));
        assert_eq!(split_device(0x10_0000 | 0x0305), (3, 0x105));
    }
}
