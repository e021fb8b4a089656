//! Live migration under load: as often as the plan says, one after the other, watched from the API
//! server, from the guest's own writers and from outside over its network.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Resource as _;
use serde_json::json;

use super::{boot, probe};
use crate::cluster::crd::kubevirt::{
    MigrationState, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::cluster::crd::meta::{Conditions as _, Truth};
use crate::cluster::{Deadline, Error, Scope, Seen, Typed as _, Wake, repeat};
use crate::guest::GuestError;
use crate::history::event::{Fact, MigrationFact};
use crate::probe::host::{Echo, Echoes, ProbeError, Prober};
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::fit_name;

/// After so long without an ack of the moved guest its stream is made anew, for the first time …
const STUCK: Duration = Duration::from_millis(500);
/// … and after so long at most, so that a slow login has its time.
const PATIENT: Duration = Duration::from_secs(16);

/// Migrates the VM while its probe writes.
pub(super) async fn migrate(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    let deadline = world.deadline(world.plan.deadlines().transition);
    migratable(world, member, &deadline).await?;
    let echo = watch(world, member, prober).await?;
    let moved = all(world, member, prober).await;
    if let Some(echo) = echo {
        let echoes = echo.stop().await?;
        told(world, member, prober, &echoes).await?;
    }
    moved
}

/// Watches the guest's network from outside, beside everything else: where that is not to be had, M1
/// says so and goes by the acks.
async fn watch(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<Option<Echo>> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    match prober.echo(&deadline).await {
        Ok(echo) => Ok(Some(echo)),
        Err(error) if world.cancel.is_cancelled() => Err(error.into()),
        Err(error) => {
            let text = format!("nobody watches the guest's network from outside: {error}");
            member.tell(world, Fact::Note { text }).await?;
            Ok(None)
        }
    }
}

async fn all(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let count = world.plan.migration().count;
    for number in 1..=count {
        once(world, member, prober, number)
            .await
            .with_context(|| format!("live migration {number} of {count}"))?;
    }
    Ok(())
}

/// Waits until KubeVirt says whether the VMI can be migrated at all.
async fn migratable(world: &World, member: &Member, deadline: &Deadline) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = instances(world, member);
    let waiting = format!("VMI {vm} to say whether it is LiveMigratable");
    let refusal = view
        .until_object(deadline, ns, vm, &waiting, |vmi| {
            let Some(vmi) = vmi else {
                return Seen::Not("no VMI".into());
            };
            let Some(said) = vmi.status.conditions.condition("LiveMigratable") else {
                return Seen::Not("no condition LiveMigratable".into());
            };
            match said.status {
                Truth::True => Seen::Met(None),
                Truth::False => Seen::Met(Some(format!("{}: {}", said.reason, said.message))),
                Truth::Unknown => Seen::Not("LiveMigratable is Unknown".into()),
            }
        })
        .await?;
    match refusal {
        None => Ok(()),
        Some(why) => bail!("VMI {vm} cannot be live-migrated: {why}"),
    }
}

fn instances(world: &World, member: &Member) -> crate::cluster::View<VirtualMachineInstance> {
    let scope = Scope::Namespace(member.subject.namespace.clone());
    member.cluster(world).view(&scope)
}

/// One migration, from asking for it to the first ack of the guest where it went.
async fn once(world: &World, member: &Member, prober: &Prober, number: u32) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    let name = fit_name(&member.subject.vm, &format!("m{number}"));
    boot::state(world, member, member.site).await?;
    let asked = MigrationFact {
        name: name.clone(),
        ..MigrationFact::default()
    };
    tell(world, member, asked.clone()).await?;
    let kind = VirtualMachineInstanceMigration::KIND;
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": member.subject.namespace},
        "spec": {"vmiName": member.subject.vm},
    });
    let job: VirtualMachineInstanceMigration = member
        .cluster(world)
        .create_as(&member.owner, object)
        .await?;
    let uid = job.meta().uid.clone().unwrap_or_default();
    let end = follow(world, member, asked, &uid, &deadline).await?;
    boot::state(world, member, member.site).await?;
    if end.failed || end.phase == "Failed" {
        let why = if end.why.is_empty() {
            "no reason was given"
        } else {
            &end.why
        };
        bail!("migration {name} failed: {why}");
    }
    arrived(world, member, prober)
        .await
        .context("the guest after its move")?;
    let disk = member.plugged.as_deref();
    match disk.and_then(|disk| Some((disk, disk.loader.as_ref()?))) {
        Some((disk, prober)) => arrived(world, disk, prober)
            .await
            .context("the disk that was plugged, after the move"),
        None => Ok(()),
    }
}

