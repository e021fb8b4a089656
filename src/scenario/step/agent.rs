//! The guest agent stopped, and started again, from inside its guest.
//!
//! No undo is written for it: the VM is the trial's own, and an agent that was left stopped goes with it.

use anyhow::Context as _;

use super::probe;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::crd::meta::{Conditions as _, Truth};
use crate::cluster::{Scope, Seen};
use crate::history::event::Fact;
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// What becomes of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenario) enum Agent {
    /// It runs.
    Started,
    /// It does not.
    Stopped,
}

impl Agent {
    /// The command in the guest, by systemd or by OpenRC, whichever it has.
    fn command(self, root: bool) -> String {
        let sudo = if root { "" } else { "sudo -n " };
        let verb = match self {
            Self::Started => "start",
            Self::Stopped => "stop",
        };
        format!(
            "{sudo}systemctl {verb} qemu-guest-agent || {sudo}rc-service qemu-guest-agent {verb}"
        )
    }

    /// What its VMI says of it then. KubeVirt takes the condition away where no agent is connected.
    const fn shows(self, connected: Truth) -> bool {
        match self {
            Self::Started => matches!(connected, Truth::True),
            Self::Stopped => !matches!(connected, Truth::True),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
        }
    }
}

/// Has the agent of a member's guest stopped or started, and waits until its VMI knows.
pub(in crate::scenario) async fn bring(
    world: &World,
    member: &Member,
    agent: Agent,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let shell = probe::shell(world, member, &deadline).await?;
    let line = agent.command(shell.user() == "root");
    let ran = shell.exec(&line, &deadline).await;
    shell.close().await;
    let name = agent.name();
    let ran = ran.and_then(crate::guest::Output::check);
    ran.with_context(|| format!("having the guest agent {name} in the guest"))?;
    let text = format!("the guest agent was {name} in the guest");
    member.tell(world, Fact::Note { text }).await?;
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = member
        .cluster(world)
        .view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    let waiting = format!("VMI {vm} to know that its guest agent was {name}");
    let deadline = world.deadline(world.plan.deadlines().transition);
    view.until_object(&deadline, ns, vm, &waiting, |vmi| match vmi {
        Some(vmi) if agent.shows(vmi.status.conditions.truth("AgentConnected")) => Seen::Met(()),
        Some(vmi) => Seen::Not(vmi.describe()),
        None => Seen::Not("no VMI".into()),
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_stopped_by_whichever_init_there_is() {
        assert_eq!(
            Agent::Stopped.command(false),
            "sudo -n systemctl stop qemu-guest-agent || sudo -n rc-service qemu-guest-agent stop"
        );
        assert_eq!(
            Agent::Started.command(true),
            "systemctl start qemu-guest-agent || rc-service qemu-guest-agent start"
        );
    }

    #[test]
    fn a_condition_that_is_gone_says_that_no_agent_is_connected() {
        for (truth, connected) in [
            (Truth::True, true),
            (Truth::False, false),
            (Truth::Unknown, false),
        ] {
            assert_eq!(Agent::Started.shows(truth), connected);
            assert_eq!(Agent::Stopped.shows(truth), !connected);
        }
    }
}
