//! KubeVirt on a simulated site: controllers, admission webhooks and subresources.
//!
//! Contract: objects change in the order in which they change on real clusters, with the same
//! words; what happens inside a guest is [`super::guest`]'s. Controllers react to watches and to the
//! lab's clock, never to polls, and one task per site does all their work, so that a seed gives one
//! order of events.

mod agent;
mod attach;
mod boot;
mod condition;
mod domain;
pub mod exec;
pub mod guest;
mod hotplug;
mod instance;
mod keys;
mod launcher;
mod linger;
mod machine;
mod migratable;
mod migration;
mod mismove;
mod node;
mod power;
mod printable;
mod quiesce;
mod real;
mod report;
mod resize;
mod schedule;
mod seed;
mod site;
mod snapshot;
mod socket;
mod status;
mod storage_move;
pub mod subresources;
mod vmi;
pub mod webhooks;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::history::event::Site;
use crate::lab::api::{ApiError, Change, ChangeKind, Store, meta};
use crate::lab::array::Array;
use crate::lab::clock::LabClock;
use crate::lab::faults::Board;
use crate::lab::qemu::Hypervisor;
use exec::Exec;
pub use guest::Guest;
use keys::{DV, POD, PVC, VM, VMI, VMIM, claim_of, items, phase};
pub use seed::seed;
pub use site::Timing;
use site::{Ctx, Inner, Key, Work, key};
use subresources::Subresources;
use webhooks::Webhooks;

/// What runs in the domains of a site.
#[derive(Debug, Clone)]
pub enum Guests {
    /// Simulated guests in this process.
    Simulated,
    /// Real kernels under QEMU.
    Real(Arc<Hypervisor>),
}

/// What a site's KubeVirt is made of.
pub struct Setup {
    /// Which site.
    pub site: Site,
    /// Its objects.
    pub store: Store,
    /// The array of both sites.
    pub array: Array,
    /// The lab's time.
    pub clock: LabClock,
    /// Where faults are planted.
    pub board: Arc<Board>,
    /// How long things take.
    pub timing: Timing,
    /// What runs in its domains.
    pub guests: Guests,
    /// Seed of everything random.
    pub seed: u64,
}

/// The KubeVirt of one site, running.
#[derive(Clone)]
pub struct KubeVirt {
    ctx: Ctx,
}

impl KubeVirt {
    /// Starts the controllers on `tracker`; they end with `token`.
    pub fn start(setup: Setup, tracker: &TaskTracker, token: &CancellationToken) -> Self {
        let (queue, work) = mpsc::unbounded_channel();
        let ctx = Arc::new(Inner::new(setup, queue, tracker.clone(), token.clone()));
        let watches = Watches::open(&ctx.store);
        tracker.spawn(run(Arc::clone(&ctx), watches, work));
        snapshot::run(&ctx);
        Self { ctx }
    }

    /// The admission webhooks.
    pub fn webhooks(&self) -> Arc<Webhooks> {
        let hooks = Webhooks::new(self.ctx.seed);
        Arc::new(hooks.with_faults(self.ctx.site, &self.ctx.board))
    }

    /// The aggregated API.
    pub fn subresources(&self) -> Arc<Subresources> {
        Arc::new(Subresources::new(Arc::clone(&self.ctx)))
    }

    /// The handler of `pods/exec`.
    pub fn exec(&self) -> Arc<Exec> {
        Arc::new(Exec::new(Arc::clone(&self.ctx)))
    }

    /// Cuts the power of all nodes: every guest stops where it is, controllers stand still. Call it
    /// after the array's power cut, so that nothing of the guests' volatile caches gets through.
    pub fn power_off(&self) {
        power::off(&self.ctx);
    }

    /// Brings the nodes back. What ran before has failed, and is started again where the objects
    /// say so; a VM with run strategy Always boots whether or not it runs elsewhere by now.
    pub fn power_on(&self) {
        power::on(&self.ctx);
    }

