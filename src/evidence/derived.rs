//! What follows from plan and history alone: verdicts and reports, as text and under their names.

use anyhow::Context as _;

use super::VERDICTS_FILE;
use crate::check::{self, Verdicts};
use crate::history::read::History;
use crate::plan::Plan;
use crate::report::view::View;
use crate::report::{self, html, junit, markdown};

/// Verdicts, view and the text of every file made from them.
pub struct Derived {
    /// What the checks say.
    pub verdicts: Verdicts,
    /// What the reports show.
    pub view: View,
    /// File name in the run directory and text: the verdicts first, then the reports.
    pub files: Vec<(&'static str, String)>,
}

impl Derived {
    /// The text of a file, if it is one of those that follow from the evidence.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.files.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| text.as_str())
    }
}

/// Judges and renders. Pure: the same plan and history give the same bytes.
///
/// # Errors
/// When a value cannot be serialised or a template does not fit; neither happens to what a recorder
/// wrote.
pub fn derive(plan: &Plan, history: &History) -> anyhow::Result<Derived> {
    let verdicts = check::judge(plan, history);
    let view = report::build(plan, history, &verdicts.verdicts);
    let files = vec![
        (VERDICTS_FILE, json(&verdicts).context("the verdicts")?),
        ("report.json", json(&view).context("report.json")?),
        ("report.md", markdown::render(&view)),
        ("report.html", html::render(&view).context("report.html")?),
        ("junit.xml", junit::render(&view).context("junit.xml")?),
    ];
    Ok(Derived {
        verdicts,
        view,
        files,
    })
}

fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}
