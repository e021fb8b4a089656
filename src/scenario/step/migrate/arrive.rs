//! The guest after its move, as its probe is heard.

use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::Deadline;
use crate::guest::GuestError;
use crate::probe::host::{ProbeError, Prober};
use crate::scenario::member::Member;
use crate::scenario::step::probe;
use crate::scenario::world::World;

/// After so long without an ack of the moved guest its stream is made anew, for the first time …
const STUCK: Duration = Duration::from_millis(500);
/// … and after so long at most, so that a slow login has its time.
const PATIENT: Duration = Duration::from_secs(16);

/// Waits for an ack of a write that the guest made where it is now. Where none comes the guest is
/// looked for anew, less and less often: its address may be told later than its node, and a stream to
/// where it was may stay silent for long.
pub(super) async fn arrived(world: &World, member: &Member, prober: &Prober) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let mut patience = STUCK;
    let mut anew = false;
    loop {
        let address = probe::address(world, member, &deadline).await?;
        let reach = member.reach(world, address.as_deref())?;
        if anew || reach.route.to_string() != prober.reach().route.to_string() {
            prober.reach_anew(reach);
        }
        match prober.ack_from_now(&deadline.within(patience)).await {
            Ok(()) => return Ok(()),
            Err(ProbeError::Guest(GuestError::Timeout { .. })) if !deadline.is_over() => {
                (anew, patience) = (true, (patience * 2).min(PATIENT));
            }
            Err(error @ ProbeError::Gone { .. }) => {
                // Somebody answers who is not the guest that was there: let it be known who.
                stranger(world, member, prober, &deadline).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error).context("waiting for the moved guest to write"),
        }
    }
}

/// Records who answers where the member's guest should be.
pub(in crate::scenario::step) async fn stranger(
    world: &World,
    member: &Member,
    prober: &Prober,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let (facts, host) = prober.who(&world.binary, deadline).await?;
    probe::seen(world, member, &host, facts.machine_id, facts.boot_id).await
}
