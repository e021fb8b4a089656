//! What the guest agent tells, in the words of KubeVirt's `guestosinfo` and `filesystemlist`.

use serde_json::Value;

/// What the guest agent told when it was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentReport {
    /// Version of the agent.
    pub version: String,
    /// The commands that it knows, and whether each is enabled.
    pub commands: Vec<(String, bool)>,
    /// Whether it says that file systems are frozen.
    pub frozen: bool,
    /// The host name.
    pub hostname: Option<String>,
    /// Name of the time zone and offset in seconds.
    pub timezone: String,
    /// Who is logged in, as `userList` has it.
    pub users: Value,
    /// `status.guestOSInfo` of the VMI.
    pub os: Value,
    /// What is mounted; `filesystemlist`.
    pub file_systems: Vec<FileSystem>,
    /// Name of the first network interface, if the agent tells interfaces.
    pub interface: Option<String>,
}

/// A mounted file system as the agent tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Block device, such as `vda1`.
    pub disk_name: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// Its type.
    pub kind: String,
    /// Bytes used.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
    /// Serials of the disks that it lies on.
    pub serials: Vec<String>,
}
