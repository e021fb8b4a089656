//! Findings as text for people.

use std::fmt::Write as _;

use super::finding::{Finding, Severity};
use super::{Report, Source, rules};

/// The longest line that is shown, in characters.
const WIDTH: usize = 120;

/// A part of a finding that a terminal may colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The word of its severity.
    Severity(Severity),
    /// Anything that may step back.
    Aside,
}

/// The report as text. `paint` colours a part.
pub fn render(report: &Report, sources: &[Source], paint: impl Fn(Part, &str) -> String) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        one(&mut out, finding, sources, &paint);
    }
    for skipped in &report.skipped {
        writeln!(
            out,
            "{}:{}: not looked at: {}",
            skipped.file, skipped.line, skipped.kind
        )
        .ok();
    }
    let counts = report.counts();
    writeln!(
        out,
        "{}, {}, {} in {}; {} not looked at",
        many(counts.errors, "error"),
        many(counts.warnings, "warning"),
        many(counts.notes, "note"),
        many(report.looked_at, "object"),
        report.skipped.len()
    )
    .ok();
    out
}

fn many(count: usize, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

/// `docs/lint-rules.md`: every rule, from the table that the code runs by.
pub fn page() -> String {
    let mut out = String::from(
        "# Rules of `virtproof lint`\n\nGenerated from the code; a test keeps it true. Severities are those that a rule has \
         by itself; in the\ncompany of replication objects `dv-reimport` is an error.\n",
    );
    for rule in rules::all() {
        let (id, severity) = (rule.id, rule.severity.word());
        writeln!(
            out,
            "\n## `{id}` ({severity})\n\n{}\n\nFix: {}\n\nSource: {}.",
            rule.why, rule.fix, rule.source
        )
        .ok();
    }
    out
}

fn one(
    out: &mut String,
    finding: &Finding,
    sources: &[Source],
    paint: &impl Fn(Part, &str) -> String,
) {
    let Finding {
        file,
        line,
        column,
        object,
        what,
        rule,
        ..
    } = finding;
    let severity = paint(Part::Severity(finding.severity), finding.severity.word());
    let rule = paint(Part::Aside, &format!("[{rule}]"));
    writeln!(
        out,
        "{file}:{line}:{column}: {severity}: {object}: {what} {rule}"
    )
    .ok();
    let text = sources.iter().find(|source| source.name == *file);
    let index = usize::try_from(*line).unwrap_or(0).checked_sub(1);
    if let Some(line_text) = text
        .zip(index)
        .and_then(|(source, index)| source.text.lines().nth(index))
    {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = line_text.chars().take(WIDTH).map(plain).collect();
        writeln!(out, "  {line} | {}", shown.trim_end()).ok();
    }
    for (word, text) in [
        ("why", finding.why),
        ("fix", finding.fix),
        ("source", finding.source),
    ] {
        writeln!(out, "  {}: {text}", paint(Part::Aside, word)).ok();
    }
    out.push('\n');
}
