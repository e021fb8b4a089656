//! Starting, stopping and waiting for VMs.

use anyhow::Context as _;
use kube::Resource as _;
use serde_json::{Value, json};

use crate::cluster::crd::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::cluster::{Deadline, Error, Method, Patch, Scope, Seen, Wake, repeat};
use crate::history::event::{Fact, Outcome, Site, Stage};
use crate::scenario::member::Member;
use crate::scenario::recipe::{Bound, restore};
use crate::scenario::world::World;

/// Waits until the member's VMI runs where the member should be; records what was seen.
pub(super) async fn running(
    world: &World,
    member: &Member,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    running_unlike(world, member, None, deadline).await
}

/// The same, for a VMI other than `old`.
pub(super) async fn running_unlike(
    world: &World,
    member: &Member,
    old: Option<&str>,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let scope = Scope::Namespace(ns.clone());
    let view = member.cluster(world).view::<VirtualMachineInstance>(&scope);
    let waiting = format!("VMI {vm} to run on the {} site", member.site);
    let found = view
        .until_object(deadline, ns, vm, &waiting, |vmi| match vmi {
            Some(vmi) if vmi.meta().uid.as_deref() == old && old.is_some() => {
                Seen::Not("still the VMI from before".into())
            }
            Some(vmi) if vmi.is_running() => Seen::Met(()),
            Some(vmi) => Seen::Not(vmi.describe()),
            None => Seen::Not("no VMI".into()),
        })
        .await;
    state(world, member, member.site).await?;
    Ok(found?)
}

/// Records the VM's state on a site as the API server tells it now.
pub(super) async fn state(world: &World, member: &Member, site: Site) -> anyhow::Result<()> {
    let (ns, name) = (&member.subject.namespace, &member.subject.vm);
    let cluster = world.sites.of(site);
    let vm = cluster.find::<VirtualMachine>(ns, name).await?;
    let vmi = cluster.find::<VirtualMachineInstance>(ns, name).await?;
    let (phase, vmi_uid, node) = vmi.map_or_else(Default::default, |vmi| {
        (
            vmi.status.phase.clone(),
            vmi.meta().uid.clone(),
            vmi.status.node_name,
        )
    });
    let status = vm.map(|vm| vm.status.printable_status).unwrap_or_default();
    member
        .tell(
            world,
            Fact::Vm {
                site,
                status,
                phase,
                vmi_uid,
                node,
            },
        )
        .await
}

/// Asks KubeVirt to stop the VM on a site and waits until its VMI is gone. With `grace` seconds, or
/// what the VM itself says.
pub(super) async fn stop(
    world: &World,
    member: &Member,
    site: Site,
    grace: Option<u32>,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let body = grace.map_or_else(|| json!({}), |grace| json!({ "gracePeriod": grace }));
    order(world, member, site, ("stop", &body), is_told, deadline).await?;
    let cluster = world.sites.of(site);
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = cluster.view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    view.until_gone(deadline, ns, vm).await?;
    state(world, member, site).await
}

/// Gives the VM on a site an order by a subresource, again while nobody knows whether it was taken.
/// `told` knows the refusals that say that it was.
pub(super) async fn order(
    world: &World,
    member: &Member,
    site: Site,
    (subresource, body): (&str, &Value),
    told: fn(&str) -> bool,
    deadline: &Deadline,
) -> Result<(), Error> {
    let cluster = world.sites.of(site);
    let waiting = format!("VM {} to be told to {subresource}", member.subject.vm);
    repeat(deadline, &waiting, Wake::paced(), || async {
        let called = cluster
            .subresource(Method::Put, &member.vm(), subresource, Some(body))
            .await;
        match called {
            Ok(_) => Ok(Seen::Met(Ok(()))),
            Err(Error::Conflict { message, .. }) if told(&message) => Ok(Seen::Met(Ok(()))),
            Err(error) if error.is_blind() => Err(error),
            Err(error) => Ok(Seen::Met(Err(error))),
        }
    })
    .await?
}

