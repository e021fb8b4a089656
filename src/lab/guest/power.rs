//! The power of a guest: what its disks and its network do while it runs, is paused, loses power or
//! is gone. Disks ask synchronously (probe threads), streams asynchronously.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::probe::disk::{Disk, Grants};

/// What a TCP peer of the guest notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Bytes flow.
    Up,
    /// The virtual CPUs stand still; bytes wait.
    Stalled,
    /// Power is gone: nothing answers and nothing is closed either.
    Silent,
    /// The guest closed its sockets, or its address is gone.
    Closed,
}

/// One guest's power switch.
#[derive(Debug)]
pub(super) struct Power {
    link: watch::Sender<Link>,
    paused: Mutex<bool>,
    resumed: Condvar,
    /// Taken shared by every disk access, exclusively by the cut, so that none is under way after.
    off: RwLock<bool>,
}

impl Power {
    /// Power on, network not up yet.
    pub(super) fn on() -> Arc<Self> {
        Arc::new(Self {
            link: watch::Sender::new(Link::Closed),
            paused: Mutex::new(false),
            resumed: Condvar::new(),
            off: RwLock::new(false),
        })
    }

    /// What a peer notices now.
    pub(super) fn link(&self) -> Link {
        *self.link.borrow()
    }

    /// Brings the network up, or down with all its streams.
    pub(super) fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Stops or resumes the virtual CPUs.
    pub(super) fn pause(&self, paused: bool) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.resumed.notify_all();
        self.link.send_if_modified(|link| match (*link, paused) {
            (Link::Up, true) => {
                *link = Link::Stalled;
                true
            }
            (Link::Stalled, false) => {
                *link = Link::Up;
                true
            }
            _ => false,
        });
    }

    /// Cuts the power. When this returns, no access of this guest to its disks is under way and
    /// none will begin.
    pub(super) fn cut(&self) {
        self.set_link(Link::Silent);
        *self.off.write().unwrap_or_else(PoisonError::into_inner) = true;
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.resumed.notify_all();
    }

    /// Whether the power is cut.
    pub(super) fn is_off(&self) -> bool {
        *self.off.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self
            .resumed
            .wait_while(paused, |paused| *paused)
            .unwrap_or_else(PoisonError::into_inner);
        drop(running);
        let off = self.off.read().unwrap_or_else(PoisonError::into_inner);
        if *off {
            return Err(io::Error::other("the guest has no power"));
        }
        work()
    }

    /// Copies one direction of a stream as long as the guest's network lets it; returns at the end
    /// of the stream or when the guest closed it.
    pub(super) async fn pump(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut link = self.link.subscribe();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read?,
                () = closed(&mut link) => 0,
            };
            // A vanished sender means that the guest is gone with its sockets.
            let Ok(now) = link
                .wait_for(|link| matches!(link, Link::Up | Link::Closed))
                .await
                .map(|link| *link)
            else {
                return Ok(());
            };
            if read == 0 || now == Link::Closed {
                return to.shutdown().await;
            }
            tokio::select! {
                written = to.write_all(&buffer[..read]) => written?,
                () = closed(&mut link) => return to.shutdown().await,
            }
        }
    }
}

async fn closed(link: &mut watch::Receiver<Link>) {
    // An error means that the sender is gone, which is as closed as it gets.
    if link.wait_for(|link| *link == Link::Closed).await.is_err() {}
}

/// A disk as the guest sees it: it stands still with the virtual CPUs and dies with the power.
pub(super) struct Plugged {
    power: Arc<Power>,
    disk: Arc<dyn Disk>,
}

impl Plugged {
    /// Plugs a disk into a guest.
    pub(super) fn new(power: Arc<Power>, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Self { power, disk })
    }
}

impl Disk for Plugged {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.power.powered(|| self.disk.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.power.powered(|| self.disk.write_at(offset, buf))
    }

    fn flush(&self) -> io::Result<()> {
        self.power.powered(|| self.disk.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    #[test]
    fn a_cut_disk_takes_no_write_and_a_paused_one_waits() {
        let power = Power::on();
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(4));
        let plugged = Plugged::new(Arc::clone(&power), Arc::clone(&disk));
        plugged.write_at(0, &[1; 4096]).unwrap();
        power.pause(true);
        let writer = {
            let plugged = Arc::clone(&plugged);
            std::thread::spawn(move || plugged.write_at(0, &[2; 4096]))
        };
        power.pause(false);
        writer.join().unwrap().unwrap();
        power.pause(true);
        let late = {
            let plugged = Arc::clone(&plugged);
            std::thread::spawn(move || plugged.write_at(0, &[3; 4096]))
        };
        power.cut();
        assert!(late.join().unwrap().is_err());
        assert!(plugged.write_at(0, &[4; 4096]).is_err());
        let mut cell = [0; 4096];
        disk.read_at(0, &mut cell).unwrap();
        assert_eq!(cell[0], 2);
    }

    #[tokio::test]
    async fn a_stalled_stream_resumes_and_a_closed_one_ends() {
        let power = Power::on();
        power.set_link(Link::Up);
        let (mut near, far) = tokio::io::duplex(1024);
        let (sink, mut out) = tokio::io::duplex(1024);
        let pump = {
            let power = Arc::clone(&power);
            tokio::spawn(async move { power.pump(far, sink).await })
        };
        power.pause(true);
        near.write_all(b"late").await.unwrap();
        power.pause(false);
        let mut got = [0; 4];
        out.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"late");
        power.set_link(Link::Closed);
        assert_eq!(out.read(&mut got).await.unwrap(), 0);
        pump.await.unwrap().unwrap();
    }
}
