//! Live migration under load, watched from the API server, from the guest's own writers and from
//! outside over its network: one after the other, spoiled, by eviction, or all VMs at once.

mod abort;
mod arrive;
mod drain;
mod follow;
mod mass;
mod storage;
mod watch;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kube::Resource as _;
use serde_json::json;

use super::{boot, protect};
use crate::cluster::crd::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceMigration};
use crate::cluster::crd::meta::{Conditions as _, Truth};
use crate::cluster::{Deadline, Scope, Seen, Typed as _, View};
use crate::history::event::{Fact, MigrationFact};
use crate::probe::host::Prober;
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::fit_name;

pub(super) use abort::abort;
pub(super) use arrive::stranger;
pub(in crate::scenario) use drain::drain;
pub(in crate::scenario) use mass::mass;
pub(super) use storage::move_storage;

/// So many syncs must cross while a VM goes from node to node.
const SYNCS: usize = 3;

/// Migrates the VM while its probe writes, as often as the plan says.
pub(super) async fn migrate(world: &World, member: &mut Member) -> anyhow::Result<()> {
    watching(world, member, async |prober| {
        let count = world.plan.migration().count;
        for number in 1..=count {
            once(world, member, prober, &format!("m{number}"))
                .await
                .with_context(|| format!("live migration {number} of {count}"))?;
        }
        Ok(())
    })
    .await
}

/// Migrates the VM again and again until enough syncs have crossed meanwhile.
pub(super) async fn across(world: &World, member: &mut Member) -> anyhow::Result<()> {
    watching(world, member, async |prober| {
        let deadline = world.deadline(world.plan.deadlines().sync);
        let mut newest = world.storage_now(member.site);
        let (mut syncs, mut number) = (0, 0);
        while syncs < SYNCS {
            if deadline.is_over() {
                bail!(
                    "{syncs} of {SYNCS} syncs crossed in {number} live migrations; the last one is \
                     of {newest}"
                );
            }
            number += 1;
            once(world, member, prober, &format!("m{number}"))
                .await
                .with_context(|| format!("live migration {number}"))?;
            let seen = protect::observe(world, member, member.site).await?;
            let facts = seen.facts();
            let point = facts.iter().map(|volume| volume.last_sync_time).min();
            if let Some(point) = point.flatten().filter(|point: &Timestamp| *point > newest) {
                (newest, syncs) = (point, syncs + 1);
            }
        }
        // Nobody will stop the writers in order, which would tell of the leases too.
        let deadline = world.deadline(world.plan.deadlines().ssh);
        prober
            .leases_from_now(&deadline)
            .await
            .context("a look at the leases after the last move")
    })
    .await
}

/// Does something to a migratable VM that writes, with somebody watching its network from outside.
async fn watching(
    world: &World,
    member: &Member,
    deed: impl AsyncFnOnce(&Prober) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let prober = writer(member)?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    migratable(world, member, &deadline).await?;
    let echo = watch::watch(world, member, prober, 1).await?;
    let done = deed(prober).await;
    watch::watched(world, member, prober, echo).await?;
    done
}

fn writer(member: &Member) -> anyhow::Result<&Prober> {
    member.loader.as_ref().context("no probe writes")
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

fn instances(world: &World, member: &Member) -> View<VirtualMachineInstance> {
    let scope = Scope::Namespace(member.subject.namespace.clone());
    member.cluster(world).view(&scope)
}

fn jobs(world: &World, member: &Member) -> View<VirtualMachineInstanceMigration> {
    let scope = Scope::Namespace(member.subject.namespace.clone());
    member.cluster(world).view(&scope)
}

/// One migration, from asking for it to the first ack of the guest where it went.
async fn once(world: &World, member: &Member, prober: &Prober, suffix: &str) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    boot::state(world, member, member.site).await?;
    let asked = MigrationFact {
        name: fit_name(&member.subject.vm, suffix),
        ..MigrationFact::default()
    };
    let uid = ask(world, member, &asked).await?;
    ended(world, member, prober, asked, &uid, &deadline).await
}

/// Records that a migration is asked for and asks for it; the UID of its job.
async fn ask(world: &World, member: &Member, asked: &MigrationFact) -> anyhow::Result<String> {
    tell(world, member, asked.clone()).await?;
    let kind = VirtualMachineInstanceMigration::KIND;
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": asked.name, "namespace": member.subject.namespace},
        "spec": {"vmiName": member.subject.vm},
    });
    let job: VirtualMachineInstanceMigration = member
        .cluster(world)
        .create_as(&member.owner, object)
        .await?;
    Ok(job.meta().uid.clone().unwrap_or_default())
}

/// Follows a migration that was asked for to its end and the guest to where it went.
async fn ended(
    world: &World,
    member: &Member,
    prober: &Prober,
    asked: MigrationFact,
    uid: &str,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let end = follow::follow(world, member, asked, uid, deadline).await;
    // What became of the VM is evidence even when, and just when, the end did not come.
    boot::state(world, member, member.site).await?;
    let end = end?;
    if end.failed || end.phase == "Failed" {
        let why = if end.why.is_empty() {
            "no reason was given"
        } else {
            &end.why
        };
        bail!("migration {} failed: {why}", end.name);
    }
    arrive::arrived(world, member, prober)
        .await
        .context("the guest after its move")?;
    let disk = member.part.as_deref();
    match disk.and_then(|disk| Some((disk, disk.loader.as_ref()?))) {
        Some((disk, prober)) => arrive::arrived(world, disk, prober)
            .await
            .context("the disk that was plugged, after the move"),
        None => Ok(()),
    }
}

async fn tell(world: &World, member: &Member, migration: MigrationFact) -> anyhow::Result<()> {
    let site = member.site;
    member
        .tell(world, Fact::Migration { site, migration })
        .await
}
