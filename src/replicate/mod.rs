//! One idempotent step toward a replication goal, and an observation.
//!
//! Contract: no loops, no verdicts; the safety gates stand once, in `gate`. Waiting is left to
//! `cluster::repeat`, which `Driver::reach` calls.
//! May use: plan, history, cluster, workload.

mod crossed;
pub mod fence;
pub mod gate;
pub mod handover;
mod state;
mod volume_replication;

use jiff::Timestamp;

pub use self::crossed::Crossed;
pub use self::gate::{Evidence, Mode, Pass};
pub use self::state::{Observation, VolumeState};
pub use self::volume_replication::VolumeReplicationDriver;
use crate::cluster::{self, Deadline, Owner, Seen, Sites, repeat};
use crate::history::event::Site;
use crate::plan::model::{self, Protection};

/// The volumes of one subject, which move together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Namespace, the same on both sites.
    pub namespace: String,
    /// VM, the same on both sites.
    pub vm: String,
    /// Its PVCs, all that must be protected.
    pub pvcs: Vec<String>,
}

/// Who works on what.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Both sites.
    pub sites: &'a Sites,
    /// On whose behalf; its lane should be the subject's.
    pub owner: &'a Owner,
    /// The volumes.
    pub set: &'a Set,
}

/// Where replication should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Every volume is primary on this site and replication is on.
    Protected {
        /// Where the VM runs.
        site: Site,
    },
    /// The replica of every volume holds a point in time later than this.
    Synced {
        /// Where the volumes are primary.
        site: Site,
        /// As the storage's clock counts it.
        newer_than: Timestamp,
    },
    /// Every volume is secondary on this site and everything written has crossed, so that the peer
    /// can be promoted without loss.
    Demoted {
        /// Where the VM ran.
        site: Site,
    },
    /// Every volume is primary on the site of the pass.
    Primary(Pass),
    /// This site's copies, which may have diverged, are given up and follow the peer again.
    Resynced {
        /// The site that lost.
        site: Site,
        /// A sync later than this must have crossed since.
        newer_than: Timestamp,
    },
    /// This site's copies follow the peer, and are no longer given up by themselves if they diverge.
    Follows {
        /// The site that holds the replicas.
        site: Site,
    },
    /// Replication is off. The replicas are removed with it.
    Released {
        /// Says that no replica is needed any more; without it nothing primary is released.
        discard_replicas: bool,
    },
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Protected { site } => write!(f, "replication from the {site} site"),
            Self::Synced { newer_than, .. } => write!(f, "a full sync later than {newer_than}"),
            Self::Demoted { site } => {
                write!(f, "a clean demotion of all volumes on the {site} site")
            }
            Self::Primary(pass) => {
                write!(
                    f,
                    "the promotion of all volumes on the {} site",
                    pass.site()
                )
            }
            Self::Resynced { site, .. } => write!(f, "the resync of the {site} site"),
            Self::Follows { site } => write!(f, "the {site} site as the replica"),
            Self::Released { .. } => f.write_str("the end of replication"),
        }
    }
}

/// How far a goal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Reached.
    Done,
    /// On its way; what was seen.
    Pending(String),
    /// It will not get there by itself; what was seen and what to do.
    Stuck(String),
    /// This driver cannot do that.
    Unsupported(String),
}

impl Progress {
    /// The least advanced of two, so that a set is as far as its last volume. Texts of equals are
    /// joined.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, other) | (other, Self::Done) => other,
            (Self::Unsupported(why), _) | (_, Self::Unsupported(why)) => Self::Unsupported(why),
            (Self::Stuck(a), Self::Stuck(b)) => Self::Stuck(format!("{a}; {b}")),
            (Self::Stuck(why), _) | (_, Self::Stuck(why)) => Self::Stuck(why),
            (Self::Pending(a), Self::Pending(b)) => Self::Pending(format!("{a}; {b}")),
        }
    }
}

/// Replication did not get where it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call or wait failed.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// It will not get there by itself.
    #[error("{goal} will not happen by itself: {why}")]
    Stuck {
        /// What was wanted.
        goal: String,
        /// What was seen, and what to do.
        why: String,
    },
    /// The driver cannot do it.
    #[error("{goal} is not supported: {why}")]
    Unsupported {
        /// What was wanted.
        goal: String,
        /// Why.
        why: String,
    },
    /// A volume stands on the wrong data, or would.
    #[error("PVC {pvc}: {why}")]
    WrongVolume {
        /// The PVC.
        pvc: String,
        /// What was seen, and what to do.
        why: String,
    },
    /// The plan lacks something that the driver needs.
    #[error("the plan's protection is not usable: {0}")]
    Plan(String),
}

/// The replication drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// One csi-addons VolumeReplication per PVC.
    VolumeReplication(VolumeReplicationDriver),
}

impl Driver {
    /// The driver of a plan.
    pub fn new(protection: &Protection) -> Self {
        match &protection.driver {
            model::Driver::VolumeReplication { class } => {
                Self::VolumeReplication(VolumeReplicationDriver::new(class.clone()))
            }
        }
    }

    /// Takes one step toward a goal. Repeating it does no harm.
    pub async fn drive(&self, work: &Work<'_>, goal: &Goal) -> Result<Progress, Error> {
        match self {
            Self::VolumeReplication(driver) => Ok(driver.drive(work, goal).await?),
        }
    }

    /// What the replication objects on a site say now.
    pub async fn observe(
        &self,
        sites: &Sites,
        set: &Set,
        site: Site,
    ) -> Result<Observation, Error> {
        match self {
            Self::VolumeReplication(_) => {
                Ok(volume_replication::observe(sites.of(site), set).await?)
            }
        }
    }

    /// Asks the gate for a promotion on `site`: reads both sides afresh and decides. The answer, open
    /// or closed, belongs in the history.
    pub async fn admit(
        &self,
        sites: &Sites,
        set: &Set,
        site: Site,
        mode: Mode,
    ) -> Result<Pass, gate::Closed> {
        match self {
            Self::VolumeReplication(_) => {
                gate::admit(&volume_replication::question(sites, set, site, mode).await)
            }
        }
    }

    /// Drives until the goal is reached, the deadline passes or it is stuck.
    pub async fn reach(
        &self,
        work: &Work<'_>,
        goal: &Goal,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let waiting_for = format!("{goal} ({})", work.set.vm);
        let wake = match self {
            Self::VolumeReplication(_) => volume_replication::wake(work),
        };
        let outcome = repeat(deadline, &waiting_for, wake, || async {
            match self.drive(work, goal).await {
                Ok(Progress::Pending(why)) => Ok(Seen::Not(why)),
                Ok(other) => Ok(Seen::Met(other)),
                Err(Error::Cluster(e)) => Err(e),
                Err(other) => Ok(Seen::Met(Progress::Stuck(other.to_string()))),
            }
        })
        .await?;
        let goal = goal.to_string();
        match outcome {
            Progress::Stuck(why) => Err(Error::Stuck { goal, why }),
            Progress::Unsupported(why) => Err(Error::Unsupported { goal, why }),
            Progress::Done | Progress::Pending(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
