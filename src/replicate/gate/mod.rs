//! The gates: whether a promotion or a release may go on. Pure; each decision is a function of what
//! was seen, and a [`Pass`] can be had nowhere else.
//!
//! - No planned promotion unless the peer is cleanly demoted on **all** volumes and its VM is gone.
//!   csi-addons turns a promotion that the storage refuses into a forced one by itself and leaves no
//!   trace, so this gate is all that stands between a planned move and silent loss.
//! - No forced promotion without a reason that keeps the peer from writing, or the plan's word that
//!   nothing does.
//! - No release of a primary while its replica is still needed.

use super::state::{VolumeState, demoted_clean};
use super::{Progress, Set};
use crate::cluster::crd::replication::ReplicationState;
use crate::history::event::Site;

/// Why force is in order: what keeps the peer from writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A NetworkFence over the peer's nodes took hold.
    Fenced(String),
    /// The peer's VM was stopped and its VMI is gone.
    Stopped(String),
    /// The peer does not answer, and was cut or seen to be without power.
    Down(String),
    /// Nothing does: the plan says `fencing: none`.
    PolicyNone,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fenced(what) => write!(f, "fenced: {what}"),
            Self::Stopped(what) => write!(f, "stopped: {what}"),
            Self::Down(what) => write!(f, "down: {what}"),
            Self::PolicyNone => f.write_str("unfenced, as the plan wants it"),
        }
    }
}

/// How a site is to be promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Without loss.
    Planned,
    /// With whatever the replica holds.
    Forced(Evidence),
}

/// The peer's VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceVm {
    /// No VMI, and nothing that would start one.
    Gone,
    /// A VMI, or a VM that will start one; in words.
    Present(String),
    /// The peer did not answer; in words.
    Unknown(String),
}

/// Everything that the decision rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The site to be promoted.
    pub site: Site,
    /// How.
    pub mode: Mode,
    /// The VM on the other site.
    pub source_vm: SourceVm,
    /// Each PVC of the set with its replication object on the other site.
    pub source: Vec<(String, VolumeState)>,
}

/// Leave to promote a site. Only [`admit`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    site: Site,
    mode: Mode,
    pvcs: Vec<String>,
    why: String,
}

impl Pass {
    /// The site to be promoted.
    pub const fn site(&self) -> Site {
        self.site
    }

    /// Whether force was asked for.
    pub const fn forced(&self) -> bool {
        matches!(self.mode, Mode::Forced(_))
    }

    /// How.
    pub const fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Why it was given.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Whether it was given for exactly these volumes.
    pub fn covers(&self, set: &Set) -> bool {
        self.pvcs == set.pvcs
    }
}

/// No leave to promote; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Closed(pub String);

/// Decides about a promotion.
pub fn admit(question: &Question) -> Result<Pass, Closed> {
    if question.source.is_empty() {
        // A set without volumes would satisfy every "all volumes" below.
        return Err(Closed("there is no volume to promote".into()));
    }
    let why = match &question.mode {
        Mode::Planned => planned(question)?,
        Mode::Forced(evidence) => forced(question, evidence)?,
    };
    Ok(Pass {
        site: question.site,
        mode: question.mode.clone(),
        pvcs: question.source.iter().map(|(pvc, _)| pvc.clone()).collect(),
        why,
    })
}

fn planned(question: &Question) -> Result<String, Closed> {
    let peer = question.site.peer();
    match &question.source_vm {
        SourceVm::Gone => {}
        SourceVm::Present(what) => {
            return Err(Closed(format!(
                "the VM is not gone on the {peer} site: {what}"
            )));
        }
        SourceVm::Unknown(why) => {
            return Err(Closed(format!(
                "the {peer} site cannot be asked about its VM: {why}"
            )));
        }
    }
    for (pvc, state) in &question.source {
        let trouble = match state {
            VolumeState::Seen(vr) => match demoted_clean(vr) {
                Progress::Done => continue,
                Progress::Pending(why) | Progress::Stuck(why) | Progress::Unsupported(why) => why,
            },
            VolumeState::Absent => "it has no VolumeReplication".into(),
            VolumeState::Unknown(why) => format!("it cannot be read: {why}"),
        };
        return Err(Closed(format!(
            "PVC {pvc} is not cleanly demoted on the {peer} site: {trouble}"
        )));
    }
    let count = question.source.len();
    Ok(format!(
        "the VM is gone and {count} of {count} volumes are demoted and in sync on the {peer} site"
    ))
}

fn forced(question: &Question, evidence: &Evidence) -> Result<String, Closed> {
    let peer = question.site.peer();
    let contradiction = match (evidence, &question.source_vm) {
        (Evidence::Stopped(_), SourceVm::Present(what)) => {
            Some(format!("its VM is said to be stopped but is there: {what}"))
        }
        (Evidence::Down(_), SourceVm::Present(what)) => {
            Some(format!("it is said to be down but answers: {what}"))
        }
        // A fence stops the writes, whatever the VM does.
        (Evidence::Fenced(_) | Evidence::PolicyNone, _)
        | (_, SourceVm::Gone | SourceVm::Unknown(_)) => None,
    };
    match contradiction {
        None => Ok(format!("forced; the {peer} site is {evidence}")),
        Some(why) => Err(Closed(format!("the {peer} site may still write: {why}"))),
    }
}

/// Decides about the end of replication. `volumes` are those of both sites. Disabling a primary
/// removes its replicas, so that needs the caller's word.
pub fn may_release(
    volumes: &[(String, VolumeState)],
    discard_replicas: bool,
) -> Result<(), Closed> {
    if discard_replicas {
        return Ok(());
    }
    for (pvc, state) in volumes {
        match state {
            VolumeState::Absent => {}
            VolumeState::Unknown(why) => {
                return Err(Closed(format!("PVC {pvc} cannot be read: {why}")));
            }
            VolumeState::Seen(vr) => {
                let primary = vr.spec.replication_state == Some(ReplicationState::Primary)
                    || vr.status.state == "Primary";
                if primary {
                    return Err(Closed(format!(
                        "PVC {pvc} is primary; releasing it would remove its replica"
                    )));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
