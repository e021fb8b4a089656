//! Disks of a running machine: plugged, unplugged, grown.
//!
//! QEMU's NBD client learns a disk's size once, when it connects: in 7.2 `block_resize` of an NBD node
//! to a larger size fails with "Cannot grow NBD nodes". So every drive has a node of driver `raw` on top,
//! and growing opens the server again, puts the new connection under that node (`blockdev-reopen`,
//! QEMU 6.1) and only then tells the guest (`block_resize`).
//!
//! The exchange flushes the old connection first, and is refused if that fails: on a node that has seen
//! no write QEMU skips flushes, so a flush of the guest after the exchange would not cover what it wrote
//! before.
//!
//! A server that closes its connections is not the same as a disk that fails: measured with 7.2, the
//! client tries to connect again in the background, in growing intervals of seconds, and after the
//! server's return requests go on failing until the next try. A server that plays a dead array keeps its
//! connections and answers EIO.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::Process;
use super::arguments::{
    self, BadLaunch, device_name, drive_device, drive_node, nbd_name, nbd_node,
};
use super::launch::Drive;
use crate::lab::qemu::qmp::QmpError;

/// A drive and the number of the connection that it uses.
#[derive(Debug, Clone)]
pub(super) struct Plugged {
    drive: Drive,
    turn: u32,
    /// The guest was asked to let go of it.
    leaving: bool,
}

impl Plugged {
    /// A drive on its first connection.
    pub(super) fn new(drive: Drive) -> Self {
        Self {
            drive,
            turn: 0,
            leaving: false,
        }
    }
}

