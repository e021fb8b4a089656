//! What starts machines: QEMU on this host, the image that they boot, and how many there is room for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admission::{Admission, Capacity, TooLarge};
use super::host::{Accel, Host, HostError};
use super::image::{Image, Init, Unfit};
use super::machine::Machine;
use super::nbd::ListenError;
use super::net::SegmentError;
use super::process::{SOCKET_BYTES, StartError};
use crate::lab::guest::Spec;

/// What becomes of TCP sessions when a guest migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sessions {
    /// They break: with masquerade the guest has another address behind another pod.
    #[default]
    Break,
    /// They live on, as with a binding that keeps the address.
    Survive,
}

/// What a hypervisor is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// QEMU.
    pub host: Host,
    /// Who runs the instructions.
    pub accel: Accel,
    /// What guests boot.
    pub image: Image,
    /// What a system that is installed on a root volume starts with.
    pub init: Init,
    /// Where sockets, logs and consoles go, a folder for each guest. Unix sockets keep its path short.
    pub dir: PathBuf,
    /// What becomes of TCP sessions when a guest migrates.
    pub sessions: Sessions,
}

/// The longest name among the sockets in a QEMU's folder.
const LONGEST: &str = "migrate.sock";

/// A number that no lab starts as many guests as.
const GUESTS: u64 = 9_999;

/// Why a guest did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its root volume cannot be read.
    #[error("the root volume cannot be read: {0}")]
    Root(#[source] std::io::Error),
    /// Its root volume has no room for the system.
    #[error(
        "the root volume has {have} MiB and the guest image needs {need}: make it larger, as with the \
         template's parameter rootSize"
    )]
    RootTooSmall {
        /// What it has.
        have: u64,
        /// What the image needs.
        need: u64,
    },
    /// Its folder cannot be made.
    #[error("the guest's folder cannot be made: {0}")]
    Folder(#[source] std::io::Error),
    /// Its hardware address is none.
    #[error("`{0}` is no hardware address")]
    Mac(String),
    /// A volume was not opened on the node.
    #[error("volume {0} is not open on the node")]
    NoDevice(String),
    /// What the image needs cannot be read.
    #[error(transparent)]
    Image(#[from] super::image::ImageError),
    /// What it is to be told cannot be told to a guest.
    #[error(transparent)]
    Told(#[from] Unfit),
    /// There will never be room.
    #[error(transparent)]
    Room(#[from] TooLarge),
    /// A disk cannot be exported.
    #[error(transparent)]
    Export(#[from] ListenError),
    /// The network cannot be made.
    #[error(transparent)]
    Network(#[from] SegmentError),
    /// QEMU did not start.
    #[error(transparent)]
    Qemu(#[from] StartError),
    /// The task that read the root volume ended.
    #[error("starting was given up: {0}")]
    GivenUp(String),
}

/// Starts machines.
#[derive(Debug)]
pub struct Hypervisor {
    config: Config,
    pub(super) admission: Admission,
    started: AtomicU64,
}

impl Hypervisor {
    /// A hypervisor with as much room for guests as the host has now.
    pub fn new(mut config: Config) -> Result<Arc<Self>, HostError> {
        if let Ok(whole) = std::path::absolute(&config.dir) {
            config.dir = whole;
        }
        if folder_name(&config.dir, GUESTS, "").is_none() {
            return Err(HostError::LongFolder(config.dir));
        }
        Ok(Arc::new(Self {
            config,
            admission: Admission::new(Capacity::of_this_host()?),
            started: AtomicU64::new(0),
        }))
    }

    /// Starts a guest; waits until there is room for it. When this returns, its QEMU runs.
    pub async fn start(self: &Arc<Self>, spec: &Spec) -> Result<Arc<Machine>, LaunchError> {
        Machine::start(self, spec).await
    }

    /// What guests boot.
    pub(super) const fn image(&self) -> &Image {
        &self.config.image
    }

    /// What a system that is installed starts with.
    pub(super) const fn init(&self) -> Init {
        self.config.init
    }

    /// QEMU.
    pub(super) const fn host(&self) -> &Host {
        &self.config.host
    }

    /// Who runs the instructions.
    pub(super) const fn accel(&self) -> Accel {
        self.config.accel
    }

    /// What becomes of TCP sessions when a guest migrates.
    pub(super) const fn sessions(&self) -> Sessions {
        self.config.sessions
    }

    /// A folder that no other QEMU has, for the guest of that name.
    pub(super) fn folder(&self, guest: &str) -> PathBuf {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = folder_name(&self.config.dir, number, guest);
        let name = name.unwrap_or_else(|| format!("q{number}"));
        self.config.dir.join(name)
    }
}

/// The name of a QEMU's folder in `dir`: as much of the guest's as leaves room for the sockets that lie in
/// it. `None` if even the number has none.
fn folder_name(dir: &Path, number: u64, guest: &str) -> Option<String> {
    // Two separators.
    let room = SOCKET_BYTES.checked_sub(dir.as_os_str().len() + LONGEST.len() + 2)?;
    let mut name = format!("q{number}");
    let spare = room.checked_sub(name.len())?;
    // Its end is left out first, and of the dash nothing is kept without a name.
    let told: String = guest
        .chars()
        .take(16.min(spare.saturating_sub(1)))
        .collect();
    if !told.is_empty() {
        name.extend(["-", &told]);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_of_a_guest_fit_however_deep_its_folder_lies() {
        let named = |bytes: usize, guest: &str| {
            let dir = PathBuf::from(format!("/{}", "x".repeat(bytes - 1)));
            let name = folder_name(&dir, 12, guest)?;
            let path = dir.join(&name).join(LONGEST);
            assert!(path.as_os_str().len() <= SOCKET_BYTES, "{}", path.display());
            Some(name)
        };
        let guest = "ledger-0-cut1-reader";
        assert_eq!(named(20, guest).unwrap(), "q12-ledger-0-cut1-re");
        assert_eq!(named(82, guest).unwrap(), "q12-ledger-");
        assert_eq!(named(89, guest).unwrap(), "q12");
        assert_eq!(named(90, guest).unwrap(), "q12");
        assert_eq!(named(91, guest), None);
    }
}