/// Records each change of a migration from when it was asked for until it is over, and gives its end.
async fn follow(
    world: &World,
    member: &Member,
    asked: MigrationFact,
    uid: &str,
    deadline: &Deadline,
) -> anyhow::Result<MigrationFact> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let name = &asked.name.clone();
    let scope = Scope::Namespace(ns.clone());
    let jobs = member
        .cluster(world)
        .view::<VirtualMachineInstanceMigration>(&scope);
    let vmis = instances(world, member);
    let wake = Wake::paced().and(jobs.changes()).and(vmis.changes());
    let last = tokio::sync::Mutex::new(asked);
    let waiting = format!("migration {name} of VMI {vm} to end");
    let look = || async {
        let job = jobs.peek(|jobs| jobs.get(ns, name).cloned()).flatten();
        let vmi = vmis.peek(|vmis| vmis.get(ns, vm).cloned()).flatten();
        let seen = seen(name, uid, job.as_ref(), vmi.as_ref());
        let mut last = last.lock().await;
        if *last != seen {
            if let Err(error) = tell(world, member, seen.clone()).await {
                return Ok(Seen::Met(Err(error)));
            }
            *last = seen.clone();
        }
        Ok::<_, Error>(match over(&seen, vmi.as_ref()) {
            None => Seen::Met(Ok(seen)),
            Some(not_yet) => Seen::Not(not_yet),
        })
    };
    repeat(deadline, &waiting, wake, look).await?
}

/// What the job and the VMI tell of a migration together. The VMI's state counts only if it speaks of
/// this one: the state of the one before stays until the next begins.
fn seen(
    name: &str,
    uid: &str,
    job: Option<&VirtualMachineInstanceMigration>,
    vmi: Option<&VirtualMachineInstance>,
) -> MigrationFact {
    let mine = |state: &&MigrationState| state.migration_uid.as_deref() == Some(uid);
    let of_job = job.and_then(|job| job.status.migration_state.as_ref());
    let of_vmi = vmi.and_then(|vmi| vmi.status.migration_state.as_ref());
    let states = [of_vmi, of_job];
    let state = states.into_iter().flatten().find(mine);
    let state = state.cloned().unwrap_or_default();
    MigrationFact {
        name: name.to_owned(),
        phase: job.map_or_else(String::new, |job| job.status.phase.clone()),
        mode: state.mode.unwrap_or_default(),
        source_node: state.source_node.unwrap_or_default(),
        target_node: state.target_node.unwrap_or_default(),
        completed: state.completed,
        failed: state.failed,
        why: state.failure_reason.unwrap_or_default(),
    }
}

/// `None` once a migration is over, else what is missing. A failed one is also completed, so failure
/// is asked for first. One that succeeded is over when the VMI says so too, and that
/// it is where it was to go: two watches tell of the two objects, in any order.
fn over(seen: &MigrationFact, vmi: Option<&VirtualMachineInstance>) -> Option<String> {
    if seen.failed || seen.phase == "Failed" {
        return None;
    }
    let node = vmi.and_then(|vmi| vmi.status.node_name.as_deref());
    let there = node == Some(seen.target_node.as_str());
    if seen.phase == "Succeeded" && seen.completed && there {
        return None;
    }
    Some(format!(
        "phase {:?}, completed {}, the VMI on node {} and to go to {:?}",
        seen.phase,
        seen.completed,
        node.unwrap_or("(none)"),
        seen.target_node
    ))
}

