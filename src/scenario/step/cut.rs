//! Taking snapshots of a VM, and putting its volumes back to one.
//!
//! A VirtualMachineSnapshot freezes the guest by itself, with its own deadline as the timer, and thaws
//! it when it is taken, when it fails and when it is deleted; its deletion is in the undo log before it
//! is asked for. A restore is made `InPlace`, so that the claims keep the names by which everything else
//! knows them: what replicates them must be given up before, because it holds them.

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{boot, probe};
use crate::cluster::crd::vmsnapshot::{
    VirtualMachineRestore, VirtualMachineSnapshot, VirtualMachineSnapshotContent,
};
use crate::cluster::{Deadline, Method, Scope, Seen};
use crate::history::event::{CutClaims, CutFact, CutState, CutVolume, Fact, RestoreFact};
use crate::replicate::Goal;
use crate::scenario::member::{Member, Taken};
use crate::scenario::world::World;
use crate::workload::fit_name;

const SNAPSHOT: &str = "VirtualMachineSnapshot";

/// The name of the next cut of a member.
pub(super) fn next_name(member: &Member) -> String {
    let number = member.cuts.len() + 1;
    fit_name(&member.subject.vm, &format!("cut{number}"))
}

/// Records how far a cut is.
pub(super) async fn tell(
    world: &World,
    member: &Member,
    (means, name): (&str, &str),
    state: CutState,
) -> anyhow::Result<()> {
    let site = member.site;
    let cut = CutFact {
        name: name.to_owned(),
        means: means.to_owned(),
        state,
    };
    member.tell(world, Fact::Cut { site, cut }).await
}

/// Asks the guest's agent whether it is there, and records what it showed.
async fn agent(world: &World, member: &Member, name: &str) -> anyhow::Result<()> {
    let cluster = member.cluster(world);
    let asked = cluster
        .subresource(Method::Get, &member.vmi(), "guestosinfo", None)
        .await;
    let state = match asked {
        Ok(info) => {
            let version = info["guestAgentVersion"].as_str().unwrap_or_default();
            CutState::Agent {
                answers: true,
                said: format!("version {version}"),
            }
        }
        // Nobody got through to the agent, so nothing is known of it.
        Err(error) if error.is_blind() && !error.to_string().contains("agent") => return Ok(()),
        Err(error) => CutState::Agent {
            answers: false,
            said: error.to_string(),
        },
    };
    tell(world, member, (SNAPSHOT, name), state).await
}

/// Takes a VirtualMachineSnapshot and waits until it can be restored.
pub(super) async fn snapshot(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let name = next_name(member);
    let cut = (SNAPSHOT, name.as_str());
    agent(world, member, &name).await?;
    tell(world, member, cut, CutState::Asked).await?;
    let timer = world.plan.deadlines().unfreeze;
    let object = json!({
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": SNAPSHOT,
        "metadata": {"name": name, "namespace": member.subject.namespace},
        "spec": {
            "source": {
                "apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": member.subject.vm,
            },
            "deletionPolicy": "Delete",
            "failureDeadline": format!("{}ms", timer.as_millis()),
        },
    });
    let cluster = member.cluster(world);
    cluster.create(&member.owner, object).await?;
    let deadline = world.deadline(timer.saturating_add(world.plan.deadlines().sync));
    let taken = match taken(world, member, &name, &deadline).await {
        Ok(taken) => taken,
        Err(error) => {
            let why = format!("{error:#}");
            tell(world, member, cut, CutState::Failed { why }).await?;
            return Err(error);
        }
    };
    let mut claims = CutClaims {
        indications: taken.status.indications.clone(),
        one_instant: false,
        volumes: Vec::new(),
    };
    tell(
        world,
        member,
        cut,
        CutState::Taken {
            claims: claims.clone(),
        },
    )
    .await?;
    agent(world, member, &name).await?;
    ready(world, member, &name, &deadline).await?;
    let content = taken.status.virtual_machine_snapshot_content_name;
    let content = content.with_context(|| format!("{SNAPSHOT} {name} names no content"))?;
    claims.volumes = volumes(world, member, &content).await?;
    for disk in &member.subject.data_disks {
        if claims.volumes.iter().all(|volume| volume.pvc != disk.pvc) {
            bail!("{SNAPSHOT} {name} leaves out volume {}", disk.name);
        }
    }
    // The same word again, with what it says of each volume: the first one is the bracket.
    let told = CutState::Taken {
        claims: claims.clone(),
    };
    tell(world, member, cut, told).await?;
    member.cuts.push(Taken {
        loads: member.loads.len(),
        volumes: claims.volumes,
        name,
    });
    Ok(())
}

/// Waits until a snapshot has been taken. An error on the way is not the end: it is tried again.
async fn taken(
    world: &World,
    member: &Member,
    name: &str,
    deadline: &Deadline,
) -> anyhow::Result<VirtualMachineSnapshot> {
    let namespace = &member.subject.namespace;
    let view = member
        .cluster(world)
        .view::<VirtualMachineSnapshot>(&Scope::Namespace(namespace.clone()));
    let waiting = format!("{SNAPSHOT} {name} to be taken");
    let found = view
        .until_object(deadline, namespace, name, &waiting, |found| match found {
            Some(snapshot) => match snapshot.failure() {
                Some(why) => Seen::Met(Err(why)),
                None if snapshot.status.creation_time.is_some() => Seen::Met(Ok(snapshot.clone())),
                None => Seen::Not(snapshot.describe()),
            },
            None => Seen::Not(format!("no {SNAPSHOT}")),
        })
        .await?;
    found.map_err(|why| anyhow::anyhow!("{SNAPSHOT} {name}: {why}"))
}

