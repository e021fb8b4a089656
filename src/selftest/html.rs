//! The matrix as one self-contained HTML page.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

use super::matrix::{Matrix, Row};
use super::table::{said, worst};
use super::word::Word;
use crate::check::verdict::Status;

const PAGE: &str = include_str!("page.html");

#[derive(Serialize)]
struct Line<'a> {
    row: &'a Row,
    class: &'static str,
    said: String,
    /// Per check: class, mark, whether the row ordains it.
    cells: Vec<(&'static str, &'static str, bool)>,
    seconds: f64,
}

/// Renders the page.
///
/// # Errors
/// When the template does not fit; a test renders every part of it.
pub fn render(matrix: &Matrix) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_filter("secs", |value: f64| format!("{value:.1}"));
    env.add_template("page", PAGE)?;
    let lines: Vec<Line<'_>> = matrix.rows.iter().map(|row| line(matrix, row)).collect();
    let gaps: Vec<String> = matrix.gaps.iter().map(ToString::to_string).collect();
    env.get_template("page")?.render(context! {
        checks => Value::from(Serde(&matrix.checks)),
        lines => Value::from(Serde(&lines)),
        tally => Value::from(Serde(matrix.tally())),
        holds => matrix.holds(),
        gaps,
        simulated => Value::from(Serde(&matrix.simulated)),
    })
}

fn line<'a>(matrix: &Matrix, row: &'a Row) -> Line<'a> {
    let worst = worst(row);
    let ordained: Vec<&str> = row.ordained.split(", ").collect();
    let cell = |check: &String| {
        let (class, mark) = match worst.get(check.as_str()) {
            Some(Status::Pass) => ("pass", "✓"),
            Some(Status::Fail) => ("fail", "✗"),
            Some(Status::Inconclusive) => ("open", "?"),
            None => ("none", ""),
        };
        (class, mark, ordained.contains(&check.as_str()))
    };
    Line {
        row,
        class: match row.word {
            Word::AsOrdained => "held",
            Word::Unreachable(_) => "unreachable",
            Word::Broken(_) | Word::FalseAlarm(_) | Word::Miss(_) => "bad",
        },
        said: said(&row.word),
        cells: matrix.checks.iter().map(cell).collect(),
        // The sum of nothing is a negative zero.
        seconds: row.seen.iter().map(|seen| seen.seconds).sum::<f64>() + 0.0,
    }
}
