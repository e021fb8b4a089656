//! Evidence that stands alone: a run directory is sealed by a manifest of all its files, signed if a
//! key is at hand, and verified later by anyone, offline.
//!
//! Contract: the manifest is a function of the directory, so verifying derives it again, as it does
//! verdicts and reports, and compares byte for byte. Never writes but to seal; never asks the time.
//! May use: plan, history, check, report.

mod derived;
mod key;
mod locate;
mod manifest;
mod members;
mod verdict;
mod verify;

use std::io;
use std::path::Path;

pub use derived::{Derived, derive};
pub use key::{KeyError, PublicKey, SignKey};
pub use manifest::{FileEntry, Manifest, ManifestError, SCHEMA};
pub use members::{Digests, digests};
pub use verdict::{Finding, Signed, Verification, Weight};
pub use verify::{Demand, verify};

use crate::history::read::History;
use crate::report::view::View;

/// The plan in a run directory.
pub const PLAN_FILE: &str = "plan.yaml";
/// The undo log in a run directory.
pub const UNDO_FILE: &str = "undo.jsonl";
/// The verdicts in a run directory.
pub const VERDICTS_FILE: &str = "verdicts.json";
/// The manifest, which seals a run directory.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The ed25519 signature over every byte of the manifest: 64 bytes, nothing else.
pub const SIGNATURE_FILE: &str = "manifest.sig";
/// The public key that the signature answers to, SPKI in PEM. Says who, proves nothing by itself.
pub const PUBLIC_KEY_FILE: &str = "manifest.pub";

/// A folder of a run directory that is no evidence, so neither sealed nor verified: what the lab's guests
/// said on their consoles, for whoever looks for a cause.
pub const UNSEALED: &str = "guests";

/// Why a run directory could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file cannot be read or written.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something stands in the directory that is no plain file.
    #[error("{file}: {why}; take it out and seal again")]
    Odd {
        /// Path relative to the directory.
        file: String,
        /// What it is.
        why: String,
    },
    /// The manifest cannot be written as JSON.
    #[error("the manifest: {0}")]
    Manifest(#[from] ManifestError),
}

impl SealError {
    fn io(file: impl Into<std::path::PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, source }
    }
}

/// Whether a run directory carries a manifest.
pub fn is_sealed(dir: &Path) -> bool {
    dir.join(MANIFEST_FILE).exists()
}

/// Seals a run directory: writes its manifest, and the signature when there is a key. Every other
/// file must be in place, and nothing may be written afterwards but by `cleanup` to the undo log.
pub fn seal(
    dir: &Path,
    history: &History,
    view: &View,
    key: Option<&SignKey>,
) -> Result<Manifest, SealError> {
    let files = members::entries(dir)?;
    let signer = key.map(|key| key.public().fingerprint());
    let manifest = Manifest::of(history, view, files, signer)?;
    write_seal(dir, &manifest, key)?;
    Ok(manifest)
}

/// Signs a sealed directory whose manifest was found to hold.
pub fn sign(dir: &Path, manifest: &Manifest, key: &SignKey) -> Result<Manifest, SealError> {
    let manifest = manifest.signed_by(key.public().fingerprint())?;
    write_seal(dir, &manifest, Some(key))?;
    Ok(manifest)
}

fn write_seal(dir: &Path, manifest: &Manifest, key: Option<&SignKey>) -> Result<(), SealError> {
    let text = manifest.text()?;
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        write(&path, bytes).map_err(SealError::io(path))
    };
    put(MANIFEST_FILE, text.as_bytes())?;
    if let Some(key) = key {
        put(PUBLIC_KEY_FILE, key.public().pem().as_bytes())?;
        put(SIGNATURE_FILE, &key.sign(text.as_bytes()))?;
    }
    Ok(())
}

/// Writes a file whole or not at all: a reader never meets half of it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
