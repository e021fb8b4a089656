//! A filled and loaded ledger is damaged in every way, and the scan must find exactly that.

use std::io;
use std::sync::Arc;

use super::super::config::{Purpose, Volume};
use super::super::disk::{Disk, Grants};
use super::super::frame::{CellState, ToGuest};
use super::super::layout::{Address, CELL};
use super::super::platform::{Clock, OpenError, OpenVolume};
use super::super::testkit::{Bench, CELLS, Host, found_in};
use super::*;

/// A bench with two filled volumes and some load on them.
fn loaded() -> Bench {
    let bench = Bench::new(2, 1, true, 31);
    let daemon = bench.start();
    let mut host = Host::attach(&daemon, 0);
    host.fill(2);
    host.send(&ToGuest::Start { rate: 0, batch: 0 });
    host.until("an ack", |frame| matches!(frame, FromGuest::Ack(_)));
    host.stop();
    daemon.kill();
    bench
}

fn at(volume: u8, cell: u64) -> Address {
    Address { volume, cell }
}

#[test]
fn damage_to_cold_cells_is_listed_and_the_rest_counted() {
    let bench = loaded();
    let (clean, all) = bench.scan();
    let layout = &bench.layouts()[0];
    let cold: Vec<u64> = layout.cold_cells().collect();
    assert_eq!(all, 2 * cold.len() as u64);
    assert!(
        clean
            .keys()
            .all(|at| (layout.canary.start..layout.hot.end).contains(&at.cell))
    );

    let disk = bench.rack.disk(0);
    disk.damage(cold[0], |cell| cell[2000] ^= 1);
    disk.damage(cold[1], |cell| cell.fill(0));
    let mut other = [0; CELL];
    disk.read_at(cold[2] * CELL as u64, &mut other).unwrap();
    disk.damage(cold[3], |cell| *cell = other);
    bench.rack.disk(1).damage(CELLS - 1, |cell| *cell = other);

    let (mut cells, left) = bench.scan();
    assert_eq!(left, all - 4);
    assert_eq!(cells.remove(&at(0, cold[0])), Some(CellState::Corrupt));
    assert_eq!(cells.remove(&at(0, cold[1])), Some(CellState::Zeroed));
    let misdirected = |same_volume| CellState::Misdirected {
        same_volume,
        cell: cold[2],
        vol: 0,
    };
    assert_eq!(cells.remove(&at(0, cold[3])), Some(misdirected(true)));
    assert_eq!(cells.remove(&at(1, CELLS - 1)), Some(misdirected(false)));
    assert_eq!(cells, clean);
}

#[test]
fn a_cold_cell_of_an_unknown_incarnation_is_listed() {
    let mut bench = loaded();
    let (_, all) = bench.scan();
    bench.config.expect = vec![7];
    let (cells, cold) = bench.scan();
    assert_eq!(cold, 0);
    let fills = cells.values().filter(|state| {
        matches!(
            state,
            CellState::Ok {
                kind: Kind::Fill,
                ..
            }
        )
    });
    assert_eq!(fills.count() as u64, all);
}

/// A bench whose first volume fails reads that touch one cell, or ends early.
struct Bad<'a> {
    bench: &'a Bench,
    unreadable: u64,
    size: u64,
}

struct BadDisk {
    disk: Arc<dyn Disk>,
    unreadable: u64,
    size: u64,
}

impl Disk for BadDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn grants(&self) -> Grants {
        self.disk.grants()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        let bad = self.unreadable * CELL as u64;
        if (offset..end).contains(&bad) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("a scan writes nothing")
    }
    fn flush(&self) -> io::Result<()> {
        unreachable!("a scan writes nothing")
    }
}

impl Platform for Bad<'_> {
    fn open(
        &self,
        volume: &Volume,
        purpose: Purpose,
        access: Access,
    ) -> Result<OpenVolume, OpenError> {
        assert_eq!(access, Access::Read);
        let mut found = self.bench.open(volume, purpose, access)?;
        if found.path == "/dev/mem0" {
            found.disk = Arc::new(BadDisk {
                disk: found.disk,
                unreadable: self.unreadable,
                size: self.size,
            });
        }
        Ok(found)
    }
    fn boot_id(&self) -> String {
        self.bench.boot_id()
    }
    fn machine_id(&self) -> String {
        self.bench.machine_id()
    }
    fn pid(&self) -> u32 {
        self.bench.pid()
    }
    fn clock(&self) -> Arc<dyn Clock> {
        self.bench.clock()
    }
}

#[test]
fn an_unreadable_cell_costs_only_itself() {
    let bench = loaded();
    let (mut clean, cold) = bench.scan();
    let bad = bench.layouts()[0].log.start + 1;
    let platform = Bad {
        bench: &bench,
        unreadable: bad,
        size: CELLS * CELL as u64,
    };
    let mut bytes = Vec::new();
    scan(&bench.config, &platform, &mut bytes).unwrap();
    let (cells, still) = found_in(&bytes);
    clean.insert(at(0, bad), CellState::Unreadable { errno: 5 });
    assert_eq!((cells, still), (clean, cold));
}

#[test]
fn a_truncated_device_shows_at_its_end() {
    let bench = loaded();
    let (_, cold) = bench.scan();
    let platform = Bad {
        bench: &bench,
        unreadable: u64::MAX / CELL as u64,
        size: (CELLS - 1) * CELL as u64,
    };
    let mut bytes = Vec::new();
    scan(&bench.config, &platform, &mut bytes).unwrap();
    let (cells, still) = found_in(&bytes);
    assert_eq!(
        cells[&at(0, CELLS - 1)],
        CellState::Unreadable { errno: ENXIO }
    );
    assert_eq!(still, cold - 1);
}

#[test]
fn a_volume_that_cannot_be_opened_is_told_in_the_stream() {
    let mut bench = loaded();
    let stranger = Volume {
        vol_id: [3; 16],
        ..bench.config.volumes[0].clone()
    };
    let mut config = bench.config.clone();
    config.volumes.push(stranger);
    bench.config.volumes.truncate(2);
    let mut bytes = Vec::new();
    assert!(matches!(
        scan(&config, &bench, &mut bytes),
        Err(ScanError::Open(_))
    ));
    let raw = super::super::wire::Raw::parse(&bytes).unwrap();
    let told = FromGuest::decode(&raw).unwrap();
    assert_eq!(told, FromGuest::Failed("no such disk".to_owned()));
}
