//! From a request to a world: the run directory, the sites, the keys, the preflight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::error::RunError;
use super::preflight;
use super::trials::Request;
use super::{PLAN_FILE, UNDO_FILE};
use crate::cluster::undo::UndoLog;
use crate::cluster::{Owner, Sites};
use crate::evidence::UNSEALED;
use crate::guest::{LoginKey, Pins};
use crate::history::event::{Fact, Site};
use crate::history::recorder::{Recorder, Scope};
use crate::plan::Plan;
use crate::plan::model::{Quiesce, Workload};
use crate::probe::host::ProbeBinary;
use crate::replicate::Driver;
use crate::scenario::{Mint, World, admissible, keep_key};
use crate::workload::recipe::Recipe;
use crate::workload::{self, Rendered, hooks};

/// Where the plan's relative paths start from, kept beside the plan for a later cleanup.
const BASE_FILE: &str = "base";

/// Makes the run directory: it must not exist or be empty.
pub(super) fn directory(request: &Request) -> Result<(), RunError> {
    let out = &request.out;
    let make = || -> anyhow::Result<()> {
        std::fs::create_dir_all(out)?;
        if std::fs::read_dir(out)?.next().is_some() {
            bail!("it is not empty; choose another --out or remove it");
        }
        std::fs::write(out.join(PLAN_FILE), &request.plan.text)?;
        let base = std::path::absolute(&request.plan.dir)?;
        std::fs::write(out.join(BASE_FILE), base.as_os_str().as_encoded_bytes())?;
        Ok(())
    };
    make()
        .with_context(|| format!("cannot use {} as run directory", out.display()))
        .map_err(RunError::Usage)
}

/// Where the plan of a run directory had its relative paths start from.
pub fn base(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join(BASE_FILE);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(PathBuf::from(text))
}

/// Renders every workload's template: what is wrong with one is known before anything is touched.
pub fn templates(plan: &Plan, base: &Path) -> Result<Vec<(Workload, Rendered)>, RunError> {
    let render = |workload: &Workload| {
        let rendered = workload::render(workload, base).map_err(RunError::usage)?;
        Ok((workload.clone(), rendered))
    };
    plan.workloads().iter().map(render).collect()
}

/// Reads every workload's Recipe, for the same reason. One that names none has the embedded one, for
/// scenarios that need any.
pub fn recipes(plan: &Plan, base: &Path) -> Result<BTreeMap<String, Recipe>, RunError> {
    let read = |workload: &Workload| {
        let reference = workload.recipe.as_deref().unwrap_or(hooks::DEFAULT);
        let recipe = hooks::load(reference, base).map_err(RunError::usage)?;
        admissible(&recipe, workload, plan.deadlines().unfreeze).map_err(RunError::Usage)?;
        Ok((workload.name.clone(), recipe))
    };
    plan.workloads().iter().map(read).collect()
}

