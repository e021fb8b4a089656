//! `run`, `preflight` and `cleanup`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::{Format, GuestKind, Run};
use super::exit::Exit;
use super::lab::{InProcess, built_in};
use super::output::{columns, line, note};
use super::{guests, progress, signals, trace};
use crate::evidence::SignKey;
use crate::plan::{self, Known, Loaded};
use crate::run::{self, Ended, Request, RunError};
use crate::scenario::catalogue;
use crate::{cluster, workload};

/// Reads a plan with every name in it checked.
fn load(path: &Path, sets: &[String]) -> Result<Loaded, RunError> {
    let scenarios: Vec<&str> = catalogue::catalogue().map(|spec| spec.id).collect();
    let templates = workload::names();
    let recipes = workload::hooks::names();
    let known = Known {
        scenarios: Some(&scenarios),
        templates: Some(&templates),
        recipes: Some(&recipes),
        files: true,
    };
    plan::load_with(path, sets, &known).map_err(RunError::usage)
}

pub(super) async fn run(args: &Run, format: Format, verbose: u8) -> anyhow::Result<Exit> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => drawn()?,
    };
    if !args.lab && args.guests.guests != GuestKind::Sim {
        let why =
            anyhow::anyhow!("--guests says what runs in a lab's VMs: give --lab, or leave it out");
        return Err(RunError::usage(why).into());
    }
    let sign_key = args.sign_key.as_deref().map(SignKey::load).transpose()?;
    let out = args.out.clone().unwrap_or_else(default_out);
    trace::start(verbose)?;
    let lab = if args.lab {
        let layers = guests::layers(&looked_at(args)?.plan, &args.only)?;
        Some(InProcess::start(&args.fault, seed, &args.guests, &layers).await?)
    } else {
        None
    };
    let loaded = match (&args.plan, &lab) {
        (Some(path), _) => load(path, &args.set)?,
        (None, Some(lab)) => lab.plan(&args.set, &args.only)?,
        (None, None) => anyhow::bail!("a plan or --lab is needed"),
    };
    let hint = format!("virtproof cleanup {}", out.display());
    let cancel = signals::cancel_on_signal(hint.clone())?;
    let request = Request {
        plan: loaded,
        only: args.only.clone(),
        out: out.clone(),
        keep_on_failure: args.keep_on_failure,
        seed,
        probe: args.probe.clone(),
        argv: std::env::args().collect(),
        lab: args.lab,
        simulated: args.lab && args.guests.guests == GuestKind::Sim,
        faults: args.fault.clone(),
        sign_key,
    };
    let mut shown = None;
    let ended = run::run(&request, &cancel, |recorder| {
        if let Some(lab) = &lab {
            lab.aim(recorder.subscribe());
        }
        shown = Some(tokio::spawn(progress::show(recorder.subscribe(), format)));
    })
    .await;
    if let Some(shown) = shown {
        let missed = shown.await.context("the progress display")??;
        if missed > 0 {
            note(format_args!(
                "{missed} events came too fast to be shown; they are recorded"
            ))?;
        }
    }
    let ended = ended?;
    if let Some(lab) = lab {
        lab.keep_consoles(&out)?;
        lab.stop().await?;
    }
    report(&ended, &out, &hint, format)
}

/// The plan before there is a lab, for what the lab must have for it.
fn looked_at(args: &Run) -> Result<Loaded, RunError> {
    match &args.plan {
        Some(path) => load(path, &args.set),
        None => built_in(args.guests.guests, Path::new("."), &args.set, &args.only),
    }
}

