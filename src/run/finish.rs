//! From a run directory to verdicts and reports. Offline: reads the directory and nothing else.

use std::path::Path;

use anyhow::Context as _;

use super::error::RunError;
use super::{PLAN_FILE, VERDICTS_FILE};
use crate::check::{self, Verdicts};
use crate::history::read::History;
use crate::plan::{self, Known, Plan};
use crate::report;
use crate::report::view::View;

/// A judged run directory.
pub struct Judged {
    /// Its plan.
    pub plan: Plan,
    /// Its history.
    pub history: History,
    /// What the checks say.
    pub verdicts: Verdicts,
}

impl Judged {
    /// What reports show of it.
    pub fn view(&self) -> View {
        report::build(&self.plan, &self.history, &self.verdicts.verdicts)
    }
}

/// Judges a run directory and writes `verdicts.json`.
pub fn judge(dir: &Path) -> Result<Judged, RunError> {
    let loaded = plan::load(&dir.join(PLAN_FILE), &Known::nothing()).map_err(RunError::usage)?;
    let history = History::open(dir).map_err(RunError::evidence)?;
    let verdicts = check::judge(&loaded.plan, &history);
    let mut text = serde_json::to_string_pretty(&verdicts).map_err(RunError::evidence)?;
    text.push('\n');
    write(dir, VERDICTS_FILE, &text).map_err(RunError::Evidence)?;
    Ok(Judged {
        plan: loaded.plan,
        history,
        verdicts,
    })
}

/// Writes every report of a judged run into its directory.
pub fn render(dir: &Path, judged: &Judged) -> Result<View, RunError> {
    let view = judged.view();
    let all = || -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(&view)?;
        json.push('\n');
        write(dir, "report.json", &json)?;
        write(dir, "report.md", &report::markdown::render(&view))?;
        write(dir, "report.html", &report::html::render(&view)?)?;
        write(dir, "junit.xml", &report::junit::render(&view)?)
    };
    all().map_err(RunError::Evidence)?;
    Ok(view)
}

/// Writes a file whole or not at all: a reader never meets half a report.
fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let put = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(dir.join(name))?;
        Ok(())
    };
    put().with_context(|| format!("writing {}", dir.join(name).display()))
}
