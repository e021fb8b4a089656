//! What happens inside the guests: seeding, load, and reading back.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use super::provision::name;
use crate::cluster::{Deadline, Scope, Seen, crd::kubevirt::VirtualMachineInstance};
use crate::guest::{HostSeen, Milestone, OnMilestone, Shell};
use crate::history::event::{Fact, Purpose, ReadVia, Stage};
use crate::history::segment::Closed;
use crate::plan::model::Route;
use crate::probe::config;
use crate::probe::host::{Prober, Reach, Setup};
use crate::probe::reach::Tried;
use crate::scenario::member::{Extent, Incarnation, Member};
use crate::scenario::world::World;

/// Starts the probe and fills the cold regions.
pub(super) async fn seed(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let (prober, incarnation) = open(world, member).await?;
    fill(world, member, prober, incarnation).await
}

/// Starts the probe that is to write.
pub(super) async fn open(world: &World, member: &Member) -> anyhow::Result<(Prober, Incarnation)> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    launch(world, member, Purpose::Load, &deadline).await
}

/// Fills the cold regions.
pub(super) async fn fill(
    world: &World,
    member: &mut Member,
    prober: Prober,
    incarnation: Incarnation,
) -> anyhow::Result<()> {
    let filling = world.deadline(world.plan.deadlines().sync);
    let cells = prober
        .fill(&filling)
        .await
        .context("filling the cold regions")?;
    let fact = Fact::Filled {
        incarnation: incarnation.name.clone(),
        cells,
    };
    member.tell(world, fact).await?;
    member.loads.push(incarnation);
    member.loader = Some(prober);
    Ok(())
}

/// Writes load for as long as the plan says. The writers go on until something ends them.
pub(super) async fn load(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let plan = world.plan.load();
    let Some((prober, load)) = member.loader.as_ref().zip(member.load()) else {
        bail!("no probe stands by to write");
    };
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let incarnation = load.name.clone();
    let (rate, batch) = (plan.rate, plan.batch);
    member
        .tell(
            world,
            Fact::LoadStarted {
                incarnation,
                rate,
                batch,
            },
        )
        .await?;
    prober
        .start(rate, batch, &deadline)
        .await
        .context("starting the load")?;
    // The length of the load is the thing asked for, not a stand-in for a condition.
    let over = tokio::time::Instant::now() + plan.duration;
    tokio::select! {
        () = world.cancel.cancelled() => bail!("interrupted under load"),
        () = tokio::time::sleep_until(over) => {}
    }
    super::protect::observe(world, member, member.site).await?;
    Ok(())
}

/// Writes load on what was recovered: another life of the same ledger, whose cold regions stand.
pub(super) async fn serve(world: &World, member: &mut Member) -> anyhow::Result<()> {
    end_load(world, member).await?;
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let (prober, incarnation) = launch(world, member, Purpose::Load, &deadline).await?;
    member.loads.push(incarnation);
    member.loader = Some(prober);
    load(world, member).await
}

/// Stops the writers with a full account.
pub(super) async fn quiesce(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(prober) = &member.loader else {
        bail!("no probe writes")
    };
    let deadline = world.deadline(world.plan.deadlines().ssh);
    prober.stop(&deadline).await.context("stopping the load")?;
    // The process must go too: it holds the devices, and whoever reads them next may be of this boot.
    hear_out(world, member, Some(&deadline)).await
}

/// Closes the load's stream: nothing more can come of it. Records what was heard.
pub(in crate::scenario) async fn end_load(
    world: &World,
    member: &mut Member,
) -> anyhow::Result<()> {
    for other in [&mut member.twin, &mut member.part].into_iter().flatten() {
        hear_out(world, other, None).await?;
    }
    hear_out(world, member, None).await
}

/// The same; with a deadline, the probe's process is ended before.
async fn hear_out(
    world: &World,
    member: &mut Member,
    quit: Option<&Deadline>,
) -> anyhow::Result<()> {
    let Some(prober) = member.loader.take() else {
        return Ok(());
    };
    let load = member.load().context("the load that is listened to")?;
    let progress = prober.progress();
    let segment = prober.segment().to_owned();
    let closed = match quit {
        Some(deadline) => prober.quit(deadline).await.context("ending the probe")?,
        None => prober.close().await.context("closing the ack segment")?,
    };
    let (accounted, last_rank) = {
        let progress = progress.borrow();
        (progress.stopped.is_some(), progress.last_rank)
    };
    let incarnation = load.name.clone();
    let ended = Fact::LoadEnded {
        incarnation: incarnation.clone(),
        accounted,
        last_rank,
    };
    member.tell(world, ended).await?;
    seal(world, member, incarnation, segment, closed).await
}

