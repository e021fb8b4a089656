//! `check` and `report`: a stored run, judged and rendered again.

use std::path::Path;

use super::args::Format;
use super::exit::Exit;
use super::output::{line, note};
use crate::evidence;
use crate::run::{self, Keep};

pub(super) fn check(dir: &Path, format: Format) -> anyhow::Result<Exit> {
    let judged = run::judge(dir)?;
    let other = run::keep(dir, &judged, Keep::Verdicts)?;
    super::show(judged.view(), format)?;
    ended(dir, Exit::from_status(judged.view().status), &other)
}

pub(super) fn report(dir: &Path) -> anyhow::Result<Exit> {
    let judged = run::judge(dir)?;
    let other = run::keep(dir, &judged, Keep::All)?;
    if !evidence::is_sealed(dir) {
        run::seal(dir, &judged, None)?;
        note("sealed without a signature; `virtproof sign` adds one")?;
    }
    for name in judged.files() {
        line(dir.join(name).display())?;
    }
    ended(dir, Exit::from_status(judged.view().status), &other)
}

/// Never a pass when what is sealed says otherwise.
fn ended(dir: &Path, exit: Exit, other: &[&str]) -> anyhow::Result<Exit> {
    for name in other {
        note(format_args!(
            "{name} says otherwise and is sealed, so it was left as it is; virtproof verify {} says where",
            dir.display()
        ))?;
    }
    Ok(match exit {
        Exit::Pass if !other.is_empty() => Exit::Inconclusive,
        exit => exit,
    })
}
