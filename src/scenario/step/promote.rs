//! Bringing the volumes to the other site.

use anyhow::Context as _;

use super::protect::observe;
use super::provision::claim;
use crate::history::event::{Fact, Stage};
use crate::replicate::{Goal, Mode, handover};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Makes PVs and PVCs on the other site, bound to the replicas.
pub(super) async fn hand_over(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    let map = &world.plan.protection().handle_map;
    let to = member.site.peer();
    let target = world.sites.of(to);
    let (owner, set) = (&member.owner, &member.set);
    let stands = handover::install(target, owner, set, &member.captured, map, &deadline).await?;
    for one in stands {
        let part = member.part.as_deref();
        if let Some(part) = part.filter(|part| part.subject.claims.contains(&one.pvc)) {
            claim(world, part, to, one.clone()).await?;
        }
        claim(world, member, to, one).await?;
    }
    member.stage(world, Stage::HandedOver).await
}

/// Promotes every volume on the other site, if the gate opens; the member is there from then on.
pub(super) async fn promote(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let site = member.site.peer();
    let mode = member.way.clone().with_context(|| {
        let left = member.site;
        format!("nothing was demoted on the {left} site, and nothing says that it cannot write")
    })?;
    let forced = matches!(mode, Mode::Forced(_));
    let asked = world
        .driver
        .admit(&world.sites, &member.set, site, mode)
        .await;
    let (open, why) = match &asked {
        Ok(pass) => (true, pass.why().to_owned()),
        Err(closed) => (false, closed.to_string()),
    };
    member
        .tell(
            world,
            Fact::Gate {
                site,
                forced,
                open,
                why,
            },
        )
        .await?;
    let pass = asked.context("the gate before the promotion stayed closed")?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    let goal = Goal::Primary(pass);
    let promoted = world
        .driver
        .reach(&member.work(world), &goal, &deadline)
        .await;
    observe(world, member, site).await?;
    promoted?;
    handover::settle(world.sites.of(site), &member.captured).await?;
    let lossless = !forced || world.plan.protection().synchronous;
    member.arrive(lossless);
    if let Some(part) = member.part.as_deref_mut() {
        part.arrive(lossless);
    }
    member.stage(world, Stage::Promoted).await
}
