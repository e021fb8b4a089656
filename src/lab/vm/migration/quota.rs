//! How many migrations a cluster lets run at once, as virt-controller counts them: a job that finds
//! no room stays Pending and looks again five seconds later, with whatever room there is then.

use std::time::Duration;

use serde_json::Value;

use super::is_running;
use crate::lab::api::meta;
use crate::lab::vm::keys::{POD, VMI, VMIM, phase};
use crate::lab::vm::site::{Ctx, Work, key};
use crate::lab::vm::vmi;

/// Migrations at a time (`parallelMigrationsPerCluster`).
pub(super) const PER_CLUSTER: usize = 5;
/// Migrations at a time that leave one node (`parallelOutboundMigrationsPerNode`).
pub(super) const OUTBOUND: usize = 2;
/// When a job that found no room looks again.
const NO_ROOM: Duration = Duration::from_secs(5);
/// When one looks again whose VMI has more than one live launcher.
const TWO_PODS: Duration = Duration::from_secs(1);

/// Whether a job that is Pending may have its target pod now; if not, it will be looked at again.
pub(super) fn has_room(ctx: &Ctx, job: &Value, vmi: &Value) -> bool {
    let Some(wait) = wait(ctx, job, vmi) else {
        return true;
    };
    if ctx.waits(meta::uid(job)) {
        ctx.after(
            wait,
            Work::MigrationWaited(key(job), meta::uid(job).to_owned()),
        );
    }
    false
}

fn wait(ctx: &Ctx, job: &Value, vmi: &Value) -> Option<Duration> {
    let live = |pod: &Value| !matches!(phase(pod), "Succeeded" | "Failed");
    if vmi::pods(ctx, vmi).iter().filter(|pod| live(pod)).count() > 1 {
        return Some(TWO_PODS);
    }
    let jobs = ctx.store.list(VMIM, None);
    let running = jobs
        .iter()
        .filter(|other| is_running(other) && meta::uid(other) != meta::uid(job));
    let node = meta::text(vmi, "/status/nodeName");
    let (mut all, mut outbound) = (0, 0);
    for other in running {
        all += 1;
        let moved = ctx.store.get(
            VMI,
            meta::namespace(other),
            meta::text(other, "/spec/vmiName"),
        );
        outbound +=
            usize::from(moved.is_some_and(|vmi| meta::text(&vmi, "/status/nodeName") == node));
    }
    (all >= PER_CLUSTER || outbound >= OUTBOUND).then_some(NO_ROOM)
}

/// How long a target pod that no node can take may stay, and any other that does not come up.
const UNSCHEDULABLE: Duration = Duration::from_secs(5 * 60);
const PENDING: Duration = Duration::from_secs(15 * 60);

/// Has a new target pod looked at when its time is over.
pub(super) fn watch_target(ctx: &Ctx, pod: &Value) {
    for (limit, unschedulable) in [(UNSCHEDULABLE, true), (PENDING, false)] {
        ctx.after(limit, Work::TargetOverdue(key(pod), unschedulable));
    }
}

/// The time of a target pod is over: one that is still Pending goes, and its migration fails for
/// that. With `unschedulable`, only one that has no node.
pub(in crate::lab::vm) fn target_overdue(
    ctx: &Ctx,
    (namespace, name): &crate::lab::vm::site::Key,
    unschedulable: bool,
) {
    let pod = ctx.store.get(POD, namespace, name);
    let late = pod
        .filter(|pod| phase(pod) == "Pending")
        .filter(|pod| !unschedulable || meta::text(pod, "/spec/nodeName").is_empty());
    if let Some(pod) = late {
        super::delete_now(ctx, &pod);
    }
}
