//! The conditions of a VolumeReplication: which event sets which, with the real texts
//! (replication.md §1.1 and the recordings).

use serde_json::{Value, json};

use crate::lab::api::meta;

/// An event in the life of a VolumeReplication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Promoted, and re-asserted by every reconcile as primary.
    Promoted,
    /// Enable or promote failed: what was tried and why it failed.
    FailedToPromote(&'static str, String),
    /// Enable answered `FAILED_PRECONDITION`.
    PrerequisiteNotMet(&'static str, String),
    /// Demoted.
    Demoted,
    /// Demote failed.
    FailedToDemote(&'static str, String),
    /// Resync is on its way.
    Resyncing,
    /// Resync is complete.
    Resynced,
    /// Resync failed.
    FailedToResync(&'static str, String),
    /// Replication of a primary, `None` when it could not be told.
    Replicating(Option<bool>, String),
}

/// Type, status, reason and message.
type Row = (&'static str, &'static str, &'static str, String);

/// Sets the conditions of an event on a VolumeReplication. `subject` is the word that messages
/// begin with: `volume`, or nothing where the real controller passes a wrong kind.
pub(super) fn set(vr: &mut Value, subject: &str, event: &Event) {
    let generation = meta::generation(vr);
    for (kind, status, reason, message) in rows(subject, event) {
        put(vr, generation, kind, status, reason, &message);
    }
}

fn rows(subject: &str, event: &Event) -> Vec<Row> {
    let about = |text: &str| format!("{subject} {text}");
    let why = |text: &str, error: &str| format!("{subject} {text}: {error}");
    let healthy = || ("Degraded", "False", "Healthy", about("is healthy"));
    let degraded = || ("Degraded", "True", "VolumeDegraded", about("is degraded"));
    let idle = || {
        (
            "Resyncing",
            "False",
            "NotResyncing",
            about("is not resyncing"),
        )
    };
    let demoted = || {
        (
            "Completed",
            "True",
            "Demoted",
            about("is demoted to secondary"),
        )
    };
    let error = |verb: &str, error: &str| {
        let text = why(&format!("failed to {verb}"), error);
        ("Degraded", "True", "Error", text)
    };
    let failed = |reason, tried: &str| ("Completed", "False", reason, tried.to_owned());
    match event {
        Event::Promoted => {
            let text = about("is promoted to primary and replicating to secondary");
            vec![("Completed", "True", "Promoted", text), healthy(), idle()]
        }
        Event::FailedToPromote(tried, cause) => {
            let text = about("is validated and met all prerequisites");
            let met = ("Validated", "True", "PrerequisiteMet", text);
            let first = failed("FailedToPromote", tried);
            vec![first, error("promote", cause), idle(), met]
        }
        Event::PrerequisiteNotMet(tried, cause) => {
            let text = why("failed to meet prerequisite", cause);
            let unmet = ("Validated", "False", "PrerequisiteNotMet", text);
            let first = failed("FailedToPromote", tried);
            vec![first, error("promote", cause), idle(), unmet]
        }
        Event::Demoted => vec![demoted(), degraded(), idle()],
        Event::FailedToDemote(tried, cause) => {
            vec![
                failed("FailedToDemote", tried),
                error("demote", cause),
                idle(),
            ]
        }
        Event::Resyncing => {
            let text = about("is resyncing changes from primary to secondary");
            let running = ("Resyncing", "True", "ResyncTriggered", text);
            vec![demoted(), degraded(), running]
        }
        Event::Resynced => vec![demoted(), healthy(), idle()],
        Event::FailedToResync(tried, cause) => {
            let text = about("is not resyncing");
            let stopped = ("Resyncing", "False", "FailedToResync", text);
            vec![
                failed("FailedToResync", tried),
                error("resync", cause),
                stopped,
            ]
        }
        Event::Replicating(state, text) => {
            let (status, reason, word) = match state {
                Some(true) => ("True", "Replicating", "is replicating"),
                Some(false) => ("False", "NotReplicating", "is not replicating"),
                None => ("Unknown", "Replicating", "replication status is unknown"),
            };
            vec![("Replicating", status, reason, why(word, text))]
        }
    }
}

/// Takes a condition away.
pub(super) fn remove(vr: &mut Value, kind: &str) {
    if let Some(list) = vr
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut)
    {
        list.retain(|c| c["type"] != kind);
    }
}

/// Sets one condition; the transition time moves only with the status.
fn put(vr: &mut Value, generation: i64, kind: &str, status: &str, reason: &str, message: &str) {
    let conditions = meta::map_at(vr, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    let held = list.iter_mut().find(|c| c["type"] == kind);
    let since = match &held {
        Some(held) if held["status"] == status => held["lastTransitionTime"].clone(),
        _ => json!(meta::now()),
    };
    let condition = json!({
        "lastTransitionTime": since,
        "message": message,
        "observedGeneration": generation,
        "reason": reason,
        "status": status,
        "type": kind,
    });
    match held {
        Some(held) => *held = condition,
        None => list.push(condition),
    }
}
