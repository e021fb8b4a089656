//! The csi-snapshotter sidecar: content objects to snapshots on the array and back.
//!
//! CreateSnapshot is called again until the snapshot is ready, as releases after 6.3 do. With the
//! fault `snapshot-never-ready` it behaves as the release before: after an error between two
//! answers "not ready yet" nothing calls it again (external-snapshotter issue 953).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Storage;
use super::super::engine::{After, Key, Sources, drive, key};
use super::super::objects::{annotate, event, settle};
use super::{BEING_CREATED, BEING_DELETED, CONTENT, CONTENTS, ready};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::array::{Code, Outcome, Snapshot, Status};
use crate::lab::faults::Fault;
use crate::lab::world;

/// Lab time between two looks at a snapshot that is not ready.
const AGAIN: Duration = Duration::from_secs(1);
/// Lab time after the first call in which the fault `snapshot-never-ready` answers with an error.
const BUSY: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(4);
const COMPONENT: &str = "csi-snapshotter";

/// When the driver was first asked for each snapshot, by the content's UID; for the fault only.
type Calls = Arc<Mutex<BTreeMap<String, Instant>>>;

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let store = storage.store.clone();
    let sources = Sources::new().watch(store.watch(CONTENTS), |c| vec![key(&c.object)]);
    let (clock, calls) = (storage.clock, Calls::default());
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), Arc::clone(&calls), key)
    })
    .await;
}

