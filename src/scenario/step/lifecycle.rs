//! Orders to a VM that stays where it is, given while its writers write: a pause, a reboot, a stop
//! and a start, and the death of its launcher.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Resource as _;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{boot, migrate, probe};
use crate::cluster::crd::core::Pod;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::crd::meta::{Conditions as _, Truth};
use crate::cluster::{Deadline, Error, Method, ObjRef, Scope, Seen, Wake, repeat};
use crate::guest::{GuestFacts, HostSeen};
use crate::history::event::{Deed, Fact, LifecycleFact, Outcome};
use crate::probe::host::{ProbeError, Prober};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// For how long a VM is paused: long against the time to which a write can be dated.
const HOLD: Duration = Duration::from_secs(3);
/// For how long one attempt may take to learn which boot answers.
const ASKING: Duration = Duration::from_secs(10);
/// The label that ties a launcher to its VMI.
const CREATED_BY: &str = "kubevirt.io/created-by";

/// Pauses the VM under load and lets it go on. How to resume it is in the undo log first, and every
/// way out of here asks for it.
pub(super) async fn pause(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    boot::state(world, member, member.site).await?;
    asked(world, member, Deed::Pause).await?;
    let (vmi, body) = (member.vmi(), json!({}));
    let called = member
        .cluster(world)
        .subresource_recorded(&member.owner, &vmi, "pause", Some(&body), ("unpause", None))
        .await;
    let paused = answered(world, member, Deed::Pause, called.map(drop)).await;
    let held = match paused {
        Ok(()) => hold(world, member).await,
        Err(error) => Err(error),
    };
    asked(world, member, Deed::Unpause).await?;
    let called = member
        .cluster(world)
        .subresource(Method::Put, &vmi, "unpause", Some(&body))
        .await;
    let resumed = answered(world, member, Deed::Unpause, called.map(drop)).await;
    held?;
    resumed?;
    reported(world, member, false).await?;
    goes_on(world, member, prober).await
}

/// Waits until the VMI says that it is paused, and then for as long as it is to be.
async fn hold(world: &World, member: &Member) -> anyhow::Result<()> {
    let over = Instant::now() + HOLD;
    reported(world, member, true).await?;
    // The length of the pause is the thing asked for, not a stand-in for a condition.
    tokio::select! {
        () = world.cancel.cancelled() => bail!("interrupted while the VM was paused"),
        () = tokio::time::sleep_until(over) => Ok(()),
    }
}

/// Waits until the VMI says that it is paused or not, and records what it says.
async fn reported(world: &World, member: &Member, paused: bool) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = member
        .cluster(world)
        .view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    let state = if paused { "paused" } else { "no longer paused" };
    let waiting = format!("VMI {vm} to say that it is {state}");
    let deadline = world.deadline(world.plan.deadlines().transition);
    let phase = view
        .until_object(&deadline, ns, vm, &waiting, |vmi| match vmi {
            Some(vmi) if (vmi.status.conditions.truth("Paused") == Truth::True) == paused => {
                Seen::Met(vmi.status.phase.clone())
            }
            Some(vmi) => Seen::Not(vmi.describe()),
            None => Seen::Not("no VMI".into()),
        })
        .await?;
    tell(world, member, LifecycleFact::Reported { paused, phase }).await
}

/// Waits for a write that the guest made after it was resumed. If it does not go on, the history
/// tells who answers in its place.
async fn goes_on(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let went_on = prober.ack_from_now(&deadline).await;
    boot::state(world, member, member.site).await?;
    if let Err(error @ ProbeError::Gone { .. }) = went_on {
        migrate::stranger(world, member, prober, &deadline).await?;
        return Err(error).context("the guest after its pause");
    }
    went_on.context("waiting for the guest to write after its pause")
}

/// Has the guest reboot itself under load and waits until another boot of it answers.
pub(super) async fn soft_reboot(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    boot::state(world, member, member.site).await?;
    asked(world, member, Deed::SoftReboot).await?;
    // Given once: a second one would reboot the guest again.
    let called = member
        .cluster(world)
        .subresource(Method::Put, &member.vmi(), "softreboot", None)
        .await;
    answered(world, member, Deed::SoftReboot, called.map(drop)).await?;
    rebooted(world, member, prober).await?;
    boot::state(world, member, member.site).await?;
    probe::end_load(world, member).await
}

/// Waits until another boot than the load's answers a login; records who answered last.
async fn rebooted(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let old = prober.identity().boot_id.clone();
    let last: Mutex<Option<(GuestFacts, HostSeen)>> = Mutex::new(None);
    let deadline = world.deadline(world.plan.deadlines().boot);
    let waited = repeat(
        &deadline,
        "the guest to have rebooted",
        Wake::paced(),
        || async {
            let asking = deadline.within(ASKING);
            let (facts, host) = match prober.who(&world.binary, &asking).await {
                Ok(seen) => seen,
                Err(error) => return Ok(Seen::Not(error.to_string())),
            };
            let same = facts.boot_id == old;
            *last.lock().await = Some((facts, host));
            Ok::<_, Error>(if same {
                Seen::Not(format!("boot {old} still answers"))
            } else {
                Seen::Met(())
            })
        },
    )
    .await;
    if let Some((facts, host)) = last.into_inner() {
        probe::seen(world, member, &host, facts.machine_id, facts.boot_id).await?;
    }
    Ok(waited?)
}

