//! VirtualMachineSnapshots: the lock on the VM, the content, the phases and what they indicate.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::content;
use super::source::Source;
use super::{CONTENT, PVC, RETRY, SNAPSHOT, condition, put};
use crate::lab::api::{ApiError, DeleteOptions, Part, meta};
use crate::lab::storage::engine::After;
use crate::lab::vm::keys::{claim_of, items, phase};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::subresources;

/// Finalizer of a snapshot until its VM is given back.
const PROTECTED: &str = "snapshot.kubevirt.io/vmsnapshot-protection";
pub(super) const COMPONENT: &str = "snapshot-controller";
/// The deadline of a snapshot that names none.
const DEADLINE: Duration = Duration::from_secs(300);
/// What KubeVirt says of an agent that thaws by itself, as Windows VSS does.
pub(super) const SELF_THAW: &str = "fsfreeze is limited";

/// By when it must be taken, which is also the timer of its freeze.
pub(super) fn deadline(snapshot: &Value) -> Duration {
    let given = meta::text(snapshot, "/spec/failureDeadline");
    subresources::duration(given).unwrap_or(DEADLINE)
}

fn left(snapshot: &Value) -> SignedDuration {
    let since = meta::text(snapshot, "/metadata/creationTimestamp").parse::<Timestamp>();
    let limit = SignedDuration::try_from(deadline(snapshot)).unwrap_or(SignedDuration::MAX);
    let passed = since.map_or(SignedDuration::ZERO, |s| Timestamp::now().duration_since(s));
    limit.saturating_sub(passed)
}

fn progresses(snapshot: &Value) -> bool {
    !matches!(phase(snapshot), "Failed" | "Succeeded")
}

/// Whether it failed, or ran out of time.
fn late(snapshot: &Value) -> bool {
    phase(snapshot) == "Failed" || progresses(snapshot) && left(snapshot).is_negative()
}

/// Whether nothing more will be taken for it.
pub(super) fn ending(snapshot: &Value) -> bool {
    meta::deleting(snapshot) || late(snapshot)
}

/// Whether it can be restored.
pub(super) fn ready(snapshot: &Value) -> bool {
    snapshot.pointer("/status/readyToUse") == Some(&json!(true))
}

/// Whether its content goes with it: if its policy says so, and in any case what is not whole.
pub(super) fn takes_content(snapshot: &Value, content: &Value) -> bool {
    meta::text(snapshot, "/spec/deletionPolicy") != "Retain" || !ready(content)
}

/// The name of a snapshot's content.
pub(super) fn content_name(snapshot: &Value) -> String {
    match meta::text(snapshot, "/status/virtualMachineSnapshotContentName") {
        "" => format!("vmsnapshot-content-{}", meta::uid(snapshot)),
        named => named.to_owned(),
    }
}

/// One step of a snapshot.
pub(super) fn step(ctx: &Ctx, snapshot: &Value) -> Result<After, ApiError> {
    let (namespace, name) = (meta::namespace(snapshot), meta::name(snapshot));
    let mut source = Source::of(ctx, snapshot);
    let content = ctx.store.get(CONTENT, namespace, &content_name(snapshot));
    let ending = ending(snapshot);
    if !ending {
        ctx.store
            .modify(SNAPSHOT, namespace, name, Part::Any, |s| {
                meta::add_finalizer(s, PROTECTED);
            })?;
    }
    let (mut releases, mut retry) = (true, false);
    if let Some(source) = source.as_mut().filter(|_| snapshot.get("status").is_some()) {
        if progresses(snapshot) && !ending {
            releases = false;
            if !source.locked_by(snapshot) {
                source.lock(ctx, snapshot)?;
                retry = true;
            } else if content.is_none() {
                content::create(ctx, snapshot, source)?;
            }
        } else {
            let gone = |c: &Value| !takes_content(snapshot, c);
            if !progresses(snapshot) || ending && content.as_deref().is_none_or(gone) {
                source.unlock(ctx, snapshot)?;
            }
            releases = !source.locked_by(snapshot);
        }
    }
    if let Some(content) = content.filter(|c| ending && takes_content(snapshot, c)) {
        let of = meta::name(&content);
        let gone = ctx
            .store
            .delete(CONTENT, namespace, of, &DeleteOptions::default());
        if let Err(error) = gone
            && error.reason != "NotFound"
        {
            return Err(error);
        }
    }
    let told = tell(ctx, snapshot, source.as_ref())?;
    if meta::deleting(&told) && releases {
        ctx.store
            .modify(SNAPSHOT, namespace, name, Part::Any, |s| {
                meta::remove_finalizer(s, PROTECTED);
            })?;
        return Ok(After::Done);
    }
    if retry {
        return Ok(After::Requeue(RETRY));
    }
    let left = left(&told);
    if progresses(&told) && left.is_positive() {
        // The deadline is a client's and counts in true time.
        return Ok(After::Requeue(ctx.clock.lab(left.unsigned_abs())));
    }
    Ok(After::Done)
}

