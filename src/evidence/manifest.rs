//! `manifest.json`: every file of a run directory with its digests, and what binds them together. A
//! function of the directory, so that it can be derived again; keys sorted, so that it has one text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::verdict::Status;
use crate::history::event::Fact;
use crate::history::read::History;
use crate::report::view::View;

/// The schema of a manifest, version included.
pub const SCHEMA: &str = "virtproof.dev/manifest/v1";

/// Why a text is no manifest, or a manifest has no text.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON of this schema.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is of another schema.
    #[error("its schema is {0:?} and this virtproof reads {SCHEMA:?}")]
    Schema(String),
}

/// What seals a run directory. Fields stand in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// BLAKE3 of this manifest's text with this field empty, hex: tells a damaged manifest from a
    /// damaged file.
    pub digest: String,
    /// Every file but the seal's own, by path relative to the directory.
    pub files: BTreeMap<String, FileEntry>,
    /// What the history's own chains end in.
    pub history: HistorySeal,
    /// The plan.
    pub plan: PlanSeal,
    /// The run.
    pub run: RunSeal,
    /// [`SCHEMA`].
    pub schema: String,
    /// Fingerprint of the key that signs; absent from an unsigned manifest.
    pub signer: Option<String>,
    /// What ran.
    pub tool: ToolSeal,
    /// What came out.
    pub verdict: VerdictSeal,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// BLAKE3, hex.
    pub blake3: String,
    /// Size.
    pub bytes: u64,
    /// Whether a later cleanup may append to it: then the entry is of its first `bytes` bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grows: bool,
    /// For a text that nothing else can place a change in: eight hex digits of each line's BLAKE3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<String>,
    /// SHA-256, hex, for those who have only `sha256sum`.
    pub sha256: String,
}

/// The ends of the history's chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySeal {
    /// How many events.
    pub events: u64,
    /// The last hash of the event chain.
    pub head: String,
    /// BLAKE3 of each scan file that an event names.
    pub scans: BTreeMap<String, String>,
    /// The end of each ack segment's chain, `null` for one that was never closed.
    pub segments: BTreeMap<String, Option<SegmentSeal>>,
    /// What is missing at the end of the events, if anything is.
    pub truncated: Option<String>,
}

/// The end of an ack segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentSeal {
    /// Records in it.
    pub records: u64,
    /// The end of its hash chain.
    pub root: String,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSeal {
    /// BLAKE3 of its text as the run began with it.
    pub blake3: String,
    /// Its name.
    pub name: String,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSeal {
    /// How it ended; empty when its history has no end.
    pub ended: String,
    /// Its id.
    pub id: String,
    /// Whether the sites were simulated.
    pub lab: bool,
    /// The seed behind every random choice.
    pub seed: u64,
    /// Wall clock at its start.
    pub started: jiff::Timestamp,
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSeal {
    /// BLAKE3 of the probe that was put into guests.
    pub probe_blake3: Option<String>,
    /// SHA-256 of the executable.
    pub sha256: Option<String>,
    /// Version of virtproof.
    pub version: String,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictSeal {
    /// Verdicts by word.
    pub counts: BTreeMap<String, usize>,
    /// The worst; `null` when nothing was judged.
    pub overall: Option<Status>,
}

impl Manifest {
    /// The manifest of a directory that holds `files`, whose history and reports are these.
    pub(super) fn of(
        history: &History,
        view: &View,
        files: BTreeMap<String, FileEntry>,
        signer: Option<String>,
    ) -> Result<Self, ManifestError> {
        Self {
            digest: String::new(),
            files,
            history: ends(history),
            plan: PlanSeal {
                blake3: view.plan_blake3.clone(),
                name: view.name.clone(),
            },
            run: RunSeal {
                ended: view.ended.clone(),
                id: view.run_id.clone(),
                lab: view.lab,
                seed: view.seed,
                started: view.started,
            },
            schema: SCHEMA.into(),
            signer,
            tool: tool(history, view),
            verdict: VerdictSeal {
                counts: view.counts.clone(),
                overall: view.status,
            },
        }
        .digested()
    }

    /// The same manifest, to be signed by the key with this fingerprint.
    pub(super) fn signed_by(&self, signer: String) -> Result<Self, ManifestError> {
        let signer = Some(signer);
        Self {
            signer,
            ..self.clone()
        }
        .digested()
    }

    fn digested(mut self) -> Result<Self, ManifestError> {
        self.digest.clear();
        self.digest = blake3::hash(self.text()?.as_bytes()).to_hex().to_string();
        Ok(self)
    }

    /// The one text of this manifest.
    pub fn text(&self) -> Result<String, ManifestError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a manifest's text as far as JSON and schema go; see [`Manifest::is_sound`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_str(text)?;
        if manifest.schema == SCHEMA {
            Ok(manifest)
        } else {
            Err(ManifestError::Schema(manifest.schema))
        }
    }

    /// Whether `text`, of which this was read, is the text that was written: by its own digest and in
    /// every byte.
    pub fn is_sound(&self, text: &str) -> bool {
        let again = self.clone().digested().and_then(|again| again.text());
        again.is_ok_and(|again| again == text)
    }
}

fn ends(history: &History) -> HistorySeal {
    let mut scans = BTreeMap::new();
    let mut segments = BTreeMap::new();
    for event in &history.events {
        match &event.fact {
            Fact::IncarnationStarted { segment, .. } => {
                segments.entry(segment.clone()).or_insert(None);
            }
            Fact::SegmentClosed {
                segment,
                records,
                root,
                ..
            } => {
                let seal = SegmentSeal {
                    records: *records,
                    root: root.clone(),
                };
                segments.insert(segment.clone(), Some(seal));
            }
            Fact::Scanned { volumes, .. } => {
                let named = volumes.iter().map(|v| (v.file.clone(), v.blake3.clone()));
                scans.extend(named);
            }
            _ => {}
        }
    }
    HistorySeal {
        events: u64::try_from(history.events.len()).unwrap_or(u64::MAX),
        head: history.head.clone(),
        scans,
        segments,
        truncated: history.truncated.clone(),
    }
}

fn tool(history: &History, view: &View) -> ToolSeal {
    let told = history.events.iter().find_map(|event| match &event.fact {
        Fact::Tool {
            sha256,
            probe_blake3,
        } => Some((sha256.clone(), probe_blake3.clone())),
        _ => None,
    });
    let (sha256, probe) = told.map_or((None, None), |(sha256, probe)| (sha256, Some(probe)));
    ToolSeal {
        probe_blake3: probe,
        sha256,
        version: view.tool.clone(),
    }
}
