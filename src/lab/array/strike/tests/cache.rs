//! What a cache may lose and what it must not.

use super::*;
use crate::lab::array::pages::page;

const TO: Address = Address {
    volume: 0,
    cell: 97,
};

/// An image with one write flushed and another not, closed by its last user.
fn closed(fault: Option<Fault>) -> Load {
    let mut load = Load::new(fault);
    let image = key(Primary, 0);
    let open = load.core.attach(&image, "n", true).unwrap();
    for (cell, flushed) in [(TO.cell, true), (TO.cell + 1, false)] {
        let to = Address { cell, ..TO };
        let mut bytes = [0; PAGE];
        header(Kind::Hot, (1, cell), to, 0).encode(SEED, &mut bytes);
        load.core.write(&image, open, cell, &bytes, false).unwrap();
        if flushed {
            load.core.flush(&image, open).unwrap();
        }
    }
    load.core.detach(&image, |id, _| id == open);
    load
}

#[test]
fn at_its_end_a_cache_loses_what_its_fault_says() {
    for (fault, flushed, unflushed) in [
        (None, true, true),
        (Some(Fault::UnsyncedRollback), true, false),
        (Some(Fault::LyingFlush), false, false),
    ] {
        let load = closed(fault);
        let pages = &load.core.image(&key(Primary, 0)).unwrap().pages;
        assert_eq!(pages.get(TO.cell).is_some(), flushed, "{fault:?}");
        assert_eq!(pages.get(TO.cell + 1).is_some(), unflushed, "{fault:?}");
        assert_eq!(load.core.strikes.is_empty(), fault.is_none());
    }
}

#[test]
fn a_lying_flush_loses_the_newest_acked_writes_of_each_volume() {
    let mut load = Load::new(Some(Fault::LyingFlush));
    let held: Vec<_> = (0..2)
        .map(|v| load.core.attach(&key(Primary, v), "n", true).unwrap())
        .collect();
    load.run();
    for (volume, open) in held.into_iter().enumerate() {
        let image = key(Primary, volume);
        load.core.detach(&image, |id, _| id == open);
    }
    load.relocate();
    let (missing, present) = load.missing_and_present();
    let cells: BTreeSet<_> = missing.iter().map(|n| load.acked[*n].0).collect();
    assert_eq!(cells.len(), 128, "64 cells of each volume");
    assert!(missing.contains(&(load.acked.len() - 1)), "the last one");
    assert!(present.len() > 200 && load.clean(0) && load.clean(1));
    assert_eq!(load.struck(Fault::LyingFlush).len(), 2);
}

#[test]
fn a_guest_sees_its_own_writes_through_a_lying_cache() {
    let mut load = Load::new(Some(Fault::LyingFlush));
    let image = key(Primary, 0);
    let open = load.core.attach(&image, "n", true).unwrap();
    let mut bytes = [0; PAGE];
    header(Kind::Hot, (1, 1), TO, 0).encode(SEED, &mut bytes);
    load.core
        .write(&image, open, TO.cell, &bytes, true)
        .unwrap();
    let seen = load.core.read(&image, open, TO.cell, 1).unwrap();
    assert_eq!(seen, [page(&bytes)]);
    assert_eq!(load.core.image(&image).unwrap().pages.get(TO.cell), None);
}

#[test]
fn without_barriers_some_unflushed_writes_are_kept_and_some_lost() {
    let mut load = Load::new(Some(Fault::ReorderWithoutBarrier));
    let image = key(Primary, 0);
    let open = load.core.attach(&image, "n", true).unwrap();
    for n in 0..64 {
        let to = Address {
            volume: 0,
            cell: TO.cell + n,
        };
        let mut bytes = [0; PAGE];
        header(Kind::Hot, (1, n + 1), to, 0).encode(SEED, &mut bytes);
        load.core
            .write(&image, open, to.cell, &bytes, false)
            .unwrap();
    }
    let count = |pages: &Pages| {
        let kept = (0..64).filter(|n| pages.get(TO.cell + n).is_some());
        kept.count()
    };
    load.core.cut(Primary, "vm", at(10));
    for t in 10..16 {
        load.core.tick(at(t));
    }
    let crossed = count(&load.pages(0));
    assert!((8..56).contains(&crossed), "{crossed}");
    assert_eq!(count(&load.core.image(&image).unwrap().pages), 0);
    load.core.detach(&image, |id, _| id == open);
    let kept = count(&load.core.image(&image).unwrap().pages);
    assert!((8..56).contains(&kept), "{kept}");
}

#[test]
fn a_cut_within_a_write_is_an_exact_prefix_and_half_of_the_next_write() {
    let load = failed_over(Some(Fault::TornInFlight));
    assert!(!load.struck(Fault::TornInFlight).is_empty());
    let mut torn = Vec::new();
    for volume in 0..2_u8 {
        for (cell, page) in load.pages(usize::from(volume)).iter() {
            if !is_whole(page) {
                let header = Header::decode(page).expect("the first half is new");
                torn.push((Address { volume, cell }, (header.writer, header.wseq)));
            }
        }
    }
    let [(place, version)] = torn.as_slice() else {
        panic!("{} cells are torn", torn.len());
    };
    let first = (load.acked.iter())
        .position(|w| w.0 == *place && w.1 == *version)
        .expect("a write of the load");
    let mut expected = BTreeMap::new();
    for (to, version, ..) in &load.acked[..=first] {
        expected.insert(*to, *version);
    }
    assert_eq!(load.found(), expected);
    let (primary, image) = (key(Primary, usize::from(place.volume)), place.cell);
    let whole = load.core.image(&primary).unwrap().pages.get(image).unwrap();
    assert!(is_whole(&whole), "the source has it whole");
}