/// Waits for an ack of a write that the guest made where it is now. Where none comes the guest is
/// looked for anew, less and less often: its address may be told later than its node, and a stream to
/// where it was may stay silent for long.
async fn arrived(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let mut patience = STUCK;
    let mut anew = false;
    loop {
        let address = probe::address(world, member, &deadline).await?;
        let reach = member.reach(world, address.as_deref())?;
        if anew || reach.route.to_string() != prober.reach().route.to_string() {
            prober.reach_anew(reach);
        }
        match prober.ack_from_now(&deadline.within(patience)).await {
            Ok(()) => return Ok(()),
            Err(ProbeError::Guest(GuestError::Timeout { .. })) if !deadline.is_over() => {
                (anew, patience) = (true, (patience * 2).min(PATIENT));
            }
            Err(error @ ProbeError::Gone { .. }) => {
                // Somebody answers who is not the guest that was there: let it be known who.
                stranger(world, member, prober, &deadline).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error).context("waiting for the moved guest to write"),
        }
    }
}

/// Records who answers where the member's guest should be.
pub(super) async fn stranger(
    world: &World,
    member: &Member,
    prober: &Prober,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let (facts, host) = prober.who(&world.binary, deadline).await?;
    probe::seen(world, member, &host, facts.machine_id, facts.boot_id).await
}

async fn tell(world: &World, member: &Member, migration: MigrationFact) -> anyhow::Result<()> {
    let site = member.site;
    member
        .tell(world, Fact::Migration { site, migration })
        .await
}

/// Records what was seen of the guest's network.
async fn told(
    world: &World,
    member: &Member,
    prober: &Prober,
    echoes: &Echoes,
) -> anyhow::Result<()> {
    let Echoes {
        from_ns,
        interval_ns,
        sent,
        answered,
        longest_ns,
        unbroken_ns,
    } = *echoes;
    let fact = Fact::Echo {
        site: member.site,
        address: prober.reach().route.to_string(),
        from_ns,
        interval_ns,
        sent,
        answered,
        longest_ns,
        unbroken_ns: Some(unbroken_ns),
    };
    member.tell(world, fact).await
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn job(phase: &str) -> VirtualMachineInstanceMigration {
        serde_json::from_value(json!({"metadata": {}, "status": {"phase": phase}})).expect("a job")
    }

    fn vmi(node: &str, state: &Value) -> VirtualMachineInstance {
        let status = json!({"phase": "Running", "nodeName": node, "migrationState": state});
        serde_json::from_value(json!({"metadata": {}, "status": status})).expect("a VMI")
    }

    fn state(uid: &str, more: &Value) -> Value {
        let mut state =
            json!({"migrationUid": uid, "sourceNode": "a", "targetNode": "b", "mode": "PreCopy"});
        for (key, value) in more.as_object().into_iter().flatten() {
            state[key] = value.clone();
        }
        state
    }

    #[test]
    fn the_state_of_an_earlier_migration_is_not_taken_for_this_one() {
        let (job, vmi) = (
            job("Pending"),
            vmi("a", &state("u0", &json!({"completed": true}))),
        );
        let seen = seen("vm-m2", "u1", Some(&job), Some(&vmi));
        assert_eq!((seen.phase.as_str(), seen.completed), ("Pending", false));
        assert!(seen.target_node.is_empty());
        assert!(over(&seen, Some(&vmi)).is_some());
    }

    #[test]
    fn failure_is_read_before_completion() {
        let failed =
            json!({"completed": true, "failed": true, "failureReason": "Target pod is down"});
        let vmi = vmi("a", &state("u1", &failed));
        let seen = seen("vm-m1", "u1", Some(&job("Running")), Some(&vmi));
        assert!(seen.failed && seen.why == "Target pod is down");
        assert_eq!(over(&seen, Some(&vmi)), None);
    }

    #[test]
    fn a_migration_that_succeeded_is_over_when_the_vmi_is_there() {
        let done = state("u1", &json!({"completed": true}));
        let (before, after) = (vmi("a", &done), vmi("b", &done));
        let seen = seen("vm-m1", "u1", Some(&job("Succeeded")), Some(&before));
        let missing = over(&seen, Some(&before)).expect("not there yet");
        assert!(missing.contains("on node a"), "{missing}");
        assert_eq!(over(&seen, Some(&after)), None);
    }
}