/// Makes sure that a VM neither runs on a site nor will start there by itself.
pub(super) async fn halt(
    world: &World,
    member: &Member,
    site: Site,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    stop(world, member, site, Some(0), deadline).await?;
    // Some run strategies are stopped by a request that leaves them as they are.
    strategy(world, member, site, "Halted").await
}

/// Whether a refusal says that the VM is down or told to stop: an order that nobody confirmed may
/// have been taken.
fn is_told(message: &str) -> bool {
    message.contains("not running") || message.contains("manual stop requests")
}

/// Starts the VM where the member should be.
async fn start(world: &World, member: &Member) -> anyhow::Result<()> {
    strategy(world, member, member.site, &member.subject.run_strategy).await
}

async fn strategy(
    world: &World,
    member: &Member,
    site: Site,
    strategy: &str,
) -> anyhow::Result<()> {
    let change = Patch::Merge(json!({"spec": {"runStrategy": strategy}}));
    world.sites.of(site).patch(&member.vm(), &change).await?;
    Ok(())
}

/// Stops and starts the VM where it is; another VMI must run afterwards.
pub(super) async fn restart(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let before = member
        .cluster(world)
        .get::<VirtualMachineInstance>(ns, vm)
        .await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    stop(world, member, member.site, None, &deadline)
        .await
        .context("stopping the VM")?;
    start(world, member)
        .await
        .context("starting the VM again")?;
    let boot = world.deadline(world.plan.deadlines().boot);
    running_unlike(world, member, before.meta().uid.as_deref(), &boot).await?;
    super::shape::record(world, member)
        .await
        .context("reading how the VM is defined")
}

/// Records that the outage of a VM begins, for its part too.
pub(super) async fn strikes(world: &World, member: &Member) -> anyhow::Result<()> {
    if let Some(part) = &member.part {
        part.stage(world, Stage::Fault).await?;
    }
    member.stage(world, Stage::Fault).await
}

/// Stops the VM while its probe writes: the last acks come as it goes down.
pub(super) async fn stop_source(world: &World, member: &mut Member) -> anyhow::Result<()> {
    strikes(world, member).await?;
    member.stage(world, Stage::Ordered).await?;
    let (site, method) = (member.site, "stopVm".to_owned());
    member
        .tell(
            world,
            Fact::Fencing {
                site,
                method: method.clone(),
                outcome: None,
            },
        )
        .await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    stop(world, member, site, None, &deadline)
        .await
        .context("stopping the VM")?;
    member
        .tell(
            world,
            Fact::Fencing {
                site,
                method,
                outcome: Some(Outcome::Ok),
            },
        )
        .await?;
    member.stage(world, Stage::Fenced).await?;
    super::probe::end_load(world, member).await
}

/// Makes the VM on the site that took over, starts it there and waits until its VMI runs. A Recipe that
/// the plan names and that says how to restore is followed.
pub(super) async fn recover(world: &World, member: &mut Member) -> anyhow::Result<()> {
    match Bound::restoring(world, member)? {
        Some(bound) => restore(world, member, &bound)
            .await
            .context("walking over the restore workflow of the Recipe")?,
        None => make(world, member).await?,
    }
    runs(world, member).await
}

/// Makes the VM where the member should be and has it start; what stands there already is left.
pub(in crate::scenario) async fn make(world: &World, member: &mut Member) -> anyhow::Result<()> {
    for object in &member.subject.peer_objects {
        member
            .cluster(world)
            .create(&member.owner, object.clone())
            .await?;
    }
    started(world, member).await
}

/// Starts the VM that stands halted where the member should be, and waits until its VMI runs.
pub(super) async fn come_back(world: &World, member: &mut Member) -> anyhow::Result<()> {
    started(world, member).await?;
    runs(world, member).await
}

async fn started(world: &World, member: &Member) -> anyhow::Result<()> {
    start(world, member)
        .await
        .with_context(|| format!("starting the VM on the {} site", member.site))?;
    member.stage(world, Stage::VmCreated).await
}

async fn runs(world: &World, member: &Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().boot);
    running(world, member, &deadline).await?;
    member.stage(world, Stage::VmiRunning).await
}