fn report(ended: &Ended, out: &Path, hint: &str, format: Format) -> anyhow::Result<Exit> {
    super::show(&ended.view, format)?;
    note(format_args!(
        "report: {}",
        out.join("report.html").display()
    ))?;
    for left in &ended.left {
        note(format_args!(
            "not undone: {}: {}",
            left.entry.undo.describe(),
            left.why
        ))?;
    }
    if ended.kept {
        note(format_args!("left in place as asked; to undo it: {hint}"))?;
    } else if !ended.left.is_empty() {
        note(format_args!("to try again: {hint}"))?;
    }
    if ended.interrupted {
        return Ok(Exit::Interrupted);
    }
    Ok(match Exit::from_status(ended.view.status) {
        Exit::Pass if !ended.left.is_empty() || ended.kept => Exit::Residue,
        other => other,
    })
}

/// A folder named for the moment, so that runs do not meet.
fn default_out() -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    PathBuf::from(format!("virtproof-{now}"))
}

fn drawn() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    // Small enough to be retyped.
    Ok(u64::from_le_bytes(bytes) >> 32)
}

pub(super) async fn preflight(path: &Path, format: Format, verbose: u8) -> anyhow::Result<Exit> {
    trace::start(verbose)?;
    let loaded = load(path, &[])?;
    let rendered = run::templates(&loaded.plan, &loaded.dir)?;
    run::recipes(&loaded.plan, &loaded.dir)?;
    let sites = cluster::Sites::open(loaded.plan.sites(), &loaded.dir)
        .await
        .map_err(RunError::usage)?;
    let findings = run::preflight::ask(&loaded.plan, &rendered, &sites).await;
    if format == Format::Json {
        line(serde_json::to_string(&findings)?)?;
    } else {
        let rows = findings.iter().map(|finding| {
            let word = finding.trouble.as_deref().unwrap_or("ok");
            vec![
                finding.site.to_string(),
                finding.what.clone(),
                word.to_owned(),
            ]
        });
        super::output::raw(columns(&rows.collect::<Vec<_>>()))?;
        would_do(&loaded, &rendered)?;
    }
    Ok(if run::preflight::missing(&findings).is_none() {
        Exit::Pass
    } else {
        Exit::Preflight
    })
}

/// What a run of the plan would do.
fn would_do(
    loaded: &Loaded,
    rendered: &[(plan::model::Workload, workload::Rendered)],
) -> anyhow::Result<()> {
    line("\nA run would do, for each of")?;
    for (workload, rendered) in rendered {
        let disks = rendered.ledger_disks().count();
        line(format_args!(
            "  {} × {} ({disks} ledger disks)",
            workload.count, workload.name
        ))?;
        for text in rendered.notes() {
            line(format_args!("    note: {text}"))?;
        }
    }
    let specs = catalogue::select(loaded.plan.patterns()).map_err(anyhow::Error::msg)?;
    for spec in specs {
        let steps: Vec<_> = spec.steps.iter().map(|s| s.name()).collect();
        line(format_args!("  {}: {}", spec.id, steps.join(", ")))?;
    }
    Ok(())
}

pub(super) async fn cleanup(dir: &Path, verbose: u8) -> anyhow::Result<Exit> {
    trace::start(verbose)?;
    let cancel = signals::cancel_on_signal(format!("virtproof cleanup {}", dir.display()))?;
    for orphan in guests::bury(&run::base(dir).map_err(RunError::Usage)?).await? {
        line(format_args!("killed QEMU {orphan} of a lab that is gone"))?;
    }
    let cleaned = run::cleanup(dir, &cancel).await?;
    for left in &cleaned.left {
        line(format_args!(
            "not undone: {}: {}",
            left.entry.undo.describe(),
            left.why
        ))?;
    }
    for residue in &cleaned.residue {
        line(format_args!(
            "left on {}: {} {} ({})",
            residue.site, residue.kind, residue.name, residue.why
        ))?;
    }
    for why in &cleaned.trouble {
        line(format_args!("could not look for leftovers: {why}"))?;
    }
    if cleaned.is_clean() {
        line(format_args!(
            "clean: {} entries undone, nothing is left",
            cleaned.entries
        ))?;
        return Ok(Exit::Pass);
    }
    Ok(if cancel.is_cancelled() {
        Exit::Interrupted
    } else {
        Exit::Residue
    })
}
