//! Freezing and thawing as virt-launcher does it, whoever asks: virt-handler for the subresources, or
//! `virt-freezer` in the launcher's own pod.
//!
//! A freeze of a frozen guest succeeds and keeps the first timer; the timer thaws in silence; a thaw of
//! what is thawed succeeds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::agent::ask_later;
use super::domain::Domain;
use super::guest::Guest;
use super::site::{Ctx, seconds};
use crate::lab::faults::{Fault, Moment};

/// For how long an agent that ended a freeze by itself tells so, in true time: until whoever took the
/// snapshot must have heard of it.
const SULKS: Duration = Duration::from_secs(1);

/// virt-launcher could not do what the agent was to do.
fn failed(command: &str, why: &str) -> String {
    format!("server error. command {command} failed: \"{why}\"")
}

fn no_agent(command: &str) -> String {
    let why = "LibvirtError(Code=86, Domain=10, Message='Guest agent is not responding: QEMU guest \
               agent is not connected')";
    failed(command, why)
}

/// How long a freeze takes in the guest.
pub(super) fn takes(ctx: &Ctx) -> Duration {
    ctx.timing.freeze + seconds(ctx, Fault::FreezeSlow).unwrap_or_default()
}

/// Freezes a guest and arms the timer that thaws it (0 means never). The error is the launcher's.
pub(super) async fn freeze(
    ctx: &Ctx,
    vmi: &Value,
    domain: &Arc<Domain>,
    guest: &Arc<dyn Guest>,
    timeout: Duration,
) -> Result<(), String> {
    let moving = vmi
        .pointer("/status/migrationState/startTimestamp")
        .is_some()
        && vmi.pointer("/status/migrationState/endTimestamp").is_none();
    if moving {
        let why = "failed to freeze VMI, VMI is currently during migration";
        return Err(failed("Freeze", why));
    }
    let board = &ctx.board;
    if board.armed(Fault::FreezeInPod) || board.armed(Fault::FreezeSwallowed) {
        return Ok(());
    }
    if !guest.agent() {
        return Err(no_agent("Freeze"));
    }
    if guest.frozen() {
        return Ok(());
    }
    ctx.clock.pass(takes(ctx)).await;
    hold(ctx, domain, guest, timeout).await
}

/// Freezes, arms the safety timer and lets the agent's next report show it.
async fn hold(
    ctx: &Ctx,
    domain: &Arc<Domain>,
    guest: &Arc<dyn Guest>,
    timeout: Duration,
) -> Result<(), String> {
    let frozen = guest.freeze().await.map_err(|why| failed("Freeze", &why))?;
    let Some(freeze) = frozen else {
        return Ok(());
    };
    ctx.board.moment(Moment::Freeze);
    if ctx.board.armed(Fault::AgentGivesUp) || ctx.board.armed(Fault::AgentGivesUpUnseen) {
        // As Windows does after ten seconds, long before a slow snapshot is taken.
        let gave_up = guest.expire(freeze).await;
        if gave_up && ctx.board.armed(Fault::AgentGivesUp) {
            sulk(ctx, domain);
        }
        return Ok(());
    }
    ask_later(ctx, &domain.uid);
    if timeout.is_zero() || ctx.board.armed(Fault::TimerLost) {
        return Ok(());
    }
    let (site, guest, uid) = (Arc::clone(ctx), Arc::clone(guest), domain.uid.clone());
    ctx.tracker.spawn(async move {
        tokio::select! {
            () = site.token.cancelled() => {}
            () = site.clock.keep(timeout) => {
                if guest.expire(freeze).await {
                    site.board.moment(Moment::Thaw);
                }
                ask_later(&site, &uid);
            }
        }
    });
    Ok(())
}

/// For a while the agent says of every thaw that it ended the freeze by itself.
fn sulk(ctx: &Ctx, domain: &Arc<Domain>) {
    domain.give_up(true);
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    ctx.tracker.spawn(async move {
        tokio::select! {
            () = site.token.cancelled() => {}
            () = site.clock.keep(SULKS) => domain.give_up(false),
        }
    });
}

/// Thaws a guest. The error is the launcher's.
pub(super) async fn thaw(ctx: &Ctx, domain: &Domain, guest: &Arc<dyn Guest>) -> Result<(), String> {
    if ctx.board.armed(Fault::ThawSwallowed) {
        return Ok(());
    }
    if !guest.agent() {
        return Err(no_agent("Unfreeze"));
    }
    if domain.gave_up() {
        let why = "LibvirtError(Code=86, Domain=10, Message='internal error: unable to execute QEMU \
                   agent command 'guest-fsfreeze-thaw': fsfreeze is limited up to 10 seconds')";
        return Err(failed("Unfreeze", why));
    }
    let thawed = guest.thaw().await;
    if thawed.map_err(|why| failed("Unfreeze", &why))? {
        ctx.board.moment(Moment::Thaw);
    }
    ask_later(ctx, &domain.uid);
    Ok(())
}