    /// The guest of a VMI, if its domain is started.
    pub fn guest(&self, namespace: &str, name: &str) -> Option<Arc<dyn Guest>> {
        let vmi = self.ctx.store.get(VMI, namespace, name)?;
        self.ctx.domain(meta::uid(&vmi))?.guest()
    }
}

struct Watches {
    machines: mpsc::UnboundedReceiver<Change>,
    instances: mpsc::UnboundedReceiver<Change>,
    pods: mpsc::UnboundedReceiver<Change>,
    claims: mpsc::UnboundedReceiver<Change>,
    data_volumes: mpsc::UnboundedReceiver<Change>,
    migrations: mpsc::UnboundedReceiver<Change>,
    nodes: mpsc::UnboundedReceiver<Change>,
}

impl Watches {
    fn open(store: &Store) -> Self {
        Self {
            machines: store.watch(VM),
            instances: store.watch(VMI),
            pods: store.watch(POD),
            claims: store.watch(PVC),
            data_volumes: store.watch(DV),
            migrations: store.watch(VMIM),
            nodes: store.watch("nodes"),
        }
    }
}

async fn run(ctx: Ctx, mut watches: Watches, mut work: mpsc::UnboundedReceiver<Work>) {
    let token = ctx.token.clone();
    loop {
        // Oldest layer first: a VM's own changes, then what follows from them.
        let result = tokio::select! {
            biased;
            () = token.cancelled() => return,
            Some(change) = watches.machines.recv() => seen(&ctx, &change, machine_changed),
            Some(change) = watches.instances.recv() => seen(&ctx, &change, instance_changed),
            Some(change) = watches.pods.recv() => seen(&ctx, &change, pod_changed),
            Some(change) = watches.data_volumes.recv() => seen(&ctx, &change, claim_changed),
            Some(change) = watches.claims.recv() => seen(&ctx, &change, claim_changed),
            Some(change) = watches.migrations.recv() => seen(&ctx, &change, migration_changed),
            Some(change) = watches.nodes.recv() => seen(&ctx, &change, node_changed),
            Some(work) = work.recv() => if ctx.powered.load(Ordering::Acquire) {
                act(&ctx, work)
            } else {
                Ok(())
            },
            else => return,
        };
        if let Err(error) = result
            && error.code != 404
            && error.code != 409
        {
            tracing::warn!(site = %ctx.site, %error, "a KubeVirt controller could not go on");
        }
    }
}

fn seen(
    ctx: &Ctx,
    change: &Change,
    react: fn(&Ctx, &Change) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    if ctx.powered.load(Ordering::Acquire) {
        react(ctx, change)
    } else {
        Ok(())
    }
}

fn act(ctx: &Ctx, work: Work) -> Result<(), ApiError> {
    match work {
        Work::Vm(key) => machine::reconcile(ctx, &key),
        Work::Vmi(key) => vmi::reconcile(ctx, &key),
        Work::Pod(key) => node::reconcile(ctx, &key),
        Work::Migration(key) => migration::reconcile(ctx, &key),
        Work::PodStarted(key) => node::pod_started(ctx, &key),
        Work::PodStopped(key) => node::pod_stopped(ctx, &key),
        Work::DomainStart(uid) => node::start(ctx, &uid),
        Work::DomainStarted(uid) => node::started(ctx, &uid),
        Work::GuestUp(uid) => {
            node::guest_up(ctx, &uid);
            Ok(())
        }
        Work::AgentUp(uid) => {
            agent::report(ctx, &uid);
            Ok(())
        }
        Work::Guest(uid, request) => node::guest_asks(ctx, &uid, request),
        Work::DomainStopped(uid, clean) => node::stopped(ctx, &uid, clean),
        Work::GraceOver(uid) => node::grace_over(ctx, &uid),
        Work::Hotplug(key, volume) => hotplug::step(ctx, &key, &volume),
        Work::Migrated(key) => migration::finish(ctx, &key),
        Work::MigrationFailed(key, broken) => migration::broke(ctx, &key, &broken),
        Work::MigrationWaited(key, uid) => {
            ctx.waited(&uid);
            migration::reconcile(ctx, &key)
        }
        Work::MoveStorage(key) => storage_move::again(ctx, &key),
        Work::TargetOverdue(key, unschedulable) => {
            migration::target_overdue(ctx, &key, unschedulable);
            Ok(())
        }
    }
}

