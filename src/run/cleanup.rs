//! Undoing what is left of a run, from another process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::error::RunError;
use super::{PLAN_FILE, UNDO_FILE};
use crate::cluster::undo::{Left, Undo, UndoLog, replay};
use crate::cluster::{Deadline, Sites};
use crate::evidence::UNSEALED;
use crate::guest::{LoginKey, Pins};
use crate::history::event::Residue;
use crate::plan::{self, Known, Plan};
use crate::scenario::{GuestHands, drop_key, kept_key};

/// What a cleanup came to.
pub struct Cleaned {
    /// What could not be undone.
    pub left: Vec<Left>,
    /// What still carries the run's label.
    pub residue: Vec<Residue>,
    /// Why a site could not be searched.
    pub trouble: Vec<String>,
    /// How many entries there were to undo.
    pub entries: usize,
}

impl Cleaned {
    /// Whether both sites were searched and nothing is left.
    pub const fn is_clean(&self) -> bool {
        self.left.is_empty() && self.residue.is_empty() && self.trouble.is_empty()
    }
}

/// Undoes what the run directory's undo log still holds, then looks for leftovers.
pub async fn cleanup(dir: &Path, cancel: &CancellationToken) -> Result<Cleaned, RunError> {
    let loaded = plan::load(&dir.join(PLAN_FILE), &Known::nothing()).map_err(RunError::usage)?;
    let log = UndoLog::open(&dir.join(UNDO_FILE))
        .context("the run directory has no usable undo log")
        .map_err(RunError::Usage)?;
    let base = super::begin::base(dir).map_err(RunError::Evidence)?;
    let sites = Sites::open(loaded.plan.sites(), &base)
        .await
        .map_err(RunError::usage)?;
    let pending = log.pending();
    let namespaces = namespaces(&pending);
    let deadline = Deadline::after(loaded.plan.deadlines().cleanup, cancel);
    let kept = dir.join(UNSEALED);
    let key = login_key(&loaded.plan, &base, &kept).map_err(RunError::Usage)?;
    let pins = Arc::new(Pins::open(dir).map_err(RunError::evidence)?);
    let hands = GuestHands::new(&loaded.plan, &sites, key, pins);
    let left = replay(&log, &sites, &hands, &deadline).await;
    drop_key(&kept, &log).map_err(RunError::Evidence)?;
    let swept = sites.sweep(&log, &namespaces).await;
    Ok(Cleaned {
        left,
        residue: swept.residue,
        trouble: swept.trouble,
        entries: pending.len(),
    })
}

/// The key that the run logged in with: the plan's own, else the one that it kept.
fn login_key(plan: &Plan, base: &Path, kept: &Path) -> anyhow::Result<Option<LoginKey>> {
    let mut files = plan
        .workloads()
        .iter()
        .filter_map(|w| w.ssh.key_file.clone());
    match files.next() {
        None => kept_key(kept),
        Some(file) => Ok(Some(LoginKey::load(&base.join(file))?)),
    }
}

/// The namespaces that the run made and has not deleted.
fn namespaces(pending: &[crate::cluster::undo::Entry]) -> Vec<String> {
    let made = pending.iter().filter_map(|entry| match &entry.undo {
        Undo::Delete { object, .. } if object.kind.kind == "Namespace" => Some(object.name.clone()),
        _ => None,
    });
    let mut all: Vec<String> = made.collect();
    all.sort();
    all.dedup();
    all
}
