//! From a run directory to verdicts and reports. Offline: reads the directory and nothing else.

use std::path::Path;

use anyhow::Context as _;

use super::error::RunError;
use crate::check::Verdicts;
use crate::evidence::{self, Derived, Manifest, PLAN_FILE, SignKey, VERDICTS_FILE};
use crate::history::read::History;
use crate::plan::{self, Known, Plan};
use crate::report::view::View;

/// A judged run directory.
pub struct Judged {
    /// Its plan.
    pub plan: Plan,
    /// Its history.
    pub history: History,
    derived: Derived,
}

impl Judged {
    /// What the checks say.
    pub const fn verdicts(&self) -> &Verdicts {
        &self.derived.verdicts
    }

    /// What reports show of it.
    pub const fn view(&self) -> &View {
        &self.derived.view
    }

    /// The files made of it: verdicts first, then reports.
    pub fn files(&self) -> impl Iterator<Item = &'static str> {
        self.derived.files.iter().map(|(name, _)| *name)
    }
}

/// Judges a run directory. Writes nothing.
pub fn judge(dir: &Path) -> Result<Judged, RunError> {
    let loaded = plan::load(&dir.join(PLAN_FILE), &Known::nothing()).map_err(RunError::usage)?;
    let history = History::open(dir).map_err(RunError::evidence)?;
    let derived = evidence::derive(&loaded.plan, &history).map_err(RunError::Evidence)?;
    Ok(Judged {
        plan: loaded.plan,
        history,
        derived,
    })
}

/// What is written of a judged run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The verdicts.
    Verdicts,
    /// Verdicts and reports.
    All,
}

/// Writes what was made of a judged run into its directory. A sealed directory is never written to,
/// so that its seal goes on to hold: what stands there otherwise is returned, by file name.
pub fn keep(dir: &Path, judged: &Judged, keep: Keep) -> Result<Vec<&'static str>, RunError> {
    let sealed = evidence::is_sealed(dir);
    let mut other = Vec::new();
    let files = judged.derived.files.iter();
    for (name, text) in files.filter(|(name, _)| keep == Keep::All || *name == VERDICTS_FILE) {
        let path = dir.join(name);
        if !sealed {
            evidence::write(&path, text.as_bytes())
                .with_context(|| format!("writing {}", path.display()))
                .map_err(RunError::Evidence)?;
        } else if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            other.push(*name);
        }
    }
    Ok(other)
}

/// Seals a directory whose verdicts and reports are written.
pub fn seal(dir: &Path, judged: &Judged, key: Option<&SignKey>) -> Result<Manifest, RunError> {
    evidence::seal(dir, &judged.history, judged.view(), key)
        .context("sealing the run directory")
        .map_err(RunError::Evidence)
}
