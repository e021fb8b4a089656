//! `list`, `explain` and `completions`: what virtproof knows, as text.

use anyhow::bail;
use clap::CommandFactory;

use super::args::{Cli, Completions, Explain, Format, List};
use super::exit::Exit;
use super::output::{columns, line, raw};
use crate::check::{CATALOGUE as CHECKS, CheckSpec};
use crate::lab::faults;
use crate::scenario::catalogue::{Spec, catalogue as scenarios};

pub(super) fn list(list: &List, format: Format) -> anyhow::Result<Exit> {
    if format == Format::Json {
        let scenarios: Vec<_> = scenarios().map(scenario_json).collect();
        let checks: Vec<_> = CHECKS
            .iter()
            .map(|c| serde_json::json!({"id": c.id, "title": c.title}))
            .collect();
        line(serde_json::json!({"scenarios": scenarios, "checks": checks}))?;
        return Ok(Exit::Pass);
    }
    let mut rows = vec![row(&[
        "SCENARIO",
        if list.sources { "SOURCES" } else { "PURPOSE" },
    ])];
    for spec in scenarios() {
        let text = if list.sources {
            spec.sources.join("; ")
        } else {
            spec.purpose.to_owned()
        };
        rows.push(vec![spec.id.to_owned(), text]);
    }
    raw(columns(&rows))?;
    if !list.sources {
        line("")?;
        let mut rows = vec![row(&["CHECK", "PROVES"])];
        rows.extend(CHECKS.iter().map(|c| row(&[c.id, c.title])));
        raw(columns(&rows))?;
    }
    Ok(Exit::Pass)
}

pub(super) fn explain(explain: &Explain) -> anyhow::Result<Exit> {
    if let Some(spec) = crate::scenario::catalogue::by_id(&explain.id) {
        raw(scenario_text(spec))?;
    } else if let Some(check) = CHECKS
        .iter()
        .find(|c| c.id.eq_ignore_ascii_case(&explain.id))
    {
        raw(check_text(check))?;
    } else {
        bail!(
            "`{}` is neither a scenario nor a check; `virtproof list` names them all",
            explain.id
        );
    }
    Ok(Exit::Pass)
}

pub(super) fn completions(completions: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut Cli::command(),
        "virtproof",
        &mut script,
    );
    raw(String::from_utf8(script)?)?;
    Ok(Exit::Pass)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

fn scenario_json(spec: &Spec) -> serde_json::Value {
    let steps: Vec<_> = spec.steps.iter().map(|s| s.name()).collect();
    serde_json::json!({
        "id": spec.id, "purpose": spec.purpose, "steps": steps, "checks": spec.checks,
        "zeroLoss": spec.zero_loss, "sources": spec.sources,
    })
}

fn scenario_text(spec: &Spec) -> String {
    let mut out = format!("{}\n  {}\n\nSteps\n", spec.id, spec.purpose);
    let rows: Vec<_> = spec
        .steps
        .iter()
        .map(|s| vec![format!("  {}", s.name()), s.does().to_owned()])
        .collect();
    out.push_str(&columns(&rows));
    out.push_str("\nChecks\n");
    let rows: Vec<_> = spec
        .checks
        .iter()
        .filter_map(|id| CHECKS.iter().find(|c| c.id == *id))
        .map(|c| vec![format!("  {}", c.id), c.title.to_owned()])
        .collect();
    out.push_str(&columns(&rows));
    out.push_str("\nFaults of the lab that it shows\n");
    let rows: Vec<_> = faults::table()
        .filter(|f| f.scenario == spec.id)
        .map(|f| vec![format!("  {}", f.name), f.word(), f.summary.to_owned()])
        .collect();
    out.push_str(&columns(&rows));
    out.push_str("\nSources\n");
    for source in spec.sources {
        out.push_str("  ");
        out.push_str(source);
        out.push('\n');
    }
    out
}

fn check_text(check: &CheckSpec) -> String {
    let mut out = format!(
        "{}  {}\n\n{}\n\nLimits\n{}\n",
        check.id, check.title, check.what, check.limits
    );
    out.push_str("\nFaults of the lab that turn it red\n");
    for fault in faults::table().filter(|f| f.red().contains(&check.id)) {
        for part in ["  ", fault.name, ": ", fault.summary, "\n"] {
            out.push_str(part);
        }
    }
    out
}
