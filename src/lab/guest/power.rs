//! The power of a guest: what its disks and its network do while it runs, is paused, loses power or
//! is gone. Disks ask synchronously (probe threads), streams asynchronously.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::{ErrorPolicy, GuestDisk, Planted, Request};

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

/// A link with a count of how often its streams were dropped.
type Wire = (Link, u64);

/// One guest's power switch.
#[derive(Debug)]
pub(super) struct Power {
    wire: watch::Sender<Wire>,
    paused: Mutex<bool>,
    resumed: Condvar,
    /// Taken shared by every disk access, exclusively by the cut, so that none is under way after.
    off: RwLock<bool>,
}

impl Power {
    /// Power on, nothing answers yet.
    pub(super) fn on() -> Arc<Self> {
        Arc::new(Self {
            wire: watch::Sender::new((Link::Silent, 0)),
            paused: Mutex::new(false),
            resumed: Condvar::new(),
            off: RwLock::new(false),
        })
    }

    /// What a peer notices now.
    pub(super) fn link(&self) -> Link {
        self.wire.borrow().0
    }

    /// Brings the network up, or down with all its streams.
    pub(super) fn set_link(&self, link: Link) {
        self.wire.send_modify(|wire| wire.0 = link);
    }

    /// Ends the streams that are open; new ones can be made.
    pub(super) fn drop_streams(&self) {
        self.wire.send_modify(|wire| wire.1 += 1);
    }

    /// Stops or resumes the virtual CPUs.
    pub(super) fn pause(&self, paused: bool) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.resumed.notify_all();
        self.wire.send_if_modified(|(link, _)| {
            let next = match (*link, paused) {
                (Link::Up, true) => Link::Stalled,
                (Link::Stalled, false) => Link::Up,
                _ => return false,
            };
            *link = next;
            true
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
        let mut wire = self.wire.subscribe();
        let epoch = wire.borrow().1;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read?,
                () = closed(&mut wire, epoch) => return to.shutdown().await,
            };
            if read == 0 || !flowing(&mut wire, epoch).await {
                return to.shutdown().await;
            }
            tokio::select! {
                written = to.write_all(&buffer[..read]) => written?,
                () = closed(&mut wire, epoch) => return to.shutdown().await,
            }
        }
    }
}

/// Waits until bytes flow, or streams of this epoch are closed, which is false. A vanished sender is
/// as closed as it gets.
async fn flowing(wire: &mut watch::Receiver<Wire>, epoch: u64) -> bool {
    let decided = wire
        .wait_for(|(link, now)| matches!(link, Link::Up | Link::Closed) || *now != epoch)
        .await;
    decided.is_ok_and(|wire| wire.0 == Link::Up && wire.1 == epoch)
}

/// Waits until streams of this epoch are closed.
async fn closed(wire: &mut watch::Receiver<Wire>, epoch: u64) {
    let gone = wire
        .wait_for(|(link, now)| *link == Link::Closed || *now != epoch)
        .await;
    drop(gone);
}

/// A disk as the guest sees it: it stands still with the virtual CPUs and dies with the power, and
/// its failures go where the error policy sends them.
pub(super) struct Plugged {
    power: Arc<Power>,
    disk: Arc<dyn Disk>,
    errors: ErrorPolicy,
    read_only: bool,
    requests: mpsc::UnboundedSender<Request>,
    planted: Planted,
    reboot_asked: AtomicBool,
    /// Bytes, as the hypervisor has told.
    size: AtomicU64,
}

impl Plugged {
    /// Plugs a disk into a guest.
    pub(super) fn plug(
        power: Arc<Power>,
        disk: &GuestDisk,
        requests: mpsc::UnboundedSender<Request>,
        planted: &Planted,
    ) -> Arc<Self> {
        Arc::new(Self {
            power,
            disk: Arc::clone(&disk.disk),
            errors: disk.errors,
            read_only: disk.read_only,
            requests,
            planted: planted.clone(),
            reboot_asked: AtomicBool::new(false),
            size: AtomicU64::new(disk.disk.size()),
        })
    }

    /// The hypervisor tells the guest how large the disk is by now.
    pub(super) fn resized(&self) {
        self.size.store(self.disk.size(), Ordering::Release);
    }

    /// Tries until it works, the policy lets the guest have the error, or the power goes. With
    /// policy `stop` a failure pauses the guest, and the access is repeated when it is resumed.
    fn access(&self, mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            let error = match self.power.powered(&mut work) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.power.is_off() {
                return Err(error);
            }
            match self.errors {
                ErrorPolicy::Report => return Err(error),
                ErrorPolicy::Ignore => return Ok(()),
                ErrorPolicy::Stop => {
                    self.power.pause(true);
                    if self.requests.send(Request::IoError).is_err() {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Disk for Plugged {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.access(|| self.disk.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.planted.reboots() && !self.reboot_asked.swap(true, Ordering::AcqRel) {
            // A guest that is going down anyway needs no reboot.
            self.requests.send(Request::Reboot).ok();
        }
        self.access(|| self.disk.write_at(offset, buf))
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.access(|| self.disk.write_lazily_at(offset, buf))
    }

    fn flush(&self) -> io::Result<()> {
        self.access(|| self.disk.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::guest::testing::MemoryDisk;

    fn plug(
        power: &Arc<Power>,
        disk: &Arc<dyn Disk>,
        errors: ErrorPolicy,
    ) -> (Arc<Plugged>, mpsc::UnboundedReceiver<Request>) {
        let (asks, requests) = mpsc::unbounded_channel();
        let disk = GuestDisk {
            name: "vdb".into(),
            volume: "data".into(),
            serial: "s".into(),
            read_only: false,
            errors,
            disk: Arc::clone(disk),
        };
        (
            Plugged::plug(Arc::clone(power), &disk, asks, &Planted::default()),
            requests,
        )
    }

    #[test]
    fn a_failing_disk_stops_the_guest_unless_its_policy_reports() {
        let power = Power::on();
        power.set_link(Link::Up);
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(4));
        let beyond = 16 * 4096;
        let (reports, _requests) = plug(&power, &disk, ErrorPolicy::Report);
        assert!(reports.write_at(beyond, &[1; 4096]).is_err());
        assert_eq!(power.link(), Link::Up);
        let (stops, mut requests) = plug(&power, &disk, ErrorPolicy::Stop);
        let writer = std::thread::spawn(move || stops.write_at(beyond, &[1; 4096]));
        assert_eq!(requests.blocking_recv(), Some(Request::IoError));
        assert_eq!(power.link(), Link::Stalled);
        power.cut();
        assert!(writer.join().unwrap().is_err());
    }

    #[test]
    fn a_cut_disk_takes_no_write_and_a_paused_one_waits() {
        let power = Power::on();
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(4));
        let (plugged, _requests) = plug(&power, &disk, ErrorPolicy::Stop);
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

    #[test]
    fn a_disk_that_grew_is_larger_once_the_guest_is_told() {
        let small = Arc::new(MemoryDisk::new(4));
        let disk: Arc<dyn Disk> = Arc::clone(&small) as Arc<dyn Disk>;
        let (plugged, _requests) = plug(&Power::on(), &disk, ErrorPolicy::Stop);
        small.grow(8);
        assert_eq!(plugged.size(), 4 * 4096);
        plugged.resized();
        assert_eq!(plugged.size(), 8 * 4096);
        plugged.write_at(7 * 4096, &[1; 4096]).unwrap();
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
