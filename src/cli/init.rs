//! `init`: a starter plan, or the embedded templates as files.

use std::fs::File;
use std::io::Write as _;

use anyhow::Context as _;

use super::args::Init;
use super::exit::Exit;
use super::output::{line, note, raw};
use crate::plan::{self, model::DriverKind};
use crate::workload;

pub(super) fn init(init: &Init) -> anyhow::Result<Exit> {
    if let Some(dir) = &init.extract {
        let written = workload::extract(dir)
            .with_context(|| format!("writing templates into {}", dir.display()))?;
        for file in written {
            line(file.display())?;
        }
        return Ok(Exit::Pass);
    }
    let text = plan::starter(DriverKind::VolumeReplication);
    let Some(out) = &init.out else {
        raw(text)?;
        return Ok(Exit::Pass);
    };
    File::create_new(out)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| {
            format!(
                "writing {} (an existing file is never overwritten)",
                out.display()
            )
        })?;
    note(format_args!(
        "wrote {}; edit it, then: virtproof preflight {0}",
        out.display()
    ))?;
    Ok(Exit::Pass)
}
