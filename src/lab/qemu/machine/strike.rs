//! What planted faults have a guest do to itself when it writes under load: freeze its file systems, or
//! start again. As with simulated guests, a write that finds the fault awake brings it about.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::life::Devices;
use super::{Machine, lock};
use crate::lab::guest::Planted;
use crate::probe::disk::{Disk, Grants};

/// A guest starts again at this write that finds the fault awake. A load whose first acks nobody heard
/// would be one that never began, which is another finding.
const UNDER_WAY: u32 = 100;

/// What is done to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    /// Its agent freezes, and nobody asks it to thaw.
    Freeze,
    /// Its reset button is pressed.
    Reset,
}

/// Where the deeds of one guest come from. Each is done once.
#[derive(Debug)]
pub(super) struct Striker {
    planted: Planted,
    done: Mutex<BTreeSet<Deed>>,
    /// Writes that found the guest about to start again.
    writes: AtomicU32,
    deeds: mpsc::UnboundedSender<Deed>,
}

/// Deeds that wait to be done.
pub(super) type Deeds = mpsc::UnboundedReceiver<Deed>;

impl Striker {
    /// The faults of a guest, and what they will have it do.
    pub(super) fn new(planted: &Planted) -> (Arc<Self>, Deeds) {
        let (deeds, queue) = mpsc::unbounded_channel();
        let striker = Self {
            planted: planted.clone(),
            done: Mutex::default(),
            writes: AtomicU32::new(0),
            deeds,
        };
        (Arc::new(striker), queue)
    }

    /// The data disks among these devices, whose writes are seen.
    pub(super) fn watch(self: &Arc<Self>, devices: &Devices, root: Option<&str>) -> Devices {
        let devices = devices.iter().map(|(volume, disk)| {
            let disk: Arc<dyn Disk> = if Some(volume.as_str()) == root {
                Arc::clone(disk)
            } else {
                Arc::new(Watched {
                    disk: Arc::clone(disk),
                    striker: Arc::clone(self),
                })
            };
            (volume.clone(), disk)
        });
        devices.collect()
    }

    fn written(&self) {
        let reboots =
            self.planted.reboots() && self.writes.fetch_add(1, Ordering::Relaxed) + 1 == UNDER_WAY;
        for (deed, due) in [
            (Deed::Freeze, self.planted.freezes()),
            (Deed::Reset, reboots),
        ] {
            if due && lock(&self.done).insert(deed) {
                // Nobody hears it in a machine that is gone, which needs no more.
                self.deeds.send(deed).ok();
            }
        }
    }
}

/// Does what is asked for as long as the machine is there.
pub(super) fn carry_out(machine: &Arc<Machine>, mut deeds: Deeds) {
    let machine = Arc::downgrade(machine);
    tokio::spawn(async move {
        while let Some(deed) = deeds.recv().await {
            let Some(machine) = machine.upgrade() else {
                return;
            };
            match deed {
                Deed::Reset => {
                    machine.reboot(true).await;
                }
                Deed::Freeze => {
                    if let Err(why) = machine.freeze().await {
                        tracing::warn!(why, "a planted freeze did not come about");
                    }
                }
            }
        }
    });
}

/// A disk whose writes may bring a fault about.
struct Watched {
    disk: Arc<dyn Disk>,
    striker: Arc<Striker>,
}

impl Disk for Watched {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.striker.written();
        self.disk.write_at(offset, buf)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.striker.written();
        self.disk.write_lazily_at(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Site;
    use crate::lab::faults::{Board, Moment, parse};
    use crate::lab::guest::testing::MemoryDisk;

    #[test]
    fn the_first_write_under_load_brings_it_about_once() {
        let board = Arc::new(Board::default());
        board.put(parse("guest-frozen").unwrap());
        board.put(parse("guest-reboots").unwrap());
        let planted = Planted::new(Arc::clone(&board), Site::Primary, 0);
        let (striker, mut deeds) = Striker::new(&planted);
        let disk = || Arc::new(MemoryDisk::new(4)) as Arc<dyn Disk>;
        let devices = vec![("os".to_owned(), disk()), ("data".to_owned(), disk())];
        let watched = striker.watch(&devices, Some("os"));
        let write = |n: usize| watched[n].1.write_at(0, &[7; 4096]).unwrap();
        write(1);
        assert!(deeds.try_recv().is_err(), "nothing before the load");
        board.moment(Moment::Load);
        write(0);
        assert!(deeds.try_recv().is_err(), "the root is no part of the load");
        watched[1].1.write_lazily_at(4096, &[7; 4096]).unwrap();
        write(1);
        assert_eq!(deeds.try_recv(), Ok(Deed::Freeze));
        assert!(deeds.try_recv().is_err(), "the load has hardly begun");
        for _ in 0..2 * UNDER_WAY {
            write(1);
        }
        assert_eq!(deeds.try_recv(), Ok(Deed::Reset));
        assert!(deeds.try_recv().is_err(), "once");
        let mut back = [0; 4096];
        devices[1].1.read_at(4096, &mut back).unwrap();
        assert_eq!(back[0], 7);
    }
}
