//! Steps that concern a whole site: done once, recorded for every member.

use std::process::Stdio;

use anyhow::{Context as _, bail};

use super::boot;
use crate::cluster::undo::Undo;
use crate::history::event::{Fact, Outcome, Site, Stage};
use crate::history::recorder::Scope;
use crate::plan::model::Fencing;
use crate::replicate::{Evidence, Mode, fence as network_fence};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Cuts the power of the primary by the plan's command. How to restore it is in the undo log first.
pub(in crate::scenario) async fn power_off(
    world: &World,
    scope: &Scope,
    members: &mut [Member],
) -> anyhow::Result<()> {
    let faults = world.plan.faults();
    if faults.power_off.is_empty() || faults.power_on.is_empty() {
        bail!("the plan has no faults.powerOff and faults.powerOn");
    }
    let undo = Undo::Command {
        argv: faults.power_on.clone(),
        dir: std::path::absolute(&world.base)?,
    };
    world.owner.undo().record(None, undo).await?;
    // The plan's commands are the primary's.
    let site = Site::Primary;
    let fault = |active| Fact::Fault {
        name: "site-power-off".into(),
        site: Some(site),
        active,
        detail: faults.power_off.join(" "),
    };
    world.recorder.record(scope, fault(true)).await?;
    for member in members.iter() {
        boot::strikes(world, member).await?;
    }
    let method = || "siteDown".to_owned();
    for member in members.iter() {
        member
            .tell(
                world,
                Fact::Fencing {
                    site,
                    method: method(),
                    outcome: None,
                },
            )
            .await?;
    }
    command(world, &faults.power_off)
        .await
        .context("cutting the primary's power")?;
    for member in members.iter_mut() {
        let outcome = Some(Outcome::Ok);
        member
            .tell(
                world,
                Fact::Fencing {
                    site,
                    method: method(),
                    outcome,
                },
            )
            .await?;
        super::probe::end_load(world, member).await?;
        member.stage(world, Stage::Ordered).await?;
        member.way = Some(Mode::Forced(Evidence::Down("its power was cut".into())));
        member.stage(world, Stage::Fenced).await?;
    }
    Ok(())
}

/// Keeps the living site that the members are on from writing, by the plan's method. The old writers
/// are still listened to: what they get acked from now on is evidence.
pub(in crate::scenario) async fn fence(
    world: &World,
    members: &mut [Member],
) -> anyhow::Result<()> {
    for member in members.iter() {
        boot::strikes(world, member).await?;
        member.stage(world, Stage::Ordered).await?;
    }
    let fencing = &world.plan.protection().fencing;
    let method = match fencing {
        Fencing::StopVm => "stopVm",
        Fencing::NetworkFence { .. } => "networkFence",
        Fencing::None => "none",
    };
    let site = here(members);
    let fact = |outcome| Fact::Fencing {
        site,
        method: method.into(),
        outcome,
    };
    for member in members.iter() {
        member.tell(world, fact(None)).await?;
    }
    let done = by_method(world, fencing, members, site).await;
    let outcome = match &done {
        Ok(_) => Outcome::Ok,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    for member in members.iter() {
        member.tell(world, fact(Some(outcome.clone()))).await?;
    }
    let evidence = done?;
    for member in members.iter_mut() {
        member.way = Some(Mode::Forced(evidence.clone()));
        member.stage(world, Stage::Fenced).await?;
    }
    Ok(())
}

async fn by_method(
    world: &World,
    fencing: &Fencing,
    members: &[Member],
    site: Site,
) -> anyhow::Result<Evidence> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    match fencing {
        Fencing::StopVm => {
            let stops = members
                .iter()
                .map(|m| boot::stop(world, m, site, Some(0), &deadline));
            for stopped in futures::future::join_all(stops).await {
                stopped.with_context(|| format!("stopping the VM on the {site} site"))?;
            }
            Ok(Evidence::Stopped("its VMI is gone".into()))
        }
        Fencing::NetworkFence { class, cidrs } => {
            let cluster = world.sites.of(site);
            let fence = network_fence::fence(cluster, &world.owner, class, cidrs, &deadline)
                .await
                .with_context(|| format!("fencing the nodes of the {site} site"))?;
            Ok(Evidence::Fenced(fence.to_string()))
        }
        Fencing::None => Ok(Evidence::PolicyNone),
    }
}

/// Halts the VMs on the site that was left, where a fence may hold them while they run, and only
/// then lifts the fence: none of them may write or start again.
pub(in crate::scenario) async fn unfence(world: &World, members: &[Member]) -> anyhow::Result<()> {
    let left = here(members).peer();
    let deadline = world.deadline(world.plan.deadlines().transition);
    let halts = members
        .iter()
        .map(|member| boot::halt(world, member, left, &deadline));
    for halted in futures::future::join_all(halts).await {
        halted.with_context(|| format!("halting the old VM on the {left} site"))?;
    }
    if let Fencing::NetworkFence { .. } = &world.plan.protection().fencing {
        let name = network_fence::name(&world.owner, left);
        network_fence::lift(world.sites.of(left), &name, &deadline)
            .await
            .with_context(|| format!("lifting the fence of the {left} site"))?;
    }
    Ok(())
}

/// Where the members of a trial are: they go through shared steps together.
fn here(members: &[Member]) -> Site {
    members.first().map_or(Site::Primary, |member| member.site)
}

/// Runs one of the plan's commands; no shell is involved.
async fn command(world: &World, argv: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    // A relative path is relative to the plan; a bare name is looked up as usual.
    let found = if program.contains('/') {
        world.base.join(program)
    } else {
        program.into()
    };
    let running = tokio::process::Command::new(found)
        .args(arguments)
        .current_dir(&world.base)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let limit = world.plan.deadlines().transition;
    let output = tokio::select! {
        () = world.cancel.cancelled() => bail!("interrupted while `{program}` ran"),
        done = tokio::time::timeout(limit, running) => done
            .with_context(|| format!("`{program}` did not end within {limit:?}"))?
            .with_context(|| format!("cannot run `{program}`"))?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.chars().take(500).collect();
        bail!("`{program}` ended with {}: {}", output.status, said.trim());
    }
    Ok(())
}
