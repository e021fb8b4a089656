//! Making the VMs where workloads start.

use anyhow::Context as _;

use super::boot;
use crate::history::event::{Fact, Site};
use crate::replicate::handover;
use crate::scenario::member::Member;
use crate::scenario::world::{World, hex};

/// Makes a member's objects and waits until the VM runs and its claims are bound.
pub(super) async fn provision(world: &World, member: &mut Member) -> anyhow::Result<()> {
    member
        .tell(
            world,
            Fact::SubjectCreated {
                workload: member.workload.name.clone(),
                namespace: member.subject.namespace.clone(),
                vm: member.subject.vm.clone(),
                volumes: member.volumes.clone(),
                pvcs: member.subject.claims.clone(),
                seed: member.seed,
            },
        )
        .await?;
    for object in &member.subject.objects {
        world
            .sites
            .of(Site::Primary)
            .create(&member.owner, object.clone())
            .await?;
    }
    let deadline = world.deadline(world.plan.deadlines().boot);
    boot::running(world, member, &deadline)
        .await
        .context("waiting for the VM to run")?;
    for pvc in &member.set.pvcs {
        let cluster = world.sites.of(Site::Primary);
        let stands = handover::bound(cluster, &member.set, pvc, None, &deadline).await?;
        claim(world, member, Site::Primary, stands).await?;
    }
    Ok(())
}

/// Records where a claim stands.
pub(super) async fn claim(
    world: &World,
    member: &Member,
    site: Site,
    stands: handover::Stands,
) -> anyhow::Result<()> {
    let handover::Stands {
        pvc,
        pv,
        handle,
        expected,
    } = stands;
    member
        .tell(
            world,
            Fact::Claim {
                site,
                pvc,
                pv,
                handle,
                expected,
            },
        )
        .await
}

/// An incarnation's name in events.
pub(super) fn name(incarnation: u64) -> String {
    hex(&incarnation.to_be_bytes())
}