/// Builds the world and asks whether the plan can run.
pub(super) async fn world(
    request: &Request,
    recorder: &Recorder,
    run_id: [u8; 16],
    cancel: &CancellationToken,
) -> Result<World, RunError> {
    let loaded = &request.plan;
    let rendered = templates(&loaded.plan, &loaded.dir)?;
    let recipes = recipes(&loaded.plan, &loaded.dir)?;
    let key = login_key(&loaded.plan, &loaded.dir).map_err(RunError::Usage)?;
    let binary = probe(request)?;
    let driver = Driver::new(loaded.plan.protection());
    let sites = Sites::open(loaded.plan.sites(), &loaded.dir)
        .await
        .map_err(RunError::usage)?;
    let findings = preflight::ask(&loaded.plan, &rendered, &sites).await;
    let asked = Fact::Preflight {
        asked: u64::try_from(findings.len()).unwrap_or(u64::MAX),
        missing: preflight::missing(&findings)
            .iter()
            .flat_map(|text| text.lines().map(|line| line.trim().to_owned()))
            .collect(),
    };
    recorder
        .record(&Scope::run(), asked)
        .await
        .map_err(RunError::evidence)?;
    if let Some(missing) = preflight::missing(&findings) {
        return Err(RunError::Preflight(missing));
    }
    let ahead = introduce(&sites, recorder).await?;
    for site in [Site::Primary, Site::Secondary] {
        let fact = preflight::site_classes(&loaded.plan, &sites, site).await;
        recorder
            .record(&Scope::run(), fact)
            .await
            .map_err(RunError::evidence)?;
    }
    let short = crate::scenario::short(&run_id);
    let undo = UndoLog::create(&request.out.join(UNDO_FILE), &short).map_err(RunError::evidence)?;
    let pins = Arc::new(Pins::open(&request.out).map_err(RunError::evidence)?);
    keep(&key, request).map_err(RunError::Evidence)?;
    let mut nonce = [0; 4];
    getrandom::fill(&mut nonce).map_err(|e| RunError::evidence(anyhow::anyhow!("{e}")))?;
    Ok(World {
        plan: Arc::new(loaded.plan.clone()),
        base: loaded.dir.clone(),
        sites,
        recorder: recorder.clone(),
        owner: Owner::new(short, undo),
        driver,
        cancel: cancel.clone(),
        run_id,
        seed: request.seed,
        key,
        pins,
        binary,
        rendered,
        recipes,
        mint: Mint::new(u32::from_le_bytes(nonce)),
        ahead,
    })
}

/// The probe that is put into guests.
pub(super) fn probe(request: &Request) -> Result<ProbeBinary, RunError> {
    match &request.probe {
        Some(path) => ProbeBinary::load(path).map_err(RunError::usage),
        None => Ok(ProbeBinary::embedded()),
    }
}

/// One key for all guests: the first workload's own, else a fresh one.
fn login_key(plan: &Plan, base: &Path) -> anyhow::Result<LoginKey> {
    let files: BTreeSet<_> = plan
        .workloads()
        .iter()
        .filter_map(|w| w.ssh.key_file.clone())
        .collect();
    let mut files = files.into_iter();
    match (files.next(), files.next()) {
        (None, _) => LoginKey::generate("virtproof").context("making the run's SSH key"),
        (Some(file), None) => {
            let path = base.join(file);
            LoginKey::load(&path).with_context(|| format!("the SSH key {}", path.display()))
        }
        (Some(_), Some(_)) => bail!("the workloads name different key files; use one for the plan"),
    }
}

/// Keeps a key of the run's own where a later process needs it to thaw guests from inside.
fn keep(key: &LoginKey, request: &Request) -> anyhow::Result<()> {
    let workloads = request.plan.plan.workloads();
    let needed = workloads.iter().any(|w| w.quiesce == Quiesce::Guest);
    let own = workloads.iter().all(|w| w.ssh.key_file.is_none());
    if needed && own {
        keep_key(&request.out.join(UNSEALED), key)?;
    }
    Ok(())
}

/// Records what the sites run; returns how far each site's clock may be ahead of ours.
async fn introduce(sites: &Sites, recorder: &Recorder) -> Result<[Duration; 2], RunError> {
    let mut ahead = [Duration::ZERO; 2];
    for (slot, site) in ahead.iter_mut().zip([Site::Primary, Site::Secondary]) {
        let versions = sites
            .of(site)
            .versions()
            .await
            .map_err(|e| RunError::Preflight(format!("  {site}: {e}")))?;
        let (skew, bound) = versions.clock.map_or((0, 0), |c| (c.skew_ms, c.bound_ms));
        let most = skew.saturating_add(i64::try_from(bound).unwrap_or(i64::MAX));
        *slot = Duration::from_millis(u64::try_from(most).unwrap_or(0));
        let fact = Fact::SiteSeen {
            site,
            kubernetes: versions.kubernetes,
            kubevirt: versions.kubevirt,
            clock_skew_ms: skew,
            clock_bound_ms: bound,
        };
        recorder
            .record(&Scope::run(), fact)
            .await
            .map_err(RunError::evidence)?;
    }
    Ok(ahead)
}
