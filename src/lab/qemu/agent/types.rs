//! What the guest agent answers, in the fields that matter here. Names and meanings are those of QEMU's
//! guest agent reference; unknown fields of newer agents are passed over.

use serde::Deserialize;

/// `GuestAgentInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Info {
    /// Release of the agent.
    pub version: String,
    /// What it can do.
    pub supported_commands: Vec<Command>,
}

impl Info {
    /// Whether a command exists and is not switched off.
    pub fn offers(&self, command: &str) -> bool {
        self.supported_commands
            .iter()
            .any(|known| known.enabled && known.name == command)
    }
}

/// `GuestAgentCommandInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Command {
    /// Name.
    pub name: String,
    /// Not switched off by the guest's configuration or a freeze.
    pub enabled: bool,
    /// Whether success is answered at all.
    pub success_response: bool,
}

/// `GuestOSInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OsInfo {
    /// `ID` of os-release.
    pub id: Option<String>,
    /// `NAME` of os-release.
    pub name: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub pretty_name: Option<String>,
    /// `VERSION` of os-release.
    pub version: Option<String>,
    /// `VERSION_ID` of os-release.
    pub version_id: Option<String>,
    /// Release of the kernel.
    pub kernel_release: Option<String>,
    /// Build of the kernel.
    pub kernel_version: Option<String>,
    /// Architecture.
    pub machine: Option<String>,
}

/// `GuestFilesystemInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileSystem {
    /// Name of the block device.
    pub name: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Type, such as `ext4`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes in use. Since agent 3.0.
    pub used_bytes: Option<u64>,
    /// Bytes in all that unprivileged users can have. Since agent 3.0.
    pub total_bytes: Option<u64>,
    /// Disks it lies on.
    pub disk: Vec<Disk>,
}

/// `GuestDiskAddress`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// Kind of bus, such as `virtio`.
    pub bus_type: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Device node.
    pub dev: Option<String>,
}

/// `GuestHostName`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostName {
    /// Fully qualified.
    pub host_name: String,
}

/// `GuestTimezone`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TimeZone {
    /// Name, of which there may be none.
    pub zone: Option<String>,
    /// Seconds east of UTC.
    pub offset: i32,
}

/// `GuestUser`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    /// Name.
    pub user: String,
    /// When they logged in, in seconds since 1970.
    pub login_time: f64,
}

/// `GuestNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// Name.
    pub name: String,
    /// MAC, if it has one.
    pub hardware_address: Option<String>,
    /// Addresses, if it has some.
    #[serde(default)]
    pub ip_addresses: Vec<Address>,
}

/// `GuestIpAddress`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// The address.
    pub ip_address: std::net::IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
}

/// `GuestFsfreezeStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreezeStatus {
    /// All file systems work.
    Thawed,
    /// All that can be are frozen.
    Frozen,
}
