//! What facts about a volume that grows under a running guest are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::{ConditionFact, Outcome, ScanFact};

/// How far the growth of a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ResizeFact {
    /// Its claim is about to be asked for more.
    Asked {
        /// Ordinal of the data volume.
        ordinal: u8,
        /// The claim.
        pvc: String,
        /// The disk's serial in the guest.
        serial: String,
        /// Bytes that the guest showed before.
        from: u64,
        /// Bytes that are asked for.
        to: u64,
        /// Boot id of the guest.
        boot_id: String,
    },
    /// It was answered. That says that it was taken, not that it was carried out.
    Answered {
        /// How.
        outcome: Outcome,
    },
    /// What the claim's status says.
    Claimed {
        /// Bytes that it has.
        capacity: u64,
        /// Conditions by type.
        conditions: BTreeMap<String, ConditionFact>,
    },
    /// What the VMI's `status.volumeStatus` says that the claim has, bytes.
    Reported {
        /// Bytes.
        capacity: u64,
    },
    /// What the guest shows without anybody having rebooted it.
    Seen {
        /// Bytes.
        size: u64,
        /// Boot id of the guest.
        boot_id: String,
    },
    /// What the part behind the old end held before anything was written there.
    Behind {
        /// Cells that were looked at.
        read: u64,
        /// Those that did not read as zeros.
        strange: u64,
        /// What was read.
        scan: ScanFact,
    },
}
