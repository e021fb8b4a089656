//! Migrations that are spoiled on the way: cancelled, robbed of their target, starved. Each must fail
//! and harm nobody, and one that nobody spoils must succeed after them.
//!
//! What keeps a migration under way until it is hit is a MigrationPolicy of our own: less bandwidth
//! than a guest that writes needs. No time is waited.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{arrive, ask, follow, instances, jobs, once, watching};
use crate::cluster::crd::core::Pod;
use crate::cluster::crd::kubevirt::{MigrationPolicy, VirtualMachineInstanceMigration};
use crate::cluster::{Deadline, Error, ObjRef, Patch, Propagation, Seen, Typed as _, Wake, repeat};
use crate::history::event::{MigrationFact, Spoil};
use crate::probe::host::Prober;
use crate::scenario::member::Member;
use crate::scenario::step::boot;
use crate::scenario::world::World;
use crate::workload::{SUBJECT_LABEL, fit_name};

/// The least that libvirt can be told.
const BANDWIDTH: &str = "1Mi";
/// Seconds per GiB that a migration has which is to be hit, more than any deadline …
const AMPLE: u32 = 36_000;
/// … and one that is to starve.
const SCANT: u32 = 5;

/// Spoils one migration in each way, then lets one through.
pub(in crate::scenario::step) async fn abort(
    world: &World,
    member: &mut Member,
) -> anyhow::Result<()> {
    // The future is large.
    Box::pin(watching(world, member, async |prober| {
        let policy = throttle(world, member).await?;
        for how in Spoil::ALL {
            if how == Spoil::Starve {
                let scant = Patch::Merge(json!({"spec": {"completionTimeoutPerGiB": SCANT}}));
                member.cluster(world).patch(&policy, &scant).await?;
            }
            spoiled(world, member, prober, how)
                .await
                .with_context(|| format!("a live migration that was {}", how.done()))?;
        }
        let cluster = member.cluster(world);
        cluster
            .delete(&policy, None, Propagation::Background)
            .await?;
        once(world, member, prober, "after")
            .await
            .context("a live migration after those that were spoiled")
    }))
    .await
}

/// Makes the policy that keeps migrations of this VM alone from coming to an end.
async fn throttle(world: &World, member: &Member) -> anyhow::Result<ObjRef> {
    let kind = MigrationPolicy::KIND;
    let name = fit_name(&member.subject.namespace, member.name());
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": name},
        "spec": {
            "bandwidthPerMigration": BANDWIDTH,
            "completionTimeoutPerGiB": AMPLE,
            "allowAutoConverge": false,
            "allowPostCopy": false,
            "selectors": {
                "namespaceSelector": {"kubernetes.io/metadata.name": member.subject.namespace},
                "virtualMachineInstanceSelector": {SUBJECT_LABEL: member.name()},
            },
        },
    });
    let cluster = member.cluster(world);
    let made: Value = cluster.create(&member.owner, object).await?;
    Ok(cluster.reference(&made).await?)
}

async fn spoiled(
    world: &World,
    member: &Member,
    prober: &Prober,
    how: Spoil,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    boot::state(world, member, member.site).await?;
    let suffix = match how {
        Spoil::Cancel => "cancel",
        Spoil::KillTarget => "kill",
        Spoil::Starve => "starve",
    };
    let asked = MigrationFact {
        name: fit_name(&member.subject.vm, suffix),
        spoil: Some(how),
        ..MigrationFact::default()
    };
    let uid = ask(world, member, &asked).await?;
    let (name, ns) = (asked.name.clone(), &member.subject.namespace);
    let spoil = async {
        let target = under_way(world, member, &name, &uid, &deadline).await?;
        let (object, of) = match how {
            Spoil::Cancel => (
                ObjRef::of::<VirtualMachineInstanceMigration>(ns, &name),
                Some(uid.as_str()),
            ),
            Spoil::KillTarget => (ObjRef::of::<Pod>(ns, target), None),
            Spoil::Starve => return Ok(()),
        };
        let cluster = member.cluster(world);
        cluster.delete(&object, of, Propagation::Background).await?;
        Ok::<_, anyhow::Error>(())
    };
    let following = follow::follow(world, member, asked.clone(), &uid, &deadline);
    tokio::pin!(spoil, following);
    let end = tokio::select! {
        // It was over before it could be hit, which the history tells.
        end = &mut following => end,
        spoilt = &mut spoil => match spoilt {
            Ok(()) => following.await,
            Err(error) => Err(error),
        },
    };
    boot::state(world, member, member.site).await?;
    end?;
    arrive::arrived(world, member, prober)
        .await
        .context("the guest after that")
}

/// Waits until memory is being copied; the launcher to which it goes.
async fn under_way(
    world: &World,
    member: &Member,
    name: &str,
    uid: &str,
    deadline: &Deadline,
) -> Result<String, Error> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let (jobs, vmis) = (jobs(world, member), instances(world, member));
    let wake = Wake::paced().and(jobs.changes()).and(vmis.changes());
    let waiting = format!("migration {name} of VMI {vm} to be under way");
    repeat(deadline, &waiting, wake, || async {
        let job = jobs.peek(|jobs| jobs.get(ns, name).cloned()).flatten();
        let vmi = vmis.peek(|vmis| vmis.get(ns, vm).cloned()).flatten();
        let phase = job.map(|job| job.status.phase).unwrap_or_default();
        let state = vmi.and_then(|vmi| vmi.status.migration_state);
        let state = state.filter(|state| state.migration_uid.as_deref() == Some(uid));
        let begun = state.filter(|state| state.start_timestamp.is_some());
        Ok(match begun.and_then(|state| state.target_pod) {
            Some(pod) if phase == "Running" || phase == "Failed" => Seen::Met(pod),
            _ => Seen::Not(format!("phase {phase:?}")),
        })
    })
    .await
}
