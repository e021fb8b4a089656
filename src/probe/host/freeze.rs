//! Freezing and thawing the file systems of a guest's file volumes from inside it.

use std::time::Duration;

use super::binary::ProbeBinary;
use super::deploy::{Reach, prepare_to_read};
use super::error::ProbeError;
use super::files::parsed;
use crate::cluster::Deadline;
use crate::guest::{Exit, Job, Patience, Shell, error::printable_tail};
use crate::probe::config::Config;
use crate::probe::filesystem::Told;
use crate::probe::remote::Remote;

/// A login that freezes, asks and thaws. It is opened before the moment that counts: on a busy machine
/// a login can take longer than everything that it is for.
pub struct Inside {
    shell: Shell,
    remote: Remote,
    config: Config,
}

impl Inside {
    /// Logs in and puts the probe there, if it is not.
    pub async fn enter(
        reach: &Reach,
        binary: &ProbeBinary,
        config: Config,
        deadline: &Deadline,
    ) -> Result<Self, ProbeError> {
        let shell = reach.booting(deadline, None).await?;
        let remote = reach.remote(config.run_id);
        prepare_to_read(&shell, &remote, binary, &config, deadline).await?;
        Ok(Self {
            shell,
            remote,
            config,
        })
    }

    /// Has every file volume frozen, with a timer that thaws them inside the guest whatever becomes of
    /// anybody outside.
    pub async fn freeze(&self, timer: Duration, deadline: &Deadline) -> Result<(), ProbeError> {
        let timer_ms = u64::try_from(timer.as_millis()).unwrap_or(u64::MAX);
        let told = self.told(&self.remote.freeze(timer_ms), deadline).await?;
        match told.into_iter().find(|one| one.well != Some(true)) {
            None => Ok(()),
            Some(one) => Err(ProbeError::Refused { said: one.said }),
        }
    }

    /// Asks whether they are held frozen.
    pub async fn are_frozen(&self, deadline: &Deadline) -> Result<Vec<Told>, ProbeError> {
        self.told(&self.remote.frozen(), deadline).await
    }

    /// Has them thawed. What was not frozen any more is told as not `well`.
    pub async fn thaw(&self, deadline: &Deadline) -> Result<Vec<Told>, ProbeError> {
        all(self.told(&self.remote.thaw(), deadline).await?)
    }

    async fn told(&self, command: &str, deadline: &Deadline) -> Result<Vec<Told>, ProbeError> {
        let text = self.config.to_string();
        let job = Job::new(command).stdin(text.as_bytes());
        let output = self.shell.run(&job, deadline).await?.check()?;
        parsed(&output, &self.config)
    }

    /// Whether the login holds, as far as anybody knows.
    pub fn holds(&self) -> bool {
        !self.shell.is_closed()
    }

    /// Says goodbye.
    pub async fn leave(self) {
        self.shell.close().await;
    }
}

/// Has the file systems of a guest thawed by this command of [`Remote`] with this config, as an undo log
/// keeps them. A guest in which the probe is no more has booted since, and nothing of it is frozen: that
/// is `None`.
pub async fn thaw_files(
    reach: &Reach,
    command: &str,
    config: &str,
    deadline: &Deadline,
) -> Result<Option<Vec<Told>>, ProbeError> {
    let Reach { route, login } = reach;
    let shell = crate::guest::connect(route, login, &Patience::running(), deadline, None).await?;
    let job = Job::new(command).stdin(config.as_bytes());
    let output = shell.run(&job, deadline).await?;
    shell.close().await;
    let said = printable_tail(&output.stderr, 300);
    match output.exit {
        Exit::Status(127) => return Ok(None),
        Exit::Status(1) if said.starts_with("sudo:") && said.contains("command not found") => {
            return Ok(None);
        }
        _ => {}
    }
    let output = output.check()?;
    let told = Told::parse(&output.text()).map_err(|said| ProbeError::Refused { said })?;
    all(told).map(Some)
}

/// What was told, unless one of them could not be thawed.
fn all(told: Vec<Told>) -> Result<Vec<Told>, ProbeError> {
    match told.iter().find(|one| one.well.is_none()) {
        None => Ok(told),
        Some(one) => Err(ProbeError::Refused {
            said: one.said.clone(),
        }),
    }
}
