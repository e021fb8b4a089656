//! What a disk grew by, as a disk of its own: everything behind its first so many cells.

use std::io;
use std::sync::Arc;

use super::config::{Purpose, Volume};
use super::disk::{Disk, Grants};
use super::layout::CELL;
use super::platform::{Access, OpenError, OpenVolume, Platform};

struct Window {
    disk: Arc<dyn Disk>,
    /// Where it begins on the disk, bytes.
    from: u64,
}

impl Disk for Window {
    fn size(&self) -> u64 {
        self.disk.size().saturating_sub(self.from)
    }

    fn grants(&self) -> Grants {
        self.disk.grants()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(self.from + offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.from + offset, buf)
    }

    fn write_lazily_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_lazily_at(self.from + offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

/// Opens a volume, or what it has behind its first cells. The latter lies on a device that another
/// probe may have taken for itself, whose ledger ends before it.
pub(super) fn open(
    platform: &dyn Platform,
    volume: &Volume,
    purpose: Purpose,
    access: Access,
) -> Result<OpenVolume, OpenError> {
    if volume.from == 0 {
        return platform.open(volume, purpose, access);
    }
    let access = match access {
        Access::Write => Access::Beside,
        other => other,
    };
    let found = platform.open(volume, purpose, access)?;
    Ok(OpenVolume {
        disk: Arc::new(Window {
            disk: found.disk,
            from: volume.from.saturating_mul(CELL as u64),
        }),
        ..found
    })
}

#[cfg(test)]
mod tests {
    use super::super::frame::{CellState, ToGuest};
    use super::super::memory::{MemDisk, Rack};
    use super::super::platform::Clock;
    use super::super::scan::scan;
    use super::super::session::Daemon;
    use super::super::testkit::{Bench, CELLS, Host, found_in};
    use super::*;

    /// A guest with one disk.
    struct Guest<'a>(&'a Bench, MemDisk);

    impl Platform for Guest<'_> {
        fn open(&self, _: &Volume, _: Purpose, access: Access) -> Result<OpenVolume, OpenError> {
            Ok(OpenVolume {
                path: format!("/dev/mem, {access:?}"),
                disk: Arc::new(self.1.clone()),
            })
        }
        fn boot_id(&self) -> String {
            self.0.boot_id()
        }
        fn machine_id(&self) -> String {
            self.0.machine_id()
        }
        fn pid(&self) -> u32 {
            self.0.pid()
        }
        fn clock(&self) -> Arc<dyn Clock> {
            self.0.clock()
        }
    }

    #[test]
    fn two_ledgers_share_a_device_that_grew() {
        let bench = Bench::new(1, 1, true, 3);
        let grants = Grants {
            dsync: true,
            ..Grants::default()
        };
        let rack = Rack::new(&[2 * CELLS * CELL as u64], grants, 3);
        let guest = Guest(&bench, rack.disk(0));
        let mut config = bench.config.clone();
        let mut scans = Vec::new();
        for (id, from) in [(1, 0), (2, CELLS)] {
            config.volumes[0].vol_id = [id; 16];
            config.volumes[0].from = from;
            let daemon = Arc::new(Daemon::open(&config, &guest).unwrap());
            let opened = &daemon.identity().volumes[0];
            let beside = opened.path.ends_with("Beside");
            assert_eq!(
                (opened.size, beside),
                ((2 * CELLS - from) * CELL as u64, from > 0)
            );
            let mut host = Host::attach(&daemon, 0);
            host.fill(1);
            host.stop();
            host.send(&ToGuest::Quit);
            scans.push(config.clone());
        }
        for config in scans {
            let mut bytes = Vec::new();
            scan(&config, &guest, &mut bytes).unwrap();
            let (cells, cold_ok) = found_in(&bytes);
            assert!(cold_ok > 1, "{cells:?}");
            let zeroed = |state: &CellState| matches!(state, CellState::Zeroed);
            assert!(cells.values().all(zeroed), "{cells:?}");
        }
    }
}
