//! What a VolumeReplication's status means. Each predicate is strict about generations: a status
//! that speaks of an older spec proves nothing.
//!
//! The controller answers a promotion that the storage refuses (FAILED_PRECONDITION) with a forced
//! one, in the same reconcile and without a trace in the object. So no predicate here can tell a
//! clean promotion from a forced one: only the gate before it can.

use std::time::Duration;

use jiff::Timestamp;

use super::Progress;
use crate::cluster::crd::meta::{Condition, Conditions as _, Truth};
use crate::cluster::crd::replication::{ReplicationState, VolumeReplication};
use crate::history::event::{ReplicationFact, Site};

/// How long a new VolumeReplication may stay without any status. One RPC of the controller may take
/// 3 minutes and the status follows it.
const BLANK_LIMIT: Duration = Duration::from_secs(300);

/// What is known of one volume on one site.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeState {
    /// There is no replication object.
    Absent,
    /// It could not be read; the text says why.
    Unknown(String),
    /// The object.
    Seen(Box<VolumeReplication>),
}

/// The replication objects of a set on one site at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Where.
    pub site: Site,
    /// Per PVC, in the set's order.
    pub volumes: Vec<(String, VolumeState)>,
}

impl Observation {
    /// As recorded in the history; volumes without an object are left out.
    pub fn facts(&self) -> Vec<ReplicationFact> {
        let seen = self.volumes.iter().filter_map(|(pvc, state)| match state {
            VolumeState::Seen(vr) => Some(fact(pvc, vr)),
            VolumeState::Absent | VolumeState::Unknown(_) => None,
        });
        seen.collect()
    }

    /// The point in time that all replicas have reached; `None` unless every volume tells its own.
    pub fn synced_to(&self) -> Option<Timestamp> {
        let times: Option<Vec<Timestamp>> = self
            .volumes
            .iter()
            .map(|(_, state)| match state {
                VolumeState::Seen(vr) => Some(vr.status.last_sync_time.as_ref()?.0),
                VolumeState::Absent | VolumeState::Unknown(_) => None,
            })
            .collect();
        times?.into_iter().min()
    }
}

fn fact(pvc: &str, vr: &VolumeReplication) -> ReplicationFact {
    let conditions = vr
        .status
        .conditions
        .iter()
        .map(|c| (c.type_.clone(), c.fact()));
    ReplicationFact {
        pvc: pvc.to_owned(),
        desired: vr
            .spec
            .replication_state
            .map_or("", ReplicationState::as_str)
            .into(),
        state: vr.status.state.clone(),
        current: is_current(vr),
        conditions: conditions.collect(),
        last_sync_time: vr.status.last_sync_time.as_ref().map(|t| t.0),
        message: vr.status.message.clone(),
    }
}

fn generation(vr: &VolumeReplication) -> i64 {
    vr.metadata.generation.unwrap_or_default()
}

/// Whether the status speaks of the current spec.
pub(super) fn is_current(vr: &VolumeReplication) -> bool {
    vr.status.observed_generation == Some(generation(vr))
}

/// The volume is primary, as asked.
pub(super) fn promoted(vr: &VolumeReplication) -> Progress {
    judge(vr, ReplicationState::Primary, |vr| {
        vr.status.state == "Primary" && completed(vr, "Promoted")
    })
}

/// The volume is secondary, as asked. Says nothing about the data having crossed.
pub(super) fn demoted(vr: &VolumeReplication) -> Progress {
    judge(vr, ReplicationState::Secondary, is_demoted)
}

/// The volume is secondary and both ends hold the same data: the peer may be promoted without loss.
pub(super) fn demoted_clean(vr: &VolumeReplication) -> Progress {
    judge(vr, ReplicationState::Secondary, |vr| {
        is_demoted(vr)
            && truth(vr, "Degraded") == Truth::False
            && truth(vr, "Resyncing") == Truth::False
    })
}

