//! What a guest finds of its own hardware when somebody logs in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A guest's hardware as its kernel shows it. What KubeVirt says of it is in the VM's shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideFact {
    /// Its host name.
    pub hostname: String,
    /// Its disks in the order of their kernel names.
    pub disks: Vec<InsideDisk>,
    /// Hardware address by network card.
    pub cards: BTreeMap<String, String>,
    /// The families of the addresses that the VMI tells of it, `IPv4` and `IPv6`, each once.
    #[serde(default)]
    pub families: Vec<String>,
}

/// One disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideDisk {
    /// Kernel name, `vdb`.
    pub name: String,
    /// Its serial as the guest sees it, empty if it has none.
    pub serial: String,
    /// Bytes.
    pub size: u64,
    /// Whether it cannot be written.
    #[serde(default)]
    pub read_only: bool,
}