/// Stops the VM and starts it again under load, both as a user would; another VMI must run then.
pub(super) async fn stop_start(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let old = uid(world, member).await?;
    boot::state(world, member, member.site).await?;
    asked(world, member, Deed::Stop).await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    let stopped = boot::stop(world, member, member.site, None, &deadline).await;
    ended(world, member, Deed::Stop, &stopped).await?;
    stopped.context("stopping the VM")?;
    probe::end_load(world, member).await?;
    asked(world, member, Deed::Start).await?;
    let body = json!({});
    let order = ("start", &body);
    let started = boot::order(world, member, member.site, order, is_started, &deadline).await;
    answered(world, member, Deed::Start, started)
        .await
        .context("starting the VM again")?;
    let boot = world.deadline(world.plan.deadlines().boot);
    boot::running_unlike(world, member, Some(&old), &boot).await
}

/// Whether a refusal says that the VM runs or is told to.
fn is_started(message: &str) -> bool {
    message.contains("already running") || message.contains("manual start requests")
}

/// Kills the VM's launcher under load, and goes on listening to what it carried: the read-back closes
/// that stream, once whatever lives on has had its time to be heard.
/// To delete the VMI would not do: whatever grace the deletion
/// names, KubeVirt shuts the guest down for as long as the VMI's own grace period lasts.
pub(super) async fn kill(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let strategy = member.subject.run_strategy.as_str();
    if !matches!(strategy, "Always" | "RerunOnFailure") {
        bail!("a VM of run strategy {strategy} does not come back by itself");
    }
    let old = uid(world, member).await?;
    boot::state(world, member, member.site).await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    let (pod, pod_uid) = launcher(world, member, &old, &deadline).await?;
    asked(world, member, Deed::Kill).await?;
    let killed = member.cluster(world).kill(&pod, &pod_uid).await;
    answered(world, member, Deed::Kill, killed.map(drop))
        .await
        .context("killing the launcher")?;
    let boot = world.deadline(world.plan.deadlines().boot);
    boot::running_unlike(world, member, Some(&old), &boot)
        .await
        .context("the VM after its launcher was killed")
}

/// The launcher pod that runs the VMI, and its UID.
async fn launcher(
    world: &World,
    member: &Member,
    vmi: &str,
    deadline: &Deadline,
) -> anyhow::Result<(ObjRef, String)> {
    let ns = &member.subject.namespace;
    let view = member
        .cluster(world)
        .view::<Pod>(&Scope::Namespace(ns.clone()));
    let waiting = format!("the launcher of VMI {}", member.subject.vm);
    let found = view.until(deadline, &waiting, |pods| {
        let runs = |pod: &&Pod| {
            let labels = pod.metadata.labels.as_ref();
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            labels
                .and_then(|labels| labels.get(CREATED_BY))
                .map(String::as_str)
                == Some(vmi)
                && phase == Some("Running")
        };
        let pod = pods.iter().find(runs);
        pod.and_then(|pod| pod.metadata.name.clone().zip(pod.metadata.uid.clone()))
            .map_or_else(|| Seen::Not("no such pod runs".into()), Seen::Met)
    });
    let (name, uid) = found.await?;
    Ok((ObjRef::of::<Pod>(ns, &name), uid))
}

async fn uid(world: &World, member: &Member) -> anyhow::Result<String> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let cluster = member.cluster(world);
    let vmi = cluster.get::<VirtualMachineInstance>(ns, vm).await?;
    vmi.meta().uid.clone().context("the VMI has no UID")
}

async fn asked(world: &World, member: &Member, deed: Deed) -> anyhow::Result<()> {
    tell(world, member, LifecycleFact::Asked { deed }).await
}

/// Records how an order was answered, and passes the answer on.
async fn answered(
    world: &World,
    member: &Member,
    deed: Deed,
    answer: Result<(), Error>,
) -> anyhow::Result<()> {
    let outcome = match &answer {
        Ok(()) => Outcome::Ok,
        Err(error) if error.is_blind() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    tell(world, member, LifecycleFact::Answered { deed, outcome }).await?;
    Ok(answer?)
}

/// Records how an order ended that was waited out.
async fn ended(
    world: &World,
    member: &Member,
    deed: Deed,
    end: &anyhow::Result<()>,
) -> anyhow::Result<()> {
    let outcome = match end {
        Ok(()) => Outcome::Ok,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    tell(world, member, LifecycleFact::Answered { deed, outcome }).await
}

async fn tell(world: &World, member: &Member, lifecycle: LifecycleFact) -> anyhow::Result<()> {
    let site = member.site;
    member
        .tell(world, Fact::Lifecycle { site, lifecycle })
        .await
}