/// Writes the status.
fn tell(
    ctx: &Ctx,
    snapshot: &Value,
    source: Option<&Source>,
) -> Result<std::sync::Arc<Value>, ApiError> {
    let (namespace, name) = (meta::namespace(snapshot), meta::name(snapshot));
    let content = ctx.store.get(CONTENT, namespace, &content_name(snapshot));
    ctx.store
        .modify(SNAPSHOT, namespace, name, Part::Status, |s| {
            if s.pointer("/status/readyToUse").is_none() {
                put(s, "readyToUse", json!(false));
            }
            if let Some(source) = source {
                put(s, "sourceUID", json!(meta::uid(&source.vm)));
            }
            if let Some(content) = content.as_ref().filter(|c| c.get("status").is_some()) {
                let status = &content["status"];
                let of = json!(meta::name(content));
                put(s, "virtualMachineSnapshotContentName", of);
                for field in ["creationTime", "readyToUse", "error"] {
                    put(s, field, status[field].clone());
                }
            }
            phases(ctx, s, source, content.as_deref());
        })
}

fn phases(ctx: &Ctx, s: &mut Value, source: Option<&Source>, content: Option<&Value>) {
    if late(s) {
        put(s, "phase", json!("Failed"));
        condition(s, "Failure", true, "snapshot deadline exceeded");
        condition(s, "Progressing", false, "Operation failed");
    } else if phase(s) == "Succeeded" || s.pointer("/status/creationTime").is_some() {
        put(s, "phase", json!("Succeeded"));
        condition(s, "Progressing", false, "Operation complete");
        if let Some(content) = content {
            volumes(ctx, s, content);
        }
    } else {
        put(s, "phase", json!("InProgress"));
        match source {
            Some(source) if source.locked_by(s) => {
                let said = "Source locked and operation in progress";
                condition(s, "Progressing", true, said);
            }
            Some(source) => condition(s, "Progressing", false, &source.unlocked),
            None => condition(s, "Progressing", false, "Source does not exist"),
        }
        if let Some(source) = source {
            indicate(s, source);
        }
        if meta::deleting(s) {
            put(s, "phase", json!("Deleting"));
            condition(s, "Progressing", false, "VM snapshot is deleting");
        }
    }
    if ready(s) {
        condition(s, "Ready", true, "Ready");
    } else {
        condition(s, "Ready", false, "Not ready");
    }
    if s.pointer("/status/error").is_some() {
        condition(s, "Progressing", false, "In error state");
    }
}

/// What the controller knows of the guest while the snapshot is in progress. Indications are only
/// ever added, so one of an earlier attempt stays.
fn indicate(s: &mut Value, source: &Source) {
    if !source.online() {
        put(s, "indications", Value::Null);
        put(s, "sourceIndications", Value::Null);
        return;
    }
    let mut all: Vec<String> = items(s, "/status/indications")
        .iter()
        .filter_map(|i| i.as_str().map(str::to_owned))
        .collect();
    all.push("Online".to_owned());
    let said = if source.paused() {
        "Paused"
    } else if source.agent() {
        if meta::text(s, "/status/error/message").contains(SELF_THAW) {
            all.push("QuiesceTimeout".to_owned());
        }
        "GuestAgent"
    } else {
        "NoGuestAgent"
    };
    all.push(said.to_owned());
    all.sort();
    all.dedup();
    write(s, &all);
}

fn write(s: &mut Value, indications: &[String]) {
    let told: Value = indications
        .iter()
        .map(|i| json!({"indication": i, "message": message(i)}))
        .collect();
    put(s, "indications", json!(indications));
    put(s, "sourceIndications", told);
}

/// What an indication means, in a sentence.
fn message(indication: &str) -> &'static str {
    match indication {
        "Online" => "The VM ran; how consistent the snapshot is depends on quiescing.",
        "GuestAgent" => "An agent was there, and file systems were to be quiesced through it.",
        "NoGuestAgent" => "No agent was there: crash consistent only.",
        "QuiesceTimeout" => {
            "The guest thawed by itself before all was taken: crash consistent only."
        }
        "Paused" => "The VM was paused: crash consistent only.",
        "PartialSnapshot" => "Some volumes that could be snapshotted were left out.",
        _ => "Unknown indication",
    }
}

/// Which volumes the snapshot holds and which it leaves out.
fn volumes(ctx: &Ctx, s: &mut Value, content: &Value) {
    let backed = items(content, "/spec/volumeBackups");
    let all = items(
        content,
        "/spec/source/virtualMachine/spec/template/spec/volumes",
    );
    let (mut included, mut excluded, mut partial) = (Vec::new(), Vec::new(), false);
    for volume in all {
        let name = volume["name"].clone();
        if backed.iter().any(|backup| backup["volumeName"] == name) {
            included.push(name);
        } else {
            let claim = claim_of(volume);
            partial |= claim.is_some_and(|c| ctx.store.get(PVC, meta::namespace(s), c).is_some());
            excluded.push(name);
        }
    }
    let lists = json!({"includedVolumes": included, "excludedVolumes": excluded});
    put(s, "snapshotVolumes", lists);
    if partial {
        let mut all: Vec<String> = items(s, "/status/indications")
            .iter()
            .filter_map(|i| i.as_str().map(str::to_owned))
            .collect();
        if !all.iter().any(|i| i == "PartialSnapshot") {
            all.push("PartialSnapshot".to_owned());
            write(s, &all);
        }
    }
}
