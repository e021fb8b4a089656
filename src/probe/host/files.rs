//! What a guest's file volumes show before anybody mounts them, and what their checkers say.

use crate::cluster::Deadline;
use crate::guest::{Job, Patience};
use crate::probe::config::{Config, Target};
use crate::probe::filesystem::Told;

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
    let refused = |said| ProbeError::Refused { said };
    let told = Told::parse(&output.text()).map_err(refused)?;
    let files = (0_u8..).zip(&config.volumes);
    let files = files.filter(|(_, volume)| matches!(volume.target, Target::File(_)));
    if files
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
