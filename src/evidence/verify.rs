//! Verifying a run directory: the seal, every file, and everything that follows from them. Finds all
//! that is wrong, not the first only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::derived::{Derived, derive};
use super::key::PublicKey;
use super::locate::{differs, locate};
use super::manifest::{FileEntry, Manifest, ManifestError};
use super::members::{self, Listing};
use super::verdict::{Finding, Signed, Verification, Weight};
use super::{MANIFEST_FILE, PLAN_FILE, PUBLIC_KEY_FILE, SIGNATURE_FILE};
use crate::history::read::{History, HistoryError};
use crate::history::recorder::EVENTS;
use crate::plan::{self, Known};

/// What is asked of the signature.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// The key whose signature it must be.
    pub key: Option<PublicKey>,
    /// Whether there must be one at all.
    pub signature: bool,
}

/// The version of virtproof that verifies.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Verifies a run directory. Gives its manifest too, if that is as it was written.
///
/// # Errors
/// When the directory cannot be listed; everything else is a finding.
pub fn verify(dir: &Path, demand: &Demand) -> io::Result<(Option<Manifest>, Verification)> {
    let listing = members::list(dir)?;
    let mut found = Found {
        dir,
        findings: Vec::new(),
    };
    let seal = found.seal();
    let signature = found.signature(seal.as_ref(), demand);
    let opened = found.open();
    let derived = opened
        .as_ref()
        .and_then(|opened| found.derive(&opened.plan, &opened.history));
    if let Some(seal) = &seal {
        if seal.sound {
            found.files(&listing, &seal.manifest, derived.as_ref());
        }
        if let (Some(opened), Some(derived), true) = (&opened, &derived, found.is_intact()) {
            found.derived(derived);
            found.bound(seal, &opened.history, derived);
        } else {
            found.note(
                MANIFEST_FILE,
                "verdicts and reports were not derived again, because the evidence is not whole",
            );
        }
    }
    let files = seal.as_ref().map(|seal| &seal.manifest.files);
    let mut verification = Verification {
        run: derived.as_ref().map(|derived| derived.view.run_id.clone()),
        verdict: derived.as_ref().and_then(|derived| derived.view.status),
        head: opened.map(|opened| opened.history.head),
        files: files.map_or(0, BTreeMap::len),
        bytes: files.map_or(0, |files| files.values().map(|entry| entry.bytes).sum()),
        signature,
        findings: found.findings,
    };
    verification
        .findings
        .sort_by(|a, b| (b.weight, &a.file).cmp(&(a.weight, &b.file)));
    let manifest = seal.filter(|seal| seal.sound).map(|seal| seal.manifest);
    Ok((manifest, verification))
}

struct Found<'a> {
    dir: &'a Path,
    findings: Vec<Finding>,
}

/// The manifest as it stands.
struct Seal {
    manifest: Manifest,
    text: String,
    /// Whether it is as it was written, so that files can be held against it.
    sound: bool,
}

struct Opened {
    plan: plan::Plan,
    history: History,
}

