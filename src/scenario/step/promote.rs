//! Bringing the volumes to the secondary.

use anyhow::Context as _;

use super::protect::observe;
use super::provision::claim;
use crate::history::event::{Fact, Site, Stage};
use crate::replicate::{Goal, Mode, handover};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Makes PVs and PVCs on the secondary, bound to the replicas.
pub(super) async fn hand_over(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    let map = &world.plan.protection().handle_map;
    let target = world.sites.of(Site::Secondary);
    let (owner, set) = (&member.owner, &member.set);
    let stands = handover::install(target, owner, set, &member.captured, map, &deadline).await?;
    for one in stands {
        claim(world, member, Site::Secondary, one).await?;
    }
    member.stage(world, Stage::HandedOver).await
}

/// Promotes every volume on the secondary, if the gate opens.
pub(super) async fn promote(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let site = Site::Secondary;
    let planned = member.planned;
    let mode = match (&member.evidence, planned) {
        (_, true) => Mode::Planned,
        (Some(evidence), false) => Mode::Forced(evidence.clone()),
        (None, false) => anyhow::bail!("nothing says that the primary cannot write any more"),
    };
    let forced = !planned;
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
    member.site = site;
    member.stage(world, Stage::Promoted).await
}
