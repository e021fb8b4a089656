//! What facts about data disks that move to other claims are made of.

use serde::{Deserialize, Serialize};

/// How far the move of a VM's data disks to other claims is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum StorageFact {
    /// It is about to be asked for: until this the old claims hold everything.
    Asked {
        /// The name of what is left behind; read-backs of it bear it too.
        left: String,
        /// The disks.
        disks: Vec<MovedDisk>,
    },
    /// It was refused, and the VM asks for a restart instead.
    Refused {
        /// What was said.
        why: String,
    },
    /// The objects say that it is over: from this on nobody writes to the old claims.
    Moved {
        /// The claims that the VMI names now, by volume.
        claims: std::collections::BTreeMap<String, String>,
    },
}

/// A data disk that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedDisk {
    /// Its volume in the VM.
    pub volume: String,
    /// The claim that it leaves behind.
    pub from: String,
    /// The claim that it moves to.
    pub to: String,
    /// The StorageClass of that.
    pub class: String,
}
