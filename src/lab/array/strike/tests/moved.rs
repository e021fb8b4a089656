//! What a host that a guest left does to its volumes.

use super::*;
use crate::probe::lease::{STAMP, Stamp, boot};

fn stamp() -> Stamp {
    Stamp {
        run_id: [1; 16],
        vol_id: [2; 16],
        incarnation: 3,
        number: 4,
        mono_ns: 5,
        real_ns: 6,
        nonce: [7; 16],
        boot: boot("b"),
    }
}

/// Renews the lease of the first volume as its guest would, and gives what stands there then.
fn renewed(load: &mut Load) -> Option<Stamp> {
    let lease = load.layouts[0].lease.start;
    let mut bytes = [0; PAGE];
    bytes[..STAMP].copy_from_slice(&stamp().encode());
    let image = key(Primary, 0);
    let open = load.core.attach(&image, "n", true).unwrap();
    load.core.write(&image, open, lease, &bytes, true).unwrap();
    let found = load.core.read(&image, open, lease, 1).unwrap();
    load.core.detach(&image, |id, _| id == open);
    Stamp::decode(found[0].as_deref()?)
}

#[test]
fn a_second_launcher_renews_the_lease_of_a_guest_that_moved() {
    let mut load = Load::new(Some(Fault::TwoLaunchers));
    assert_eq!(renewed(&mut load), Some(stamp()), "not migrated yet");
    load.core.left_behind(&key(Primary, 0));
    let twin = renewed(&mut load).expect("a stamp");
    assert_ne!(twin.nonce, stamp().nonce);
    assert_eq!((twin.incarnation, twin.number), (3, 4));
    load.core.board.heal(Fault::TwoLaunchers);
    assert_eq!(renewed(&mut load), Some(stamp()), "healed");
}

#[test]
fn a_lost_cache_takes_the_latest_writes_once() {
    let mut load = Load::new(Some(Fault::DirtyCacheLost));
    load.write(60);
    load.core.left_behind(&key(Primary, 0));
    let before = load.core.image(&key(Primary, 0)).unwrap().pages.clone();
    load.write(6);
    let lost = load.struck(Fault::DirtyCacheLost);
    assert_eq!(lost.len(), 1, "{lost:?}");
    let now = load.core.image(&key(Primary, 0)).unwrap().pages.clone();
    let changed = before.delta(&now).len();
    load.write(60);
    assert_eq!(load.struck(Fault::DirtyCacheLost).len(), 1, "once");
    assert!(changed >= 4, "{changed}");
}
