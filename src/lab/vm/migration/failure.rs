//! Migrations that do not come about: cancelled, out of time, or without their target. The guest goes
//! on where it is. What is over has failed *and* completed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{COMPONENT, drop_target, fail, handed_off, job_of, land};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::faults::Fault;
use crate::lab::vm::condition::{self, Condition, Times};
use crate::lab::vm::instance::advance;
use crate::lab::vm::keys::{VMI, VMIM, is_final};
use crate::lab::vm::site::{Ctx, Key, Work, key};
use crate::lab::vm::{node, vmi};

/// From the request to abort until virt-handler has had the launcher abort, and from a target that
/// is gone until the source says so.
const TOLD: Duration = Duration::from_secs(1);

/// Why the copying ended without a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lab::vm) enum Broken {
    /// On demand.
    Cancelled,
    /// It took longer than these seconds.
    Overdue(u64),
    /// Anything else.
    Lost(String),
}

impl Broken {
    fn why(&self) -> String {
        match self {
            Self::Cancelled => "Live migration has been aborted".to_owned(),
            Self::Overdue(seconds) => format!(
                "Live migration is not completed after {seconds} seconds and has been aborted"
            ),
            Self::Lost(why) => why.clone(),
        }
    }

    const fn is_abort(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Overdue(_))
    }
}

/// Deleting the job cancels the migration: at once before the target has been handed over, else
/// virt-handler is asked to, which may come too late.
pub(super) fn cancel(ctx: &Ctx, job: &Value, vmi: &Value) -> Result<(), ApiError> {
    let (namespace, name) = key(job);
    ctx.store
        .modify(VMIM, &namespace, &name, Part::Status, |job| {
            condition::set(
                job,
                &Condition {
                    kind: "migrationAbortRequested",
                    status: true,
                    reason: "",
                    message: "",
                    times: Times::Transition,
                },
            );
        })?;
    if !handed_off(job, vmi) {
        let why = "Migration failed due to being canceled";
        return fail(ctx, job, why);
    }
    if vmi.pointer("/status/migrationState/abortRequested") == Some(&Value::Bool(true)) {
        return Ok(());
    }
    vmi::modify(ctx, vmi, |vmi| {
        let state = &mut vmi["status"]["migrationState"];
        state["abortRequested"] = json!(true);
        state["abortStatus"] = json!("Aborting");
    })?;
    let text = "Migration is ready to be canceled by virt-handler.";
    ctx.event(job, "Normal", "SuccessfulAbortMigration", text, COMPONENT);
    let guest = ctx.domain(meta::uid(vmi)).and_then(|domain| domain.guest());
    match guest.as_ref().and_then(|guest| guest.real()) {
        Some(machine) => machine.abort_migration(),
        None => ctx.after(
            TOLD,
            Work::MigrationFailed((namespace, name), Broken::Cancelled),
        ),
    }
    Ok(())
}

/// The copying ended without a move, as the source says.
pub(in crate::lab::vm) fn broke(
    ctx: &Ctx,
    (namespace, name): &Key,
    broken: &Broken,
) -> Result<(), ApiError> {
    let Some(job) = ctx.store.get(VMIM, namespace, name) else {
        return Ok(());
    };
    let vmi_name = meta::text(&job, "/spec/vmiName");
    let vmi = ctx.store.get(VMI, namespace, vmi_name);
    let ended = |vmi: &Value| vmi.pointer("/status/migrationState/endTimestamp").is_some();
    let Some(vmi) = vmi.filter(|vmi| handed_off(&job, vmi) && !ended(vmi)) else {
        return Ok(());
    };
    let why = broken.why();
    let domain = ctx.domain(meta::uid(&vmi));
    let mut moved = false;
    if let Some(domain) = domain.filter(|domain| !domain.ended() && broken.is_abort()) {
        if ctx.board.armed(Fault::FailedButMoved)
            && let Some(from) = land(ctx, &vmi, &domain)?
        {
            ctx.push(Work::PodStopped((namespace.clone(), from.pod)));
            moved = true;
        }
        if ctx.board.armed(Fault::AbortLeavesTwo) {
            for open in domain.attached() {
                ctx.array.moved(ctx.site, &open.handle);
            }
        }
    }
    let vmi = vmi::modify(ctx, &vmi, |vmi| {
        let state = &mut vmi["status"]["migrationState"];
        state["endTimestamp"] = json!(meta::now());
        state["completed"] = json!(true);
        state["failed"] = json!(true);
        state["failureReason"] = json!(why);
        if broken.is_abort() {
            state["abortStatus"] = json!("Succeeded");
        }
    })?;
    let text = format!(
        "VirtualMachineInstance migration uid {} failed. reason: {why}",
        meta::uid(&job)
    );
    ctx.event(&vmi, "Warning", "FailedMigration", &text, node::HANDLER);
    if is_final(&job) {
        return Ok(());
    }
    let text = "source node reported migration failed";
    ctx.event(&job, "Warning", "FailedMigration", text, COMPONENT);
    if !moved {
        drop_target(ctx, &job);
    }
    ctx.store
        .modify(VMIM, namespace, name, Part::Status, |job| {
            advance(job, "Failed");
        })
        .map(drop)
}

/// A target pod went before its guest came. The job fails at once; the source says so a little later.
pub(in crate::lab::vm) fn target_gone(ctx: &Ctx, pod: &Value) -> Result<(), ApiError> {
    let Some(job) = job_of(ctx, pod).filter(|job| !is_final(job)) else {
        return Ok(());
    };
    let (namespace, name) = key(&job);
    let vmi = ctx
        .store
        .get(VMI, &namespace, meta::text(&job, "/spec/vmiName"));
    let why = "Migration target pod was removed during active migration.";
    fail(ctx, &job, why)?;
    let Some(vmi) = vmi.filter(|vmi| handed_off(&job, vmi)) else {
        return Ok(());
    };
    let domain = ctx.domain(meta::uid(&vmi));
    let Some(domain) = domain.filter(|domain| !domain.ended()) else {
        return Ok(());
    };
    if ctx.board.armed(Fault::TargetTakesSource) {
        node::reboot(ctx, &domain, true);
    }
    let guest = domain.guest();
    if let Some(machine) = guest.as_ref().and_then(|guest| guest.real()) {
        machine.lose_target();
    } else {
        let lost = Broken::Lost("Target pod is down".to_owned());
        ctx.after(TOLD, Work::MigrationFailed((namespace, name), lost));
    }
    Ok(())
}
