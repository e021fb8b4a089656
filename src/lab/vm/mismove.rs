//! Faults of a live migration: the guest stands still for long, is another one afterwards, or is not
//! alone. What the storage makes of it is the array's.

use std::sync::Arc;
use std::time::Duration;

use super::domain::Domain;
use super::node;
use super::site::{Ctx, Work};
use crate::lab::faults::Fault;

/// For how long the guest stands still before it goes on at the target (fault `pause-at-migration`),
/// by its own clock, which the lab does not scale.
fn stands_still(ctx: &Ctx) -> Option<Duration> {
    let ms = ctx.board.param(Fault::PauseAtMigration, "ms")?;
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// Queues the end of a migration for when everything is copied, after `copying`.
pub(super) fn end_later(ctx: &Ctx, domain: &Arc<Domain>, copying: Duration, end: Work) {
    if stands_still(ctx).is_none() {
        return ctx.after(copying, end);
    }
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    ctx.tracker.spawn(async move {
        let copied = async {
            site.clock.pass(copying).await;
            stand_still(&site, &domain).await;
        };
        tokio::select! {
            () = site.token.cancelled() => {}
            () = copied => site.push(end),
        }
    });
}

/// Lets the guest of a domain stand still for as long as the fault says, if it is planted.
pub(super) async fn stand_still(ctx: &Ctx, domain: &Domain) {
    let Some((still, guest)) = stands_still(ctx).zip(domain.guest()) else {
        return;
    };
    if let Err(error) = guest.pause(true).await {
        tracing::debug!(%error, "a guest does not stand still");
    }
    ctx.clock.pass(ctx.clock.lab(still)).await;
    if let Err(error) = guest.pause(false).await {
        tracing::debug!(%error, "a guest does not go on");
    }
}

/// The guest is at the target. True if the launcher that it left ends, as it should.
pub(super) fn moved(ctx: &Ctx, domain: &Arc<Domain>) -> bool {
    for open in domain.attached().iter().chain(&domain.plugged()) {
        ctx.array.moved(ctx.site, &open.handle);
    }
    let one = Fault::OneOfManyRebooted;
    let struck = ctx.board.armed(one) && ctx.is_struck(one, &domain.uid);
    if struck || ctx.board.armed(Fault::RebootForMigration) {
        // What was copied is thrown away and the domain started anew.
        node::reboot(ctx, domain, true);
    }
    !ctx.board.armed(Fault::TwoLaunchers)
}
