//! Faults of the csi-addons controller and its driver: what a VolumeReplication says that is not so,
//! and what is so and not said.

use std::time::Duration;

use serde_json::{Value, json};

use super::driver::Driver;
use crate::history::event::Site;
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::array::{Code, Status};
use crate::lab::faults::Fault;
use crate::lab::storage::engine::key;
use crate::lab::storage::{DATA_VOLUMES, Storage, VRS};

/// Whether a fault that strikes the side that takes over is planted, and this is that side.
fn on_target(s: &Storage, fault: Fault) -> bool {
    s.site == Site::Secondary && s.array.board().armed(fault)
}

/// Fault `no-leader`: no sidecar holds the lease.
pub(super) fn leaderless(s: &Storage) -> bool {
    s.array.board().armed(Fault::NoLeader)
}

/// Fault `clone-parent-not-mirrored`: the volume of a claim that was made with content, not blank,
/// is a clone of a golden image that is not mirrored.
pub(super) fn parent(s: &Storage, claim: &Value) -> Option<Status> {
    if !s.array.board().armed(Fault::ParentNotMirrored) {
        return None;
    }
    let (namespace, name) = (meta::namespace(claim), meta::name(claim));
    let made = s.store.get(DATA_VOLUMES, namespace, name)?;
    let blank = made.pointer("/spec/source/blank").is_some();
    (!blank).then(|| {
        s.array
            .record(Fault::ParentNotMirrored, s.site, name, "is a clone");
        let text = format!(
            "mirroring is not enabled on parent image of csi-vol-{}",
            meta::uid(claim)
        );
        Status::new(Code::FailedPrecondition, text)
    })
}

/// What a planted fault makes of a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promotion {
    /// Reported as completed, while the state stays as it was and nothing was done.
    CompletedOnly,
    /// Reported as done so much lab time before it is.
    Early(Duration),
    /// Done, and reported as failed.
    Unrecognised,
}

/// What becomes of a promotion on this site; `None` if it goes as it should.
pub(super) fn promotion(s: &Storage) -> Option<Promotion> {
    if on_target(s, Fault::CompletedNotPrimary) {
        return Some(Promotion::CompletedOnly);
    }
    if on_target(s, Fault::VmBeforePromotion) {
        let ms = s.array.board().param(Fault::VmBeforePromotion, "ms")?;
        let early = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        return Some(Promotion::Early(early));
    }
    on_target(s, Fault::PromotionUnrecognised).then_some(Promotion::Unrecognised)
}

/// What the driver says of an image that is primary and whose promotion it does not recognise.
pub(super) fn unrecognised() -> Status {
    Status::new(
        Code::Internal,
        "failed to enable mirroring: image is in primary state in an unexpected way",
    )
}

/// Promotes a volume whose VolumeReplication has said so already.
pub(super) fn promote_later(s: &Storage, vr: &Value, driver: Driver, wait: Duration) {
    let detail = "promoted after it was said to be";
    let fault = Fault::VmBeforePromotion;
    s.array.record(fault, s.site, meta::name(vr), detail);
    let clock = s.clock;
    tokio::spawn(async move {
        clock.pass(wait).await;
        if let Err((_, status)) = super::become_primary(&driver).await {
            tracing::warn!(%status, "a late promotion failed");
        }
    });
}

/// Fault `replication-paused-after`: whether the schedule of a volume that was promoted here stands
/// still.
pub(super) fn paused(s: &Storage) -> bool {
    on_target(s, Fault::ReplicationPaused)
}

/// Fault `vr-stuck-terminating`: what Disable answers for a secondary that is not replaying.
pub(super) fn disable(s: &Storage, vr: &Value) -> Option<Status> {
    let primary = meta::text(vr, "/spec/replicationState") == "primary";
    if primary || !s.array.board().armed(Fault::VrStuckTerminating) {
        return None;
    }
    let detail = "cannot be disabled";
    let fault = Fault::VrStuckTerminating;
    s.array.record(fault, s.site, meta::name(vr), detail);
    let text = "secondary image status is up=true and state=unknown";
    Some(Status::new(Code::InvalidArgument, text))
}

/// Fault `replica-removed-with-vr`: prunes the first VolumeReplication of the primary that comes
/// along; whether it was this one.
pub(super) fn prune(s: &Storage, vr: &Value) -> Result<bool, ApiError> {
    let fault = Fault::ReplicaRemovedWithVr;
    if s.site != Site::Primary || !s.array.board().armed(fault) {
        return Ok(false);
    }
    let (namespace, name) = (meta::namespace(vr), meta::name(vr));
    let strikes = s.array.strikes();
    if strikes.iter().any(|strike| strike.fault == fault) {
        return Ok(false);
    }
    s.array.record(fault, s.site, name, "pruned");
    s.store
        .delete(VRS, namespace, name, &DeleteOptions::default())?;
    Ok(true)
}

/// Fault `cluster-clock-skew`: what this site's clock says at a moment.
pub(super) fn clock(s: &Storage, at: jiff::Timestamp) -> jiff::Timestamp {
    let skew = crate::lab::clock::skew(s.array.board(), s.site);
    at.checked_add(skew).unwrap_or(at)
}

/// Fault `stale-generation`: for a while after its spec was changed, an object shows the status of
/// before. With `claim` it claims that this is of the new generation, as the status of a
/// VolumeGroupReplication does.
pub(super) async fn lag(s: &Storage, vr: &Value) -> Result<(), ApiError> {
    let (board, fault) = (s.array.board(), Fault::StaleGeneration);
    let ms = board
        .param(fault, "lag")
        .and_then(|ms| u64::try_from(ms).ok());
    let generation = meta::generation(vr);
    let observed = vr
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    let (Some(ms), Some(observed)) = (ms, observed) else {
        return Ok(());
    };
    if observed == generation {
        return Ok(());
    }
    if board.param(fault, "claim") != Some(0) {
        let (namespace, name) = key(vr);
        let claim = |vr: &mut Value| {
            vr["status"]["observedGeneration"] = json!(generation);
            let conditions = vr.pointer_mut("/status/conditions");
            for condition in conditions
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                condition["observedGeneration"] = json!(generation);
            }
        };
        s.store
            .modify(VRS, &namespace, &name, Part::Status, claim)?;
    }
    s.clock.pass(s.clock.lab(Duration::from_millis(ms))).await;
    Ok(())
}