/// Opens the volumes after the transition, writes a canary on each and reads everything back.
pub(super) async fn read_back(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let (prober, incarnation) = launch(world, member, Purpose::Verify, &deadline).await?;
    member.stage(world, Stage::DevicesOpen).await?;
    prober
        .canary(&deadline)
        .await
        .context("writing the canaries")?;
    member.serves(world).await?;
    let (judges, expect) = member.judged(member.loads.len());
    let reading = world.deadline(world.plan.deadlines().sync);
    let file = format!("{}-{}", member.name(), incarnation.name);
    let volumes = prober
        .scan(&expect, &file, &reading)
        .await
        .context("reading back")?;
    // A writer that lives on the old side has had until now to be heard.
    end_load(world, member).await?;
    let (site, reader) = (member.site, incarnation.name.clone());
    let scanned = Fact::Scanned {
        site,
        incarnation: reader,
        judges,
        via: ReadVia::Guest,
        zero_loss: member.zero_loss(),
        cut: member.restored.clone(),
        volumes,
    };
    member.tell(world, scanned).await?;
    if member.has_moved() && member.extent == Extent::Whole {
        // Not before: looking would lengthen the outage that is measured.
        super::shape::record(world, member)
            .await
            .context("reading how the VM is defined")?;
        isolation(world, member, &prober).await?;
    }
    let segment = prober.segment().to_owned();
    let closed = prober.quit(&deadline).await.context("ending the probe")?;
    seal(world, member, incarnation.name, segment, closed).await
}

/// Opens the clone's volumes, writes a canary on each and reads everything back; what was found is
/// evidence of `source`, from whose cut it was made.
pub(super) async fn read_clone(
    world: &World,
    source: &Member,
    clone: &Member,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let (prober, incarnation) = launch(world, clone, Purpose::Verify, &deadline).await?;
    prober
        .canary(&deadline)
        .await
        .context("writing the canaries")?;
    let (judges, expect) = clone.judged(clone.loads.len());
    let reading = world.deadline(world.plan.deadlines().sync);
    let file = format!("{}-{}", clone.name(), incarnation.name);
    let volumes = prober
        .scan(&expect, &file, &reading)
        .await
        .context("reading the clone back")?;
    let scanned = Fact::Scanned {
        site: clone.site,
        incarnation: incarnation.name.clone(),
        judges,
        via: ReadVia::Clone,
        zero_loss: None,
        cut: clone.restored.clone(),
        volumes,
    };
    source.tell(world, scanned).await?;
    let segment = prober.segment().to_owned();
    let closed = prober.quit(&deadline).await.context("ending the probe")?;
    seal(world, clone, incarnation.name, segment, closed).await
}

/// Has the guest try what it must not reach.
async fn isolation(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let addresses = world.plan.unreachable();
    if addresses.is_empty() {
        return Ok(());
    }
    let (site, deadline) = (member.site, world.deadline(world.plan.deadlines().ssh));
    let tried = prober
        .try_reaching(addresses, &deadline)
        .await
        .context("trying what the guest must not reach")?;
    for tried in tried {
        let Tried {
            address,
            reached,
            said,
        } = tried;
        let fact = Fact::Reach {
            site,
            address,
            reached,
            said,
        };
        member.tell(world, fact).await?;
    }
    Ok(())
}

/// Ties a closed segment's bytes into the history.
async fn seal(
    world: &World,
    member: &Member,
    incarnation: String,
    segment: String,
    Closed { records, root, .. }: Closed,
) -> anyhow::Result<()> {
    let fact = Fact::SegmentClosed {
        incarnation,
        segment,
        records,
        root,
    };
    member.tell(world, fact).await
}

/// Reaches the guest, starts a probe in it and records who answered.
async fn launch(
    world: &World,
    member: &Member,
    purpose: Purpose,
    deadline: &Deadline,
) -> anyhow::Result<(Prober, Incarnation)> {
    let number = world.mint.incarnation(member.site);
    let what = match purpose {
        Purpose::Load => config::Purpose::Load,
        Purpose::Verify => config::Purpose::Verify,
    };
    let reach = member.reach(world, address(world, member, deadline).await?.as_deref())?;
    let shell = log_in(world, member, &reach, purpose, deadline).await?;
    let setup = Setup {
        reach,
        binary: world.binary.clone(),
        config: member.config(world, number, what),
        recorder: world.recorder.clone(),
        scope: member.scope.clone(),
        segment: format!("{}-{}", member.name(), name(number)),
    };
    let prober = Prober::launch(setup, Some(shell), deadline)
        .await
        .with_context(|| format!("starting the probe in {}", member.name()))?;
    let incarnation = Incarnation {
        name: name(number),
        number,
        layouts: prober.layouts()?,
    };
    introduce(world, member, &prober, &incarnation, purpose).await?;
    Ok((prober, incarnation))
}

