//! Host keys pinned per volume lineage: trusted at first contact, then required. The same key after
//! a failover is free evidence that the root disk is the replica of the one that failed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use russh::keys::{HashAlg, PublicKey};

/// The file of the pins within a run directory.
const FILE: &str = "hostkeys.json";
/// Far more than the pins of thousands of guests take.
const MAX_FILE: u64 = 4 << 20;

/// Why the pins could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("pinned host keys in {}: {why}", path.display())]
pub struct PinError {
    /// The file.
    pub path: PathBuf,
    /// What was seen.
    pub why: String,
}

/// What is asked of a host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeyRule {
    /// It must be the key pinned for this lineage; the first one seen becomes the pin.
    Pinned {
        /// The volume lineage: the same text on both sites for a disk and its replica.
        lineage: String,
    },
    /// It is compared with the pin and the answer reported, but any key may connect: to learn who
    /// answers in place of the guest that was expected. Only public-key authentication is used, so
    /// that nothing is disclosed to the wrong one.
    Observed {
        /// The volume lineage.
        lineage: String,
    },
    /// The root disk does not outlive the boot (a containerDisk), so the key is new each time.
    Fresh,
}

/// The host key of an established connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSeen {
    /// `SHA256:…`
    pub fingerprint: String,
    /// Whether it equals the pin; `None` at first contact and where nothing is pinned.
    pub pinned: Option<bool>,
}

/// How a host key compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// The connection may go on.
    Accepted(HostSeen),
    /// Another key than the pinned one.
    Changed {
        /// The lineage.
        lineage: String,
        /// The pinned fingerprint.
        pinned: String,
        /// The fingerprint seen.
        seen: String,
    },
}

/// The pins of a run: lineage to fingerprint.
#[derive(Debug)]
pub struct Pins {
    path: Option<PathBuf>,
    known: Mutex<BTreeMap<String, String>>,
}

impl Pins {
    /// The pins kept in a run directory; none if it has no file of them yet.
    pub fn open(run_dir: &Path) -> Result<Self, PinError> {
        let path = run_dir.join(FILE);
        let fail = |why: String| PinError {
            path: path.clone(),
            why,
        };
        let known = match File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MAX_FILE + 1)
                    .read_to_string(&mut text)
                    .map_err(|e| fail(e.to_string()))?;
                if text.len() as u64 > MAX_FILE {
                    return Err(fail(format!("larger than {MAX_FILE} bytes")));
                }
                serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(fail(e.to_string())),
        };
        Ok(Self {
            path: Some(path),
            known: Mutex::new(known),
        })
    }

    /// Pins that live no longer than the process, for hosts that no volume lineage stands behind.
    pub const fn in_memory() -> Self {
        Self {
            path: None,
            known: Mutex::new(BTreeMap::new()),
        }
    }

    /// Compares a key under a rule. A first key is on disk before this returns.
    pub fn compare(&self, rule: &HostKeyRule, key: &PublicKey) -> Result<Compared, PinError> {
        let seen = key.fingerprint(HashAlg::Sha256).to_string();
        let (lineage, strict) = match rule {
            HostKeyRule::Fresh => {
                return Ok(Compared::Accepted(HostSeen {
                    fingerprint: seen,
                    pinned: None,
                }));
            }
            HostKeyRule::Pinned { lineage } => (lineage, true),
            HostKeyRule::Observed { lineage } => (lineage, false),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = match known.get(lineage) {
            None => {
                let mut next = known.clone();
                next.insert(lineage.clone(), seen.clone());
                self.store(&next)?;
                *known = next;
                None
            }
            Some(pin) if strict && *pin != seen => {
                return Ok(Compared::Changed {
                    lineage: lineage.clone(),
                    pinned: pin.clone(),
                    seen,
                });
            }
            Some(pin) => Some(*pin == seen),
        };
        Ok(Compared::Accepted(HostSeen {
            fingerprint: seen,
            pinned,
        }))
    }

    /// The fingerprint pinned for a lineage.
    pub fn pinned(&self, lineage: &str) -> Option<String> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(lineage)
            .cloned()
    }

    fn store(&self, known: &BTreeMap<String, String>) -> Result<(), PinError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let write = || -> io::Result<()> {
            let next = path.with_extension("json.new");
            let mut file = File::create(&next)?;
            serde_json::to_writer_pretty(&mut file, known)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&next, path)?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|e| PinError {
            path: path.clone(),
            why: e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::LoginKey;

    fn key() -> PublicKey {
        LoginKey::generate("")
            .unwrap()
            .secret()
            .public_key()
            .clone()
    }

    fn pinned(lineage: &str) -> HostKeyRule {
        HostKeyRule::Pinned {
            lineage: lineage.into(),
        }
    }

    #[test]
    fn the_first_key_is_pinned_and_then_required_across_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (first, other) = (key(), key());
        let pins = Pins::open(dir.path()).unwrap();
        let Compared::Accepted(seen) = pins.compare(&pinned("vm-1"), &first).unwrap() else {
            panic!("the first key must be accepted");
        };
        assert_eq!(seen.pinned, None);

        let later = Pins::open(dir.path()).unwrap();
        let Compared::Accepted(again) = later.compare(&pinned("vm-1"), &first).unwrap() else {
            panic!("the pinned key must be accepted");
        };
        assert_eq!(again.pinned, Some(true));
        assert_eq!(again.fingerprint, seen.fingerprint);
        assert!(matches!(
            later.compare(&pinned("vm-1"), &other).unwrap(),
            Compared::Changed { pinned, .. } if pinned == seen.fingerprint
        ));
        assert_eq!(later.pinned("vm-1"), Some(seen.fingerprint));
    }

    #[test]
    fn lineages_do_not_mix_and_a_changed_key_never_replaces_the_pin() {
        let pins = Pins::in_memory();
        let (a, b) = (key(), key());
        pins.compare(&pinned("a"), &a).unwrap();
        pins.compare(&pinned("b"), &b).unwrap();
        assert!(matches!(
            pins.compare(&pinned("a"), &b).unwrap(),
            Compared::Changed { .. }
        ));
        let observed = HostKeyRule::Observed {
            lineage: "a".into(),
        };
        let Compared::Accepted(seen) = pins.compare(&observed, &b).unwrap() else {
            panic!("an observed key may connect");
        };
        assert_eq!(seen.pinned, Some(false));
        assert_eq!(
            pins.pinned("a").unwrap(),
            a.fingerprint(HashAlg::Sha256).to_string()
        );
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_clean_slate() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"vm\": 3}").unwrap();
        assert!(
            Pins::open(dir.path())
                .unwrap_err()
                .to_string()
                .contains(FILE)
        );
    }

    #[test]
    fn a_pin_that_cannot_be_kept_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::open(dir.path()).unwrap();
        dir.close().unwrap();
        assert!(pins.compare(&pinned("a"), &key()).is_err());
        assert_eq!(pins.pinned("a"), None);
    }
}
