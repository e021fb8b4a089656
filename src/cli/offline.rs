//! `check` and `report`: a stored run, judged and rendered again.

use std::path::Path;

use super::args::Format;
use super::exit::Exit;
use super::output::line;
use crate::run;

pub(super) fn check(dir: &Path, format: Format) -> anyhow::Result<Exit> {
    let judged = run::judge(dir)?;
    let view = judged.view();
    super::show(&view, format)?;
    Ok(Exit::from_status(view.status))
}

pub(super) fn report(dir: &Path) -> anyhow::Result<Exit> {
    let judged = run::judge(dir)?;
    let view = run::render(dir, &judged)?;
    for name in ["report.html", "report.md", "report.json", "junit.xml"] {
        line(dir.join(name).display())?;
    }
    Ok(Exit::from_status(view.status))
}
