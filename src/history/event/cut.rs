//! What facts about cuts are made of: points in time of a VM's volumes that are kept, and what is made
//! from them.

use serde::{Deserialize, Serialize};

/// A point in time of a VM's volumes that is kept: by a VirtualMachineSnapshot, a VolumeGroupSnapshot
/// or a VirtualMachineClone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutFact {
    /// Its name; read-backs of what came of it bear it too.
    pub name: String,
    /// The kind that takes it.
    pub means: String,
    /// How far it is.
    pub state: CutState,
}

/// How far a cut is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CutState {
    /// The guest's agent was asked whether it is there.
    Agent {
        /// Whether it answered.
        answers: bool,
        /// What was seen.
        said: String,
    },
    /// About to be asked for: the cut lies behind this.
    Asked,
    /// The objects say that it has been taken: the cut lies before this.
    Taken {
        /// What is claimed of it.
        claims: CutClaims,
    },
    /// Another guest was made from it.
    Cloned {
        /// The subject of that guest's events.
        subject: String,
    },
    /// It did not come about.
    Failed {
        /// What was seen.
        why: String,
    },
}

/// What the objects claim of a cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CutClaims {
    /// `status.indications`: `Online`, `GuestAgent`, `NoGuestAgent`, `QuiesceTimeout`, `Paused`,
    /// `PartialSnapshot`.
    pub indications: Vec<String>,
    /// Whether all volumes are claimed to be of one instant.
    pub one_instant: bool,
    /// The volumes' snapshots.
    pub volumes: Vec<CutVolume>,
}

/// One volume of a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutVolume {
    /// The claim.
    pub pvc: String,
    /// Its VolumeSnapshot, empty if that is not known.
    pub snapshot: String,
    /// `status.creationTime`, by the storage's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<jiff::Timestamp>,
}

/// The volumes of a VM are put back to a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFact {
    /// The cut.
    pub cut: String,
    /// The claims that stand afterwards, volume by volume; absent when it is about to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Vec<String>>,
}
