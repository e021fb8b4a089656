//! The disks of a migration that moves volumes: copied while the guest writes, taken up by it at the end,
//! or given up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::{CHANGE, MOVING, forget};
use crate::lab::api::ApiError;
use crate::lab::array::Code;
use crate::lab::faults::Fault;
use crate::lab::vm::domain::{Attached, Domain};
use crate::lab::vm::keys::items;
use crate::lab::vm::migration::Broken;
use crate::lab::vm::site::{Ctx, key};
use crate::lab::vm::vmi::modify;
use crate::lab::vm::{condition, machine, report};

const TOO_SMALL: &str = "Volume migration cannot be performed because the destination volume is \
                         smaller than the source volume";
/// In how many pieces a disk is copied.
const PIECES: u32 = 16;

/// Disks that are being copied. They are whether or not anybody waits.
#[derive(Debug)]
pub(in crate::lab::vm) struct Copies(Vec<JoinHandle<bool>>);

impl Copies {
    /// Waits until all of them are copied; false if one is not copied any more. From then on what the
    /// guest writes goes to both.
    pub(in crate::lab::vm) async fn made(self) -> bool {
        for copy in self.0 {
            if !copy.await.is_ok_and(|made| made) {
                return false;
            }
        }
        true
    }
}

/// The names of the volumes that a VMI's migration copies.
pub(in crate::lab::vm) fn copied(vmi: &Value) -> Vec<&str> {
    let moving = items(vmi, MOVING).iter();
    moving
        .filter_map(|moved| moved["volumeName"].as_str())
        .collect()
}

/// The target of a migration is ready: the disks that move are copied onto the volumes that it opened.
/// Spreads that over as long as the memory takes. The error says why they cannot be copied.
pub(in crate::lab::vm) fn begin(
    ctx: &Ctx,
    vmi: &Value,
    domain: &Arc<Domain>,
    node: &str,
    mut opened: Vec<Attached>,
    time: Duration,
) -> Result<Copies, String> {
    let names = copied(vmi);
    opened.retain(|open| names.contains(&open.volume.as_str()));
    // From here on whoever gives the migration up gives these up too.
    domain.expect(opened.clone());
    let own = domain.attached();
    let mut copies = Vec::new();
    for open in &opened {
        let Some(old) = own.iter().find(|old| old.volume == open.volume) else {
            continue;
        };
        let begun = ctx
            .array
            .begin_copy(ctx.site, &old.handle, &open.handle, node);
        let number = begun.map_err(|status| match status.code {
            Code::InvalidArgument => format!("{TOO_SMALL}: {}", status.message),
            _ => status.to_string(),
        })?;
        let (site, from) = (Arc::clone(ctx), old.handle.clone());
        copies.push(ctx.tracker.spawn(async move {
            for piece in 1..=PIECES {
                tokio::select! {
                    () = site.token.cancelled() => return false,
                    () = site.clock.pass(time / PIECES) => {}
                }
                let done = site
                    .array
                    .copy_on(site.site, &from, number, (piece, PIECES));
                if done != Ok(true) {
                    return false;
                }
            }
            true
        }));
    }
    Ok(Copies(copies))
}

/// The guest goes on upon the copies, all at one instant.
pub(in crate::lab::vm) fn pivot(ctx: &Ctx, domain: &Domain) -> Result<(), Broken> {
    let new = domain.expected();
    let own = domain.attached();
    let old = |open: &Attached| own.iter().find(|old| old.volume == open.volume);
    let images: Vec<&str> = new
        .iter()
        .filter_map(|open| Some(old(open)?.handle.as_str()))
        .collect();
    if ctx.board.armed(Fault::MoveIsNoOp) && !images.is_empty() {
        let detail = "the guest goes on upon the old volume";
        for image in images {
            ctx.array.abandon_copy(ctx.site, image);
            ctx.array.record(Fault::MoveIsNoOp, ctx.site, image, detail);
        }
        return Ok(());
    }
    match ctx.array.pivot(ctx.site, &images) {
        Ok(()) => {
            domain.exchange(new);
            Ok(())
        }
        Err(status) => {
            // The migration fails, and what was copied is given up with it.
            domain.expect(new);
            Err(Broken::Lost(status.to_string()))
        }
    }
}

/// The migration is over: the volumes have moved.
pub(in crate::lab::vm) fn moved(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    if items(vmi, MOVING).is_empty() {
        return Ok(());
    }
    let statuses = report::volume_statuses(ctx, vmi, true);
    modify(ctx, vmi, |vmi| {
        condition::remove(vmi, CHANGE);
        forget(vmi);
        let known = vmi.pointer_mut("/status/volumeStatus");
        for entry in known.and_then(Value::as_array_mut).into_iter().flatten() {
            let mut new = items(&statuses, "").iter();
            if let Some(new) = new.find(|new| new["name"] == entry["name"]) {
                entry["persistentVolumeClaimInfo"] = new["persistentVolumeClaimInfo"].clone();
            }
        }
    })?;
    machine::reconcile(ctx, &key(vmi))
}

/// The migration came to nothing: what was copied is given up.
pub(in crate::lab::vm) fn abandon(ctx: &Ctx, domain: &Domain) {
    if domain.expected().is_empty() {
        return;
    }
    for open in domain.attached() {
        ctx.array.abandon_copy(ctx.site, &open.handle);
    }
}
