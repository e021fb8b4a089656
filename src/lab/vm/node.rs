//! What happens on a site's nodes: launcher pods coming up and ending, domains starting and
//! ending. Kubelet and virt-handler in one.

use std::sync::Arc;

use serde_json::{Value, json};

use super::attach::{attach, detach_all, image_missing, missing_image, missing_secret};
use super::boot;
use super::condition::{self, Condition, Times};
use super::domain::{Domain, Place};
use super::guest::Guest;
use super::keys::{POD, VMI, items, phase};
use super::site::{Ctx, Key, Work, key, settle};
use super::{Guests, linger, real};
use super::{hotplug, report, schedule};
use crate::history::event::Site;
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::faults::{Fault, Moment};
use crate::lab::guest::{Guest as Simulated, Request};

pub(super) const HANDLER: &str = "virt-handler";

/// Looks at a launcher pod and brings it a step on.
pub(super) fn reconcile(ctx: &Ctx, (namespace, name): &Key) -> Result<(), ApiError> {
    let Some(pod) = ctx.store.get(POD, namespace, name) else {
        return Ok(());
    };
    let kind = meta::label(&pod, "kubevirt.io");
    if kind == Some(hotplug::LABEL) && meta::deleting(&pod) {
        // Its launcher is gone, and nothing in it has to be shut down.
        ctx.after(ctx.timing.pod_stop, Work::PodStopped(key(&pod)));
    }
    if kind != Some("virt-launcher") {
        return Ok(());
    }
    if meta::deleting(&pod) {
        let domain = domain_of(ctx, &pod).filter(|domain| !domain.ended());
        if let Some(domain) = domain {
            terminated(ctx, &domain);
        } else {
            ctx.after(ctx.timing.pod_stop, Work::PodStopped(key(&pod)));
        }
        return Ok(());
    }
    if phase(&pod) != "Pending" {
        return Ok(());
    }
    if meta::text(&pod, "/spec/nodeName").is_empty() {
        return schedule::schedule(ctx, &pod);
    }
    Ok(())
}

/// The launcher of a domain got its signal to end, as after an eviction: the guest's power button is
/// pressed.
fn terminated(ctx: &Ctx, domain: &Arc<Domain>) {
    let (namespace, name) = &domain.vmi;
    let vmi = ctx.store.get(VMI, namespace, name);
    if let Some(vmi) = vmi.filter(|vmi| meta::uid(vmi) == domain.uid && !super::keys::is_final(vmi))
        && domain.guest().is_some()
    {
        shut_down(ctx, &vmi, domain);
    }
}

/// The domain that a launcher pod carries.
pub(super) fn domain_of(ctx: &Ctx, pod: &Value) -> Option<Arc<Domain>> {
    let uid = meta::label(pod, super::keys::CREATED_BY)?;
    ctx.domain(uid)
        .filter(|domain| domain.place().pod_uid == meta::uid(pod))
}