async fn ready(
    world: &World,
    member: &Member,
    name: &str,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let namespace = &member.subject.namespace;
    let view = member
        .cluster(world)
        .view::<VirtualMachineSnapshot>(&Scope::Namespace(namespace.clone()));
    let waiting = format!("{SNAPSHOT} {name} to be ready");
    view.until_object(deadline, namespace, name, &waiting, |found| match found {
        Some(snapshot) if snapshot.status.ready_to_use == Some(true) => Seen::Met(()),
        Some(snapshot) => Seen::Not(snapshot.describe()),
        None => Seen::Not(format!("no {SNAPSHOT}")),
    })
    .await?;
    Ok(())
}

/// The volumes of a content with their snapshots.
async fn volumes(world: &World, member: &Member, content: &str) -> anyhow::Result<Vec<CutVolume>> {
    let cluster = member.cluster(world);
    let namespace = &member.subject.namespace;
    let content = cluster
        .get::<VirtualMachineSnapshotContent>(namespace, content)
        .await?;
    let created = |snapshot: &str| {
        let states = &content.status.volume_snapshot_status;
        let state = states.iter().find(|s| s.volume_snapshot_name == snapshot)?;
        Some(state.creation_time.as_ref()?.0)
    };
    let backups = content.spec.volume_backups.iter();
    let volumes = backups.map(|backup| {
        let snapshot = backup.volume_snapshot_name.clone().unwrap_or_default();
        let pvc = backup.persistent_volume_claim["metadata"]["name"].as_str();
        CutVolume {
            pvc: pvc.unwrap_or_default().to_owned(),
            created: created(&snapshot),
            snapshot,
        }
    });
    Ok(volumes.collect())
}

/// Ends replication of the member's volumes. What holds a claim for replication would keep it from
/// being replaced.
pub(super) async fn release(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    let goal = Goal::Released {
        discard_replicas: true,
    };
    let work = member.work(world);
    world.driver.reach(&work, &goal, &deadline).await?;
    Ok(())
}

/// Stops the VM and puts its volumes back to the newest cut, under their own names.
pub(super) async fn restore(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let cut = member.cuts.last().cloned().context("nothing was taken")?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    boot::stop(world, member, member.site, None, &deadline)
        .await
        .context("stopping the VM")?;
    probe::end_load(world, member).await?;
    let site = member.site;
    let fact = |claims| Fact::Restore {
        site,
        restore: RestoreFact {
            cut: cut.name.clone(),
            claims,
        },
    };
    member.tell(world, fact(None)).await?;
    let name = fit_name(&cut.name, "restore");
    let object = json!({
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineRestore",
        "metadata": {"name": name, "namespace": member.subject.namespace},
        "spec": {
            "target": {
                "apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": member.subject.vm,
            },
            "virtualMachineSnapshotName": cut.name,
            "volumeRestorePolicy": "InPlace",
        },
    });
    member.cluster(world).create(&member.owner, object).await?;
    let restored = complete(world, member, &name, &deadline).await?;
    for disk in &member.subject.data_disks {
        let found = restored.status.restores.iter();
        let found = found.clone().find(|r| r.volume_name == disk.name);
        let found = found.with_context(|| format!("volume {} was not restored", disk.name))?;
        if found.persistent_volume_claim != disk.pvc {
            bail!(
                "volume {} was restored to claim {} although volumeRestorePolicy is InPlace; this \
                 KubeVirt does not know the policy",
                disk.name,
                found.persistent_volume_claim
            );
        }
    }
    let claims = restored.status.restores.iter();
    let claims = claims.map(|r| r.persistent_volume_claim.clone()).collect();
    member.tell(world, fact(Some(claims))).await?;
    member.loads.truncate(cut.loads);
    member.restored = Some(cut.name);
    member.aside = true;
    Ok(())
}

async fn complete(
    world: &World,
    member: &Member,
    name: &str,
    deadline: &Deadline,
) -> anyhow::Result<VirtualMachineRestore> {
    let namespace = &member.subject.namespace;
    let view = member
        .cluster(world)
        .view::<VirtualMachineRestore>(&Scope::Namespace(namespace.clone()));
    let waiting = format!("VirtualMachineRestore {name} to be complete");
    let found = view
        .until_object(deadline, namespace, name, &waiting, |found| match found {
            Some(restore) => match restore.failure() {
                Some(why) => Seen::Met(Err(why)),
                None if restore.status.complete == Some(true) => Seen::Met(Ok(restore.clone())),
                None => Seen::Not(restore.describe()),
            },
            None => Seen::Not("no VirtualMachineRestore".into()),
        })
        .await?;
    found.map_err(|why| anyhow::anyhow!("VirtualMachineRestore {name}: {why}"))
}
