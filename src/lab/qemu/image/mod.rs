//! The guest image of the lab: a Linux kernel and an initrd, made from the host's Debian packages
//! without root, mounts, dpkg or a chroot.
//!
//! Contract: [`build`] gives an image whose two files are whole and whose id is the hash of their
//! content; the same packages and the same version of this module give the same id. One found in the
//! cache costs no call of apt, so a host that built once works offline. What a host lacks is an
//! [`ImageError`] of one sentence. All calls block.
//!
//! The guest: BusyBox, OpenSSH, sudo, e2fsprogs, xfsprogs and the QEMU guest agent, started by the
//! shell scripts in `guest/`. It reads its [`seed`] from one disk, has its root in memory or on another
//! ([`Root`]), and says what it does on the console ([`marker`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

mod apt;
mod assemble;
mod cache;
mod cmdline;
mod content;
mod deb;
mod elf;
mod error;
mod kernel;
mod module;
mod pool;
pub mod seed;
mod stanza;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

pub use cache::Removed;
pub use cmdline::{Boot, Init, Root, cmdline, marker};
pub use error::{ImageError, Unfit};
pub use kernel::KernelKind;

use apt::Apt;
use cache::Cache;

/// Changed whenever the same packages are to give another image although the tables and scripts, which
/// [`builder`] hashes, stay as they are.
const BUILDER: u32 = 1;

/// What the kernel and the system take beside the initrd, MiB. The plain image, of 31 MiB, boots from
/// memory with 144 and without room to spare.
const WORKING_MIB: u64 = 112;

/// What a root file system takes beside the image's files, MiB: 16 of journal, and some room.
const ROOT_MIB: u64 = 24;

/// What a guest has beyond a plain system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// `sqlite3`.
    Sqlite,
    /// The PostgreSQL server and its command-line programs.
    Postgres,
    /// The MariaDB server and its client.
    Mariadb,
    /// `fio`.
    Bench,
    /// systemd and what it runs, for systems that are installed on a disk.
    Systemd,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Sqlite,
        Self::Postgres,
        Self::Mariadb,
        Self::Bench,
        Self::Systemd,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Bench => "bench",
            Self::Systemd => "systemd",
        }
    }
}

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// What the guest has beyond a plain system.
    pub layers: BTreeSet<Layer>,
    /// The cache's folder, see [`default_cache`].
    pub cache: PathBuf,
    /// Whether apt is asked even if an image is there: newer packages then give a newer image.
    pub refresh: bool,
}

/// A package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA256 of the package file, hexadecimal.
    pub sha256: String,
}

/// A guest image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Hash over kernel and initrd, 64 hexadecimal digits.
    pub id: String,
    /// The kernel, for QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// What kind of file the kernel is.
    pub kind: KernelKind,
    /// The initrd, for QEMU's `-initrd`.
    pub initrd: PathBuf,
    /// What is in it beyond a plain system.
    pub layers: BTreeSet<Layer>,
    /// The packages that it was made of, kernel included; none of a user's own image.
    pub packages: Vec<Package>,
    /// Size of both files in bytes.
    pub bytes: u64,
    /// When it was made; of a user's own image, when its newer file was changed.
    pub built_at: SystemTime,
}

impl Image {
    /// The least memory in MiB that a guest of this image boots with and has some left to work in: the
    /// kernel unpacks the initrd while the initrd itself is still in memory.
    pub fn memory_mib(&self) -> Result<u64, ImageError> {
        let about = fs::metadata(&self.initrd).map_err(ImageError::io("reading", &self.initrd))?;
        let initrd = about.len().div_ceil(1 << 20);
        Ok((2 * initrd + WORKING_MIB).next_multiple_of(16))
    }

    /// The least size in MiB of a disk on which the system of this image can be installed: what it
    /// takes, the journal and some room.
    pub fn root_mib(&self) -> Result<u64, ImageError> {
        let about = fs::metadata(&self.initrd).map_err(ImageError::io("reading", &self.initrd))?;
        Ok(about.len().div_ceil(1 << 20) + ROOT_MIB)
    }