/// Why a drive was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The drive cannot be plugged.
    #[error(transparent)]
    Bad(#[from] BadLaunch),
    /// There is no such drive.
    #[error("the machine has no drive {0}")]
    Unknown(String),
    /// QEMU said no, or nothing.
    #[error("drive {drive}: {source}")]
    Qmp {
        /// The drive.
        drive: String,
        /// What QEMU said.
        #[source]
        source: QmpError,
    },
    /// The guest did not let go of it. It may do so later, so the drive stays as it is.
    #[error("the guest did not release drive {drive} within {} s; it must run an operating system that knows PCI hotplug, and must not hold the disk", waited.as_secs())]
    Held {
        /// The drive.
        drive: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The machine ended before the guest let go.
    #[error("drive {0} was not released: the machine ended")]
    Gone(String),
}

impl Process {
    /// The drives now plugged, each with its root port: what the other end of a migration must be
    /// started with.
    pub fn drives(&self) -> Vec<Drive> {
        self.plugs().iter().map(|plug| plug.drive.clone()).collect()
    }

    fn plugs(&self) -> MutexGuard<'_, Vec<Plugged>> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive_command(
        &self,
        drive: &str,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<(), DriveError> {
        let done = self.qmp.execute(command, arguments).await;
        done.map(drop).map_err(|source| DriveError::Qmp {
            drive: drive.into(),
            source,
        })
    }

    /// Plugs a disk into a free root port. A failure leaves nothing behind.
    pub async fn hotplug(&self, drive: Drive) -> Result<(), DriveError> {
        let _turn = self.plugged.lock().await;
        let mut all = self.drives();
        all.push(drive);
        arguments::place(&mut all, self.launch.ports)?;
        let Some(drive) = all.pop() else {
            return Ok(());
        };
        let name = drive.name.clone();
        self.drive_command(&name, "blockdev-add", nbd_node(&drive, 0)?)
            .await?;
        let layer = self
            .drive_command(&name, "blockdev-add", drive_node(&drive, 0))
            .await;
        if let Err(error) = layer {
            self.forget(&[nbd_name(&name, 0)]).await;
            return Err(error);
        }
        let device = self
            .drive_command(&name, "device_add", drive_device(&drive))
            .await;
        if let Err(error) = device {
            self.forget(&[name.clone(), nbd_name(&name, 0)]).await;
            return Err(error);
        }
        self.plugs().push(Plugged::new(drive));
        Ok(())
    }

    /// Removes nodes of a change that failed, top first.
    async fn forget(&self, nodes: &[String]) {
        for node in nodes {
            let gone = self
                .qmp
                .execute("blockdev-del", json!({ "node-name": node }))
                .await;
            if let Err(error) = gone {
                tracing::warn!(node, %error, "a node of a failed change stays");
            }
        }
    }

    /// Unplugs a disk. It is up to the guest to let go of it (ACPI hotplug, q35's default), for which it
    /// has until `limit`. After [`DriveError::Held`] the guest may do so at any time, at the latest when it
    /// is reset; try again.
    pub async fn unplug(&self, name: &str, limit: Duration) -> Result<(), DriveError> {
        let _turn = self.plugged.lock().await;
        let plug = self.plug(name)?;
        let device = device_name(name);
        let asked = self
            .drive_command(name, "device_del", json!({ "id": device }))
            .await;
        match asked {
            // QEMU refuses to ask twice, and what is gone since it was asked.
            Err(error) if !plug.leaving => return Err(error),
            _ => self.change(name, |plug| plug.leaving = true),
        }
        self.released(name, &device, limit).await?;
        for node in [name.to_owned(), nbd_name(name, plug.turn)] {
            self.drive_command(name, "blockdev-del", json!({ "node-name": node }))
                .await?;
        }
        self.plugs().retain(|plug| plug.drive.name != name);
        Ok(())
    }

    fn plug(&self, name: &str) -> Result<Plugged, DriveError> {
        let plugs = self.plugs();
        let found = plugs.iter().find(|plug| plug.drive.name == name).cloned();
        found.ok_or_else(|| DriveError::Unknown(name.into()))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Plugged)) {
        let mut plugs = self.plugs();
        if let Some(plug) = plugs.iter_mut().find(|plug| plug.drive.name == name) {
            change(plug);
        }
    }

    /// Waits until the guest has let go of a device. Only `DEVICE_DELETED` tells: the device vanishes from
    /// QEMU's tree before it lets go of its node.
    async fn released(&self, drive: &str, device: &str, limit: Duration) -> Result<(), DriveError> {
        let mut released = self.released.subscribe();
        let waited = timeout(limit, async {
            tokio::select! {
                biased;
                _ = released.wait_for(|released| released.contains(device)) => Ok(()),
                _exit = self.exited() => Err(DriveError::Gone(drive.into())),
            }
        });
        waited.await.unwrap_or_else(|_elapsed| {
            Err(DriveError::Held {
                drive: drive.into(),
                waited: limit,
            })
        })?;
        self.released.send_modify(|released| {
            released.remove(device);
        });
        Ok(())
    }

    /// Opens the NBD server at the drive's socket again and uses that connection from now on. The
    /// requests under way finish on the old one first. The node has the new size afterwards; a guest is
    /// not told, for which see [`Self::resize`].
    async fn reopen(&self, name: &str) -> Result<(), DriveError> {
        let Plugged { drive, turn, .. } = self.plug(name)?;
        let next = turn + 1;
        self.drive_command(name, "blockdev-add", nbd_node(&drive, next)?)
            .await?;
        let options = json!({ "options": [drive_node(&drive, next)] });
        if let Err(error) = self.drive_command(name, "blockdev-reopen", options).await {
            self.forget(&[nbd_name(name, next)]).await;
            return Err(error);
        }
        self.change(name, |plug| plug.turn = next);
        self.forget(&[nbd_name(name, turn)]).await;
        Ok(())
    }

    /// Tells a running guest that its disk has `bytes` now, after the NBD server has been made to say
    /// so to new connections.
    pub async fn resize(&self, name: &str, bytes: u64) -> Result<(), DriveError> {
        let _turn = self.plugged.lock().await;
        self.reopen(name).await?;
        let size = json!({ "node-name": name, "size": bytes });
        self.drive_command(name, "block_resize", size).await
    }
}