/// The containers of a launcher pod are to come up: attaches its volumes first, and tries again
/// later if the array refuses, as kubelet does.
pub(super) fn pod_started(ctx: &Ctx, pod_key: &Key) -> Result<(), ApiError> {
    let (namespace, name) = pod_key;
    let Some(pod) = ctx.store.get(POD, namespace, name) else {
        return Ok(());
    };
    if meta::deleting(&pod) || phase(&pod) != "Pending" {
        return Ok(());
    }
    if let Some(image) = missing_image(&pod) {
        return image_missing(ctx, &pod, &image);
    }
    let node = meta::text(&pod, "/spec/nodeName").to_owned();
    let uid = meta::label(&pod, super::keys::CREATED_BY)
        .unwrap_or_default()
        .to_owned();
    let vmi_name = meta::annotation(&pod, "kubevirt.io/domain").unwrap_or_default();
    if let Some(why) = missing_secret(ctx, &pod, vmi_name) {
        ctx.event(&pod, "Warning", "FailedMount", &why, "kubelet");
        ctx.after(ctx.timing.attach_retry, Work::PodStarted(pod_key.clone()));
        return Ok(());
    }
    let attached = match attach(ctx, &pod, &node) {
        Ok(attached) => attached,
        Err(why) => {
            ctx.event(&pod, "Warning", "FailedMount", &why, "kubelet");
            ctx.after(ctx.timing.attach_retry, Work::PodStarted(pod_key.clone()));
            return Ok(());
        }
    };
    let place = Place {
        node,
        pod: name.clone(),
        pod_uid: meta::uid(&pod).to_owned(),
        ip: ctx.pod_ip(),
    };
    let ip = place.ip.to_string();
    let target = meta::label(&pod, "kubevirt.io/migrationJobUID").is_some();
    if target {
        super::migration::target_ready(ctx, &pod, &place, attached);
    } else {
        let vmi_key = (namespace.clone(), vmi_name.to_owned());
        ctx.put_domain(Domain::new(uid, vmi_key, place, attached));
    }
    ctx.store
        .modify(POD, namespace, name, Part::Status, |pod| {
            pod["status"]["phase"] = json!("Running");
            pod["status"]["podIP"] = json!(ip);
            pod["status"]["podIPs"] = json!([{"ip": ip}]);
            pod["status"]["containerStatuses"] = containers_running(pod);
            for kind in ["Initialized", "Ready", "ContainersReady"] {
                condition::set(
                    pod,
                    &Condition {
                        kind,
                        status: true,
                        reason: "",
                        message: "",
                        times: Times::Transition,
                    },
                );
            }
        })?;
    Ok(())
}

fn containers_running(pod: &Value) -> Value {
    items(pod, "/spec/containers")
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "",
                "ready": true, "restartCount": 0, "started": true,
                "state": {"running": {"startedAt": meta::now()}},
            })
        })
        .collect()
}

/// Starts the domain of a VMI: hands its disks to a guest and boots it.
pub(super) fn start(ctx: &Ctx, uid: &str) -> Result<(), ApiError> {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    let (namespace, name) = &domain.vmi;
    let Some(vmi) = ctx
        .store
        .get(VMI, namespace, name)
        .filter(|vmi| meta::uid(vmi) == uid)
    else {
        return Ok(());
    };
    if domain.guest().is_some() || meta::deleting(&vmi) {
        return Ok(());
    }
    match &ctx.guests {
        Guests::Simulated if boot_guest(ctx, &vmi, &domain) => report::started(ctx, &vmi, &domain),
        Guests::Simulated => Ok(()),
        Guests::Real(hypervisor) => {
            real::launch(ctx, hypervisor, &vmi, domain);
            Ok(())
        }
    }
}

/// The guest of a domain was started.
pub(super) fn started(ctx: &Ctx, uid: &str) -> Result<(), ApiError> {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    let (namespace, name) = &domain.vmi;
    match ctx.store.get(VMI, namespace, name) {
        Some(vmi) if meta::uid(&vmi) == uid => report::started(ctx, &vmi, &domain),
        _ => Ok(()),
    }
}

/// Boots the guest of a domain, for the first time or again. False when its root volume failed.
fn boot_guest(ctx: &Ctx, vmi: &Value, domain: &Arc<Domain>) -> bool {
    let spec = boot::spec(ctx, vmi, domain);
    let guest = match Simulated::boot(&spec) {
        Ok(guest) => guest,
        Err(error) => {
            let text = format!("server error. command SyncVMI failed: {error}");
            ctx.event(vmi, "Warning", "SyncFailed", &text, HANDLER);
            ctx.after(
                ctx.timing.attach_retry,
                Work::DomainStart(domain.uid.clone()),
            );
            return false;
        }
    };
    if let Some(requests) = guest.requests() {
        listen(ctx, domain, requests);
    }
    domain.started(Arc::new(guest));
    if ctx.site == Site::Secondary {
        ctx.board.moment(Moment::Boot);
    }
    ctx.after(ctx.timing.guest_boot, Work::GuestUp(domain.uid.clone()));
    true
}

