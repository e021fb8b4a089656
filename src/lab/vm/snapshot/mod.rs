//! Snapshots, restores and clones of whole VMs, as virt-controller makes them.
//!
//! Contract: a VM snapshot is one VolumeSnapshot per claim, none of them coordinated with another but
//! by a freeze, and the freeze depends on the agent: without one, or for a paused guest, it is left
//! out and the snapshot says so. What an indication claims is what the controller believed, not what
//! the guest did. A restore replaces claims; what replicates the old ones is not told.

mod clone;
mod content;
mod restore;
mod restored;
mod source;
mod take;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::keys::{DV, PVC, VM, VMI};
use super::site::{Ctx, Key, key};
use crate::lab::api::{ApiError, Change, Store, meta};
use crate::lab::storage::engine::{After, Sources, drive};

/// VirtualMachineSnapshots.
pub(super) const SNAPSHOT: &str = "virtualmachinesnapshots.snapshot.kubevirt.io";
/// VirtualMachineSnapshotContents.
pub(super) const CONTENT: &str = "virtualmachinesnapshotcontents.snapshot.kubevirt.io";
/// VirtualMachineRestores.
pub(super) const RESTORE: &str = "virtualmachinerestores.snapshot.kubevirt.io";
/// VirtualMachineClones.
pub(super) const CLONE: &str = "virtualmachineclones.clone.kubevirt.io";
/// VolumeSnapshots.
const VOLUME_SNAPSHOT: &str = "volumesnapshots.snapshot.storage.k8s.io";

/// How long the controller waits before it tries again what it could not do.
const RETRY: Duration = Duration::from_secs(5);

/// Starts the controllers of a site.
pub(super) fn run(ctx: &Ctx) {
    let tracker = ctx.tracker.clone();
    tracker.spawn(snapshots(Arc::clone(ctx)));
    tracker.spawn(contents(Arc::clone(ctx)));
    tracker.spawn(restores(Arc::clone(ctx)));
    tracker.spawn(clones(Arc::clone(ctx)));
}

async fn snapshots(ctx: Ctx) {
    let store = &ctx.store;
    let sources = Sources::new()
        .watch(store.watch(SNAPSHOT), own)
        .watch(store.watch(CONTENT), |c| {
            named(&c.object, "/spec/virtualMachineSnapshotName")
        })
        .watch(store.watch(VM), of_vm(store, SNAPSHOT, "/spec/source/name"))
        .watch(
            store.watch(VMI),
            of_vm(store, SNAPSHOT, "/spec/source/name"),
        );
    reconciled(&ctx, sources, "VM snapshot", |ctx, key| async move {
        let found = ctx.store.get(SNAPSHOT, &key.0, &key.1);
        found.map_or(Ok(After::Done), |found| take::step(&ctx, &found))
    })
    .await;
}

async fn contents(ctx: Ctx) {
    let store = &ctx.store;
    let all = store.clone();
    let sources = Sources::new()
        .watch(store.watch(CONTENT), own)
        .watch(store.watch(SNAPSHOT), move |c| {
            let contents = all.list(CONTENT, Some(meta::namespace(&c.object)));
            let of = contents.iter().filter(|content| {
                meta::text(content, "/spec/virtualMachineSnapshotName") == meta::name(&c.object)
            });
            of.map(|content| key(content)).collect()
        })
        .watch(store.watch(VOLUME_SNAPSHOT), |c| {
            let owner = meta::controller(&c.object);
            let owner = owner.filter(|o| o["kind"] == "VirtualMachineSnapshotContent");
            let namespace = meta::namespace(&c.object).to_owned();
            let name = owner.map(|o| meta::text(o, "/name").to_owned());
            name.map(|name| (namespace, name)).into_iter().collect()
        });
    reconciled(
        &ctx,
        sources,
        "VM snapshot content",
        |ctx, key| async move {
            match ctx.store.get(CONTENT, &key.0, &key.1) {
                Some(found) => content::step(&ctx, &found).await,
                None => Ok(After::Done),
            }
        },
    )
    .await;
}

