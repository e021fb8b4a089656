//! Promoted devices that are not what they were, and deltas that did not arrive whole.

use super::*;
use crate::lab::array::Code;
use crate::lab::faults::parse;

/// Relocates with a fault shaped by hand.
fn relocated_with(text: &str) -> Load {
    let mut load = Load::new(None);
    let mut planting = parse(text).expect(text);
    planting.aim = None;
    load.core.board.put(planting);
    load.run();
    load.relocate();
    load
}

#[test]
fn a_resized_device_keeps_everything_inside_its_new_end() {
    for (text, cells) in [
        ("truncated-device:cells=100", CELLS - 100),
        ("enlarged-device:cells=100", CELLS + 100),
    ] {
        let load = relocated_with(text);
        let struck = load.core.strikes[0].clone();
        let volume = VOLUMES.iter().position(|v| *v == struck.image).unwrap();
        let promoted = load.core.image(&key(Secondary, volume)).unwrap();
        assert_eq!(promoted.size, cells * PAGE as u64, "{text}");
        let source = load.core.image(&key(Primary, volume)).unwrap();
        let inside = |pages: &Pages| {
            let of = pages.iter().filter(|(index, _)| *index < cells);
            of.count()
        };
        assert_eq!(inside(&promoted.pages), inside(&source.pages));
        assert_eq!(promoted.pages.iter().count(), inside(&promoted.pages));
        assert_eq!(load.core.strikes.len(), 1, "one device only");
    }
}

#[test]
fn an_unreadable_extent_fails_reads_and_nothing_else() {
    let mut load = relocated_with("unreadable-extent:cells=20");
    let struck = load.struck(Fault::UnreadableExtent)[0].clone();
    let image = (Secondary, struck.image.clone());
    let open = load.core.attach(&image, "n", true).unwrap();
    let errno = |load: &mut Load, at, n| {
        let read = load.core.read(&image, open, at, n);
        read.err().and_then(|e| e.raw_os_error())
    };
    assert_eq!(errno(&mut load, struck.page, 1), Some(5));
    assert_eq!(errno(&mut load, struck.page - 1, 2), Some(5));
    assert_eq!(errno(&mut load, struck.page - 1, 1), None);
    assert_eq!(errno(&mut load, 0, 1), None);
    let volume = VOLUMES.iter().position(|v| *v == struck.image).unwrap();
    assert!(load.clean(volume), "what is stored is whole");
}

#[test]
fn a_stale_cache_shows_older_cells_while_the_storage_is_right() {
    for boot in [Primary, Secondary] {
        let mut load = Load::new(None);
        load.run();
        if boot == Secondary {
            load.relocate();
            assert_eq!(load.missing_and_present().0, [0_usize; 0]);
        }
        shows_older_cells(load, boot);
    }
}

fn shows_older_cells(mut load: Load, boot: Site) {
    load.core
        .board
        .put(parse("stale-read-cache:cells=5").expect("a fault"));
    let open = |load: &mut Load, volume| load.core.attach(&key(boot, volume), "n", true).unwrap();
    let guests = [open(&mut load, 0), open(&mut load, 1)];
    let [struck] = load.core.strikes.as_slice() else {
        panic!("one volume is struck: {:?}", load.core.strikes);
    };
    let struck = struck.clone();
    let volume = VOLUMES.iter().position(|v| *v == struck.image).unwrap();
    let (image, guest) = (key(boot, volume), guests[volume]);
    let clone: Key = (boot, "clone".into());
    let size = load.core.image(&image).unwrap().size;
    load.core.copy(&image, &clone, size).unwrap();
    let second = load.core.attach(&clone, "m", true).unwrap();
    let seen = load.core.read(&image, guest, 0, CELLS).unwrap();
    let truth = load.core.read(&clone, second, 0, CELLS).unwrap();
    let pairs = (0..CELLS).zip(seen.iter().zip(&truth));
    let differ: Vec<u64> = pairs.filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
    assert_eq!((differ.len(), differ[0]), (5, struck.page));
    load.core
        .write(&image, guest, struck.page, &[9; PAGE], true)
        .unwrap();
    let seen = load.core.read(&image, guest, struck.page, 1).unwrap();
    assert_eq!(seen[0].as_deref(), Some(&[9; PAGE]), "a write is seen");
}

#[test]
fn a_backend_demoted_at_the_first_canary_refuses_writes_and_its_status() {
    let mut load = relocated_with("backend-demoted");
    assert!(load.core.strikes.is_empty(), "nothing before the canary");
    let image = key(Secondary, 0);
    assert!(load.core.info(&image).is_err());
    let open = load.core.attach(&image, "n", true).unwrap();
    let to = Address { volume: 0, cell: 5 };
    let mut bytes = [0; PAGE];
    header(Kind::Canary, (0xFFFE, 1), to, 0).encode(SEED, &mut bytes);
    let refused = load.core.write(&image, open, 5, &bytes, true);
    assert_eq!(refused.err().and_then(|e| e.raw_os_error()), Some(30));
    assert!(load.core.read(&image, open, 5, 1).is_ok());
    let said = load.core.info(&image).map_err(|e| (e.code, e.message));
    let (code, message) = said.expect_err("not primary any more");
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("not in primary state"), "{message}");
}

#[test]
fn a_part_of_a_delta_breaks_the_order_and_only_when_something_was_crossing() {
    let load = failed_over(Some(Fault::MidDeltaPromote));
    assert_eq!(load.struck(Fault::MidDeltaPromote).len(), 2);
    assert!(!load.ordered(&[0]) || !load.ordered(&[1]));
    assert!(load.clean(0) && load.clean(1));
    let planned = relocated(Some(Fault::MidDeltaPromote));
    assert!(planned.core.strikes.is_empty());
    assert_eq!(planned.missing_and_present().0, [0_usize; 0]);
}

#[test]
fn a_lost_delta_stays_lost_under_a_replica_that_looks_idle() {
    let mut load = Load::new(Some(Fault::ReplicaCorruptIdle));
    load.run();
    let struck = load.struck(Fault::ReplicaCorruptIdle).len();
    assert_eq!(struck, 2, "once per volume");
    let state = load.core.state(&key(Secondary, 0));
    assert_eq!(state, crate::lab::array::MirrorState::Replaying);
    load.relocate();
    let (missing, _) = load.missing_and_present();
    assert!(missing.len() > 50, "{}", missing.len());
    assert!(!load.ordered(&[0]) && !load.ordered(&[1]));
    assert!(load.clean(0) && load.clean(1));
}
