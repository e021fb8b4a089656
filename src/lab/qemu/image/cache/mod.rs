//! Where guest images are kept: one folder an image, named by its content, and the package files that
//! images were made of.
//!
//! ```text
//! images/ID/{kernel,initrd,image.json}   appear at once, whole, by a rename
//! packages/NAME-SHA256.deb
//! lock                                   held by whoever builds or removes
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::assemble::Assembled;
use super::kernel::KernelKind;
use super::{Image, ImageError, Layer, Package};

const FORMAT: u32 = 1;
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
const RECORD: &str = "image.json";

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

/// What is recorded of an image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format: u32,
    builder: String,
    layers: BTreeSet<Layer>,
    kernel: KernelKind,
    /// Sizes in bytes: what was cut short by a full disk is not used.
    kernel_bytes: u64,
    initrd_bytes: u64,
    /// Seconds since 1970.
    built_at: u64,
    packages: Vec<Package>,
}

/// What [`super::clean`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Ids of images.
    pub images: Vec<String>,
    /// How many package files.
    pub packages: usize,
    /// Bytes of all files removed.
    pub bytes: u64,
}

/// The lock on the cache; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

impl Cache {
    /// The cache at `root`; nothing is made yet.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where package files are kept.
    pub(super) fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// Makes the folders and waits until nobody else builds or removes.
    pub(super) fn lock(&self, progress: &mut dyn FnMut(&str)) -> Result<Held, ImageError> {
        for folder in [self.images(), self.packages()] {
            fs::create_dir_all(&folder).map_err(ImageError::io("making", &folder))?;
        }
        let path = self.root.join("lock");
        let failed = |error| ImageError::io("locking", &path)(error);
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress("waiting for another builder of guest images");
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Held { _file: file })
    }

    /// All usable images with the builder that made them, the newest first. A folder that is no image
    /// of this format, or whose files are not whole, is no image.
    pub(super) fn list(&self) -> Result<Vec<(String, Image)>, ImageError> {
        let mut images: Vec<_> = self
            .folders()?
            .iter()
            .filter_map(|folder| read(folder))
            .collect();
        images.sort_by(|(_, a), (_, b)| (b.built_at, &b.id).cmp(&(a.built_at, &a.id)));
        Ok(images)
    }

    fn folders(&self) -> Result<Vec<PathBuf>, ImageError> {
        entries(&self.images())
    }

    /// Keeps an image; the lock is held. One with the same content is replaced by itself, newer.
    pub(super) fn put(
        &self,
        assembled: &Assembled,
        layers: &BTreeSet<Layer>,
        builder: &str,
    ) -> Result<Image, ImageError> {
        let id = id([&assembled.kernel, &assembled.initrd]);
        let images = self.images();
        let room = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&images)
            .map_err(ImageError::io("making a folder in", &images))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let record = Record {
            format: FORMAT,
            builder: builder.to_owned(),
            layers: layers.clone(),
            kernel: assembled.kind,
            kernel_bytes: assembled.kernel.len() as u64,
            initrd_bytes: assembled.initrd.len() as u64,
            built_at: since.unwrap_or_default().as_secs(),
            packages: assembled.packages.clone(),
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|error| ImageError::Io {
            doing: "recording the image".into(),
            source: error.into(),
        })?;
        let files = [
            (KERNEL, assembled.kernel.as_slice()),
            (INITRD, &assembled.initrd),
            (RECORD, &text),
        ];
        for (name, bytes) in files {
            write(&room.path().join(name), bytes)?;
        }
        sync_folder(room.path())?;
        let place = images.join(&id);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(ImageError::io("replacing", &place))?;
        }
        fs::rename(room.path(), &place).map_err(ImageError::io("keeping", &place))?;
        sync_folder(&images)?;
        let kept = read(&place).map(|(_, image)| image);
        kept.ok_or_else(|| ImageError::Io {
            doing: format!("reading back {}", place.display()),
            source: io::ErrorKind::InvalidData.into(),
        })
    }

    /// Removes what `keep` does not want: images, what no kept image was made of, and what builders
    /// that were killed left behind. The lock is held.
    pub(super) fn remove(
        &self,
        keep: impl Fn(&[(String, Image)]) -> BTreeSet<String>,
    ) -> Result<Removed, ImageError> {
        let images = self.list()?;
        let kept = keep(&images);
        let needed: BTreeSet<&str> = images
            .iter()
            .filter(|(_, image)| kept.contains(&image.id))
            .flat_map(|(_, image)| image.packages.iter().map(|package| package.sha256.as_str()))
            .collect();
        let mut removed = Removed::default();
        for folder in self.folders()? {
            let id = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !kept.contains(&id) {
                removed.bytes += remove(&folder)?;
                if images.iter().any(|(_, image)| image.id == id) {
                    removed.images.push(id);
                }
            }
        }
        for file in entries(&self.packages())? {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let sha256 = stem.rsplit('-').next().unwrap_or_default();
            if !needed.contains(sha256) {
                removed.bytes += remove(&file)?;
                removed.packages += 1;
            }
        }
        removed.images.sort();
        Ok(removed)
    }
}

/// The image in a folder, if it is one.
fn read(folder: &Path) -> Option<(String, Image)> {
    let whole = || -> io::Result<(String, Image)> {
        let record: Record = serde_json::from_slice(&fs::read(folder.join(RECORD))?)?;
        let kernel = folder.join(KERNEL);
        let initrd = folder.join(INITRD);
        let sizes_fit = fs::metadata(&kernel)?.len() == record.kernel_bytes
            && fs::metadata(&initrd)?.len() == record.initrd_bytes;
        if record.format != FORMAT || !sizes_fit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not whole"));
        }
        let image = Image {
            id: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            kernel,
            initrd,
            kind: record.kernel,
            layers: record.layers,
            packages: record.packages,
            bytes: record.kernel_bytes + record.initrd_bytes,
            built_at: SystemTime::UNIX_EPOCH + Duration::from_secs(record.built_at),
        };
        Ok((record.builder, image))
    };
    match whole() {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "no guest image");
            None
        }
    }
}

/// The id of a kernel with an initrd: BLAKE3 over both, each with its length before it.
pub(super) fn id(parts: [&[u8]; 2]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// What is in a folder; nothing is in one that does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let failed = || ImageError::io("listing", folder);
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(failed())?.path()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed()(error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let put = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    put().map_err(ImageError::io("writing", path))
}

fn sync_folder(path: &Path) -> Result<(), ImageError> {
    let sync = File::open(path).and_then(|folder| folder.sync_all());
    sync.map_err(ImageError::io("syncing", path))
}

/// Removes a file or a folder of files; how many bytes that were.
fn remove(path: &Path) -> Result<u64, ImageError> {
    let failed = || ImageError::io("removing", path);
    let about = fs::symlink_metadata(path).map_err(failed())?;
    if !about.is_dir() {
        fs::remove_file(path).map_err(failed())?;
        return Ok(about.len());
    }
    let mut bytes = 0;
    for entry in entries(path)? {
        bytes += remove(&entry)?;
    }
    fs::remove_dir(path).map_err(failed())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
