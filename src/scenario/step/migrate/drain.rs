//! Nodes are drained as `kubectl drain` does: cordoned, then every launcher on them evicted until it
//! is gone. KubeVirt answers an eviction with 429 and has the guest migrated instead.
//!
//! One node after the other, so that there is always one to go to. What lifts the cordon stands in
//! the undo log before it is set.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use kube::Resource as _;
use serde_json::json;

use super::{ended, instances, jobs, tell, watch, writer};
use crate::cluster::crd::core::{Node, Pod};
use crate::cluster::crd::kubevirt::VirtualMachineInstanceMigration;
use crate::cluster::undo::Undo;
use crate::cluster::{Deadline, Error, Evicted, ObjRef, Patch, Scope, Seen, View, Wake, repeat};
use crate::history::event::{EvictionFact, Fact, MigrationFact};
use crate::probe::host::Prober;
use crate::scenario::member::Member;
use crate::scenario::step::boot;
use crate::scenario::world::World;

/// Annotation of a migration that KubeVirt makes because of an eviction.
const EVACUATION: &str = "kubevirt.io/evacuationMigration";
/// Label of a launcher pod: the UID of its VMI.
const CREATED_BY: &str = "kubevirt.io/created-by";

/// Drains each node that carries a VM of the trial.
pub(in crate::scenario) async fn drain(world: &World, members: &[Member]) -> anyhow::Result<()> {
    let observers = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let echoes = members
        .iter()
        .map(async |member| watch::watch(world, member, writer(member)?, observers).await);
    let echoes = try_join_all(echoes).await?;
    let drained = all(world, members).await;
    for (member, echo) in members.iter().zip(echoes) {
        watch::watched(world, member, writer(member)?, echo).await?;
    }
    drained
}

async fn all(world: &World, members: &[Member]) -> anyhow::Result<()> {
    let mut nodes = BTreeSet::new();
    for member in members {
        nodes.extend(node_of(world, member).await?);
    }
    for node in nodes {
        let Some(first) = members.first() else { break };
        let cordon = cordon(world, first, &node)
            .await
            .with_context(|| format!("cordoning node {node}"))?;
        let evictions = members
            .iter()
            .map(async |member| evicted(world, member, &node).await);
        let done = try_join_all(evictions)
            .await
            .with_context(|| format!("draining node {node}"));
        let lifted = uncordon(world, first, &node, cordon).await;
        done?;
        lifted.with_context(|| format!("uncordoning node {node}"))?;
    }
    Ok(())
}

async fn node_of(world: &World, member: &Member) -> anyhow::Result<Option<String>> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let found = member.cluster(world).find(ns, vm).await?;
    let vmi: Option<crate::cluster::crd::kubevirt::VirtualMachineInstance> = found;
    Ok(vmi.and_then(|vmi| vmi.status.node_name))
}

/// Takes a node out of scheduling; the undo entry that puts it back, unless it was out before.
async fn cordon(world: &World, member: &Member, node: &str) -> anyhow::Result<Option<u64>> {
    let cluster = member.cluster(world);
    let before: Node = cluster.get("", node).await?;
    if before.spec.and_then(|spec| spec.unschedulable) == Some(true) {
        return Ok(None);
    }
    let object = ObjRef::of::<Node>("", node);
    let undo = Undo::Patch {
        site: member.site,
        object: object.clone(),
        merge: json!({"spec": {"unschedulable": null}}),
    };
    let entry = world.owner.undo().record(None, undo).await?;
    let out = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    cluster.patch(&object, &out).await?;
    Ok(Some(entry))
}

async fn uncordon(
    world: &World,
    member: &Member,
    node: &str,
    entry: Option<u64>,
) -> anyhow::Result<()> {
    let Some(entry) = entry else { return Ok(()) };
    let object = ObjRef::of::<Node>("", node);
    let back = Patch::Merge(json!({"spec": {"unschedulable": null}}));
    member.cluster(world).patch(&object, &back).await?;
    world.owner.undo().done(entry).await?;
    Ok(())
}

/// Evicts the launcher of a VM from a node, if it is there, until the VM is elsewhere and the launcher
/// that it left is gone. A strategy that refuses for good ends it too: then the VM stays, and the
/// history says why.
async fn evicted(world: &World, member: &Member, node: &str) -> anyhow::Result<()> {
    if node_of(world, member).await?.as_deref() != Some(node) {
        return Ok(());
    }
    let deadline = world.deadline(world.plan.deadlines().transition);
    let prober = writer(member)?;
    boot::state(world, member, member.site).await?;
    let before = known(world, member, &deadline).await?;
    let Some(launcher) = Launcher::of(world, member, node, &deadline).await? else {
        bail!("VMI {} has no launcher on node {node}", member.subject.vm);
    };
    let first = launcher.evict(world, member).await?;
    if first.code != 429 {
        let gone = launcher.until_gone(world, member, &deadline).await;
        boot::state(world, member, member.site).await?;
        gone?;
        return super::arrive::arrived(world, member, prober)
            .await
            .context("the guest after its launcher was evicted");
    }
    if first.said.contains("not live-migratable") {
        boot::state(world, member, member.site).await?;
        // That it was refused is one thing, that the guest lives on another.
        return super::arrive::arrived(world, member, prober)
            .await
            .context("the guest after an eviction that was refused");
    }
    moved(world, member, prober, &before, &deadline).await?;
    // As long as the VM was in it, the launcher was protected; what it left behind is not.
    let last = launcher.evict(world, member).await?;
    if last.code == 429 {
        bail!("the launcher that the VM left is not let go: {}", last.said);
    }
    Ok(launcher.until_gone(world, member, &deadline).await?)
}