/// The replica holds a point in time later than `than`, as its primary tells.
pub(super) fn synced_after(vr: &VolumeReplication, than: Timestamp) -> Progress {
    let progress = promoted(vr);
    if progress != Progress::Done {
        return progress;
    }
    if vr.status.message.to_ascii_lowercase().contains("split") {
        let what = describe(vr);
        return Progress::Stuck(format!(
            "{what}: both ends wrote; give one up with a resync"
        ));
    }
    match &vr.status.last_sync_time {
        Some(at) if at.0 > than => Progress::Done,
        Some(at) => Progress::Pending(format!("{}: last sync {}", name(vr), at.0)),
        None => Progress::Pending(format!("{}: no sync yet", describe(vr))),
    }
}

/// The replica holds a point in time later than `than`, and nothing is wrong with its primary.
pub(super) fn replicates_after(vr: &VolumeReplication, than: Timestamp) -> Progress {
    let progress = synced_after(vr, than);
    // Drivers that do not know whether they replicate say nothing of it.
    let healthy = truth(vr, "Degraded") == Truth::False && truth(vr, "Replicating") != Truth::False;
    if progress == Progress::Done && !healthy {
        return Progress::Pending(describe(vr));
    }
    progress
}

fn is_demoted(vr: &VolumeReplication) -> bool {
    vr.status.state == "Secondary" && completed(vr, "Demoted")
}

fn judge(
    vr: &VolumeReplication,
    wanted: ReplicationState,
    holds: impl FnOnce(&VolumeReplication) -> bool,
) -> Progress {
    if vr.metadata.deletion_timestamp.is_some() {
        let finalizers = vr
            .metadata
            .finalizers
            .as_deref()
            .unwrap_or_default()
            .join(", ");
        return Progress::Stuck(format!(
            "{} is being deleted (finalizers: {finalizers}); find out who deleted it",
            name(vr)
        ));
    }
    if vr.spec.replication_state != Some(wanted) {
        return Progress::Pending(format!(
            "{} is not asked to be {}",
            name(vr),
            wanted.as_str()
        ));
    }
    if vr.status.is_blank() {
        return blank(vr, Timestamp::now());
    }
    if !is_current(vr) {
        return Progress::Pending(format!(
            "{}: status is of an older generation",
            describe(vr)
        ));
    }
    if holds(vr) {
        return Progress::Done;
    }
    // `Validated` is never set back to True, so an old False counts only beside a failure.
    if truth(vr, "Validated") == Truth::False && truth(vr, "Completed") == Truth::False {
        return Progress::Stuck(format!(
            "{}: the storage cannot replicate this volume as it is; a clone may need its parent mirrored or flattened",
            describe(vr)
        ));
    }
    Progress::Pending(describe(vr))
}

/// A status that stays blank: the controller drops its error there.
fn blank(vr: &VolumeReplication, now: Timestamp) -> Progress {
    let born = vr.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let old = born.is_some_and(|t| now.duration_since(t).unsigned_abs() > BLANK_LIMIT && now > t);
    if old {
        return Progress::Stuck(format!(
            "{} has had no status for more than {BLANK_LIMIT:?}: no CSIAddonsNode of the driver leads, or the PVC belongs to another VolumeReplication; see the csi-addons controller's log",
            name(vr)
        ));
    }
    Progress::Pending(format!("{} has no status yet", name(vr)))
}

fn at<'a>(vr: &'a VolumeReplication, condition: &str) -> Option<&'a Condition> {
    vr.status.conditions.at(generation(vr), condition)
}

fn truth(vr: &VolumeReplication, condition: &str) -> Truth {
    at(vr, condition).map_or(Truth::Unknown, |c| c.status)
}

fn completed(vr: &VolumeReplication, reason: &str) -> bool {
    at(vr, "Completed").is_some_and(|c| c.status == Truth::True && c.reason == reason)
}

fn name(vr: &VolumeReplication) -> String {
    format!(
        "VolumeReplication {}",
        vr.metadata.name.as_deref().unwrap_or_default()
    )
}

/// All that matters of an object in one line.
pub(super) fn describe(vr: &VolumeReplication) -> String {
    let mut text = format!("{}: state {:?}", name(vr), vr.status.state);
    for condition in &vr.status.conditions {
        for word in [
            ", ",
            &condition.type_,
            "=",
            condition.status.as_str(),
            "/",
            &condition.reason,
        ] {
            text.push_str(word);
        }
    }
    if !vr.status.message.is_empty() {
        text.push_str(", ");
        text.push_str(&vr.status.message);
    }
    text
}

#[cfg(test)]
mod tests;
