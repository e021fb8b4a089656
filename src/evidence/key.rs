//! Signing keys: ed25519, private ones as PKCS#8 PEM and public ones as SPKI PEM, as `openssl genpkey
//! -algorithm ed25519` and `openssl pkey -pubout` write them. A private key is never printed, logged
//! or recorded, and is wiped from memory when dropped.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    KeypairBytes,
};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::Digest as _;

/// Far longer than an ed25519 key in PEM.
const MAX_KEY: u64 = 16 << 10;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner can read or change it.
    #[error(
        "key {}: its mode is {mode:04o}, so others can read or change it; chmod 600 it, and make a new key if it was exposed",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no such key.
    #[error("key {}: not an ed25519 {wanted}; `virtproof keygen` makes one", path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// What was expected.
        wanted: &'static str,
    },
    /// No randomness could be had.
    #[error("no randomness for a new key: {0}")]
    Random(String),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyError {
    move |source| KeyError::Io {
        path: path.to_owned(),
        source,
    }
}

fn read(file: File, path: &Path) -> Result<String, KeyError> {
    let mut text = String::new();
    file.take(MAX_KEY)
        .read_to_string(&mut text)
        .map_err(io_error(path))?;
    Ok(text)
}

/// A private key.
pub struct SignKey(SigningKey);

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignKey({})", self.public().fingerprint())
    }
}

impl SignKey {
    /// Reads a private key. One that others than its owner can read or change is refused, as SSH
    /// does.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path).map_err(io_error(path))?;
        let mode = file.metadata().map_err(io_error(path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(KeyError::Exposed { path, mode });
        }
        let text = read(file, path)?;
        SigningKey::from_pkcs8_pem(&text)
            .map(Self)
            .map_err(|_details_of_a_secret| KeyError::Odd {
                path: path.to_owned(),
                wanted: "private key in PKCS#8 PEM",
            })
    }

    /// Makes a key and writes it to `path`, for its owner only, and its public half to
    /// `path.pub`. Never overwrites either. Gives the public half and where it was written.
    pub fn generate(path: &Path) -> Result<(PublicKey, PathBuf), KeyError> {
        let mut seed = [0; SECRET_KEY_LENGTH];
        getrandom::fill(&mut seed).map_err(|e| KeyError::Random(e.to_string()))?;
        let key = Self(SigningKey::from_bytes(&seed));
        // Without the public half: the first version of PKCS#8, which every OpenSSL reads.
        let bare = KeypairBytes {
            secret_key: seed,
            public_key: None,
        };
        let pem = bare
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|e| io_error(path)(io::Error::other(e.to_string())))?;
        create(path, 0o600, pem.as_bytes())?;
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        let public = PathBuf::from(name);
        create(&public, 0o644, key.public().pem().as_bytes())?;
        Ok((key.public(), public))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; Signature::BYTE_SIZE] {
        self.0.sign(message).to_bytes()
    }
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = io_error(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(&failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a public key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read(File::open(path).map_err(io_error(path))?, path)?;
        Self::parse(&text).ok_or_else(|| KeyError::Odd {
            path: path.to_owned(),
            wanted: "public key in PEM",
        })
    }

    /// A public key from its PEM text.
    pub fn parse(text: &str) -> Option<Self> {
        VerifyingKey::from_public_key_pem(text).ok().map(Self)
    }

    /// The key as SPKI PEM, always the same text for the same key.
    pub fn pem(&self) -> String {
        // The encoding of 32 bytes into a fixed frame has no way to fail.
        self.0
            .to_public_key_pem(LineEnding::LF)
            .expect("a public key encodes")
    }

    /// SHA-256 of the key's SPKI in DER: `sha256:<64 hex>`, what
    /// `openssl pkey -pubin -in KEY -outform DER | sha256sum` prints.
    pub fn fingerprint(&self) -> String {
        let der = self.0.to_public_key_der().expect("a public key encodes");
        let hash: [u8; 32] = sha2::Sha256::digest(der.as_bytes()).into();
        format!("sha256:{}", super::members::hex(&hash))
    }

    /// Whether `signature` is this key's over `message`. Weak keys and malleable signatures are
    /// refused.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}