impl Found<'_> {
    fn put(&mut self, weight: Weight, file: &str, at: Option<String>, what: impl Into<String>) {
        self.findings.push(Finding {
            file: file.to_owned(),
            at,
            what: what.into(),
            weight,
        });
    }

    fn broken(&mut self, file: &str, at: Option<String>, what: impl Into<String>) {
        self.put(Weight::Broken, file, at, what);
    }

    fn note(&mut self, file: &str, what: impl Into<String>) {
        self.put(Weight::Note, file, None, what);
    }

    fn is_found(&self, file: &str) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.file == file && finding.weight == Weight::Broken)
    }

    /// Whether all that verdicts and reports follow from is, as far as was seen, as it was sealed.
    fn is_intact(&self) -> bool {
        let evidence = |file: &str| {
            [PLAN_FILE, EVENTS].contains(&file)
                || file.starts_with("acks/")
                || file.starts_with("scans/")
        };
        self.findings
            .iter()
            .all(|finding| finding.weight < Weight::Broken || !evidence(&finding.file))
    }

    fn seal(&mut self) -> Option<Seal> {
        let text = match std::fs::read(self.dir.join(MANIFEST_FILE)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what =
                    "it is missing: the run directory was never sealed, or its seal was taken away";
                self.broken(MANIFEST_FILE, None, what);
                return None;
            }
            Err(error) => {
                self.broken(MANIFEST_FILE, None, error.to_string());
                return None;
            }
        };
        match Manifest::parse(&text) {
            Ok(manifest) => {
                let sound = manifest.is_sound(&text);
                Some(Seal {
                    manifest,
                    text,
                    sound,
                })
            }
            Err(ManifestError::Json(error)) => {
                let at = format!("line {}, column {}", error.line(), error.column());
                self.broken(MANIFEST_FILE, Some(at), format!("not a manifest: {error}"));
                None
            }
            Err(error) => {
                self.broken(MANIFEST_FILE, None, error.to_string());
                None
            }
        }
    }

    fn signature(&mut self, seal: Option<&Seal>, demand: &Demand) -> Signed {
        let Some(seal) = seal else {
            return if self.dir.join(SIGNATURE_FILE).exists() {
                Signed::Wrong
            } else {
                Signed::Unsigned
            };
        };
        let read = |name: &str| std::fs::read(self.dir.join(name)).ok();
        let (signature, public) = (read(SIGNATURE_FILE), read(PUBLIC_KEY_FILE));
        let signer = seal.manifest.signer.clone();
        let (Some(signature), Some(public)) = (&signature, &public) else {
            if signer.is_some() || signature.is_some() || public.is_some() {
                for (name, there) in [(SIGNATURE_FILE, &signature), (PUBLIC_KEY_FILE, &public)] {
                    if there.is_none() {
                        self.broken(name, None, "it is missing from a signed run directory");
                    }
                }
                return Signed::Wrong;
            }
            if demand.signature || demand.key.is_some() {
                let what = "it is missing: nobody signed this run directory";
                self.broken(SIGNATURE_FILE, None, what);
            }
            return Signed::Unsigned;
        };
        let text = String::from_utf8_lossy(public);
        let Some(key) = PublicKey::parse(&text).filter(|key| key.pem() == text) else {
            let what = "it is not a public key as virtproof writes it";
            self.broken(PUBLIC_KEY_FILE, None, what);
            return Signed::Wrong;
        };
        if let Some(wrong) = self.wrong(seal, &key, signature, demand) {
            self.broken(wrong.0, None, wrong.1);
            return Signed::Wrong;
        }
        match demand.key {
            Some(_) => Signed::Expected(key.fingerprint()),
            None => Signed::Unnamed(key.fingerprint()),
        }
    }

    /// What is wrong with a signature that is there, and in which file.
    fn wrong(
        &self,
        seal: &Seal,
        key: &PublicKey,
        signature: &[u8],
        demand: &Demand,
    ) -> Option<(&'static str, String)> {
        let raw = std::fs::read(self.dir.join(MANIFEST_FILE)).unwrap_or_default();
        let print = key.fingerprint();
        let holds = key.verify(&raw, signature);
        if let Some(expected) = demand.key.as_ref().filter(|expected| *expected != key) {
            let what = format!(
                "it is of the key {print} and must be of {}",
                expected.fingerprint()
            );
            return Some((SIGNATURE_FILE, what));
        }
        match &seal.manifest.signer {
            _ if !seal.sound => Some((MANIFEST_FILE, "it is not what was signed".into())),
            Some(signer) if *signer != print && !holds => {
                let what = format!("it is the key {print} and the manifest names {signer}");
                Some((PUBLIC_KEY_FILE, what))
            }
            _ if holds && seal.manifest.signer.as_deref() == Some(&*print) => None,
            _ => Some((
                SIGNATURE_FILE,
                format!("it is not the signature of {print} over {MANIFEST_FILE}"),
            )),
        }
    }

    /// Plan and history, or what keeps them from being read.
    fn open(&mut self) -> Option<Opened> {
        let loaded = match plan::load(&self.dir.join(PLAN_FILE), &Known::nothing()) {
            Ok(loaded) => Some(loaded),
            Err(error) => {
                self.broken(PLAN_FILE, None, error.to_string());
                None
            }
        };
        let history = match History::open(self.dir) {
            Ok(history) => Some(history),
            Err(HistoryError::Damaged { file, at, what }) => {
                self.broken(&relative(self.dir, &file), Some(at), what);
                None
            }
            Err(HistoryError::Io { file, source }) => {
                self.broken(&relative(self.dir, &file), None, source.to_string());
                None
            }
            Err(error) => {
                self.broken(EVENTS, None, error.to_string());
                None
            }
        };
        let (loaded, history) = (loaded?, history?);
        Some(Opened {
            plan: loaded.plan,
            history,
        })
    }

    fn derive(&mut self, plan: &plan::Plan, history: &History) -> Option<Derived> {
        match derive(plan, history) {
            Ok(derived) => Some(derived),
            Err(error) => {
                self.broken(EVENTS, None, format!("cannot be shown: {error:#}"));
                None
            }
        }
    }

    /// Holds every file against the manifest.
    fn files(&mut self, listing: &Listing, manifest: &Manifest, derived: Option<&Derived>) {
        for (path, why) in &listing.odd {
            self.broken(path, None, why);
        }
        for path in &listing.files {
            if !manifest.files.contains_key(path) {
                self.broken(path, None, "it is not part of the sealed run directory");
            }
        }
        // What follows from the evidence comes last: only whole evidence can place a change in it.
        let last = |path: &str| derived.is_some_and(|derived| derived.text(path).is_some());
        let (after, before): (Vec<_>, Vec<_>) =
            manifest.files.iter().partition(|(path, _)| last(path));
        for (path, entry) in before.into_iter().chain(after) {
            if listing.odd.iter().any(|(odd, _)| odd == path) {
                continue;
            }
            let derived = derived.filter(|_| self.is_intact());
            if listing.files.contains(path) {
                if let Err(error) = self.file(path, entry, manifest, derived) {
                    self.broken(path, None, error.to_string());
                }
            } else {
                self.findings.retain(|finding| finding.file != *path);
                self.broken(path, None, "it is missing");
            }
        }
    }

    fn file(
        &mut self,
        path: &str,
        entry: &FileEntry,
        manifest: &Manifest,
        derived: Option<&Derived>,
    ) -> io::Result<()> {
        let file = self.dir.join(path);
        let (now, tail) = if entry.grows {
            members::grown(&file, entry.bytes)?
        } else {
            (members::digests(File::open(&file)?)?, Vec::new())
        };
        if (now.bytes, &now.blake3, &now.sha256) != (entry.bytes, &entry.blake3, &entry.sha256) {
            let (at, what) = locate(self.dir, path, entry, &now, manifest, derived);
            // What reading the history said of this file before is the same thing, less exactly.
            self.findings.retain(|finding| finding.file != path);
            self.broken(path, at, what);
        } else if !tail.is_empty() {
            self.tail(path, entry, &tail);
        }
        Ok(())
    }

    /// What a cleanup appended after the run directory was sealed: that entries are done, no more.
    fn tail(&mut self, path: &str, entry: &FileEntry, tail: &[u8]) {
        let text = String::from_utf8_lossy(tail);
        let done = |line: &str| {
            let line: Option<Done> = serde_json::from_str(line).ok();
            line.is_some()
        };
        match text.split_inclusive('\n').position(|line| !done(line)) {
            Some(bad) => {
                let at = format!("line {} after byte {}", bad + 1, entry.bytes);
                let what = "it was appended after the run directory was sealed, and not by a cleanup";
                self.broken(path, Some(at), what);
            }
            None => self.note(
                path,
                format!(
                    "a cleanup appended {} bytes after the run directory was sealed; they are not covered by the seal",
                    tail.len()
                ),
            ),
        }
    }

    /// Holds verdicts and reports against what plan and history give now.
    fn derived(&mut self, derived: &Derived) {
        for (name, text) in &derived.files {
            let Ok(stands) = std::fs::read(self.dir.join(name)) else {
                continue;
            };
            let Some(at) = differs(&stands, text.as_bytes()) else {
                continue;
            };
            if self.is_found(name) {
                continue;
            }
            if derived.view.tool == VERSION {
                let what = "it does not say what the evidence says";
                self.broken(name, Some(at), what);
            } else {
                let what = format!(
                    "virtproof {VERSION} makes something else of the evidence than {} did; verify it with that version",
                    derived.view.tool
                );
                self.put(Weight::Doubt, name, Some(at), what);
            }
        }
    }

    /// Holds the manifest against the one that the directory gives now.
    fn bound(&mut self, seal: &Seal, history: &History, derived: &Derived) {
        let files = if seal.sound {
            seal.manifest.files.clone()
        } else {
            members::entries(self.dir).unwrap_or_else(|_| seal.manifest.files.clone())
        };
        let signer = self.named(seal);
        let again = Manifest::of(history, &derived.view, files, signer)
            .and_then(|manifest| manifest.text())
            .unwrap_or_default();
        let differs = differs(seal.text.as_bytes(), again.as_bytes());
        let plan = self.dir.join(PLAN_FILE);
        let planned = File::open(plan).and_then(members::digests);
        if planned.is_ok_and(|plan| plan.blake3 != derived.view.plan_blake3)
            && !self.is_found(PLAN_FILE)
        {
            let what = "it is not the plan that the run began with, as events.jsonl has it";
            self.broken(PLAN_FILE, None, what);
        }
        match differs {
            Some(at) if !seal.sound => {
                self.findings
                    .retain(|finding| finding.file != MANIFEST_FILE);
                let what = "it was edited: it is not what the run directory gives";
                self.broken(MANIFEST_FILE, Some(at), what);
            }
            Some(at) if self.findings.iter().all(|f| f.weight < Weight::Broken) => {
                let what = "it does not say what the evidence says";
                let weight = if derived.view.tool == VERSION {
                    Weight::Broken
                } else {
                    Weight::Doubt
                };
                self.put(weight, MANIFEST_FILE, Some(at), what);
            }
            None if !seal.sound => {
                let what = "it was edited: its text does not match its own digest";
                self.broken(MANIFEST_FILE, None, what);
            }
            _ => {}
        }
    }

    /// The signer that a manifest of this directory names.
    fn named(&self, seal: &Seal) -> Option<String> {
        if seal.sound {
            return seal.manifest.signer.clone();
        }
        let text = std::fs::read_to_string(self.dir.join(PUBLIC_KEY_FILE)).ok()?;
        PublicKey::parse(&text).map(|key| key.fingerprint())
    }
}

/// The one kind of line that a cleanup appends to the undo log.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    #[serde(rename = "done")]
    _done: Entry,
}

/// The entry that is done.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "id")]
    _id: u64,
}

fn relative(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap_or(file).display().to_string()
}
