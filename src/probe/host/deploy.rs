//! Putting the probe into a guest and starting it there.

use crate::cluster::Deadline;
use crate::guest::{
    Exit, GuestError, GuestFacts, Job, Login, OnMilestone, Output, Patience, Route, Shell, System,
    facts,
};
use crate::probe::config::{Config, FileTarget, Locator, Target};
use crate::probe::remote::{Remote, UNAME};

use super::binary::ProbeBinary;
use super::error::ProbeError;

/// How to reach a guest, any number of times.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The way to its SSH port.
    pub route: Route,
    /// Who logs in.
    pub login: Login,
}

impl Reach {
    /// Connects, and connects again while the guest comes up.
    pub async fn booting(
        &self,
        deadline: &Deadline,
        on: Option<OnMilestone>,
    ) -> Result<Shell, GuestError> {
        let patience = Patience::booting();
        crate::guest::connect(&self.route, &self.login, &patience, deadline, on).await
    }

    /// The probe's place in the guest for one run.
    pub fn remote(&self, run_id: [u8; 16]) -> Remote {
        Remote::new(run_id, self.login.user == "root")
    }
}

/// Makes sure that the probe is in the guest and runs there, and that the guest has the volumes and
/// may write them.
pub(super) async fn prepare(
    shell: &Shell,
    remote: &Remote,
    binary: &ProbeBinary,
    config: &Config,
    deadline: &Deadline,
) -> Result<GuestFacts, ProbeError> {
    let facts = deliver(shell, remote, binary, deadline).await?;
    for serial in serials(config) {
        facts.writable_disk(serial)?;
    }
    Ok(facts)
}

/// The same for volumes that are only read.
pub(super) async fn prepare_to_read(
    shell: &Shell,
    remote: &Remote,
    binary: &ProbeBinary,
    config: &Config,
    deadline: &Deadline,
) -> Result<GuestFacts, ProbeError> {
    let facts = deliver(shell, remote, binary, deadline).await?;
    for serial in serials(config) {
        facts.disk(serial)?;
    }
    Ok(facts)
}

fn serials(config: &Config) -> impl Iterator<Item = &str> {
    config.volumes.iter().filter_map(|volume| {
        let (Target::Raw(on) | Target::File(FileTarget { on, .. })) = &volume.target;
        match on {
            Locator::Serial(serial) => Some(serial.as_str()),
            Locator::Path(_) => None,
        }
    })
}

/// Makes sure that the probe is in the guest and runs there, whatever volumes it has.
pub(super) async fn deliver(
    shell: &Shell,
    remote: &Remote,
    binary: &ProbeBinary,
    deadline: &Deadline,
) -> Result<GuestFacts, ProbeError> {
    let uname = shell.exec(UNAME, deadline).await?;
    System::parse(&uname.text())?.runs(binary.arch())?;
    let text = info(shell, remote, binary, deadline).await?;
    Ok(GuestFacts::parse(&text)?)
}

/// The text of `probe info`, after uploading the probe if it is not there or not this one.
async fn info(
    shell: &Shell,
    remote: &Remote,
    binary: &ProbeBinary,
    deadline: &Deadline,
) -> Result<String, ProbeError> {
    let ask = async || {
        let command = remote.info();
        let job = Job::new(&command).stdout_limit(facts::MAX_INFO);
        shell.run(&job, deadline).await
    };
    let there = ask().await?;
    if there.exit == Exit::Status(0) && is_build(&there, binary) {
        return Ok(there.text());
    }
    upload(shell, remote, binary, deadline).await?;
    let mut answer = ask().await?;
    if cannot_execute(&answer) {
        // Debian and Ubuntu mount /run noexec.
        shell.exec(&remote.own_tmpfs(), deadline).await?;
        upload(shell, remote, binary, deadline).await?;
        answer = ask().await?;
        if cannot_execute(&answer) {
            return Err(ProbeError::NotExecutable {
                dir: remote.dir(),
                why: crate::guest::error::printable_tail(&answer.stderr, 300),
            });
        }
    }
    Ok(answer.check()?.text())
}

async fn upload(
    shell: &Shell,
    remote: &Remote,
    binary: &ProbeBinary,
    deadline: &Deadline,
) -> Result<(), GuestError> {
    let command = remote.upload();
    let job = Job::new(&command).stdin(binary.bytes());
    shell.run(&job, deadline).await?.check().map(drop)
}

/// Whether the probe that answered is the one that would be uploaded. One that does not say which
/// it is lies in this run's own directory, where only this run puts it.
fn is_build(answer: &Output, binary: &ProbeBinary) -> bool {
    let want = binary.build();
    answer
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("build "))
        .is_none_or(|build| build.trim() == want)
}

/// Whether the file is there but may not be executed: 126 from a shell (POSIX), 1 and its own words
/// from sudo.
fn cannot_execute(answer: &Output) -> bool {
    match answer.exit {
        Exit::Status(126) => true,
        Exit::Status(1) => answer.stderr.starts_with(b"sudo:"),
        _ => false,
    }
}

/// Starts the probe of one incarnation; when this returns it holds every volume open and listens.
pub(super) async fn start(
    shell: &Shell,
    remote: &Remote,
    config: &Config,
    deadline: &Deadline,
) -> Result<(), ProbeError> {
    let (command, text) = (remote.start(config.incarnation), config.to_string());
    let job = Job::new(&command).stdin(text.as_bytes());
    let output = shell.run(&job, deadline).await?;
    let said = crate::guest::error::printable_tail(&output.stderr, 1000);
    match output.exit {
        Exit::Status(0) if output.text().trim_end().ends_with("ready") => Ok(()),
        Exit::Status(0) => Err(ProbeError::Refused {
            said: format!("it ended without saying `ready` ({said})"),
        }),
        Exit::Status(1) => Err(ProbeError::Refused {
            said: said.strip_prefix("error: ").unwrap_or(&said).to_owned(),
        }),
        _ => Err(output
            .check()
            .map_or_else(Into::into, |_ok| ProbeError::Refused { said })),
    }
}
