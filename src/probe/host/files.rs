//! What a guest's file volumes show before anybody mounts them, and what their checkers say.

use crate::cluster::Deadline;
use crate::guest::{Job, Output, Patience};
use crate::probe::config::Config;
use crate::probe::filesystem::{Told, files};

use super::binary::ProbeBinary;
use super::deploy::{Reach, prepare_to_read};
use super::error::ProbeError;

/// Puts the probe into a guest and has it look at every file volume past any mount.
pub async fn look_at_files(
    reach: &Reach,
    binary: &ProbeBinary,
    config: &Config,
    deadline: &Deadline,
) -> Result<Vec<Told>, ProbeError> {
    let shell = reach.booting(deadline, None).await?;
    let remote = reach.remote(config.run_id);
    prepare_to_read(&shell, &remote, binary, config, deadline).await?;
    shell.close().await;
    told(reach, &remote.look(), config, deadline).await
}

/// Has the checker of every file volume look, after a mount recovered its journal or log. The probe
/// must be in the guest already.
pub async fn check_files(
    reach: &Reach,
    config: &Config,
    deadline: &Deadline,
) -> Result<Vec<Told>, ProbeError> {
    let command = reach.remote(config.run_id).check();
    told(reach, &command, config, deadline).await
}

/// Runs a command that tells a line of each file volume.
async fn told(
    reach: &Reach,
    command: &str,
    config: &Config,
    deadline: &Deadline,
) -> Result<Vec<Told>, ProbeError> {
    let Reach { route, login } = reach;
    let shell = crate::guest::connect(route, login, &Patience::running(), deadline, None).await?;
    let text = config.to_string();
    let job = Job::new(command).stdin(text.as_bytes());
    let output = shell.run(&job, deadline).await?.check()?;
    shell.close().await;
    parsed(&output, config)
}

/// The lines of a command that tells one of each file volume.
pub(super) fn parsed(output: &Output, config: &Config) -> Result<Vec<Told>, ProbeError> {
    let refused = |said| ProbeError::Refused { said };
    let told = Told::parse(&output.text()).map_err(refused)?;
    if files(config)
        .map(|(ordinal, _)| ordinal)
        .ne(told.iter().map(|one| one.volume))
    {
        return Err(refused(format!(
            "not a line for each file volume: {}",
            output.text()
        )));
    }
    Ok(told)
}