async fn reconcile(s: Storage, calls: Calls, (_, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(CONTENTS, "", &name) {
        Some(content) if ours(&content) => settle(step(&s, &calls, &content), "snapshot content"),
        _ => After::Done,
    }
}

fn ours(content: &Value) -> bool {
    [world::DRIVER, world::LOCAL_DRIVER].contains(&meta::text(content, "/spec/driver"))
}

fn step(s: &Storage, calls: &Calls, content: &Arc<Value>) -> Result<After, ApiError> {
    if meta::deleting(content) {
        return remove(s, content);
    }
    if ready(content) {
        return Ok(After::Done);
    }
    let in_group = !meta::text(content, "/status/volumeGroupSnapshotHandle").is_empty();
    let given = if in_group {
        meta::text(content, "/status/snapshotHandle")
    } else {
        meta::text(content, "/spec/source/snapshotHandle")
    };
    if given.is_empty() {
        return create(s, calls, content);
    }
    // Nobody asks the driver about a snapshot that no VolumeSnapshot is bound to yet.
    if meta::text(content, "/spec/volumeSnapshotRef/uid").is_empty() {
        return Ok(After::Done);
    }
    let looked = s.array.snapshot_status(s.site, given);
    answered(s, content, looked)
}

/// Asks the driver for the snapshot, or how it fares.
fn create(s: &Storage, calls: &Calls, content: &Value) -> Result<After, ApiError> {
    if content.get("status").is_none() {
        let name = meta::name(content);
        s.store.modify(CONTENTS, "", name, Part::Object, |c| {
            annotate(c, BEING_CREATED, "yes");
        })?;
    }
    let of = meta::text(content, "/spec/source/volumeHandle");
    let uid = meta::text(content, "/spec/volumeSnapshotRef/uid");
    let told = s.array.snapshot(s.site, of, &format!("snapshot-{uid}"));
    let told = if s.array.board().armed(Fault::SnapshotNeverReady) {
        match stuck(s, calls, content, told) {
            Some(told) => told,
            None => return Ok(After::Done),
        }
    } else {
        told
    };
    let told = told.map_err(|status| {
        let text = format!("failed to take snapshot of the volume {of}: \"{status}\"");
        Status::new(status.code, text)
    });
    answered(s, content, told)
}

/// What the fault `snapshot-never-ready` makes of answers: not ready, an error, not ready, and no
/// call after that.
fn stuck(
    s: &Storage,
    calls: &Calls,
    content: &Value,
    told: Outcome<Snapshot>,
) -> Option<Outcome<Snapshot>> {
    let snapshot = match told {
        Ok(snapshot) => snapshot,
        failed => return Some(failed),
    };
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    let first = calls.entry(meta::uid(content).to_owned());
    let since = s.clock.lab(first.or_insert_with(Instant::now).elapsed());
    if since >= BUSY.start && since < BUSY.end {
        let text = "the storage system is busy";
        return Some(Err(Status::new(Code::Unavailable, text)));
    }
    if since >= BUSY.end && super::error(content).is_empty() {
        let detail = "readyToUse stays false after an error that was cleared";
        let name = meta::name(content);
        s.array
            .record(Fault::SnapshotNeverReady, s.site, name, detail);
        return None;
    }
    Some(Ok(Snapshot {
        ready: false,
        ..snapshot
    }))
}

/// Writes the driver's answer into the status. An answer that is final ends the creation.
fn answered(s: &Storage, content: &Value, told: Outcome<Snapshot>) -> Result<After, ApiError> {
    let name = meta::name(content);
    let done = match &told {
        Ok(_) => true,
        Err(status) => !matches!(
            status.code,
            Code::Aborted | Code::Unavailable | Code::DeadlineExceeded
        ),
    };
    let after = match told {
        Ok(snapshot) => {
            let ready = snapshot.ready;
            s.store.modify(CONTENTS, "", name, Part::Status, |c| {
                let of = c.pointer("/status/volumeGroupSnapshotHandle").cloned();
                c["status"] = status(&snapshot);
                if let Some(of) = of {
                    c["status"]["volumeGroupSnapshotHandle"] = of;
                }
            })?;
            if ready {
                After::Done
            } else {
                After::Requeue(AGAIN)
            }
        }
        Err(status) => {
            let (reason, what) = if content.get("status").is_none() {
                ("SnapshotCreationFailed", "create snapshot")
            } else {
                let reason = "SnapshotContentCheckandUpdateFailed";
                (reason, "check and update snapshot content")
            };
            let text = format!("Failed to {what}: {}", status.message);
            super::fail(s, (CONTENTS, COMPONENT), content, reason, &text)?;
            After::Retry
        }
    };
    if done {
        s.store.modify(CONTENTS, "", name, Part::Object, |c| {
            unannotate(c, BEING_CREATED);
        })?;
    }
    Ok(after)
}

fn status(snapshot: &Snapshot) -> Value {
    json!({
        "creationTime": i64::try_from(snapshot.created.as_nanosecond()).unwrap_or(i64::MAX),
        "readyToUse": snapshot.ready,
        "restoreSize": snapshot.bytes,
        "snapshotHandle": snapshot.handle,
    })
}

fn unannotate(object: &mut Value, key: &str) {
    let annotations = object.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.shift_remove(key);
    }
}

/// Deletes the snapshot, where the policy says so and its VolumeSnapshot is going, then lets the
/// object go.
fn remove(s: &Storage, content: &Value) -> Result<After, ApiError> {
    let bound = !meta::text(content, "/spec/volumeSnapshotRef/uid").is_empty();
    if bound && meta::annotation(content, BEING_DELETED).is_none() {
        return Ok(After::Done);
    }
    let name = meta::name(content);
    let handle = match meta::text(content, "/spec/source/snapshotHandle") {
        "" => meta::text(content, "/status/snapshotHandle"),
        given => given,
    };
    if meta::text(content, "/spec/deletionPolicy") == "Delete"
        && !handle.is_empty()
        && let Err(status) = s.array.delete_snapshot(s.site, handle)
    {
        let text = format!("Failed to delete snapshot: {status}");
        event(&s.store, content, "SnapshotDeleteError", &text, COMPONENT);
        return Ok(After::Retry);
    }
    s.store.modify(CONTENTS, "", name, Part::Any, |c| {
        meta::remove_finalizer(c, CONTENT);
    })?;
    Ok(After::Done)
}
