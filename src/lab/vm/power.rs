//! A site's power: what is left of KubeVirt when all nodes go dark at once, and how it comes back.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::instance::advance;
use super::keys::{POD, VM, VMI, VMIM, is_final, phase};
use super::site::{Ctx, Work, key, settle};
use super::vmi;
use crate::lab::api::{Part, meta};

/// Every node goes dark. Objects stay as they are: nobody is left to change them.
pub(super) fn off(ctx: &Ctx) {
    ctx.powered.store(false, Ordering::Release);
    for domain in ctx.all_domains() {
        domain.end();
        if let Some(guest) = domain.guest() {
            guest.release();
        }
        ctx.take_domain(&domain.uid);
    }
}

/// Nodes come back: kubelet finds its pods dead, virt-handler its domains gone, and the controllers
/// look at everything anew.
pub(super) fn on(ctx: &Ctx) {
    for pod in ctx.store.list(POD, None) {
        if meta::label(&pod, "kubevirt.io") != Some("virt-launcher") {
            continue;
        }
        let at = key(&pod);
        if phase(&pod) == "Running" {
            let failed = ctx.store.modify(POD, &at.0, &at.1, Part::Status, |pod| {
                pod["status"]["phase"] = json!("Failed");
                pod["status"]["reason"] = json!("NodeShutdown");
            });
            settle("a pod that died with its node", failed);
        }
    }
    for vmi in ctx.store.list(VMI, None) {
        if matches!(phase(&vmi), "Scheduled" | "Running") {
            let failed = vmi::modify(ctx, &vmi, |vmi| {
                super::condition::remove(vmi, "AgentConnected");
                super::condition::remove(vmi, "Paused");
                advance(vmi, "Failed");
            });
            settle("a VMI that died with its node", failed);
        }
    }
    ctx.powered.store(true, Ordering::Release);
    for pod in ctx.store.list(POD, None) {
        ctx.push(Work::Pod(key(&pod)));
        if phase(&pod) == "Pending" && !meta::text(&pod, "/spec/nodeName").is_empty() {
            ctx.after(ctx.timing.pod_start, Work::PodStarted(key(&pod)));
        }
    }
    for vmi in ctx.store.list(VMI, None) {
        ctx.push(Work::Vmi(key(&vmi)));
    }
    for job in ctx
        .store
        .list(VMIM, None)
        .iter()
        .filter(|job| !is_final(job))
    {
        ctx.push(Work::Migration(key(job)));
    }
    for vm in ctx.store.list(VM, None) {
        ctx.push(Work::Vm(key(&vm)));
    }
}