/// Takes what a guest asks for to the controllers.
pub(super) fn listen(
    ctx: &Ctx,
    domain: &Domain,
    mut requests: tokio::sync::mpsc::UnboundedReceiver<Request>,
) {
    let (site, uid) = (Arc::clone(ctx), domain.uid.clone());
    ctx.tracker.spawn(async move {
        loop {
            let request = tokio::select! {
                () = site.token.cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(request) = request else { return };
            site.push(Work::Guest(uid.clone(), request));
        }
    });
}

/// The guest's operating system came up.
pub(super) fn guest_up(ctx: &Ctx, uid: &str) {
    let domain = ctx.domain(uid);
    if let Some((domain, guest)) = domain.and_then(|domain| domain.guest().map(|g| (domain, g))) {
        guest.bring_up();
        hold_sshd(ctx, &guest);
        super::launcher::leave_one(ctx, &domain);
        super::agent::ask_later(ctx, uid);
    }
}

/// Faults `sshd-down` and `sshd-slow`: sshd of a guest on the secondary does not come up with it.
fn hold_sshd(ctx: &Ctx, guest: &Arc<dyn Guest>) {
    if ctx.site != Site::Secondary {
        return;
    }
    let down = ctx.board.armed(Fault::SshdDown);
    let late = super::site::seconds(ctx, Fault::SshdSlow);
    guest.hold_sshd(down || late.is_some());
    if let Some(late) = late.filter(|_| !down) {
        let (site, guest) = (Arc::clone(ctx), Arc::clone(guest));
        ctx.tracker.spawn(async move {
            tokio::select! {
                () = site.token.cancelled() => {}
                () = site.clock.pass(late) => guest.hold_sshd(false),
            }
        });
    }
}

/// The power button, and the grace period that follows.
pub(super) fn shut_down(ctx: &Ctx, vmi: &Value, domain: &Arc<Domain>) {
    let grace = vmi
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(180);
    if linger::lingers(ctx).is_some() {
        // The fault: the node reports the end of a guest that goes on.
        if domain.begin_stop() {
            ctx.push(Work::DomainStopped(domain.uid.clone(), true));
        }
        return;
    }
    if grace == 0 {
        if !domain.ended() {
            ctx.push(Work::GraceOver(domain.uid.clone()));
        }
        return;
    }
    if !domain.begin_stop() {
        return;
    }
    ctx.event(
        vmi,
        "Normal",
        "ShuttingDown",
        "Signaled Graceful Shutdown",
        HANDLER,
    );
    press_power_button(ctx, domain, Work::DomainStopped(domain.uid.clone(), true));
    ctx.after(
        std::time::Duration::from_secs(grace),
        Work::GraceOver(domain.uid.clone()),
    );
}

/// Lets a guest shut down, if it is up and not paused, and queues `then` once it is off.
fn press_power_button(ctx: &Ctx, domain: &Arc<Domain>, then: Work) {
    let Some(guest) = domain.guest().filter(|guest| guest.reacts()) else {
        return;
    };
    let site = Arc::clone(ctx);
    ctx.tracker.spawn(async move {
        site.clock.pass(site.timing.guest_stop).await;
        if guest.shut_down().await {
            site.push(then);
        }
    });
}

/// The grace period of a domain is over: whatever still runs is cut off.
pub(super) fn grace_over(ctx: &Ctx, uid: &str) -> Result<(), ApiError> {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    let (namespace, name) = &domain.vmi;
    if let Some(vmi) = ctx
        .store
        .get(VMI, namespace, name)
        .filter(|vmi| meta::uid(vmi) == uid)
    {
        ctx.event(
            &vmi,
            "Normal",
            "Deleted",
            "VirtualMachineInstance stopping",
            HANDLER,
        );
        ctx.event(&vmi, "Normal", "Deleted", "Signaled Deletion", HANDLER);
    }
    if let Some(guest) = domain.guest() {
        guest.power_cut();
    }
    stopped(ctx, uid, false)
}

/// A domain ended: its volumes are detached, its VMI is final, its pod will be.
pub(super) fn stopped(ctx: &Ctx, uid: &str, clean: bool) -> Result<(), ApiError> {
    let Some(domain) = ctx.domain(uid).filter(|domain| domain.end()) else {
        return Ok(());
    };
    let place = domain.place();
    if let Some(time) = linger::lingers(ctx) {
        linger::begin(ctx, &domain, time);
    } else {
        if let Some(guest) = domain.guest() {
            guest.power_cut();
        }
        detach_all(ctx, &domain);
    }
    let (namespace, name) = &domain.vmi;
    if let Some(vmi) = ctx
        .store
        .get(VMI, namespace, name)
        .filter(|vmi| meta::uid(vmi) == uid)
    {
        report::stopped(ctx, &vmi, clean)?;
    }
    ctx.after(
        ctx.timing.pod_stop,
        Work::PodStopped((namespace.clone(), place.pod)),
    );
    Ok(())
}

/// The containers of a launcher pod ended; a pod that is to be deleted goes.
pub(super) fn pod_stopped(ctx: &Ctx, pod_key: &Key) -> Result<(), ApiError> {
    let (namespace, name) = pod_key;
    let Some(pod) = ctx.store.get(POD, namespace, name) else {
        return Ok(());
    };
    if domain_of(ctx, &pod).is_some_and(|domain| !domain.ended()) {
        return Ok(());
    }
    if !matches!(phase(&pod), "Succeeded" | "Failed") && phase(&pod) == "Running" {
        ctx.store
            .modify(POD, namespace, name, Part::Status, |pod| {
                pod["status"]["phase"] = json!("Succeeded");
                for kind in ["Ready", "ContainersReady"] {
                    condition::set(
                        pod,
                        &Condition {
                            kind,
                            status: false,
                            reason: "PodCompleted",
                            message: "",
                            times: Times::Transition,
                        },
                    );
                }
            })?;
    }
    if meta::deleting(&pod) {
        let now = DeleteOptions {
            grace_period_seconds: Some(0),
            ..DeleteOptions::default()
        };
        settle("a pod's end", ctx.store.delete(POD, namespace, name, &now));
    }
    Ok(())
}

/// A launcher pod is gone from the API. If its domain still runs, somebody forced it: the node kills
/// the domain with the pod.
pub(super) fn pod_gone(ctx: &Ctx, pod: &Value) -> Result<(), ApiError> {
    super::migration::target_gone(ctx, pod)?;
    let Some(domain) = domain_of(ctx, pod) else {
        return Ok(());
    };
    let uid = domain.uid.clone();
    if !domain.ended() {
        if ctx.board.armed(Fault::KillSwallowed) {
            return linger::outlives(ctx, &domain);
        }
        if let Some(guest) = domain.guest() {
            guest.power_cut();
        }
        stopped(ctx, &uid, false)?;
    }
    if linger::lingers(ctx).is_none() {
        ctx.take_domain(&uid);
        if let Some(guest) = domain.guest() {
            guest.release();
        }
    }
    Ok(())
}

/// A guest asks for something.
pub(super) fn guest_asks(ctx: &Ctx, uid: &str, request: Request) -> Result<(), ApiError> {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    match request {
        Request::Poweroff => {
            if domain.begin_stop() {
                press_power_button(ctx, &domain, Work::DomainStopped(uid.to_owned(), true));
            }
            Ok(())
        }
        Request::Reboot => {
            reboot(ctx, &domain, false);
            Ok(())
        }
        Request::Rebooted => {
            super::agent::gone(ctx, &domain);
            Ok(())
        }
        Request::Off { clean } => stopped(ctx, uid, clean),
        Request::IoError => report::paused_by_error(ctx, &domain),
        Request::Agent => {
            super::agent::ask_later(ctx, uid);
            Ok(())
        }
    }
}

/// Boots the guest of a domain again: after a clean shutdown, or hard.
pub(super) fn reboot(ctx: &Ctx, domain: &Arc<Domain>, hard: bool) {
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    ctx.tracker.spawn(async move {
        let Some(old) = domain.guest() else { return };
        if !hard {
            site.clock.pass(site.timing.guest_stop).await;
        }
        if old.reboot(hard).await {
            super::agent::gone(&site, &domain);
            return;
        }
        let again = {
            let site = Arc::clone(&site);
            let domain = Arc::clone(&domain);
            tokio::task::spawn_blocking(move || {
                let (namespace, name) = &domain.vmi;
                let vmi = site.store.get(VMI, namespace, name);
                vmi.is_some_and(|vmi| !domain.ended() && boot_guest(&site, &vmi, &domain))
            })
            .await
        };
        if matches!(again, Ok(true)) {
            super::agent::gone(&site, &domain);
        }
    });
}
