//! Domains with real guests. Starting and moving one takes as long as it takes, so it happens beside
//! the controllers, who hear of it as work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::attach::detach;
use super::boot;
use super::domain::{Attached, Domain};
use super::migration::{Broken, Terms};
use super::site::{Ctx, Key, Work};
use super::{mismove, node};
use crate::history::event::Site;
use crate::lab::faults::Moment;
use crate::lab::qemu::{Hypervisor, Limits, Machine, MoveError, Why};

/// Starts the guest of a domain, unless that is under way.
pub(super) fn launch(
    ctx: &Ctx,
    hypervisor: &Arc<Hypervisor>,
    vmi: &Arc<Value>,
    domain: Arc<Domain>,
) {
    if !domain.begin_start() {
        return;
    }
    let spec = boot::spec(ctx, vmi, &domain);
    let (site, hypervisor, vmi) = (Arc::clone(ctx), Arc::clone(hypervisor), Arc::clone(vmi));
    ctx.tracker.spawn(async move {
        let started = tokio::select! {
            () = site.token.cancelled() => return,
            started = hypervisor.start(&spec) => started,
        };
        match started {
            Ok(machine) => run(&site, &domain, machine).await,
            Err(error) => {
                let text = format!("server error. command SyncVMI failed: {error}");
                site.event(&vmi, "Warning", "SyncFailed", &text, node::HANDLER);
                domain.not_started();
                let again = Work::DomainStart(domain.uid.clone());
                site.after(site.timing.attach_retry, again);
            }
        }
    });
}

/// Puts a started guest into its domain and waits until it is up.
async fn run(site: &Ctx, domain: &Arc<Domain>, machine: Arc<Machine>) {
    if let Some(requests) = machine.requests() {
        node::listen(site, domain, requests);
    }
    domain.started(Arc::new(Arc::clone(&machine)));
    // Whoever ended the domain meanwhile found no guest to end.
    if domain.ended() || !site.powered.load(Ordering::Acquire) {
        machine.release();
        return;
    }
    if site.site == Site::Secondary {
        site.board.moment(Moment::Boot);
    }
    site.push(Work::DomainStarted(domain.uid.clone()));
    tokio::select! {
        () = site.token.cancelled() => {}
        up = machine.ready() => if up {
            site.push(Work::GuestUp(domain.uid.clone()));
        }
    }
}

/// Moves the guest of a domain to the node on which `attached` was opened for it.
pub(super) fn migrate(
    ctx: &Ctx,
    job: Key,
    domain: &Arc<Domain>,
    machine: Arc<Machine>,
    node: String,
    attached: Vec<Attached>,
    terms: Terms,
) {
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    if !domain.plugged().is_empty() {
        // It would arrive and not answer any more.
        detach(ctx, &attached, &node);
        let why = "this lab moves no real guest that has a plugged disk".to_owned();
        return ctx.push(Work::MigrationFailed(job, Broken::Lost(why)));
    }
    ctx.tracker.spawn(async move {
        let from = domain.place().node;
        let disks = boot::devices_of(&attached);
        let limits = Limits {
            bandwidth: terms.bandwidth,
            limit: Duration::from_secs(terms.limit()),
        };
        match machine.migrate(disks, limits).await {
            Ok(()) => {
                detach(&site, &attached, &from);
                mismove::stand_still(&site, &domain).await;
                site.push(Work::Migrated(job));
            }
            Err(error) => {
                detach(&site, &attached, &node);
                site.push(Work::MigrationFailed(job, broken(&error, &terms)));
            }
        }
    });
}

/// What virt-launcher makes of a move that QEMU did not make.
fn broken(error: &MoveError, terms: &Terms) -> Broken {
    match error {
        MoveError::Migrate(failed) => match failed.why {
            Why::Aborted => Broken::Cancelled,
            Why::TimedOut { .. } => Broken::Overdue(terms.limit()),
            _ => Broken::Lost(error.to_string()),
        },
        _ => Broken::Lost(error.to_string()),
    }
}
