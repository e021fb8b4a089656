//! The final table on a terminal: a line per VM and trial, then what needs attention.

use std::fmt::Write as _;

use super::markdown::bracket;
use super::view::{SubjectView, TrialView, View, word};
use crate::check::verdict::{Status, Verdict};

/// Paints a word by its status; the caller decides about colours.
pub type Paint = fn(Option<Status>, &str) -> String;

/// Renders the table.
pub fn render(view: &View, paint: Paint) -> String {
    let mut out = String::new();
    for trial in &view.trials {
        // Writing to a String cannot fail.
        trial_block(&mut out, trial, paint).expect("writing to a String");
    }
    summary(&mut out, view, paint).expect("writing to a String");
    out
}

fn trial_block(out: &mut String, trial: &TrialView, paint: Paint) -> std::fmt::Result {
    let status = word(trial.status);
    writeln!(
        out,
        "{}  {}  {:.1} s",
        paint(trial.status, status),
        trial.scenario,
        trial.seconds
    )?;
    if trial.outcome != "ok" {
        writeln!(out, "    {}", brief(&trial.outcome))?;
    }
    for subject in &trial.subjects {
        subject_line(out, subject, paint)?;
    }
    let all = trial
        .subjects
        .iter()
        .flat_map(|s| &s.verdicts)
        .chain(&trial.verdicts);
    for verdict in all.filter(|v| v.status != Status::Pass) {
        attention(out, verdict, paint)?;
    }
    writeln!(out)
}

fn subject_line(out: &mut String, subject: &SubjectView, paint: Paint) -> std::fmt::Result {
    write!(out, "  {:<14}", subject.name)?;
    for verdict in &subject.verdicts {
        write!(out, " {}", paint(Some(verdict.status), &mark(verdict)))?;
    }
    write!(out, "   {} acked", subject.acked)?;
    if let Some(lost) = subject.lost {
        write!(out, ", {lost} lost")?;
    }
    if subject.rpo.is_some() {
        write!(out, ", RPO {}", bracket(subject.rpo))?;
    }
    if subject.rto.is_some() {
        write!(out, ", RTO {}", bracket(subject.rto))?;
    }
    if subject.blackout.is_some() {
        write!(out, ", blackout {}", bracket(subject.blackout))?;
    }
    writeln!(out)
}

/// A check's id with its word in one character, so that colour is never the only sign.
fn mark(verdict: &Verdict) -> String {
    let sign = match verdict.status {
        Status::Pass => "✓",
        Status::Fail => "✗",
        Status::Inconclusive => "?",
    };
    format!("{}{sign}", verdict.check)
}

fn attention(out: &mut String, verdict: &Verdict, paint: Paint) -> std::fmt::Result {
    let status = paint(Some(verdict.status), word(Some(verdict.status)));
    let subject = if verdict.subject.is_empty() {
        "all"
    } else {
        &verdict.subject
    };
    writeln!(
        out,
        "    {} {status} on {subject}: {}",
        verdict.check, verdict.summary
    )?;
    for line in verdict.witness.iter().take(4) {
        writeln!(out, "        {}", brief(line))?;
    }
    let more = verdict.witness.len().saturating_sub(4);
    if more > 0 {
        writeln!(out, "        and {more} more, see the report")?;
    }
    Ok(())
}

/// The beginning of a long text; the reports have all of it.
fn brief(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{} …", &text[..cut]),
        None => text.to_owned(),
    }
}

fn summary(out: &mut String, view: &View, paint: Paint) -> std::fmt::Result {
    let n = |word: &str| view.counts.get(word).copied().unwrap_or(0);
    writeln!(
        out,
        "{}: {} passed, {} failed, {} inconclusive, {} trials, {:.1} s, seed {}",
        paint(view.status, word(view.status)),
        n("pass"),
        n("fail"),
        n("inconclusive"),
        view.trials.len(),
        view.seconds,
        view.seed
    )
}
