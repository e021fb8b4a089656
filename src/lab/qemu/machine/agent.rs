//! The guest agent as the node uses it: freezing with the launcher's memory of it, and what it tells.

use serde_json::{Value, json};

use super::{AgentReport, FileSystem, Machine, Stage, lock};
use crate::lab::qemu::agent::{self as qga, Agent, AgentError, FreezeStatus, Mode, Port, QUICK};

/// How long a freeze may take in a guest that writes back a lot. Its caller gives up much earlier.
const FREEZE: std::time::Duration = std::time::Duration::from_secs(300);

/// What the launcher knows of freezes.
#[derive(Debug, Default)]
pub(super) struct Freeze {
    frozen: bool,
    /// Counts freezes, so that a timer knows whether the one that armed it still holds.
    count: u64,
}

impl Freeze {
    /// The guest booted: nothing is frozen any more.
    pub(super) fn forget(&mut self) {
        self.frozen = false;
    }
}

/// An agent as virt-launcher names its failures, libvirt's error 86.
fn libvirt(error: &AgentError) -> String {
    format!("LibvirtError(Code=86, Domain=10, Message='Guest agent is not responding: {error}')")
}

impl Machine {
    fn with_agent<T>(&self, ask: impl FnOnce(&Agent) -> qga::Answer<T>) -> Option<qga::Answer<T>> {
        self.life().process.agent().map(ask)
    }

    /// Whether an agent has its port open.
    pub fn agent(&self) -> bool {
        let life = self.life();
        let open = life.process.agent().map(|agent| *agent.port().borrow());
        self.stage() != Stage::Off && open == Some(Port::Open)
    }

    /// Whether its file systems are frozen, as far as the launcher knows.
    pub fn frozen(&self) -> bool {
        lock(&self.freeze).frozen
    }

    /// Freezes; the number of the freeze, `None` if the file systems were frozen already.
    pub async fn freeze(&self) -> Result<Option<u64>, String> {
        if self.frozen() {
            return Ok(None);
        }
        let Some(answer) = self.with_agent(|agent| agent.freeze(FREEZE)) else {
            return Err("the machine has no port for an agent".into());
        };
        answer.await.map_err(|error| libvirt(&error))?;
        let mut freeze = lock(&self.freeze);
        freeze.frozen = true;
        freeze.count += 1;
        Ok(Some(freeze.count))
    }

    /// Thaws; whether there was something to thaw.
    pub async fn thaw(&self) -> Result<bool, String> {
        let Some(answer) = self.with_agent(|agent| agent.thaw(QUICK)) else {
            return Err("the machine has no port for an agent".into());
        };
        let thawed = answer.await.map_err(|error| libvirt(&error))?;
        let was = std::mem::take(&mut lock(&self.freeze).frozen);
        Ok(was || thawed > 0)
    }

    /// The safety timer of freeze `number` ran out; whether it still held.
    pub async fn expire(&self, number: u64) -> bool {
        {
            let freeze = lock(&self.freeze);
            if freeze.count != number || !freeze.frozen {
                return false;
            }
        }
        match self.thaw().await {
            Ok(was) => was,
            Err(why) => {
                tracing::warn!(why, "a guest was not thawed by its timer");
                false
            }
        }
    }

    /// Has the agent reboot the guest; whether it took the order.
    pub(super) async fn ask_to_reboot(&self) -> bool {
        let Some(answer) = self.with_agent(|agent| agent.shutdown(Mode::Reboot, QUICK)) else {
            return false;
        };
        // Success is silence, which ends with the agent.
        match answer.await {
            Ok(_) | Err(AgentError::Died { .. } | AgentError::Gone { .. }) => true,
            Err(error) => {
                tracing::debug!(%error, "the agent did not reboot its guest");
                false
            }
        }
    }

    /// Asks the agent everything; `None` if it does not answer. A frozen one tells only that it is.
    pub async fn report(&self) -> Option<AgentReport> {
        let told = self.ask_agent().await;
        match told {
            Ok(report) => {
                *lock(&self.last_report) = Some(report.clone());
                Some(report)
            }
            Err(error) => {
                tracing::debug!(%error, "a guest agent told nothing");
                None
            }
        }
    }

    async fn ask_agent(&self) -> Result<AgentReport, AgentError> {
        let life = self.life();
        let Some(agent) = life.process.agent() else {
            return Err(AgentError::NotConnected {
                command: "guest-info",
            });
        };
        let frozen = agent.freeze_status(QUICK).await? == FreezeStatus::Frozen;
        let known = lock(&self.last_report).clone();
        if let (true, Some(known)) = (frozen, known) {
            // Commands that touch file systems are switched off now.
            return Ok(AgentReport { frozen, ..known });
        }
        let info = agent.info(QUICK).await?;
        let os = agent.os_info(QUICK).await?;
        let zone = agent.time_zone(QUICK).await?;
        let mounted = if frozen {
            Vec::new()
        } else {
            agent.file_systems(QUICK).await?
        };
        let interfaces = agent.interfaces(QUICK).await?;
        let first = interfaces.into_iter().find(|it| it.name != "lo");
        Ok(AgentReport {
            commands: info
                .supported_commands
                .iter()
                .map(|command| (command.name.clone(), command.enabled))
                .collect(),
            version: info.version,
            frozen,
            hostname: Some(agent.host_name(QUICK).await?.host_name),
            timezone: format!("{}, {}", zone.zone.unwrap_or_default(), zone.offset),
            users: users(&agent.users(QUICK).await?),
            os: described(&os),
            file_systems: mounted.into_iter().map(file_system).collect(),
            interface: first.map(|it| it.name),
        })
    }
}

fn users(users: &[qga::User]) -> Value {
    let users = users.iter();
    users
        .map(|user| json!({"userName": user.user, "loginTime": user.login_time}))
        .collect()
}

fn described(os: &qga::OsInfo) -> Value {
    json!({
        "id": os.id,
        "name": os.name,
        "prettyName": os.pretty_name,
        "version": os.version,
        "versionId": os.version_id,
        "kernelRelease": os.kernel_release,
        "kernelVersion": os.kernel_version,
        "machine": os.machine,
    })
}

fn file_system(mounted: qga::FileSystem) -> FileSystem {
    FileSystem {
        disk_name: mounted.name,
        mount_point: mounted.mountpoint,
        kind: mounted.kind,
        used: mounted.used_bytes.unwrap_or_default(),
        total: mounted.total_bytes.unwrap_or_default(),
        serials: mounted
            .disk
            .into_iter()
            .filter_map(|disk| disk.serial)
            .collect(),
    }
}