/// Waits for the migration that an eviction promised, and follows it.
async fn moved(
    world: &World,
    member: &Member,
    prober: &Prober,
    before: &BTreeSet<String>,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let vm = &member.subject.vm;
    let waiting = format!("KubeVirt to migrate VMI {vm} because of its eviction");
    let found = jobs(world, member)
        .until(deadline, &waiting, |jobs| {
            let fresh = evacuations(jobs, vm).find(|job| !before.contains(uid_of(job)));
            let job = fresh.map(|job| (job.meta().name.clone(), uid_of(job).to_owned()));
            job.map_or_else(|| Seen::Not("no such migration".into()), Seen::Met)
        })
        .await;
    if found.is_err() {
        boot::state(world, member, member.site).await?;
    }
    let (name, uid) = found?;
    let asked = MigrationFact {
        name: name.unwrap_or_default(),
        evacuates: true,
        ..MigrationFact::default()
    };
    tell(world, member, asked.clone()).await?;
    ended(world, member, prober, asked, &uid, deadline).await
}

fn uid_of(job: &VirtualMachineInstanceMigration) -> &str {
    job.meta().uid.as_deref().unwrap_or_default()
}

/// The migrations of a VMI that came of evictions.
fn evacuations<'a>(
    jobs: &'a crate::cluster::Objects<'_, VirtualMachineInstanceMigration>,
    vm: &'a str,
) -> impl Iterator<Item = &'a VirtualMachineInstanceMigration> {
    let marked = |job: &VirtualMachineInstanceMigration| {
        let annotations = job.meta().annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(EVACUATION))
    };
    jobs.iter()
        .filter(move |job| job.spec.vmi_name == vm && marked(job))
}

/// The evacuations that there are already.
async fn known(
    world: &World,
    member: &Member,
    deadline: &Deadline,
) -> Result<BTreeSet<String>, Error> {
    jobs(world, member)
        .until(deadline, "a list of migrations", |jobs| {
            let of = evacuations(jobs, &member.subject.vm);
            Seen::Met(of.map(|job| uid_of(job).to_owned()).collect())
        })
        .await
}

/// A launcher pod that is to be evicted.
struct Launcher {
    pods: View<Pod>,
    pod: String,
    uid: String,
    node: String,
    strategy: String,
}

impl Launcher {
    /// That of a VM on a node; launchers that ended stay there beside it.
    async fn of(
        world: &World,
        member: &Member,
        node: &str,
        deadline: &Deadline,
    ) -> anyhow::Result<Option<Self>> {
        let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
        let look = |vmi: Option<&crate::cluster::crd::kubevirt::VirtualMachineInstance>| {
            let Some(vmi) = vmi else {
                return Seen::Not("no VMI".to_owned());
            };
            let strategy = vmi.spec.pointer("/evictionStrategy");
            let strategy = strategy.and_then(serde_json::Value::as_str);
            let uid = vmi.meta().uid.clone().unwrap_or_default();
            Seen::Met((uid, strategy.unwrap_or_default().to_owned()))
        };
        let waiting = format!("VMI {vm}");
        let (vmi, strategy) = instances(world, member)
            .until_object(deadline, ns, vm, &waiting, look)
            .await?;
        let pods: View<Pod> = member.cluster(world).view(&Scope::Namespace(ns.clone()));
        let found = pods
            .until(deadline, "a list of launcher pods", |all| {
                let mine = all.iter().find(|pod| {
                    let labels = pod.meta().labels.as_ref();
                    let of = labels.and_then(|labels| labels.get(CREATED_BY));
                    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
                    let at = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                    of == Some(&vmi) && phase == Some("Running") && at == Some(node)
                });
                Seen::Met(mine.map(|pod| (pod.meta().name.clone(), pod.meta().uid.clone())))
            })
            .await?;
        Ok(found.map(|(name, uid)| Self {
            pods,
            pod: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            node: node.to_owned(),
            strategy,
        }))
    }

    /// Asks once for its eviction and records the answer.
    async fn evict(&self, world: &World, member: &Member) -> anyhow::Result<Evicted> {
        let asked = EvictionFact {
            pod: self.pod.clone(),
            node: self.node.clone(),
            strategy: self.strategy.clone(),
            carries: node_of(world, member).await?.as_deref() == Some(self.node.as_str()),
            ..EvictionFact::default()
        };
        told(world, member, asked.clone()).await?;
        let ns = &member.subject.namespace;
        let cluster = member.cluster(world);
        let answer = cluster.evict(ns, &self.pod, &self.uid).await?;
        let eviction = EvictionFact {
            code: Some(answer.code),
            said: answer.said.clone(),
            ..asked
        };
        told(world, member, eviction).await?;
        Ok(answer)
    }

    async fn until_gone(
        &self,
        world: &World,
        member: &Member,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let ns = &member.subject.namespace;
        let vmis = instances(world, member);
        let wake = Wake::paced().and(self.pods.changes()).and(vmis.changes());
        let waiting = format!("launcher pod {} to be gone", self.pod);
        repeat(deadline, &waiting, wake, || async {
            let found = self.pods.peek(|pods| {
                let pod = pods.get(ns, &self.pod)?;
                (pod.meta().uid.as_deref() == Some(&self.uid)).then(|| pod.status.clone())
            });
            Ok(match found {
                None => Seen::Not("no list of pods".into()),
                Some(None) => Seen::Met(()),
                Some(Some(status)) => {
                    let phase = status.and_then(|status| status.phase).unwrap_or_default();
                    Seen::Not(format!("its phase is {phase}"))
                }
            })
        })
        .await
    }
}

async fn told(world: &World, member: &Member, eviction: EvictionFact) -> anyhow::Result<()> {
    let site = member.site;
    member.tell(world, Fact::Eviction { site, eviction }).await
}