async fn restores(ctx: Ctx) {
    let store = &ctx.store;
    let target = || of_vm(store, RESTORE, "/spec/target/name");
    let open = |store: &Store| {
        let store = store.clone();
        move |c: &Change| {
            let restores = store.list(RESTORE, Some(meta::namespace(&c.object)));
            let open = restores.iter().filter(|r| !restore::is_over(r));
            open.map(|r| key(r)).collect()
        }
    };
    let sources = Sources::new()
        .watch(store.watch(RESTORE), own)
        .watch(store.watch(VM), target())
        .watch(store.watch(VMI), target())
        .watch(store.watch(PVC), open(store))
        .watch(store.watch(DV), open(store))
        .watch(store.watch(SNAPSHOT), open(store));
    reconciled(&ctx, sources, "VM restore", |ctx, key| async move {
        let found = ctx.store.get(RESTORE, &key.0, &key.1);
        found.map_or(Ok(After::Done), |found| restore::step(&ctx, &found))
    })
    .await;
}

async fn clones(ctx: Ctx) {
    let store = &ctx.store;
    let owned = |c: &Change| {
        let owner = meta::controller(&c.object).filter(|o| o["kind"] == "VirtualMachineClone");
        let namespace = meta::namespace(&c.object).to_owned();
        let name = owner.map(|o| meta::text(o, "/name").to_owned());
        name.map(|name| (namespace, name)).into_iter().collect()
    };
    let sources = Sources::new()
        .watch(store.watch(CLONE), own)
        .watch(store.watch(SNAPSHOT), owned)
        .watch(store.watch(RESTORE), owned);
    reconciled(&ctx, sources, "VM clone", |ctx, key| async move {
        let found = ctx.store.get(CLONE, &key.0, &key.1);
        found.map_or(Ok(After::Done), |found| clone::step(&ctx, &found))
    })
    .await;
}

/// Reconciles what `sources` name, while the site has power. What was refused is tried again.
async fn reconciled<F>(
    ctx: &Ctx,
    sources: Sources,
    what: &'static str,
    step: impl Fn(Ctx, Key) -> F + Copy + Send + Sync + 'static,
) where
    F: Future<Output = Result<After, ApiError>> + Send + 'static,
{
    let site = Arc::clone(ctx);
    drive(sources, ctx.clock, ctx.token.clone(), move |key| {
        let site = Arc::clone(&site);
        async move {
            site.array.powered(site.site).await;
            match step(site, key).await {
                Ok(after) => after,
                Err(error) if error.reason == "NotFound" => After::Done,
                Err(error) => {
                    tracing::debug!(%error, what, "refused, will be tried again");
                    After::Retry
                }
            }
        }
    })
    .await;
}

fn own(change: &Change) -> Vec<Key> {
    vec![key(&change.object)]
}

/// The object of the same namespace that a field names.
fn named(object: &Value, at: &str) -> Vec<Key> {
    let name = meta::text(object, at).to_owned();
    vec![(meta::namespace(object).to_owned(), name)]
}

/// The objects of a resource that name the VM (or the VMI, which is called like it) in a field.
fn of_vm(
    store: &Store,
    resource: &'static str,
    at: &'static str,
) -> impl Fn(&Change) -> Vec<Key> + Send + 'static {
    let store = store.clone();
    move |change| {
        let all = store.list(resource, Some(meta::namespace(&change.object)));
        let of = all
            .iter()
            .filter(|object| meta::text(object, at) == meta::name(&change.object));
        of.map(|object| key(object)).collect()
    }
}

/// Sets a condition of a snapshot, restore or clone: its reason is all that it says.
fn condition(object: &mut Value, kind: &str, status: bool, reason: &str) {
    let condition = Condition {
        kind,
        status,
        reason,
        message: "",
        times: Times::Transition,
    };
    condition::set(object, &condition);
}

/// Puts a field into the status, or takes it away where the value is null.
fn put(object: &mut Value, field: &str, value: Value) {
    let status = meta::map_at(object, "status");
    if value.is_null() {
        status.shift_remove(field);
    } else {
        status.insert(field.to_owned(), value);
    }
}

/// An error as it stands in a status.
fn told(message: &str) -> Value {
    json!({"message": message, "time": meta::now()})
}
