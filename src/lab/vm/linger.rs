//! Faults that let a guest live on although its end was reported: its launcher is not gone, its
//! volumes stay open on the node, and it goes on writing.

use std::sync::Arc;
use std::time::Duration;

use super::attach::detach_all;
use super::domain::Domain;
use super::keys::VMI;
use super::report;
use super::site::Ctx;
use crate::history::event::Site;
use crate::lab::api::{ApiError, meta};
use crate::lab::faults::Fault;

/// How long a guest lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linger {
    /// Until somebody cuts the power.
    ForEver,
    /// So much lab time.
    For(Duration),
}

/// How long the guests of this site outlive their reported end, if they do.
pub(super) fn lingers(ctx: &Ctx) -> Option<Linger> {
    if ctx.site != Site::Primary {
        return None;
    }
    if ctx.board.armed(Fault::TwoLiveWriters) {
        return Some(Linger::ForEver);
    }
    let late = [Fault::FenceLate, Fault::DemoteUnderRunningVm];
    let ms = late
        .iter()
        .find_map(|fault| ctx.board.param(*fault, "ms"))?;
    Some(Linger::For(Duration::from_millis(
        u64::try_from(ms).unwrap_or(0),
    )))
}

/// A launcher lives on whose pod was deleted by force (fault `killed-launcher-lives`): virt-controller
/// finds no pod, takes the VMI for ended, and nobody asks the node.
pub(super) fn outlives(ctx: &Ctx, domain: &Domain) -> Result<(), ApiError> {
    if !domain.end() {
        return Ok(());
    }
    let (namespace, name) = &domain.vmi;
    let vmi = ctx.store.get(VMI, namespace, name);
    match vmi.filter(|vmi| meta::uid(vmi) == domain.uid) {
        Some(vmi) => report::stopped(ctx, &vmi, false),
        None => Ok(()),
    }
}

/// Ends a guest for good: no power, no volumes, no address.
pub(super) fn put_down(ctx: &Ctx, domain: &Domain) {
    if let Some(guest) = domain.guest() {
        guest.release();
    }
    detach_all(ctx, domain);
    ctx.take_domain(&domain.uid);
}

/// Lets a guest live on as the fault says.
pub(super) fn begin(ctx: &Ctx, domain: &Arc<Domain>, linger: Linger) {
    let Linger::For(time) = linger else { return };
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    ctx.tracker.spawn(async move {
        tokio::select! {
            () = site.token.cancelled() => {}
            () = site.clock.pass(time) => {}
        }
        let done = tokio::task::spawn_blocking(move || put_down(&site, &domain)).await;
        if let Err(error) = done {
            tracing::debug!(%error, "a lingering guest was not put down");
        }
    });
}
