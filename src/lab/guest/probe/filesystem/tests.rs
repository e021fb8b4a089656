use super::*;
use crate::history::event::Site;
use crate::lab::faults::{Board, Fault};
use crate::lab::guest::testing::MemoryDisk;
use crate::probe::filesystem::Told;

const KINDS: [Kind; 2] = [Kind::Ext4, Kind::Xfs];

fn mount(disk: &Arc<MemoryDisk>, kind: Kind, make: bool) -> Result<Arc<Mounted>, String> {
    planted(disk, kind, make, Planted::default())
}

fn planted(
    disk: &Arc<MemoryDisk>,
    kind: Kind,
    make: bool,
    planted: Planted,
) -> Result<Arc<Mounted>, String> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Mounted::mount(
        disk,
        "/dev/vdb",
        kind,
        make.then_some(Make { cells: None }),
        planted,
    )
    .map_err(|error| error.to_string())
}

/// What the device shows past the mount, by the probe's own eyes.
fn clean(disk: &MemoryDisk) -> Option<bool> {
    Told::raw(0, disk).unwrap().well
}

fn file(mounted: &Arc<Mounted>, freezer: &Arc<Freezer>) -> File {
    File::of(Arc::clone(mounted), Arc::clone(freezer))
}

#[test]
fn a_ledger_is_made_once_and_found_again() {
    for kind in KINDS {
        let disk = Arc::new(MemoryDisk::new(128));
        assert!(mount(&disk, kind, false).is_err());
        let freezer = Arc::<Freezer>::default();
        let made = file(&mount(&disk, kind, true).unwrap(), &freezer);
        assert_eq!(made.size(), 64 * CELL as u64);
        made.write_at(4096, &[5; CELL]).unwrap();
        assert!(made.write_at(64 * 4096, &[5; CELL]).is_err());
        let other = if kind == Kind::Xfs {
            Kind::Ext4
        } else {
            Kind::Xfs
        };
        assert!(mount(&disk, other, true).is_err_and(|why| why.contains("not blank")));
        let found = File::read(Arc::clone(&disk) as Arc<dyn Disk>, "/dev/vdb", kind).unwrap();
        let mut cell = vec![0; CELL];
        found.read_at(4096, &mut cell).unwrap();
        assert_eq!(cell, [5; CELL]);
        assert!(found.write_at(0, &[5; CELL]).is_err());
    }
}

#[test]
fn a_disk_with_something_on_it_is_left_alone() {
    let disk = Arc::new(MemoryDisk::new(128));
    disk.write_at(8192, &[1; CELL]).unwrap();
    let error = mount(&disk, Kind::Ext4, true).err().unwrap();
    assert!(error.contains("not blank"), "{error}");
}

#[test]
fn a_device_shows_what_linux_would_leave_on_it() {
    for kind in KINDS {
        let disk = Arc::new(MemoryDisk::new(128));
        let freezer = Arc::<Freezer>::default();
        let mounted = mount(&disk, kind, true).unwrap();
        freezer.mounts(Arc::clone(&mounted) as Arc<dyn Mount>);
        let file = file(&mounted, &freezer);
        assert_eq!(clean(&disk), Some(false), "{kind} in use");
        file.write_at(0, &[1; CELL]).unwrap();
        assert_eq!(clean(&disk), Some(false), "{kind} written");
        freezer.freeze().unwrap().unwrap();
        assert_eq!(clean(&disk), Some(kind == Kind::Ext4), "{kind} frozen");
        freezer.thaw();
        assert_eq!(clean(&disk), Some(false), "{kind} thawed");
        mounted.unmount().unwrap();
        assert_eq!(clean(&disk), Some(true), "{kind} unmounted");
        let again = mount(&disk, kind, false).unwrap();
        assert_eq!(clean(&disk), Some(false), "{kind} mounted again");
        drop(again);
        let looked = File::read(Arc::clone(&disk) as Arc<dyn Disk>, "/dev/vdb", kind);
        assert!(
            looked.is_ok() && clean(&disk) == Some(false),
            "{kind}: a reader replays nothing"
        );
    }
}

#[test]
fn an_unclean_freeze_stops_writers_and_leaves_the_journal() {
    let board = Arc::new(Board::default());
    board.plant(Fault::FreezeUnclean);
    let disk = Arc::new(MemoryDisk::new(128));
    let freezer = Arc::<Freezer>::default();
    let planted_in = Planted::new(board, Site::Primary, 0);
    let mounted = planted(&disk, Kind::Ext4, true, planted_in).unwrap();
    freezer.mounts(Arc::clone(&mounted) as Arc<dyn Mount>);
    file(&mounted, &freezer).write_at(0, &[1; CELL]).unwrap();
    assert!(freezer.freeze().unwrap().is_some() && freezer.frozen());
    let told = Told::raw(0, disk.as_ref()).unwrap();
    assert_eq!(told.well, Some(false));
    assert!(
        told.said.contains("journal starts at block 1"),
        "{}",
        told.said
    );
}

#[test]
fn a_write_waits_for_the_thaw() {
    let disk = Arc::new(MemoryDisk::new(128));
    let freezer = Arc::<Freezer>::default();
    let mounted = mount(&disk, Kind::Ext4, true).unwrap();
    let file = Arc::new(file(&mounted, &freezer));
    let generation = freezer.freeze().unwrap().unwrap();
    let writer = {
        let file = Arc::clone(&file);
        std::thread::spawn(move || file.write_at(0, &[9; 4096]))
    };
    let mut cell = [0; 4096];
    file.read_at(0, &mut cell).unwrap();
    assert_eq!(cell[0], 0);
    freezer.expire(generation);
    writer.join().unwrap().unwrap();
    file.read_at(0, &mut cell).unwrap();
    assert_eq!(cell[0], 9);
}

#[test]
fn a_freeze_that_nobody_thaws_ends_with_the_power() {
    let board = Arc::new(Board::default());
    let disk = Arc::new(MemoryDisk::new(128));
    let freezer = Arc::<Freezer>::default();
    let planted_in = Planted::new(Arc::clone(&board), Site::Primary, 0);
    let mounted = planted(&disk, Kind::Ext4, true, planted_in).unwrap();
    board.plant(Fault::GuestFrozen);
    let file = file(&mounted, &freezer);
    let writer = std::thread::spawn(move || file.write_at(0, &[9; 4096]));
    while !freezer.frozen() {
        std::thread::yield_now();
    }
    freezer.power_off();
    writer.join().unwrap().unwrap();
    assert_eq!(freezer.freeze().unwrap(), None);
    assert!(!freezer.frozen());
}