    /// A kernel and an initrd of the user's own. They are read once, for the id; that they boot, speak
    /// as [`marker`] says and serve SSH is for the user to see to.
    pub fn own(kernel: &Path, initrd: &Path) -> Result<Self, ImageError> {
        let (kernel_bytes, kernel_time) = read_own(kernel, "kernel")?;
        let (initrd_bytes, initrd_time) = read_own(initrd, "initrd")?;
        let kind = if elf::is_elf(&kernel_bytes) {
            KernelKind::Pvh
        } else {
            KernelKind::Bzimage
        };
        Ok(Self {
            id: cache::id([&kernel_bytes, &initrd_bytes]),
            kernel: kernel.to_owned(),
            kind,
            initrd: initrd.to_owned(),
            layers: BTreeSet::new(),
            packages: Vec::new(),
            bytes: (kernel_bytes.len() + initrd_bytes.len()) as u64,
            built_at: kernel_time.max(initrd_time),
        })
    }
}

fn read_own(path: &Path, role: &'static str) -> Result<(Vec<u8>, SystemTime), ImageError> {
    let failed = |why: String| ImageError::Own {
        path: path.display().to_string(),
        role,
        why,
    };
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    if bytes.is_empty() {
        return Err(failed("it is empty".into()));
    }
    let changed = fs::metadata(path).and_then(|about| about.modified());
    Ok((bytes, changed.map_err(|error| failed(error.to_string()))?))
}

/// The cache's folder for this user, by the XDG base directory specification:
/// `$XDG_CACHE_HOME/virtproof/guest` or `~/.cache/virtproof/guest`. Paths that are not absolute are
/// passed over, as the specification asks.
pub fn default_cache() -> Result<PathBuf, ImageError> {
    cache_under(|name| std::env::var_os(name).map(PathBuf::from))
}

fn cache_under(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, ImageError> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base.ok_or(ImageError::NoCache)?.join("virtproof/guest"))
}

/// The image of these layers: the newest in the cache that this version made, else a new one.
/// `progress` is told in a few words what takes time.
pub fn build(options: &BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<Image, ImageError> {
    let cache = Cache::new(&options.cache);
    let builder = builder();
    let cached = || -> Result<Option<Image>, ImageError> {
        if options.refresh {
            return Ok(None);
        }
        let newest = newest(cache.list()?, &builder);
        Ok(newest
            .into_iter()
            .find(|image| image.layers == options.layers))
    };
    // Images appear whole, so looking takes no lock.
    if let Some(image) = cached()? {
        return Ok(image);
    }
    let _held = cache.lock(progress)?;
    // Another builder may have made it meanwhile.
    if let Some(image) = cached()? {
        return Ok(image);
    }
    let apt = Apt::new(cache.packages());
    let assembled = assemble::assemble(&apt, &options.layers, progress)?;
    cache.put(&assembled, &options.layers, &builder)
}

/// All images of a cache, the newest first.
pub fn list(cache: &Path) -> Result<Vec<Image>, ImageError> {
    let images = Cache::new(cache).list()?;
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// What [`clean`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    /// Images that [`build`] would not give any more, and packages that no other image was made of.
    Superseded,
    /// Everything.
    All,
}

/// Removes images and packages, after waiting for a builder that is at work. A guest that runs goes on:
/// QEMU reads both files only when it starts.
pub fn clean(cache: &Path, which: Clean) -> Result<Removed, ImageError> {
    if !cache.exists() {
        return Ok(Removed::default());
    }
    let cache = Cache::new(cache);
    let _held = cache.lock(&mut |_| {})?;
    cache.remove(|images| match which {
        Clean::All => BTreeSet::new(),
        Clean::Superseded => {
            let kept = newest(images.to_vec(), &builder());
            kept.into_iter().map(|image| image.id).collect()
        }
    })
}

/// The newest image of each set of layers that this builder made; `images` come newest first.
fn newest(images: Vec<(String, Image)>, builder: &str) -> Vec<Image> {
    let mut seen = BTreeSet::new();
    let ours = images.into_iter().filter(|(by, _)| by == builder);
    ours.map(|(_, image)| image)
        .filter(|image| seen.insert(image.layers.clone()))
        .collect()
}

/// Names the version of this module: a number, and a hash of all that it puts into guests.
fn builder() -> String {
    let hash = blake3::hash(content::described().as_bytes()).to_hex();
    format!("{BUILDER}-{}", &hash[..16])
}
