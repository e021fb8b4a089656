//! The report as Markdown, for tickets and change records.

use std::fmt::Write;

use super::view::{Bracket, SubjectView, TrialView, View, word};
use crate::check::verdict::Verdict;

/// Renders the whole run.
pub fn render(view: &View) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    head(&mut out, view)
        .and_then(|()| body(&mut out, view))
        .expect("writing to a String");
    out
}

fn head(out: &mut String, view: &View) -> std::fmt::Result {
    writeln!(
        out,
        "# {}: {}\n",
        cell(&view.name),
        word(view.status).to_uppercase()
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| run | `{}` |", view.run_id)?;
    writeln!(out, "| started | {} |", view.started)?;
    writeln!(out, "| took | {:.1} s |", view.seconds)?;
    writeln!(
        out,
        "| ended | {} |",
        cell(if view.ended.is_empty() {
            "no end recorded"
        } else {
            &view.ended
        })
    )?;
    writeln!(out, "| virtproof | {} |", cell(&view.tool))?;
    writeln!(out, "| plan BLAKE3 | `{}` |", view.plan_blake3)?;
    writeln!(out, "| history head | `{}` |", view.history_head)?;
    writeln!(out, "| seed | {} |", view.seed)?;
    for site in &view.sites {
        let kubevirt = site.kubevirt.as_deref().unwrap_or("unknown");
        writeln!(
            out,
            "| {} | Kubernetes {}, KubeVirt {}, clock {} |",
            site.site,
            cell(&site.kubernetes),
            cell(kubevirt),
            cell(&site.skew)
        )?;
    }
    if view.lab {
        writeln!(
            out,
            "\nThe sites were **simulated**: this proves virtproof, not a storage system."
        )?;
    }
    for fault in &view.faults {
        writeln!(out, "\nPlanted on purpose: `{}`.", cell(fault))?;
    }
    match &view.residue {
        None => writeln!(out, "\nNobody looked for leftovers."),
        Some(left) if left.is_empty() => writeln!(out, "\nCleanup left nothing behind."),
        Some(left) => {
            writeln!(out, "\nLeft behind:\n")?;
            left.iter()
                .try_for_each(|object| writeln!(out, "- {}", cell(object)))
        }
    }
}

fn body(out: &mut String, view: &View) -> std::fmt::Result {
    for trial in &view.trials {
        trial_section(out, trial)?;
    }
    record(out, view)?;
    if !view.notes.is_empty() {
        writeln!(out, "\n## Notes\n")?;
        for note in &view.notes {
            writeln!(out, "- {}", cell(note))?;
        }
    }
    Ok(())
}

/// A text, or a blank line for people to fill in.
fn blank(text: &str) -> String {
    if text.is_empty() {
        "________".into()
    } else {
        cell(text)
    }
}

fn record(out: &mut String, view: &View) -> std::fmt::Result {
    let record = &view.record;
    writeln!(out, "\n## Record of the exercise\n\n| | |\n|---|---|")?;
    for (name, text) in [
        ("invoked by", &record.invoker),
        ("approved by", &record.approver),
        ("change ticket", &record.change),
    ] {
        writeln!(out, "| {name} | {} |", blank(text))?;
    }
    if let Some(preflight) = &record.preflight {
        let missing = preflight.missing.len();
        writeln!(
            out,
            "| preflight | {} asked, {missing} missing |",
            preflight.asked
        )?;
    }
    for (name, digest) in [
        ("executable SHA-256", &record.sha256),
        ("probe BLAKE3", &record.probe_blake3),
    ] {
        let digest = digest.as_deref().unwrap_or("not recorded");
        writeln!(out, "| {name} | `{digest}` |")?;
    }
    for site in &view.sites {
        let cluster = site.cluster.as_deref().unwrap_or("not readable");
        writeln!(out, "| {} cluster | `{}` |", site.site, cell(cluster))?;
        for (class, digest) in &site.classes {
            writeln!(out, "| {} {} BLAKE3 | `{digest}` |", site.site, cell(class))?;
        }
    }
    writeln!(out, "\n### Deviations from the plan\n")?;
    if record.deviations.is_empty() {
        writeln!(out, "None.")?;
    }
    for line in &record.deviations {
        writeln!(out, "- {}", cell(line))?;
    }
    if !record.findings.is_empty() {
        writeln!(
            out,
            "\n### Findings\n\n| check | trial | VM | verdict | found | owner | due |\n|---|---|---|---|---|---|---|"
        )?;
    }
    for open in &record.findings {
        let (subject, found) = (cell(&open.subject), cell(&open.summary));
        let (owner, due) = (blank(&open.owner), blank(&open.due));
        let status = word(Some(open.status));
        writeln!(
            out,
            "| {} | {} | {subject} | {status} | {found} | {owner} | {due} |",
            open.check,
            cell(&open.trial)
        )?;
    }
    Ok(())
}

fn trial_section(out: &mut String, trial: &TrialView) -> std::fmt::Result {
    writeln!(
        out,
        "\n## {} `{}`: {} ({:.1} s)\n",
        cell(&trial.scenario),
        cell(&trial.id),
        word(trial.status),
        trial.seconds
    )?;
    if trial.outcome != "ok" {
        writeln!(out, "{}\n", cell(&trial.outcome))?;
    }
    writeln!(
        out,
        "| VM | verdict | acked | lost | RPO | RTO |\n|---|---|---|---|---|---|"
    )?;
    for subject in &trial.subjects {
        subject_row(out, subject)?;
    }
    writeln!(out, "\n| check | VM | verdict | found |\n|---|---|---|---|")?;
    let all = trial
        .subjects
        .iter()
        .flat_map(|s| &s.verdicts)
        .chain(&trial.verdicts);
    let mut details = Vec::new();
    for verdict in all {
        let subject = if verdict.subject.is_empty() {
            "(all)"
        } else {
            &verdict.subject
        };
        let status = word(Some(verdict.status));
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            verdict.check,
            cell(subject),
            status,
            cell(&verdict.summary)
        )?;
        details.push(verdict);
    }
    details
        .into_iter()
        .filter(|v| !v.witness.is_empty() || !v.warnings.is_empty())
        .try_for_each(|v| witness(out, v))
}

fn subject_row(out: &mut String, subject: &SubjectView) -> std::fmt::Result {
    let lost = subject
        .lost
        .map_or_else(|| "–".to_owned(), |n| n.to_string());
    writeln!(
        out,
        "| {} | {} | {} | {} | {} | {} |",
        cell(&subject.name),
        word(subject.status),
        subject.acked,
        lost,
        bracket(subject.rpo),
        bracket(subject.rto)
    )
}

fn witness(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    writeln!(
        out,
        "\n**{} on {}**\n",
        verdict.check,
        cell(&verdict.subject)
    )?;
    verdict
        .witness
        .iter()
        .try_for_each(|line| writeln!(out, "- {}", cell(line)))?;
    verdict
        .warnings
        .iter()
        .try_for_each(|line| writeln!(out, "- warning: {}", cell(line)))
}

/// A bracket as text: `1.20–1.25 s (≤ 120 s)`.
pub fn bracket(bracket: Option<Bracket>) -> String {
    let Some(Bracket { low, high, target }) = bracket else {
        return "–".to_owned();
    };
    let value = if (high - low).abs() < 0.005 {
        format!("{high:.2} s")
    } else {
        format!("{low:.2}–{high:.2} s")
    };
    match target {
        Some(target) => format!("{value} (allowed {target:.0} s)"),
        None => value,
    }
}

/// Untrusted text made safe for a table cell: no line breaks, no column or HTML marks.
fn cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('`', "'")
}