/// A shell in the member's guest, which may still be booting.
pub(super) async fn shell(
    world: &World,
    member: &Member,
    deadline: &Deadline,
) -> anyhow::Result<Shell> {
    let address = address(world, member, deadline).await?;
    let reach = member.reach(world, address.as_deref())?;
    let shell = reach.booting(deadline, None).await;
    shell.with_context(|| format!("logging in to {}", member.name()))
}

/// The VMI's address, for routes that need it.
pub(super) async fn address(
    world: &World,
    member: &Member,
    deadline: &Deadline,
) -> anyhow::Result<Option<String>> {
    if matches!(member.workload.ssh.route, Route::PortForward) {
        return Ok(None);
    }
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let view = member
        .cluster(world)
        .view::<VirtualMachineInstance>(&Scope::Namespace(ns.clone()));
    let waiting = format!("an address of VMI {vm}");
    let found = view.until_object(deadline, ns, vm, &waiting, |vmi| {
        let address = vmi.and_then(|vmi| vmi.status.interfaces.first()?.ip_address.clone());
        address.map_or_else(|| Seen::Not("no address".into()), Seen::Met)
    });
    Ok(Some(found.await?))
}

/// Logs in; after a transition the banner and the login are stages of the recovery.
async fn log_in(
    world: &World,
    member: &Member,
    reach: &Reach,
    purpose: Purpose,
    deadline: &Deadline,
) -> anyhow::Result<Shell> {
    let (reached, mut milestones) = mpsc::unbounded_channel();
    let on: OnMilestone = Arc::new(move |milestone| {
        // Nobody listens once the login is done; nothing is lost then.
        reached.send(milestone).ok();
    });
    let booting = reach.booting(deadline, Some(on));
    tokio::pin!(booting);
    let mut marks = Marks {
        purpose,
        banner: false,
    };
    let shell = loop {
        // The connection keeps the sender alive, so its end is the login's, not the channel's.
        tokio::select! {
            biased;
            Some(milestone) = milestones.recv() => marks.put(world, member, milestone).await?,
            shell = &mut booting => break shell,
        }
    };
    // The last milestone comes in the same breath as the shell.
    while let Ok(milestone) = milestones.try_recv() {
        marks.put(world, member, milestone).await?;
    }
    shell.with_context(|| format!("logging in to {}", member.name()))
}

/// Stages that a login closes.
struct Marks {
    purpose: Purpose,
    banner: bool,
}

impl Marks {
    /// Records a milestone as a stage; of several banners only the first.
    async fn put(
        &mut self,
        world: &World,
        member: &Member,
        milestone: Milestone,
    ) -> anyhow::Result<()> {
        let stage = match milestone {
            Milestone::Banner if !self.banner => Stage::SshBanner,
            Milestone::Authenticated => Stage::SshAuth,
            Milestone::Banner | Milestone::Dialed => return Ok(()),
        };
        self.banner = true;
        match self.purpose {
            Purpose::Verify => member.stage(world, stage).await,
            Purpose::Load => Ok(()),
        }
    }
}

/// Records who answered a login.
pub(super) async fn seen(
    world: &World,
    member: &Member,
    host: &HostSeen,
    machine_id: String,
    boot_id: String,
) -> anyhow::Result<()> {
    let guest = Fact::Guest {
        site: member.site,
        host_key: host.fingerprint.clone(),
        host_key_pinned: host.pinned,
        machine_id,
        boot_id,
    };
    member.tell(world, guest).await
}

/// Records the guest and the probe in it.
async fn introduce(
    world: &World,
    member: &Member,
    prober: &Prober,
    incarnation: &Incarnation,
    purpose: Purpose,
) -> anyhow::Result<()> {
    let (site, identity) = (member.site, prober.identity().clone());
    let (machine, boot) = (identity.machine_id.clone(), identity.boot_id.clone());
    seen(world, member, prober.host(), machine, boot).await?;
    super::inside::record(world, member, prober.facts()).await?;
    member
        .tell(
            world,
            Fact::Volumes {
                site,
                opened: identity.volumes.clone(),
            },
        )
        .await?;
    let started = Fact::IncarnationStarted {
        incarnation: incarnation.name.clone(),
        site,
        purpose,
        parent: member.load().map(|load| load.name.clone()),
        identity,
        layouts: incarnation.layouts.clone(),
        segment: prober.segment().to_owned(),
    };
    member.tell(world, started).await
}
