//! The key that a run logs in with: fresh for each run and kept in memory, or the user's own file.
//! Private parts never reach a log, a message or an evidence bundle.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey};

/// Larger than any real private key file.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Why a key could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("SSH key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner can read the file.
    #[error(
        "SSH key file {} has mode {mode:04o}, so that others can read it; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is far too large to be a key.
    #[error("SSH key file {} is larger than {MAX_KEY_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a private key in a form that can be used without a passphrase.
    #[error(
        "SSH key file {} cannot be used: {why} (an unencrypted OpenSSH or PEM private key is needed)",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was wrong with it; never its content.
        why: String,
    },
    /// The operating system gave no key.
    #[error("cannot make an SSH key: {0}")]
    Generate(String),
}

/// A private key to log in with. Cheap to clone; its `Debug` shows the fingerprint only.
#[derive(Clone)]
pub struct LoginKey(Arc<PrivateKey>);

impl LoginKey {
    /// A fresh ed25519 key from the operating system's randomness, `comment` at the end of its
    /// public line.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let mut rng = russh::keys::key::safe_rng();
        let mut key = PrivateKey::random(&mut rng, Algorithm::Ed25519)
            .map_err(|e| KeyError::Generate(e.to_string()))?;
        key.set_comment(comment);
        Ok(Self(Arc::new(key)))
    }

    /// Reads an unencrypted private key file that only its owner can read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io_error = |source| KeyError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = OpenOptions::new().read(true).open(path).map_err(io_error)?;
        let mode = file.metadata().map_err(io_error)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_path_buf(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE + 1)
            .read_to_string(&mut text)
            .map_err(io_error)?;
        if text.len() as u64 > MAX_KEY_FILE {
            return Err(KeyError::TooLarge {
                path: path.to_path_buf(),
            });
        }
        let key = russh::keys::decode_secret_key(&text, None).map_err(|e| KeyError::Unusable {
            path: path.to_path_buf(),
            why: e.to_string(),
        })?;
        Ok(Self(Arc::new(key)))
    }

    /// Keeps the key in a new file that only its owner can read, so that a later process can log in
    /// to what this run left behind. Fails if the file exists.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let io_error = |source| KeyError::Io {
            path: path.to_path_buf(),
            source,
        };
        let text = self
            .0
            .to_openssh(LineEnding::LF)
            .map_err(|e| io_error(io::Error::other(e)))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error)?;
        file.write_all(text.as_bytes()).map_err(io_error)?;
        file.sync_all().map_err(io_error)
    }

    /// The line for `authorized_keys`, without a line break.
    pub fn public_line(&self) -> Result<String, KeyError> {
        self.0
            .public_key()
            .to_openssh()
            .map_err(|e| KeyError::Generate(e.to_string()))
    }

    /// `SHA256:…` of the public part.
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// The key itself, for the SSH client beside this file only.
    pub(super) fn secret(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginKey({}, private part hidden)", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_saved_key_loads_again_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let key = LoginKey::generate("run-1").unwrap();
        key.save(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(
            LoginKey::load(&path).unwrap().fingerprint(),
            key.fingerprint()
        );
        assert!(matches!(key.save(&path), Err(KeyError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn an_exposed_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        LoginKey::generate("x").unwrap().save(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = LoginKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        file.write_all(b"the secret of the house").unwrap();
        let error = LoginKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Unusable { .. }), "{error}");
        assert!(!format!("{error:?}").contains("secret of the house"));
    }

    #[test]
    fn debug_and_public_line_hide_the_private_part() {
        let key = LoginKey::generate("run-2").unwrap();
        let secret = key.secret().to_openssh(LineEnding::LF).unwrap();
        let middle = secret.lines().nth(3).unwrap();
        let shown = format!("{key:?} {}", key.public_line().unwrap());
        assert!(!shown.contains(middle));
        assert!(shown.contains("SHA256:"));
        let line = key.public_line().unwrap();
        assert!(
            line.starts_with("ssh-ed25519 ") && line.ends_with(" run-2"),
            "{line}"
        );
    }

    #[test]
    fn two_runs_have_two_keys() {
        let (a, b) = (
            LoginKey::generate("").unwrap(),
            LoginKey::generate("").unwrap(),
        );
        assert_ne!(a.fingerprint(), b.fingerprint());
    }
}