fn machine_changed(ctx: &Ctx, change: &Change) -> Result<(), ApiError> {
    match change.kind {
        ChangeKind::Deleted => Ok(()),
        _ => machine::reconcile(ctx, &key(&change.object)),
    }
}

fn instance_changed(ctx: &Ctx, change: &Change) -> Result<(), ApiError> {
    let at = key(&change.object);
    let uid = meta::uid(&change.object);
    if change.kind == ChangeKind::Deleted {
        if let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) {
            node::stopped(ctx, &domain.uid, false)?;
        }
    } else {
        // The VM's controller sees each state before the VMI's own takes it further.
        machine::reconcile(ctx, &at)?;
        vmi::reconcile(ctx, &at)?;
        for job in ctx.store.list(VMIM, Some(&at.0)) {
            if meta::text(&job, "/spec/vmiName") == at.1 {
                migration::reconcile(ctx, &key(&job))?;
            }
        }
    }
    machine::reconcile(ctx, &at)
}

fn pod_changed(ctx: &Ctx, change: &Change) -> Result<(), ApiError> {
    let pod = &change.object;
    match meta::label(pod, "kubevirt.io") {
        Some("virt-launcher") => {}
        Some(hotplug::LABEL) if change.kind != ChangeKind::Deleted => {
            return node::reconcile(ctx, &key(pod));
        }
        _ => return Ok(()),
    }
    if change.kind == ChangeKind::Deleted {
        node::pod_gone(ctx, pod)?;
    } else {
        node::reconcile(ctx, &key(pod))?;
    }
    let name = meta::annotation(pod, "kubevirt.io/domain").unwrap_or_default();
    vmi::reconcile(ctx, &(meta::namespace(pod).to_owned(), name.to_owned()))
}

/// A claim or its DataVolume changed: whoever names it looks again.
fn claim_changed(ctx: &Ctx, change: &Change) -> Result<(), ApiError> {
    let (namespace, claim) = key(&change.object);
    let names = |spec: &Value, pointer: &str| {
        items(spec, pointer)
            .iter()
            .any(|volume| claim_of(volume) == Some(&claim))
    };
    let mut vms: Vec<Key> = Vec::new();
    for vm in ctx.store.list(VM, Some(&namespace)) {
        let templated = items(&vm, "/spec/dataVolumeTemplates")
            .iter()
            .any(|template| meta::name(template) == claim);
        if templated || names(&vm, "/spec/template/spec/volumes") {
            vms.push(key(&vm));
        }
    }
    for pod in ctx.store.list(POD, Some(&namespace)) {
        if phase(&pod) == "Pending" && names(&pod, "/spec/volumes") {
            node::reconcile(ctx, &key(&pod))?;
        }
    }
    for vmi in ctx.store.list(VMI, Some(&namespace)) {
        if matches!(phase(&vmi), "Pending" | "Running") && names(&vmi, "/spec/volumes") {
            vmi::reconcile(ctx, &key(&vmi))?;
        }
    }
    for vm in &vms {
        machine::reconcile(ctx, vm)?;
    }
    Ok(())
}

fn migration_changed(ctx: &Ctx, change: &Change) -> Result<(), ApiError> {
    let job = &change.object;
    if change.kind != ChangeKind::Deleted {
        return migration::reconcile(ctx, &key(job));
    }
    let vmi = meta::text(job, "/spec/vmiName").to_owned();
    vmi::reconcile(ctx, &(meta::namespace(job).to_owned(), vmi))
}

fn node_changed(ctx: &Ctx, _change: &Change) -> Result<(), ApiError> {
    for pod in ctx.store.list(POD, None) {
        if phase(&pod) == "Pending" && meta::text(&pod, "/spec/nodeName").is_empty() {
            node::reconcile(ctx, &key(&pod))?;
        }
    }
    Ok(())
}
