//! `docs/catalogue.md`, from the tables that the code runs by.

use std::fmt::Write as _;

use super::exit::Exit;
use crate::check::CATALOGUE as CHECKS;
use crate::lab::faults::table;
use crate::scenario::catalogue;

/// The whole page.
pub fn catalogue() -> String {
    let mut out = String::from(
        "# Scenarios, checks and faults\n\nGenerated from the code; a test keeps it true.\n",
    );
    // Writing to a String cannot fail.
    scenarios(&mut out)
        .and_then(|()| checks(&mut out))
        .and_then(|()| faults(&mut out))
        .and_then(|()| exits(&mut out))
        .expect("writing to a String");
    out
}

fn scenarios(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## Scenarios")?;
    for spec in catalogue::catalogue() {
        let steps: Vec<_> = spec.steps.iter().map(|s| s.name()).collect();
        writeln!(out, "\n### `{}`\n\n{}.\n", spec.id, spec.purpose)?;
        writeln!(out, "- steps: {}", steps.join(", "))?;
        writeln!(out, "- checks: {}", spec.checks.join(", "))?;
        let loss = if spec.zero_loss {
            "no acknowledged write may be lost"
        } else {
            "loss is measured"
        };
        writeln!(out, "- {loss}")?;
        writeln!(out, "- sources: {}", spec.sources.join("; "))?;
    }
    Ok(())
}

fn checks(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## Checks")?;
    for check in CHECKS {
        writeln!(
            out,
            "\n### {} {}\n\n{}\n\nLimits: {}",
            check.id, check.title, check.what, check.limits
        )?;
        let red: Vec<_> = table()
            .filter(|f| f.red().contains(&check.id))
            .map(|f| format!("`{}`", f.name))
            .collect();
        let red = if red.is_empty() {
            "none in the lab yet".into()
        } else {
            red.join(", ")
        };
        writeln!(out, "\nTurned red by: {red}")?;
    }
    Ok(())
}

fn faults(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n## Faults of the lab\n\nNumbers name the entries of the fault catalogue, F numbers those of replication's failure modes.\n\n\
         | name | entry | where | when | ordained | seen in | what it does |\n|---|---|---|---|---|---|---|"
    )?;
    table().try_for_each(|f| {
        writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} | {} |",
            f.name,
            f.entries.join(", "),
            f.place.name(),
            f.phase.name(),
            f.word(),
            f.scenario,
            f.summary
        )
    })
}

fn exits(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## Exit codes\n\n| code | meaning |\n|---|---|")?;
    Exit::ALL
        .iter()
        .try_for_each(|exit| writeln!(out, "| {} | {} |", *exit as u8, exit.meaning()))
}
