//! What facts about disks that come and go under a running guest are made of.

use serde::{Deserialize, Serialize};

use super::Outcome;

mod resize;
pub use resize::ResizeFact;

/// How far the coming or going of a disk is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum HotplugFact {
    /// It is about to be asked for.
    Asked {
        /// Whether the disk is to come; else it is to go.
        adding: bool,
        /// Its serial.
        serial: String,
    },
    /// It was answered. That says that it was taken, not that it was carried out.
    Answered {
        /// Whether the disk is to come.
        adding: bool,
        /// How.
        outcome: Outcome,
    },
    /// What the VMI's `status.volumeStatus` says of the volume.
    Reported {
        /// Its phase, `Ready` when it is there; empty where there is no entry.
        phase: String,
        /// Its name in the domain.
        target: String,
        /// The pod that brought it to the node.
        attach_pod: String,
        /// Remarks.
        message: String,
    },
    /// Whether the guest shows a disk with its serial.
    Seen {
        /// Whether it does.
        present: bool,
    },
}
