//! The matrix as text: a row per fault, a column per check.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::matrix::{Matrix, Row};
use super::simulated::Simulated;
use super::word::Word;
use crate::check::verdict::Status;

/// Renders faults × checks, what came out badly, and the counts. `paint` colours a piece of text by
/// status.
pub fn render(matrix: &Matrix, paint: fn(Option<Status>, &str) -> String) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    write(matrix, paint, &mut out).expect("writing to a String");
    out
}

fn write(
    matrix: &Matrix,
    paint: fn(Option<Status>, &str) -> String,
    out: &mut String,
) -> std::fmt::Result {
    let shown: Vec<&Row> = matrix
        .rows
        .iter()
        .filter(|row| !row.seen.is_empty())
        .collect();
    let used = |check: &&String| {
        let mut seen = shown.iter().flat_map(|row| &row.seen);
        seen.any(|seen| seen.checks.contains_key(*check))
    };
    let checks: Vec<&String> = matrix.checks.iter().filter(used).collect();
    let width = matrix.rows.iter().map(|row| row.name.len()).max();
    let width = width.unwrap_or(0).max("fault".len());
    write!(out, "{:width$}  {:8}", "fault", "entry")?;
    for check in &checks {
        write!(out, " {check:>2}")?;
    }
    writeln!(out, "  ordained")?;
    for row in &shown {
        write!(out, "{:width$}  {:8}", row.name, row.entries.join(","))?;
        let worst = worst(row);
        for check in &checks {
            let status = worst.get(check.as_str()).copied();
            write!(
                out,
                "  {}",
                status.map_or_else(|| " ".into(), |s| paint(Some(s), mark(s)))
            )?;
        }
        let (status, word) = match &row.word {
            Word::AsOrdained => (Status::Pass, row.ordained.clone()),
            other => (Status::Fail, format!("{} — {}", row.ordained, said(other))),
        };
        writeln!(out, "  {}", paint(Some(status), &word))?;
    }
    unreachable(matrix, width, out)?;
    for gap in &matrix.gaps {
        writeln!(out, "\n{}", paint(Some(Status::Fail), &gap.to_string()))?;
    }
    if let Some(simulated) = &matrix.simulated {
        families(simulated, paint, out)?;
    }
    let tally = matrix.tally();
    let status = if matrix.holds() {
        Status::Pass
    } else {
        Status::Fail
    };
    let counts = format!(
        "{} as ordained, {} missed, {} false alarms, {} broken, {} unreachable, {} gaps",
        tally.held,
        tally.missed,
        tally.false_alarms,
        tally.broken,
        tally.unreachable,
        matrix.gaps.len()
    );
    writeln!(out, "\n{}", paint(Some(status), &counts))
}

fn families(
    simulated: &Simulated,
    paint: fn(Option<Status>, &str) -> String,
    out: &mut String,
) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:22} {:>9} {:>9} {:>9} {:>12}  must fire",
        "simulated fault", "planted", "caught", "elsewhere", "undetectable"
    )?;
    for family in &simulated.families {
        writeln!(
            out,
            "{:22} {:>9} {:>9} {:>9} {:>12}  {}",
            family.name,
            family.planted,
            family.caught,
            family.elsewhere,
            family.undetectable,
            family.ordained.join(" or ")
        )?;
    }
    for wrong in &simulated.wrong {
        writeln!(out, "{}", paint(Some(Status::Fail), wrong))?;
    }
    let status = if simulated.holds() {
        Status::Pass
    } else {
        Status::Fail
    };
    let words = format!(
        "{} legal histories, {} faulty ones: {} false failures, {} misses",
        simulated.legal, simulated.faulty, simulated.false_failures, simulated.misses
    );
    writeln!(out, "{}", paint(Some(status), &words))
}

fn unreachable(matrix: &Matrix, width: usize, out: &mut String) -> std::fmt::Result {
    let rows: Vec<_> = matrix
        .rows
        .iter()
        .filter_map(|row| match &row.word {
            Word::Unreachable(why) => Some((row, why)),
            _ => None,
        })
        .collect();
    if !rows.is_empty() {
        writeln!(out, "\nunreachable, not caught:")?;
    }
    rows.into_iter().try_for_each(|(row, why)| {
        writeln!(
            out,
            "{:width$}  {:8}  {why}",
            row.name,
            row.entries.join(",")
        )
    })
}

/// The worst word of each check over a row's seeds.
pub(super) fn worst(row: &Row) -> BTreeMap<&str, Status> {
    let mut worst = BTreeMap::new();
    for (check, status) in row.seen.iter().flat_map(|seen| &seen.checks) {
        let known = worst.entry(check.as_str()).or_insert(*status);
        *known = (*known).max(*status);
    }
    worst
}

const fn mark(status: Status) -> &'static str {
    match status {
        Status::Pass => "✓",
        Status::Inconclusive => "?",
        Status::Fail => "✗",
    }
}

/// A word for people.
pub(super) fn said(word: &Word) -> String {
    match word {
        Word::AsOrdained => "as ordained".into(),
        Word::Unreachable(why) => format!("unreachable: {why}"),
        Word::Broken(why) => format!("broken: {why}"),
        Word::FalseAlarm(why) => format!("false alarm: {why}"),
        Word::Miss(why) => format!("missed: {why}"),
    }
}
