//! What facts about a VM's state are made of: orders to pause, reboot, stop or kill it, and what came
//! of them.

use serde::{Deserialize, Serialize};

use super::Outcome;

/// An order to a VM that stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Its virtual CPUs are to stand still.
    Pause,
    /// They are to go on.
    Unpause,
    /// The guest is to reboot by itself, in the same VMI.
    SoftReboot,
    /// The VM is to be shut down.
    Stop,
    /// It is to be started again.
    Start,
    /// Its launcher is killed: what a crash of the hypervisor is to the guest.
    Kill,
}

impl Deed {
    /// Whether the guest boots anew once the order is carried out.
    pub const fn boots(self) -> bool {
        matches!(self, Self::SoftReboot | Self::Start | Self::Kill)
    }

    /// Whether what writes in the guest ends with it.
    pub const fn ends(self) -> bool {
        matches!(self, Self::SoftReboot | Self::Stop | Self::Kill)
    }

    /// Whether another VMI runs once the order is carried out.
    pub const fn remakes(self) -> bool {
        matches!(self, Self::Start | Self::Kill)
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::SoftReboot => "soft reboot",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Kill => "kill",
        }
    }
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum LifecycleFact {
    /// It is about to be given.
    Asked {
        /// Which.
        deed: Deed,
    },
    /// It was answered. That says that it was taken, not that it was carried out.
    Answered {
        /// Which.
        deed: Deed,
        /// How.
        outcome: Outcome,
    },
    /// What the VMI says of itself: a paused one keeps phase `Running`, and only its condition tells.
    Reported {
        /// Whether the condition `Paused` is true.
        paused: bool,
        /// Its phase.
        phase: String,
    },
}
