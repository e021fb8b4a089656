//! For tests: a QEMU if there is one, a guest of 512 bytes, and disks over NBD.

pub(super) mod guest;
pub(super) mod nbd;

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::host::{Accel, Host};
use super::process::{Begin, Drive, Launch, OnError, Process};
use guest::{BANNER, Then, sector};
use nbd::NbdDisk;

/// Far beyond what anything takes, on an overloaded host too.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// The host's QEMU; without one the test is skipped, or fails where it must not be.
pub(super) async fn real_host() -> Option<Host> {
    match Host::find(None).await {
        Ok(host) => Some(host),
        Err(error) if std::env::var_os("VIRTPROOF_CI").is_some_and(|v| v == "1") => {
            panic!("{error}")
        }
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// A launch of the test guest from a disk.
pub(super) fn launch(disk: &Path) -> Launch {
    Launch {
        name: "counter, the first".into(),
        uuid: Uuid::from_u128(7),
        accel: Accel::Tcg,
        memory_mib: 32,
        vcpus: 1,
        kernel: None,
        drives: vec![drive("disk0", disk)],
        ports: 2,
        nic: None,
        agent: true,
        clock_off: 0,
        begin: Begin::Running,
    }
}

pub(super) fn drive(name: &str, socket: &Path) -> Drive {
    Drive {
        name: name.into(),
        serial: format!("serial-{name}"),
        socket: socket.to_owned(),
        read_only: false,
        write_cache: true,
        errors: OnError::Report,
        boot_index: (name == "disk0").then_some(0),
        port: None,
    }
}

/// A disk with the test guest on it, and a folder for all sockets.
pub(super) struct Bench {
    pub(super) host: Host,
    pub(super) folder: tempfile::TempDir,
    pub(super) disk: NbdDisk,
}

impl Bench {
    pub(super) async fn new(then: Then) -> Option<Self> {
        let host = real_host().await?;
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = sector(then);
        bytes.resize(1 << 20, 0);
        // A comma, which QEMU's option syntax would take for a separator.
        let disk = NbdDisk::serve(&folder.path().join("disk,0.sock"), bytes);
        Some(Self { host, folder, disk })
    }

    pub(super) fn launch(&self) -> Launch {
        launch(self.disk.path())
    }

    pub(super) async fn start(&self, launch: &Launch) -> Process {
        let dir = self.folder.path().join("guest,a");
        Process::start(&self.host, launch, &dir).await.unwrap()
    }

    /// The guest, up and counting.
    pub(super) async fn counting(&self, launch: &Launch) -> Process {
        let process = self.start(launch).await;
        see(&process, 0, BANNER).await;
        see(&process, 0, "+0000000").await;
        process
    }
}

/// Waits for words on the console after `offset`; where they end.
pub(super) async fn see(process: &Process, offset: u64, marker: &str) -> u64 {
    process
        .console()
        .await_marker(offset, marker, LONG)
        .await
        .unwrap()
}
