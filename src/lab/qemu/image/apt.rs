//! The host's apt: what its package lists say, and package files fetched and verified.
//!
//! Contract: only `apt-cache show` and `apt-get download` are run, neither needs root, and both are
//! told nothing but names and versions that apt itself gave or that are written in this crate. A
//! package file leaves here only with the SHA256 that the (signed) package lists give for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use super::ImageError;
use super::stanza::{self, Stanza};

/// What the package lists say about the version that apt would install, by name. Names that apt
/// does not know are left out.
pub(super) fn show(names: &[String]) -> Result<BTreeMap<String, Stanza>, ImageError> {
    let mut command = Command::new("apt-cache");
    command
        .args(["--no-all-versions", "show", "--"])
        .args(names);
    let output = run("apt-cache", &mut command)?;
    // A name without a candidate makes apt-cache fail although it prints all the others.
    Ok(stanza::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The same, where every one has to be known.
pub(super) fn require(names: &[String]) -> Result<BTreeMap<String, Stanza>, ImageError> {
    let known = show(names)?;
    match names.iter().find(|name| !known.contains_key(*name)) {
        None => Ok(known),
        Some(name) => Err(ImageError::Unknown {
            package: name.clone(),
        }),
    }
}

/// Packages fetched by apt, and where they are kept.
#[derive(Debug)]
pub(super) struct Apt {
    store: PathBuf,
}

impl Apt {
    /// Fetched packages are kept in `store`, which exists.
    pub(super) fn new(store: PathBuf) -> Self {
        Self { store }
    }

    /// The bytes of each package, from the store or else from the mirror.
    pub(super) fn fetch(
        &self,
        wanted: &[&Stanza],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Vec<u8>>, ImageError> {
        let mut have = BTreeMap::new();
        let mut absent = Vec::new();
        for stanza in wanted {
            match self.stored(stanza)? {
                Some(bytes) => _ = have.insert(stanza.package.as_str(), bytes),
                None => absent.push(*stanza),
            }
        }
        if !absent.is_empty() {
            let bytes: u64 = absent.iter().map(|stanza| stanza.size).sum();
            let (count, megabytes) = (absent.len(), bytes.div_ceil(1_000_000));
            progress(&format!("fetching {count} packages ({megabytes} MB)"));
            self.download(&absent)?;
        }
        wanted
            .iter()
            .map(|stanza| match have.remove(stanza.package.as_str()) {
                Some(bytes) => Ok(bytes),
                None => self.stored(stanza)?.ok_or_else(|| {
                    ImageError::package(&stanza.package, "it is gone from the cache again")
                }),
            })
            .collect()
    }

    /// A package of the store. One that is damaged counts as absent: it is fetched again.
    fn stored(&self, stanza: &Stanza) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path(stanza);
        match fs::read(&path) {
            Ok(bytes) => Ok((sha256(&bytes) == stanza.sha256).then_some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("reading", &path)(error)),
        }
    }

    fn path(&self, stanza: &Stanza) -> PathBuf {
        let (name, sha256) = (&stanza.package, &stanza.sha256);
        self.store.join(format!("{name}-{sha256}.deb"))
    }

    fn download(&self, absent: &[&Stanza]) -> Result<(), ImageError> {
        let room = tempfile::tempdir_in(&self.store)
            .map_err(ImageError::io("making a folder in", &self.store))?;
        let mut command = Command::new("apt-get");
        command
            .args(["--quiet", "download", "--"])
            .args(absent.iter().map(|stanza| stanza.pinned()))
            .current_dir(room.path());
        let output = run("apt-get", &mut command)?;
        if !output.status.success() {
            return Err(ImageError::Apt {
                command: format!("apt-get download {} …", absent[0].pinned()),
                said: first_error(&output),
            });
        }
        for file in self.files(room.path())? {
            self.keep(&file, absent)?;
        }
        Ok(())
    }

    fn files(&self, room: &Path) -> Result<Vec<PathBuf>, ImageError> {
        let failed = || ImageError::io("listing", &self.store);
        fs::read_dir(room)
            .map_err(failed())?
            .map(|entry| Ok(entry.map_err(failed())?.path()))
            .collect()
    }

    /// Moves a downloaded file to its place in the store if it is what the lists say.
    fn keep(&self, file: &Path, absent: &[&Stanza]) -> Result<(), ImageError> {
        // apt names files `NAME_VERSION_ARCH.deb`, and no package name holds a `_`.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let Some(stanza) = name
            .split_once('_')
            .and_then(|(package, _)| absent.iter().find(|stanza| stanza.package == package))
        else {
            return Ok(());
        };
        let bytes = fs::read(file).map_err(ImageError::io("reading", file))?;
        let found = sha256(&bytes);
        if found != stanza.sha256 {
            return Err(ImageError::Digest {
                package: stanza.package.clone(),
                wanted: stanza.sha256.clone(),
                found,
            });
        }
        let path = self.path(stanza);
        fs::rename(file, &path).map_err(ImageError::io("keeping", &path))
    }
}

fn run(tool: &'static str, command: &mut Command) -> Result<Output, ImageError> {
    let output = command.env("LC_ALL", "C").output();
    output.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::NoTool { tool },
        _ => ImageError::Io {
            doing: format!("running {tool}"),
            source,
        },
    })
}

/// apt marks errors with `E:`.
fn first_error(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.strip_prefix("E: "));
    match line {
        Some(line) => line.chars().take(200).collect(),
        None => output.status.to_string(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _always_ok = write!(hex, "{byte:02x}");
    }
    hex
}
